"""The command `demo`: the page on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from patchattn.cli.failures import one_sentence_errors

__all__ = ["demo"]


def demo(
    host: Annotated[
        str, typer.Option(help="The address to listen at. 127.0.0.1 is this machine alone; 0.0.0.0 all its networks.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, show_default="the first free one from 7860", help="The port.")
    ] = None,
    max_megapixels: Annotated[
        float, typer.Option(min=0.1, help="The largest picture that comes in or goes out, in millions of pixels.")
    ] = 24.0,
    max_megabytes: Annotated[float, typer.Option(min=0.1, help="The largest file that comes in.")] = 100.0,
) -> None:
    """Serve a page on which pictures can be filled, coloured, enlarged and rebuilt, and the layer looked at.

    It needs no network and sends nothing anywhere. Ctrl-C ends it. Needs the extra `demo`.
    """
    with one_sentence_errors():
        from patchattn.demo.limits import Limits
        from patchattn.demo.server import serve

        limits = Limits(megapixels=max_megapixels, megabytes=max_megabytes)
        serve(host, port, limits, tell=lambda address: typer.echo(f"{address} (Ctrl-C ends it)"))
