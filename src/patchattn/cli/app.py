"""The commands; each is imported when it is asked for, and PyTorch when it works, so that `--help` answers at once."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_command

from patchattn.cli.arguments import Command, Commands

__all__ = ["app"]

COMMANDS = {
    "reconstruct": "Rebuild images from the pixels of another.",
    "colorize": "Color gray images and videos after a colored image.",
    "inpaint": "Remove things from images, and complete the images.",
    "upscale": "Enlarge images 2, 3 or 4 times.",
    "demo": "Serve the tools as a page on this machine.",
    "match": "Find the best matches of images in another.",
    "info": "Print versions, backends and devices.",
    "train": "Train a network on your own images.",
}
"""The commands in the order of `--help`, each in the module of its name, and what they do."""


class Application(Commands):
    """All commands."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.commands = LazyCommands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write what the commands do, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


class LazyCommands(dict[str, Any]):
    """The commands by name, each imported when it is asked for."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(COMMANDS))

    def __getitem__(self, name: str) -> Any:
        if super().__getitem__(name) is None:
            found = getattr(import_module(f"patchattn.cli.{name}"), name)
            if not isinstance(found, typer.Typer):
                function, found = found, typer.Typer(add_completion=False, rich_markup_mode=None)
                found.command(name, cls=Command)(function)
            self[name] = get_command(found)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a command, or the default."""
        try:
            return self[name]
        except KeyError:
            return default

    def items(self) -> Any:
        """Return all names and commands."""
        return [(name, self[name]) for name in self]

    def values(self) -> Any:
        """Return all commands."""
        return [self[name] for name in self]


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
