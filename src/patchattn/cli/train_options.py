"""What the commands of `patchattn train` share: options, and the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from patchattn.cli.stages import Stages
    from patchattn.training.loop import Schedule, SteppedTask, Task

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
    "run",
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


def run(
    task: Task | SteppedTask, output: Path, schedule: Schedule, stage: Stages, *, resume: bool, accelerator: str,
    devices: int, num_nodes: int, precision: str,
) -> float | None:  # fmt: skip
    """Train, and return the last loss; None in all processes but the one that tells."""
    from patchattn.training.devices import make_fabric
    from patchattn.training.loop import train

    output.mkdir(parents=True, exist_ok=True)
    fabric = make_fabric(output, accelerator=accelerator, devices=devices, num_nodes=num_nodes, precision=precision)
    fabric.launch()
    stage("training")

    def show(done: int, total: int, loss: float) -> None:
        stage.tell(f"training, loss {loss:.5f}", done, total)

    loss = train(task, output, schedule, fabric, resume=resume, progress=show)
    return loss if fabric.is_global_zero else None
