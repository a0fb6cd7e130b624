"""Requests to ASGI applications, made by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchattn.demo.access import Access
from patchattn.demo.authentication import Authentication
from patchattn.demo.http import Receive, Scope, Send
from patchattn.demo.security_middleware import SecurityMiddleware
from patchattn.demo.storage import Storage
from patchattn.demo.visitor_limits import VisitorLimits

PORT = 7860
HOST = f"127.0.0.1:{PORT}"
ORIGIN = f"http://{HOST}"


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    parts_read: int = 0
    """How many parts of the request's body the application took."""

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, f"{name} is there {len(found)} times"
        return found[0] if found else None

    @property
    def cookie(self) -> str:
        """The cookie that was set, as a browser sends it back."""
        return (self.header("set-cookie") or "").partition(";")[0]


def scope_of(method: str, path: str, headers: Iterable[tuple[str, str]] | None = None, **more: Any) -> Scope:
    """A request; without headers it is one of the page's own."""
    given = [("host", HOST)] if headers is None else list(headers)
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", PORT),
        **more,
    }


def request(app: Any, scope: Scope, *body: bytes, leaves: bool = False, stands: bool = False) -> Answer:
    """Send a request, its body in these parts; return what comes back.

    Args:
        leaves: the connection ends after these parts, before the body does.
        stands: nothing comes after these parts, though the body has not ended.
    """
    answer, left = Answer(), list(body) or [b""]

    async def receive() -> Scope:
        if not left:
            if leaves:
                return {"type": "http.disconnect"}
            await asyncio.Event().wait()
        answer.parts_read += 1
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or leaves or stands}

    async def send(message: Scope) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [(name.decode(), value.decode()) for name, value in message["headers"]]
        elif message["type"] == "http.response.body":
            answer.body += message["body"]

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 30))
    return answer


class Page:
    """An application behind the security middleware, that answers everything and records the requests."""

    def __init__(self, folder: Path, limits: VisitorLimits | None = None, password: str | None = None) -> None:
        self.limits = limits or VisitorLimits()
        self.storage = Storage(folder, self.limits)
        self.seen: list[Scope] = []
        self.bodies: list[bytes] = []
        self.app = SecurityMiddleware(
            self._answer, Access(PORT), Authentication(PORT, password), self.storage, self.limits
        )
        self.cookie = ""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope)
        if scope["method"] == "POST":
            self.bodies.append((await receive())["body"])
        open_to_all = [(b"access-control-allow-origin", b"*"), (b"x-frame-options", b"ALLOWALL")]
        await send({"type": "http.response.start", "status": 200, "headers": open_to_all})
        await send({"type": "http.response.body", "body": b"the page"})

    def ask(
        self, method: str, path: str, *body: bytes, leaves: bool = False, stands: bool = False, **headers: str
    ) -> Answer:
        """Ask as the page's own scripts do, with the cookie it was given; underscores in headers become hyphens."""
        given = {"host": HOST, "cookie": self.cookie} | {key.replace("_", "-"): text for key, text in headers.items()}
        pairs = [(key, text) for key, text in given.items() if text]
        return request(self.app, scope_of(method, path, pairs), *body, leaves=leaves, stands=stands)

    def enter(self) -> str:
        """Become a new visitor; return who."""
        self.cookie = ""
        self.cookie = self.ask("GET", "/").cookie
        return self.cookie.partition("=")[2].partition(".")[0]
