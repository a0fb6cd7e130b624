"""Security middleware: checks every request before the application, and sets headers on every response."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qs

from patchattn.demo.access import Access
from patchattn.demo.authentication import Authentication
from patchattn.demo.http import Application, HTTPError, Receive, Scope, Send, header, next_part, respond
from patchattn.demo.login import REDIRECT, login_page
from patchattn.demo.rate_limit import RateLimiter
from patchattn.demo.routes import GET, PUBLIC, route_of
from patchattn.demo.storage import Owner, Storage
from patchattn.demo.transfers import receive_upload, send_file
from patchattn.demo.visitor_limits import VisitorLimits

__all__ = ["SecurityMiddleware"]

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    # The browser itself sees to it that no request leaves this machine, and that no other page shows or reads this one.
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
}
FORWARDED = re.compile(rb"(?:x-)?forwarded.*|x-gradio-.*|x-real-ip|x-direct-url")
"""Headers by which Gradio would let a request set the server's address; the scope has the true one already."""

NO_STORE = (b"cache-control", b"no-store")

MAX_EVENT_BYTES = 2**18
"""Body of an event: settings, and ids of files that were uploaded before."""
MAX_LOGIN_BYTES = 2**12
MAX_CONNECTIONS = 48
"""Open requests of a visitor; a browser opens six."""
MAX_SESSIONS = 10_000
EVENT_RATE = 120, 10.0
"""Events of a visitor, and the seconds of the window."""
VISITOR_RATE = 120, 60.0
"""New visitors from an address, and the seconds of the window; each visitor has turns and room."""


class SecurityMiddleware:
    """ASGI middleware: checks origin, route, password, session, rate and size of every request.

    Args:
        app: the ASGI application of Gradio.
        access: the host names of this server.
        authentication: the visitors' cookies and the password.
        storage: the visitors' files.
        limits: of uploads.
    """

    def __init__(
        self, app: Application, access: Access, authentication: Authentication, storage: Storage, limits: VisitorLimits
    ) -> None:
        self._app, self._access, self._authentication = app, access, authentication
        self._storage, self._limits = storage, limits
        self._open: Counter[str] = Counter()
        self._visitors = RateLimiter(*VISITOR_RATE, "Too many visitors come from your address; please wait a minute.")
        self._events = RateLimiter(*EVENT_RATE, "That was too much at once; please wait some seconds.")
        self._sessions: OrderedDict[str, str] = OrderedDict()
        """The visitor of each session; nobody else may listen to it."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End the event streams, which would go on for ever; called from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._closing.set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self._loop = asyncio.get_running_loop()
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = _with_headers(send)
        try:
            await self._handle(scope, receive, send)
        except HTTPError as refusal:
            # Nothing more is read of a body that may be without end.
            unread = [(b"connection", b"close")] if scope["method"] not in GET else []
            await respond(send, refusal.status, str(refusal), *refusal.headers, *unread)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._access.check(scope)
        name, found = route_of(scope["method"], scope["path"])
        if name == "login":
            with self._connection(f"at {_address(scope)}"):
                await self._log_in(scope, receive, send)
            return
        visitor = self._authentication.visitor(scope)
        token = _query(scope).get("token") if name == "page" and self._authentication.needs_password else None
        if token is not None:
            if visitor is None:
                self._authentication.check_password(token, _address(scope))
            await self._enter(visitor, scope, send)
            return
        if visitor is None and name == "page" and header(scope, "sec-fetch-site") in ("cross-site", "same-site"):
            await respond(send, 200, REDIRECT, NO_STORE, kind="text/html")
            return
        if visitor is None and self._authentication.needs_password and name not in PUBLIC:
            if name != "page":
                raise HTTPError(401, "Please open the page anew, and give the password.")
            await respond(send, 401, login_page(), NO_STORE, kind="text/html")
            return
        if visitor is None and name == "page":
            self._visitors.count(_address(scope))
            send = _with_cookie(send, self._authentication.cookie(scope))
        if visitor is None:  # a browser that keeps no cookies, or the first request
            visitor = f"at {_address(scope)}"
        scope["patchattn.visitor"] = visitor
        scope["headers"] = [pair for pair in scope["headers"] if not FORWARDED.fullmatch(pair[0].lower())]
        with self._connection(visitor):
            await self._dispatch(name, found, visitor, scope, receive, send)

    async def _dispatch(
        self, name: str, found: tuple[str, ...], visitor: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if name == "upload":
            self._events.count(visitor)
            await receive_upload(self._storage, self._limits, visitor, scope, receive, send)
        elif name == "file":
            await send_file(self._storage, visitor, scope, send, *found)
        elif name == "join":
            self._events.count(visitor)
            body = await _body(receive, scope, MAX_EVENT_BYTES)
            self._check_session(_session_of(body), visitor)
            await self._app(scope, _replay(body, receive), send)
        elif name == "events":
            self._check_session(_query(scope).get("session_hash", ""), visitor)
            await self._app(scope, self._until_closing(receive), send)
        elif name == "heartbeat":
            self._events.count(visitor)
            self._check_session(found[0], visitor)
            with self._storage.page(Owner(visitor, found[0])):
                await self._app(scope, self._until_closing(receive), send)
        else:
            await self._app(scope, receive, send)

    # ---- the password ----

    async def _enter(self, visitor: str | None, scope: Scope, send: Send) -> None:
        """Redirect to the page without the token, which then stays in no history."""
        cookie = [] if visitor is not None else [self._authentication.cookie(scope)]
        await respond(send, 303, "", *cookie, (b"location", b"./"), NO_STORE)

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._authentication.needs_password:
            raise HTTPError(405, "There is nothing to send here.", (b"allow", b"GET, HEAD"))
        form = parse_qs((await _body(receive, scope, MAX_LOGIN_BYTES)).decode("latin-1"))
        try:
            self._authentication.check_password(form.get("password", [""])[0], _address(scope))
        except HTTPError as refusal:
            await respond(send, refusal.status, login_page(str(refusal)), NO_STORE, kind="text/html")
            return
        await self._enter(None, scope, send)

    def _until_closing(self, receive: Receive) -> Receive:
        """The same, with a disconnect when the server shuts down."""

        async def receive_or_leave() -> Scope:
            message = asyncio.ensure_future(receive())
            end = asyncio.ensure_future(self._closing.wait())
            try:
                await asyncio.wait([message, end], return_when=asyncio.FIRST_COMPLETED)
                return message.result() if message.done() else {"type": "http.disconnect"}
            finally:
                message.cancel()
                end.cancel()

        return receive_or_leave

    # ---- limits ----

    @contextmanager
    def _connection(self, visitor: str) -> Iterator[None]:
        if self._open[visitor] >= MAX_CONNECTIONS:
            raise HTTPError(429, "You have too many requests open here; please wait some seconds.")
        self._open[visitor] += 1
        try:
            yield
        finally:
            self._open[visitor] -= 1
            if not self._open[visitor]:
                del self._open[visitor]

    def _check_session(self, session: str, visitor: str) -> None:
        if re.fullmatch(r"[\w-]{1,64}", session, re.ASCII) is None:
            raise HTTPError(400, "The request names no session.")
        if self._sessions.setdefault(session, visitor) != visitor:
            raise HTTPError(403, "This session is another visitor's.")
        self._sessions.move_to_end(session)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)


def _with_headers(send: Send) -> Send:
    """Set the security headers in place of the application's own, and drop its CORS headers."""

    async def with_headers(message: Scope) -> None:
        if message["type"] == "http.response.start":
            own = [(key.lower(), value) for key, value in message.get("headers", [])]
            kept = [pair for pair in own if not pair[0].startswith(b"access-control-")]
            # A file has a stricter policy of its own.
            policy = {pair[0]: pair[1] for pair in kept if pair[0] == b"content-security-policy"}
            kept = [pair for pair in kept if pair[0] not in HEADERS]
            message = {**message, "headers": [*kept, *(HEADERS | policy).items()]}
        await send(message)

    return with_headers


def _with_cookie(send: Send, cookie: tuple[bytes, bytes]) -> Send:
    async def with_cookie(message: Scope) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], cookie, NO_STORE]}
        await send(message)

    return with_cookie


def _address(scope: Scope) -> str:
    return str((scope.get("client") or ("nowhere",))[0])


def _query(scope: Scope) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}


async def _body(receive: Receive, scope: Scope, max_bytes: int) -> bytes:
    """Read the whole body of a request; raise `HTTPError` as soon as it is longer than `max_bytes`."""
    announced = header(scope, "content-length") or "0"
    body, more = bytearray(), True
    while more:
        if len(body) > max_bytes or not announced.isdecimal() or int(announced) > max_bytes:
            raise HTTPError(413, "The request is too long.")
        message = await next_part(receive, "the request")
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if len(body) > max_bytes:
        raise HTTPError(413, "The request is too long.")
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Yield a body that was read already, then the messages that follow."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Scope:
        return left.pop() if left else await receive()

    return replay


def _session_of(body: bytes) -> str:
    found: Any = None
    with suppress(ValueError, RecursionError):
        found = json.loads(body)
    session = found.get("session_hash") if isinstance(found, dict) else None
    return session if isinstance(session, str) else ""
