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
    password: Annotated[
        str | None,
        typer.Option(
            envvar="PATCHATTN_DEMO_PASSWORD",
            show_envvar=False,
            show_default="none on this machine alone, else one is made",
            help="What visitors must know.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name by which visitors reach the page, with :PORT or at any; for reverse proxies. Can be repeated.",
        ),
    ] = None,
    max_megapixels: Annotated[
        float, typer.Option(min=0.1, help="The largest picture that comes in or goes out, in millions of pixels.")
    ] = 24.0,
    max_megabytes: Annotated[float, typer.Option(min=0.1, help="The largest file that comes in.")] = 100.0,
    visitor_megabytes: Annotated[
        float, typer.Option(min=0.1, help="All files of a visitor that are kept at a time.")
    ] = 500.0,
    total_megabytes: Annotated[float, typer.Option(min=0.1, help="All files of all visitors.")] = 5000.0,
) -> None:
    """Serve a page on which pictures can be filled, colored, enlarged and rebuilt, and their fields viewed.

    It needs no network and sends nothing anywhere. Ctrl-C ends it. Needs the extra `demo`.

    Other machines reach it with --host 0.0.0.0 and a password alone; without --password one is made, and is part of the
    address that is printed. The variable PATCHATTN_DEMO_PASSWORD can hold the password too, where other users of this
    machine cannot see it.
    """
    with one_sentence_errors():
        from patchattn.demo.access import is_loopback
        from patchattn.demo.server import serve
        from patchattn.demo.visitor_limits import VisitorLimits

        limits = VisitorLimits(
            megapixels=max_megapixels,
            megabytes=max_megabytes,
            visitor_megabytes=visitor_megabytes,
            total_megabytes=total_megabytes,
        )

        def report(address: str) -> None:
            if not is_loopback(host):
                typer.echo(
                    f"warning: other machines can reach this page at {host}. Whoever has the password may use it, and "
                    "without TLS the network can read along; use --host 127.0.0.1 for this machine alone.",
                    err=True,
                )
            typer.echo(f"{address} (Ctrl-C ends it)")

        serve(host, port, limits, password=password, allowed=allow_host or (), report=report)
