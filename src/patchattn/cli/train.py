"""`patchattn train`: the networks, learned from the user's own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchattn.cli.arguments import Command
from patchattn.cli.failures import one_sentence_errors
from patchattn.cli.options import Json, Threads, use_threads
from patchattn.cli.printing import print_json, print_lines
from patchattn.cli.stages import stages
from patchattn.cli.train_inpainting import inpainting
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
from patchattn.cli.train_superresolution import superresolution

__all__ = ["train_app"]

train_app = typer.Typer(
    help="Train a network on your own pictures (extra `train`).", no_args_is_help=True, rich_markup_mode="markdown"
)


@train_app.callback()
def root() -> None:
    pass


@train_app.command(cls=Command)
def colorization(
    data: Annotated[Path, typer.Option(help="Folder that holds a folder of frames for each sequence, as DAVIS does.")],
    output: RunFolder,
    attention: Annotated[
        str,
        typer.Option(help="psal, psal-aggregate, scram, full, local, linear, sparse, performer or reformer."),
    ] = "psal-aggregate",
    k: Annotated[
        int | None,
        typer.Option(min=1, help="Matches of each patch.", show_default="3; 1 for psal-aggregate"),
    ] = None,
    patch_size: Annotated[
        int | None, typer.Option(min=1, help="Side of the patches, in pixels; odd.", show_default="7")
    ] = None,
    similarity: Annotated[
        str | None, typer.Option(help="l2, dot, scaled_dot, cosine or l1.", show_default="l2")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Temperature of the softmax.", show_default="1")] = None,
    key_stride: Annotated[
        int | None, typer.Option(min=1, help="Look at every so-many-th key (full).", show_default="1")
    ] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Side of the window (local).", show_default="50")] = None,
    size: Annotated[int, typer.Option(min=8, help="Frames are resized to size x size.")] = 256,
    crop: Annotated[
        int | None, typer.Option(min=8, help="Side of the squares cut from the frames.", show_default="whole frames")
    ] = None,
    hold_out: Annotated[
        int, typer.Option(min=0, help="So many sequences, the last by name, are not learned but measured at the end.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of Adam in all.")] = 200_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs of a step, of all processes together.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    cooldown: Annotated[
        int,
        typer.Option(
            min=0, help="So many last steps in which the learning rate falls to 0; 0 keeps it, as in the paper."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights and the order of the pairs.")] = 0,
    start: Annotated[
        str,
        typer.Option(help="First weights: random, as in the paper; aligned: equal grays match from the first step on."),
    ] = "random",
    recolor: Annotated[
        bool,
        typer.Option("--recolor", help="Change the colors of each pair at random: to learn to copy, not which ones."),
    ] = False,
    explore: Annotated[
        int,
        typer.Option(
            min=0,
            help="So many first steps attend to random keys: from random weights, found matches are all alike, and "
            "little is learned from them. For psal, psal-aggregate, full and local.",
        ),
    ] = 0,
    resume: Resume = False,
    checkpoint_every: CheckpointEvery = 1000,
    log_every: LogEvery = 100,
    sample_every: SampleEvery = 5000,
    on_error: OnError = "stop",
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    num_nodes: NumNodes = 1,
    precision: Precision = "32-true",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Learn to color gray pictures by a colored picture of the same scene.

    Writes `network.safetensors` for `patchattn colorize --model`, `checkpoint.safetensors` to go on from, pictures in
    `samples/` (gray, reference, result, truth) and a log for TensorBoard. A run that is interrupted or killed goes on
    with `--resume` and the same settings, and ends where it would have ended.

    The defaults are the paper's setting (section 4.3.1 of PSAL).
    """
    chosen = {
        "k": k, "patch_size": patch_size, "similarity": similarity, "temperature": temperature,
        "key_stride": key_stride, "window": window,
    }  # fmt: skip
    settings = {name: value for name, value in chosen.items() if value is not None}
    with one_sentence_errors(), stages(quiet=as_json) as stage:
        from patchattn.networks.architectures import ColorizationArchitecture
        from patchattn.networks.weights import load_colorization_network
        from patchattn.training.colorization import ColorizationTask, mean_error
        from patchattn.training.frames import read_sequences
        from patchattn.training.loop import NETWORK, Schedule

        use_threads(threads)
        schedule = Schedule(steps, learning_rate, checkpoint_every, log_every, sample_every, cooldown)
        architecture = ColorizationArchitecture(attention, settings, size=size)
        architecture.build()  # what is wrong with it, before the work
        stage("reading")
        sequences = read_sequences(data, size=size, on_error=on_error, warn=tell_on_stderr, progress=stage.steps)
        if hold_out >= len(sequences):
            raise ValueError(f"--hold-out: got {hold_out}; {data} has {len(sequences)} sequences, one must be left.")
        learned, held = sequences[: len(sequences) - hold_out], sequences[len(sequences) - hold_out :]
        task = ColorizationTask(
            learned, architecture, crop=crop, batch_size=batch_size, seed=seed, start=start, recolor=recolor,
            explore=explore,
        )  # fmt: skip
        loss = run(
            task, output, schedule, stage, resume=resume, accelerator=accelerator, devices=devices,
            num_nodes=num_nodes, precision=precision,
        )  # fmt: skip
        if loss is None:
            return
        stage("measuring")
        error = mean_error(load_colorization_network(output / NETWORK), held) if held else None
    network = str(output / NETWORK)
    if as_json:
        print_json({"network": network, "steps": steps, "loss": loss, "held_out_error": error})
        return
    print_lines(
        wrote=network,
        loss=f"{loss:.6f} (mean squared error, the last steps)",
        held_out=None if error is None else f"{error:.6f} ({', '.join(sequence.name for sequence in held)})",
    )


train_app.command(cls=Command)(inpainting)
train_app.command(cls=Command)(superresolution)
