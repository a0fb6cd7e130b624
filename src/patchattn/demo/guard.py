"""What leaves this server, and what a browser may do with it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from patchattn.tasks.codecs import FORMATS

__all__ = ["Guard"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

FILE = re.compile(r"^/(?:gradio_api/)?file[=/](.*)$")
CLOSED = re.compile(r"^/(?:gradio_api/)?(?:proxy=|stream/|component_server)")
"""What Gradio offers and this page does not need: other servers' pages, streams, functions of components."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = [
    # The browser itself sees to it that no request leaves this machine.
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Guard:
    """Serve picture files and nothing else of what is on the disk, and tell browsers to ask no other server."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not allowed(scope["path"]):
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"There is nothing here."})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self._app(scope, receive, with_headers)


def allowed(path: str) -> bool:
    """Whether this path may be asked for.

    Example:
        >>> allowed("/gradio_api/file=/tmp/picture.png"), allowed("/gradio_api/file=/tmp/page.html")
        (True, False)
    """
    path = unquote(path)
    file = FILE.match(path)
    if file is None:
        return CLOSED.match(path) is None
    return "://" not in file[1] and PurePosixPath(file[1]).suffix.lower() in FORMATS
