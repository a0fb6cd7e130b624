"""The two routes that transfer image files: upload and download."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from pathlib import Path
from urllib.parse import parse_qs, quote

from patchattn.demo.http import HTTPError, Receive, Scope, Send, header, next_part, respond
from patchattn.demo.storage import Storage
from patchattn.demo.visitor_limits import VisitorLimits

__all__ = ["receive_upload", "safe_name", "send_file"]

CONTENT_TYPES = {
    ".png": "image/png",
    ".apng": "image/apng",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jfif": "image/jpeg",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".avif": "image/avif",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".jxl": "image/jxl",
    ".jp2": "image/jp2",
    ".j2k": "image/jp2",
    ".jpx": "image/jpx",
    ".ppm": "image/x-portable-pixmap",
    ".pgm": "image/x-portable-graymap",
    ".pbm": "image/x-portable-bitmap",
}
"""Content types of the files that are accepted and served, by suffix: none in which a browser runs scripts."""

MAX_NAME_BYTES = 120
"""Bytes of a file's name; the suffix of a result must fit too."""
CHUNK_BYTES = 2**18


async def receive_upload(
    storage: Storage, limits: VisitorLimits, visitor: str, scope: Scope, receive: Receive, send: Send
) -> None:
    """Write the body of a request into a file, and answer with its id and name as JSON.

    The query has the file's `name`, and `size` in bytes. With `check=1` there is no body: the limits
    are checked before the upload, since a browser that is still sending does not listen.
    """
    query = parse_qs(scope["query_string"].decode("latin-1"))
    name = safe_name(query.get("name", [""])[0])
    if Path(name).suffix.lower() not in CONTENT_TYPES:
        endings = ", ".join(sorted(ending.removeprefix(".") for ending in CONTENT_TYPES))
        raise HTTPError(415, f"{name}: this page reads pictures whose name ends in one of {endings}.")
    size = max(_number(query.get("size", ["0"])[0]), _number(header(scope, "content-length") or "0"))
    if size > limits.megabytes * 1e6:
        raise HTTPError(413, f"{name}: {size / 1e6:.1f} MB, and this page takes files up to {limits.megabytes:g} MB.")
    storage.check_room(visitor, size)
    if query.get("check") == ["1"]:
        await respond(send, 200)
        return
    # Lengths that were announced may be wrong: each part that arrives is counted.
    with storage.upload(visitor, name) as (entry, write):
        more = True
        while more:
            message = await next_part(receive, name)
            write(message.get("body", b""))
            more = message.get("more_body", False)
        if not entry.size:
            raise HTTPError(400, f"{name}: the file is empty.")
    await respond(send, 200, json.dumps({"id": entry.id, "name": name}), kind="application/json")


async def send_file(storage: Storage, visitor: str, scope: Scope, send: Send, name: str, file: str) -> None:
    """Send an image file of a visitor."""
    path = storage.find(visitor, name, file)
    kind = CONTENT_TYPES.get(Path(file).suffix.lower())
    if path is None or kind is None:
        raise HTTPError(404, "There is no such picture here.")
    with path.open("rb") as opened:
        size = path.stat().st_size
        start = [
            (b"content-type", kind.encode()),
            (b"content-length", str(size).encode()),
            (b"content-disposition", f"inline; filename*=UTF-8''{quote(file, safe='')}".encode()),
            (b"cache-control", b"private, max-age=600"),
            # Opened by itself, a file is an image and nothing that could run.
            (b"content-security-policy", b"default-src 'none'; sandbox"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": start})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        while content := await asyncio.to_thread(opened.read, CHUNK_BYTES):
            await send({"type": "http.response.body", "body": content, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def safe_name(name: str) -> str:
    """A safe name for an uploaded file: no folders, no control characters.

    Example:
        >>> safe_name("../../etc/pass\\nwd.png"), safe_name("C:\\\\Photos\\\\Müller.jpg")
        ('pass_wd.png', 'Müller.jpg')
    """
    name = unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])
    # Cc, Cf, Cs, Co, Cn: also what turns the direction of text, and what no file's name can hold.
    name = "".join("_" if unicodedata.category(c)[0] == "C" or c in '<>:"|?*%#' else c for c in name).strip(" .")
    stem, dot, ending = name.rpartition(".")
    if not dot:
        stem, ending = name, ""
    room = MAX_NAME_BYTES - len((dot + ending).encode()[:20])
    stem = stem.encode()[:room].decode(errors="ignore")
    return (stem or "picture") + (dot + ending)[:20]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise HTTPError(400, "The size of the file is not a number.")
    return int(text)
