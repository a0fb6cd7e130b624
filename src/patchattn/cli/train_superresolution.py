"""`patchattn train superresolution`: a network that enlarges pictures, learned from the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    Precision,
    Resume,
    RunFolder,
    SampleEvery,
    run,
    tell_on_stderr,
)

__all__ = ["superresolution"]


def superresolution(
    data: Annotated[Path, typer.Option(help="Folder that holds pictures, in folders or not.")],
    output: RunFolder,
    scale: Annotated[int, typer.Option(help="How many times larger: 2, 3 or 4.")] = 2,
    cross_scale: Annotated[
        str, typer.Option(help="What the cross-scale branch attends with: full or psal; exchangeable when trained.")
    ] = "full",
    alternate: Annotated[
        bool, typer.Option(help="Attend with the other one of full and psal in every second step: weights suit both.")
    ] = True,
    k: Annotated[int | None, typer.Option(min=1, help="Matches of each patch (psal).", show_default="8")] = None,
    in_scale: Annotated[
        str, typer.Option(help="What the in-scale branch attends with: full or local; exchangeable when trained.")
    ] = "local",
    window: Annotated[int | None, typer.Option(min=1, help="Side of the window (local).", show_default="16")] = None,
    channels: Annotated[int, typer.Option(min=2, help="Of the features; even. The published network has 128.")] = 16,
    depth: Annotated[int, typer.Option(min=1, help="How often the cell is applied. The published network has 12.")] = 2,
    skip: Annotated[
        bool,
        typer.Option(help="Add what bicubic interpolation makes; the published network learns all by itself."),
    ] = True,
    size: Annotated[int, typer.Option(min=8, help="Side of the squares cut from the pictures, to be made small.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps of Adam in all.")] = 2500,
    batch_size: Annotated[int, typer.Option(min=1, help="Squares of a step, of all processes together.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    cooldown: Annotated[
        int, typer.Option(min=0, help="So many last steps in which the learning rate falls to 0.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights and of the squares.")] = 0,
    resume: Resume = False,
    checkpoint_every: CheckpointEvery = 1000,
    log_every: LogEvery = 100,
    sample_every: SampleEvery = 1000,
    on_error: OnError = "stop",
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    num_nodes: NumNodes = 1,
    precision: Precision = "32-true",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Learn to enlarge pictures, from pictures made small.

    Writes `network.safetensors` for `patchattn upscale --model`, `checkpoint.safetensors` to go on from, pictures in
    `samples/` (bicubic, result, truth) and a log for TensorBoard. A run that is interrupted or killed goes on with
    `--resume` and the same settings, and ends where it would have ended.

    The defaults make the compact networks that come with the package, on a processor. The published one: `--channels
    128 --depth 12 --no-skip --no-alternate --in-scale full --size 96 --batch-size 16 --learning-rate 1e-4 --cooldown
    0`.
    """
    psal_settings: dict[str, Any] = {} if k is None else {"k": k}
    # Settings of psal are wrong if only full attention is trained with.
    cross_settings = {} if cross_scale == "full" and alternate else psal_settings
    in_settings = {} if window is None else {"window": window}
    with one_sentence_errors(), stages(quiet=as_json) as stage:
        from patchattn.attention.cross_scale import CrossScaleAttention
        from patchattn.attention.cross_scale_patch import CrossScalePatchAttention
        from patchattn.networks.architectures import SuperResolutionArchitecture
        from patchattn.training.loop import NETWORK, Schedule
        from patchattn.training.pictures import list_pictures
        from patchattn.training.superresolution import SuperResolutionTask

        use_threads(threads)
        schedule = Schedule(steps, learning_rate, checkpoint_every, log_every, sample_every, cooldown)
        architecture = SuperResolutionArchitecture(
            scale, cross_scale, cross_settings, in_scale, in_settings, channels, depth, skip
        )
        architecture.build()  # what is wrong with it, before the work
        stage("reading")
        pictures = list_pictures(data, on_error=on_error, warn=tell_on_stderr)
        other = None
        if alternate:
            other = CrossScalePatchAttention(**psal_settings) if cross_scale == "full" else CrossScaleAttention()
        task = SuperResolutionTask(pictures, architecture, size=size, batch_size=batch_size, seed=seed, alternate=other)
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
