"""Reference of the commands and their options, in the place of `<!-- commands -->` on a page."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

from sphinx.application import Sphinx
from typer.main import get_command

PLACE = "<!-- commands -->"


def reference() -> str:
    """Make Markdown of a heading, a text and a table for each command."""
    from patchattn.cli.app import app

    return "\n\n".join(_describe(words, command) for words, command in _commands(("patchattn",), get_command(app)))


def _commands(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the commands without subcommands, with the words that they are called by."""
    inside = getattr(command, "commands", None)
    if inside is None:
        yield words, command
        return
    for name, one in inside.items():
        yield from _commands((*words, name), one)


def _describe(words: tuple[str, ...], command: Any) -> str:
    rows = ["| argument | default | |", "|---|---|---|"]
    for one in command.params:
        if one.name == "help":
            continue
        is_option = one.param_type_name == "option"
        named = (*one.opts, *one.secondary_opts) if is_option else (one.metavar or one.name.upper(),)
        names = ", ".join(f"`{name}`" for name in named)
        rows.append(f"| {names} | {_default(one)} | {_cell(' '.join([one.help or '', _choices(one)]))} |")
    return "\n\n".join([f"## {' '.join(words)}", cleandoc(command.help or ""), "\n".join(rows)])


def _choices(one: Any) -> str:
    """The values that are allowed, where `--help` lists them."""
    metavar = one.metavar or ""
    if not metavar.startswith("["):
        return ""
    return "One of " + ", ".join(f"`{choice}`" for choice in metavar.strip("[]").split("|")) + "."


def _default(one: Any) -> str:
    shown = getattr(one, "show_default", None)
    if isinstance(shown, str):
        return _cell(shown)
    if one.required:
        return "needed"
    if one.default is None or one.default is False or callable(one.default):
        return ""
    return f"`{one.default}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _fill(app: Sphinx, docname: str, source: list[str]) -> None:
    if PLACE in source[0]:
        source[0] = source[0].replace(PLACE, reference())


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
