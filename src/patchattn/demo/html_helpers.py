"""HTML for an opened image, the progress of a job, its outcome, and the URL of a file."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

__all__ = ["done_html", "error_html", "file_url", "opened_image_html", "progress_html"]


def file_url(path: str) -> str:
    """The URL of a file of the storage, relative to the page.

    Example:
        >>> file_url("/tmp/folder/Xy12/a b.png")
        'patchattn/file/Xy12/a%20b.png'
    """
    file = Path(path)
    return f"patchattn/file/{file.parent.name}/{quote(file.name, safe='')}"


def opened_image_html(opened: dict[str, Any] | None) -> str:
    """An opened image with its name and size, as HTML."""
    if opened is None:
        return ""
    height, width = opened["size"]
    name = escape(opened["name"])
    return (
        f'<figure class="pa-opened"><img src="{escape(file_url(opened["preview"]))}" alt="{name}">'
        f"<figcaption>{name} · {width} × {height}</figcaption></figure>"
    )


def progress_html(report: dict[str, Any], stage: str) -> str:
    """The place in the queue, or the stage with a progress bar, as HTML."""
    if "waiting" in report:
        others = report["waiting"]
        return _status_html("waiting", f"Waiting: {others} other{'s' if others > 1 else ''} before you.", None)
    fraction = report["done"] / max(1, report["total"]) if "total" in report else None
    return _status_html("working", stage[:1].upper() + stage[1:], fraction)


def done_html(message: str) -> str:
    return f'<p class="pa-status pa-done" role="status">{escape(message)}</p>'


def error_html(message: str) -> str:
    return f'<p class="pa-status pa-failed" role="alert">{escape(message)}</p>'


def _status_html(kind: str, message: str, fraction: float | None) -> str:
    bar = (
        '<progress max="1"></progress>' if fraction is None else f'<progress max="1" value="{fraction:.3f}"></progress>'
    )
    return f'<p class="pa-status pa-{kind}" role="status"><span>{escape(message)} …</span>{bar}</p>'
