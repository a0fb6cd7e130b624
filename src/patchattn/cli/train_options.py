"""Options that the commands of `patchattn train` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Accelerator",
    "CheckpointEvery",
    "Devices",
    "LogEvery",
    "NumNodes",
    "OnError",
    "Precision",
    "Resume",
    "RunFolder",
    "SampleEvery",
    "tell_on_stderr",
]

RunFolder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder of the run: network, checkpoint, samples, log.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint, if there is one.")]
CheckpointEvery = Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")]
LogEvery = Annotated[int, typer.Option(min=1, help="Steps between two losses in the log.")]
SampleEvery = Annotated[int, typer.Option(min=1, help="Steps between two sample pictures.")]
OnError = Annotated[str, typer.Option(help="What a file that cannot be read does: stop, or skip it.")]
Accelerator = Annotated[str, typer.Option(help="auto, cpu, cuda, ...: see Lightning Fabric.")]
Devices = Annotated[int, typer.Option(min=1, help="Processes on each machine, each with a device.")]
NumNodes = Annotated[int, typer.Option(min=1, help="Machines; start the command on each, as torchrun does.")]
Precision = Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")]


def tell_on_stderr(message: str) -> None:
    """Say what was left out, without disturbing what is printed."""
    typer.echo(message, err=True)
