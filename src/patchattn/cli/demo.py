"""The command `demo`: the page on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from patchattn.cli.commands import tool
from patchattn.cli.options import BasicOptions
from patchattn.cli.stages import Stages
from patchattn.options import Option

__all__ = ["demo"]


@dataclass(frozen=True, kw_only=True)
class DemoOptions(BasicOptions):
    """Options of the command."""

    host: Annotated[
        str, Option("The address to listen at. 127.0.0.1 is this machine alone; 0.0.0.0 all its networks.")
    ] = "127.0.0.1"
    port: Annotated[int | None, Option("The port.", min=1, max=65535, shown_default="the first free one from 7860")] = (
        None
    )
    password: Annotated[
        str | None,
        Option(
            "What visitors must know.",
            variable="PATCHATTN_DEMO_PASSWORD",
            shown_default="none on this machine alone, else one is made",
        ),
    ] = None
    allow_host: Annotated[
        list[str] | None,
        Option(
            "A name by which visitors reach the page, with :PORT or at any; for reverse proxies. Can be repeated.",
            metavar="NAME",
        ),
    ] = None
    max_megapixels: Annotated[
        float, Option("The largest image that comes in or goes out, in millions of pixels.", min=0.1)
    ] = 24.0
    max_megabytes: Annotated[float, Option("The largest file that comes in.", min=0.1)] = 100.0
    visitor_megabytes: Annotated[float, Option("All files of a visitor that are kept at a time.", min=0.1)] = 500.0
    total_megabytes: Annotated[float, Option("All files of all visitors.", min=0.1)] = 5000.0


@tool(DemoOptions, shows_progress=False)
def demo(options: DemoOptions, stage: Stages) -> None:
    """Serve a page on which images can be filled, colored, enlarged and rebuilt, and the layer looked at.

    It needs no network and sends nothing anywhere. Ctrl-C ends it. Needs the extra `demo`.

    Other machines reach it with --host 0.0.0.0 and a password alone; without --password one is made, and is part of the
    address that is printed. The variable PATCHATTN_DEMO_PASSWORD can hold the password too, where other users of this
    machine cannot see it.
    """
    from patchattn.demo.access import is_loopback
    from patchattn.demo.server import serve
    from patchattn.demo.visitor_limits import VisitorLimits

    limits = VisitorLimits(
        megapixels=options.max_megapixels,
        megabytes=options.max_megabytes,
        visitor_megabytes=options.visitor_megabytes,
        total_megabytes=options.total_megabytes,
    )

    def report(address: str) -> None:
        if not is_loopback(options.host):
            typer.echo(
                f"warning: other machines can reach this page at {options.host}. Whoever has the password may use it, "
                "and without TLS the network can read along; use --host 127.0.0.1 for this machine alone.",
                err=True,
            )
        typer.echo(f"{address} (Ctrl-C ends it)")

    serve(
        options.host,
        options.port,
        limits,
        password=options.password,
        allowed=options.allow_host or (),
        report=report,
    )
