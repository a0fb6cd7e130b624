"""The commands; each is imported when it is asked for, and PyTorch when it works, so that `--help` answers at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from typer.main import get_command

from patchattn.cli.arguments import Command, Commands
from patchattn.cli.tools import SUMMARIES, TOOLS

__all__ = ["app"]


class Application(Commands):
    """All commands."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.commands: Any = RegisteredCommands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write what the commands do; the package's own are not imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUMMARIES.get(name) or self.commands.summary(name)) for name in self.commands])


class RegisteredCommands(Mapping[str, Any]):
    """The commands of all tools by name, each imported when it is asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            if name not in SUMMARIES and name not in TOOLS.names():
                raise KeyError(name)
            try:
                found = TOOLS.get(name)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from error
            if not isinstance(found, typer.Typer):
                function, found = found, typer.Typer(add_completion=False, rich_markup_mode=None)
                found.command(name, cls=Command)(function)
            self._made[name] = get_command(found)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(TOOLS.names())

    def __len__(self) -> int:
        return len(TOOLS.names())

    def summary(self, name: str) -> str:
        """Return the first sentence of a command's help, or the reason why it does not load."""
        try:
            return str(self[name].get_short_help_str(limit=200))
        except typer.BadParameter as error:
            return error.message


app = typer.Typer(
    cls=Application,
    help="Attention between images at any resolution: every pixel finds its best matches anywhere, and attends to "
    "those alone.",
    no_args_is_help=True,
    rich_markup_mode=None,  # Rich would take longer to import than all the rest
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("patchattn"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
