"""The commands. Heavy packages are imported inside them, so that `--help` answers at once."""

from __future__ import annotations

from typing import Annotated

import typer

from patchattn.cli.arguments import Command, Commands
from patchattn.cli.colorize import colorize
from patchattn.cli.demo import demo
from patchattn.cli.info import info
from patchattn.cli.inpaint import inpaint
from patchattn.cli.match import match
from patchattn.cli.reconstruct import reconstruct
from patchattn.cli.train import train_app
from patchattn.cli.upscale import upscale

__all__ = ["app"]


app = typer.Typer(
    cls=Commands,
    help="Attention between images at any resolution: every pixel finds its best matches anywhere, and attends to "
    "those alone.",
    no_args_is_help=True,
    rich_markup_mode=None,  # Rich would take longer to import than all the rest
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(train_app, name="train")


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


for command in (reconstruct, colorize, inpaint, upscale, demo, match, info):
    app.command(cls=Command)(command)
