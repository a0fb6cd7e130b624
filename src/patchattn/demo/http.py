"""ASGI helpers: types, headers, plain responses, and HTTP errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["Application", "HTTPError", "Receive", "Scope", "Send", "header", "headers", "next_part", "respond"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

Header = tuple[bytes, bytes]

RECEIVE_TIMEOUT = 60.0
"""Seconds to wait for the next part of a request."""


class HTTPError(Exception):
    """An error response: its status, a message for the visitor, and more headers."""

    def __init__(self, status: int, message: str, *extra: Header) -> None:
        super().__init__(message)
        self.status = status
        self.headers = extra


def headers(scope: Scope, name: str) -> list[str]:
    """All values of a header, which a request may send more than once."""
    wanted = name.encode()
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == wanted]


def header(scope: Scope, name: str) -> str | None:
    """The value of a header; None if it is absent.

    Raises:
        HTTPError: the request has it more than once, so that two readers may read two different values.
    """
    values = headers(scope, name)
    if len(values) > 1:
        raise HTTPError(400, f"The request has more than one {name} header.")
    return values[0] if values else None


async def next_part(receive: Receive, name: str) -> Scope:
    """The next part of a request's body.

    Raises:
        HTTPError: it does not come; the message begins with `name`.
    """
    try:
        message = await asyncio.wait_for(receive(), RECEIVE_TIMEOUT)
    except asyncio.TimeoutError:
        raise HTTPError(408, f"{name}: the rest did not come.") from None
    if message["type"] == "http.disconnect":
        raise HTTPError(400, f"{name}: the connection ended before all had come.")
    return message


async def respond(send: Send, status: int, body: bytes | str = b"", *extra: Header, kind: str = "text/plain") -> None:
    """Send a whole response."""
    content = body.encode() if isinstance(body, str) else body
    start = [(b"content-type", f"{kind}; charset=utf-8".encode()), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*start, *extra]})
    await send({"type": "http.response.body", "body": content})
