"""A page of results: Markdown, the same numbers as JSON, and the machine that measured; shared by benchmarks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import check_matplotlib
from machine import machine, save


def machine_line() -> str:
    """What a page says of the machine."""
    facts = machine()
    return (
        f"Machine: {facts['processor']}, shared with other work, {facts['threads']} thread(s); "
        f"PyTorch {facts['torch']}, Numba {facts['numba']}, NumPy {facts['numpy']}, Python {facts['python']}."
    )


def check_plots(folder: Path | None) -> None:
    """Stop the program before the work if a page is asked for and its plots cannot be drawn."""
    if folder is not None:
        try:
            check_matplotlib()
        except RuntimeError as error:
            sys.exit(str(error))


def image_link(path: Path, title: str) -> str:
    """A link that shows an image beside the page."""
    return f"![{title}]({path.name})"


def write_page(folder: Path, name: str, parts: Sequence[str], results: list[dict[str, Any]]) -> None:
    """Write `name`.md, of parts that stand apart, and `name`.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.md"
    path.write_text("\n\n".join(parts) + "\n")
    print(f"wrote {path}")
    save(folder / f"{name}.json", results)
