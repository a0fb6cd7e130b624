"""What the page says while it works, and afterwards."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

__all__ = ["done", "failed", "picture", "progress", "url"]


def url(path: str) -> str:
    """Where the browser finds a file of the storage.

    Example:
        >>> url("/tmp/folder/Xy12/a b.png")
        'patchattn/file/Xy12/a%20b.png'
    """
    file = Path(path)
    return f"patchattn/file/{file.parent.name}/{quote(file.name, safe='')}"


def picture(opened: dict[str, Any] | None) -> str:
    """A picture that was opened, as HTML."""
    if opened is None:
        return ""
    height, width = opened["size"]
    name = escape(opened["name"])
    return (
        f'<figure class="pa-opened"><img src="{escape(url(opened["shown"]))}" alt="{name}">'
        f"<figcaption>{name} · {width} × {height}</figcaption></figure>"
    )


def progress(told: dict[str, Any], stage: str) -> str:
    """How far the work has come."""
    if "waiting" in told:
        others = told["waiting"]
        return _line("waiting", f"Waiting: {others} other{'s' if others > 1 else ''} before you.", None)
    share = told["done"] / max(1, told["total"]) if "total" in told else None
    return _line("working", stage[:1].upper() + stage[1:], share)


def done(words: str) -> str:
    return f'<p class="pa-status pa-done" role="status">{escape(words)}</p>'


def failed(words: str) -> str:
    return f'<p class="pa-status pa-failed" role="alert">{escape(words)}</p>'


def _line(kind: str, words: str, share: float | None) -> str:
    bar = '<progress max="1"></progress>' if share is None else f'<progress max="1" value="{share:.3f}"></progress>'
    return f'<p class="pa-status pa-{kind}" role="status"><span>{escape(words)} …</span>{bar}</p>'
