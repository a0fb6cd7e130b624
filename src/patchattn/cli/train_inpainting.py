"""`patchattn train inpainting`: a network that fills holes, learned from the user's own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchattn.cli.failures import one_sentence_errors
from patchattn.cli.options import Json, Threads, use_threads
from patchattn.cli.printing import print_json, print_lines
from patchattn.cli.stages import stages
from patchattn.cli.train_options import (
    Accelerator,
    CheckpointEvery,
    Devices,
    LogEvery,
    NumNodes,
    OnError,
    Resume,
    RunFolder,
    SampleEvery,
    run,
    tell_on_stderr,
)

__all__ = ["inpainting"]


def inpainting(
    data: Annotated[Path, typer.Option(help="Folder that holds pictures, in folders or not.")],
    output: RunFolder,
    attention: Annotated[
        str, typer.Option(help="psal, or contextual: the original layer; exchangeable when trained.")
    ] = "psal",
    k: Annotated[int | None, typer.Option(min=1, help="Matches of each patch (psal).", show_default="3")] = None,
    patch_size: Annotated[
        int | None, typer.Option(min=1, help="Side of the patches; odd.", show_default="7; 3 for contextual")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=0, help="Iterations of the search (psal).", show_default="5")
    ] = None,
    rate: Annotated[
        int | None, typer.Option(min=1, help="How much smaller patches are compared (contextual).", show_default="2")
    ] = None,
    channels: Annotated[int, typer.Option(min=2, help="Of the generator's first convolutions; even.")] = 32,
    critic_channels: Annotated[int, typer.Option(min=1, help="Of the critics' first convolutions.")] = 64,
    padding_mode: Annotated[
        str, typer.Option(help="What convolutions read outside: reflect, or zeros as the public checkpoints.")
    ] = "reflect",
    size: Annotated[int, typer.Option(min=8, help="Side of the squares that are cut from the pictures.")] = 256,
    hole_size: Annotated[int, typer.Option(min=1, help="Side of the square around each hole.")] = 128,
    hole_variation: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="By how much holes may be smaller than that, in each dimension.",
            show_default="a quarter of it",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the critics in all.")] = 800_000,
    critic_steps: Annotated[int, typer.Option(min=1, help="Every so-many-th step trains the generator too.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures of a step, of all processes together.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Of Adam, for generator and critics.")] = 1e-4,
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights, the pictures and the holes.")] = 0,
    resume: Resume = False,
    checkpoint_every: CheckpointEvery = 1000,
    log_every: LogEvery = 100,
    sample_every: SampleEvery = 5000,
    on_error: OnError = "stop",
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    num_nodes: NumNodes = 1,
    precision: Annotated[str, typer.Option(help="32-true or bf16-mixed.")] = "32-true",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Learn to fill holes in pictures, against two critics.

    Writes `network.safetensors`, `checkpoint.safetensors` to go on from, pictures in `samples/` (with the hole, filled
    coarsely, filled, truth) and a log for TensorBoard. A run that is interrupted or killed goes on with `--resume` and
    the same settings, and ends where it would have ended.

    The defaults are the setting of section 4.4.2 of PSAL.
    """
    chosen = {"k": k, "patch_size": patch_size, "iterations": iterations, "rate": rate}
    settings = {name: value for name, value in chosen.items() if value is not None}
    with one_sentence_errors(), stages(quiet=as_json) as stage:
        from patchattn.networks.architectures import InpaintingArchitecture
        from patchattn.training.holes import HoleSizes
        from patchattn.training.inpainting import InpaintingTask
        from patchattn.training.loop import NETWORK, Schedule
        from patchattn.training.pictures import list_pictures

        use_threads(threads)
        schedule = Schedule(steps, learning_rate, checkpoint_every, log_every, sample_every)
        architecture = InpaintingArchitecture(attention, settings, channels, padding_mode)
        architecture.build()  # what is wrong with it, before the work
        stage("reading")
        task = InpaintingTask(
            list_pictures(data, on_error=on_error, warn=tell_on_stderr),
            architecture,
            HoleSizes(size, hole_size, hole_size // 4 if hole_variation is None else hole_variation),
            critic_channels=critic_channels,
            critic_steps=critic_steps,
            batch_size=batch_size,
            seed=seed,
        )
        loss = run(
            task, output, schedule, stage, resume=resume, accelerator=accelerator, devices=devices,
            num_nodes=num_nodes, precision=precision,
        )  # fmt: skip
        if loss is None:
            return
    network = str(output / NETWORK)
    if as_json:
        print_json({"network": network, "steps": steps, "loss": loss})
        return
    print_lines(wrote=network, loss=f"{loss:.6f} (absolute differences from the truth, the last steps)")
