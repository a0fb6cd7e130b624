"""The routes of the server."""

from __future__ import annotations

import re

from patchattn.demo.http import HTTPError

__all__ = ["GET", "PUBLIC", "route_of"]

GET, POST = ("GET", "HEAD"), ("POST",)
ROUTES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("page", GET, r"/"),
    ("login", POST, r"/"),
    ("upload", POST, r"/patchattn/upload"),
    ("file", GET, r"/patchattn/file/([\w-]{1,64})/([^/]{1,200})"),
    ("asset", GET, r"/(?:assets|static)/(?!.*\.\.)[\w./@+-]{1,200}"),
    ("asset", GET, r"/(?:theme\.css|favicon\.ico)"),
    ("start", GET, r"/gradio_api/startup-events"),
    ("join", POST, r"/gradio_api/queue/join"),
    ("events", GET, r"/gradio_api/queue/data"),
    ("heartbeat", GET, r"/gradio_api/heartbeat/([\w-]{1,64})"),
)
"""All routes: name, methods and path. Gradio has more, which this page does not need."""

PUBLIC = ("login", "asset")
"""Routes that need no password: the form itself, and what is the same for everybody."""


def route_of(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    """The name of a request's route, and the groups of its path; raise `HTTPError` if there is none.

    Example:
        >>> route_of("GET", "/patchattn/file/Xy12/cat.png")
        ('file', ('Xy12', 'cat.png'))
    """
    matching = [(name, methods, re.fullmatch(pattern, path, re.ASCII)) for name, methods, pattern in ROUTES]
    there = [(name, methods, found) for name, methods, found in matching if found is not None]
    if not there:
        raise HTTPError(404, "There is nothing here.")
    for name, methods, found in there:
        if method in methods:
            return name, found.groups()
    allowed = ", ".join(method for _, methods, _ in there for method in methods)
    raise HTTPError(405, f"{method} is not possible here.", (b"allow", allowed.encode()))
