"""Converter of this project's docstrings to reStructuredText.

They are Markdown in Google's layout: `code`, `$equations$`, `$$equations$$` on lines of their own, and the sections
Args, Returns, Yields, Raises and Example. Code that names something in the API reference becomes a link to it, and so
does the name of a page (docs/gpu.md).

`sphinx.ext.napoleon` reads the sections alone, takes "shape: what it is" under Returns for a type, and repeats the text
of arguments that are described together.
"""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

SECTIONS = {"Args": "Arguments", "Returns": "Returns", "Yields": "Yields", "Raises": "Raises", "Example": "Example"}
NAMED = ("Args", "Raises")
"""Sections that are lists of names, each with a text."""

HEADER = re.compile(rf"^({'|'.join(SECTIONS)}):\n", re.MULTILINE)
MARKED = re.compile(r"(\$\$.+?\$\$|\$\S[^$]*\$|`[^`]+`)", re.DOTALL)
"""Equations and code, which are not plain text."""
PAGE = re.compile(r"\bdocs/(\w+)\.md\b")
DOCUMENTED = re.compile(r"^\s*\.\. auto\w+:: ([\w.]+)", re.MULTILINE)


def documented_in(folder: Path) -> dict[str, str]:
    """Names in the API reference, by their full and by their last parts; of two with one last part, that of the page
    which the index lists first."""
    names: dict[str, str] = {}
    listed = (folder / "index.md").read_text(encoding="utf-8").splitlines()
    order = {name: at for at, name in enumerate(listed)}
    pages = sorted(folder.glob("*.md"), key=lambda page: (order.get(page.stem, len(listed)), page.name))
    for page in pages:
        for name in DOCUMENTED.findall(page.read_text(encoding="utf-8")):
            names[name] = name
            names.setdefault(name.rpartition(".")[2], name)
    return names


def to_rst(text: str, known: dict[str, str]) -> str:
    """Convert one docstring.

    Args:
        text: the docstring, without the indentation that it has in the source.
        known: link targets, by the names that are used for them.
    """
    head, *rest = HEADER.split(text)
    parts = [_prose(head, known)]
    for section, following in zip(rest[::2], rest[1::2], strict=True):
        body, after = _cut_indented(following)
        parts.append(_section(section, dedent(body), known))
        parts.append(_prose(after, known))
    return "\n\n".join(part for part in parts if part) + "\n"


def _cut_indented(text: str) -> tuple[str, str]:
    """Split text into the indented lines of a section, and those after it."""
    end = re.search(r"^(?=\S)", text, re.MULTILINE)
    return (text, "") if end is None else (text[: end.start()], text[end.start() :])


def _section(section: str, body: str, known: dict[str, str]) -> str:
    if section == "Example":
        return f".. rubric:: Example\n\n{body.strip()}"
    if section not in NAMED:
        return f":{SECTIONS[section]}:\n{indent(_prose(body, known), '   ')}"
    entries = []
    for entry in re.split(r"^(?=\S)", body.strip(), flags=re.MULTILINE)[1:]:
        names, text = entry.split(":", 1)
        first, _, more = text.strip().partition("\n")
        names = ", ".join(f"``{name}``" for name in re.split(r",\s+", names.strip()))
        entries.append(f"{names}\n{indent(_prose(first + chr(10) + dedent(more), known), '   ')}")
    return f":{SECTIONS[section]}:\n{indent(chr(10).join(entries), '   ')}"


def _prose(text: str, known: dict[str, str]) -> str:
    """Convert paragraphs, lists and equations."""
    pieces = MARKED.split(text)
    for at, piece in enumerate(pieces):
        inner = " ".join(piece.strip("$`").split())
        if at % 2 == 0:
            pieces[at] = PAGE.sub(r":doc:`/\1`", re.sub(r"([\\*|]|_(?!\w))", r"\\\1", piece))
        elif piece.startswith("$$"):
            pieces[at] = f"\n\n.. math::\n\n   {inner}\n\n"
        else:
            # A word may stand directly beside either only after an escaped space.
            space = "\\ " if re.match(r"\w", pieces[at + 1]) else ""
            pieces[at] = (f":math:`{inner}`" if piece.startswith("$") else _code(inner, known)) + space
    return "".join(pieces).strip()


def _code(code: str, known: dict[str, str]) -> str:
    name = re.match(r"[\w.]*", code)
    target = None if name is None else known.get(name.group().removeprefix("patchattn."), known.get(name.group()))
    if target is None or not re.fullmatch(r"[\w.]+(\(.*\))?", code):
        return f"``{code}``"
    return f":py:obj:`{code} <{target}>`"


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    known = documented_in(Path(app.srcdir) / "api")
    lines[:] = to_rst("\n".join(lines), known).split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
