"""`patchattn train`: the networks, trained on the user's own images; `training.config` declares the options."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from patchattn.cli.arguments import Command, Commands
from patchattn.cli.commands import command
from patchattn.cli.options import ProcessingOptions
from patchattn.cli.printing import Summary
from patchattn.cli.stages import Stages
from patchattn.cli.tools import TOOLS
from patchattn.training.config import ColorizationConfig, InpaintingConfig, SuperResolutionConfig, TrainConfig

if TYPE_CHECKING:
    from patchattn.training.image_dataset import ImageDataset
    from patchattn.training.loop import Task

__all__ = ["train"]

logger = logging.getLogger(__name__)

train = typer.Typer(
    cls=Commands,
    help="Train a network on your own images (extra `train`).",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@train.callback()
def root() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class ColorizationOptions(ColorizationConfig, ProcessingOptions):
    """Options of `train colorization`."""


@dataclass(frozen=True, kw_only=True)
class InpaintingOptions(InpaintingConfig, ProcessingOptions):
    """Options of `train inpainting`."""


@dataclass(frozen=True, kw_only=True)
class SuperResolutionOptions(SuperResolutionConfig, ProcessingOptions):
    """Options of `train superresolution`."""


@command(ColorizationOptions)
def colorization(options: ColorizationOptions, stage: Stages) -> Summary | None:
    """Learn to color gray images by a colored image of the same scene.

    Writes `network.safetensors` for `patchattn colorize --model`, `checkpoint.safetensors` to go on from, images in
    `samples/` (gray, reference, result, truth) and a log for TensorBoard. A run that is interrupted or killed goes on
    with `--resume` and the same settings, and ends where it would have ended.

    The defaults are the paper's setting (section 4.3.1 of PSAL).
    """
    from patchattn.networks.architectures import ColorizationArchitecture
    from patchattn.networks.weights import load_colorization_network
    from patchattn.training.colorization import ColorizationTask, mean_error
    from patchattn.training.frames import read_sequences
    from patchattn.training.loop import NETWORK

    architecture = ColorizationArchitecture(options.attention, options.attention_settings(), size=options.size)
    architecture.build()  # what is wrong with it, before the work
    stage("reading")
    sequences = read_sequences(
        options.data, size=options.size, on_error=options.on_error, warn=_warn, progress=stage.steps
    )
    learned_count = len(sequences) - options.hold_out
    if learned_count < 1:
        raise ValueError(
            f"--hold-out: got {options.hold_out}; {options.data} has {len(sequences)} sequences, one must be left."
        )
    learned, held = sequences[:learned_count], sequences[learned_count:]
    task = ColorizationTask(
        learned,
        architecture,
        crop=options.crop,
        batch_size=options.batch_size,
        seed=options.seed,
        start=options.start,
        recolor=options.recolor,
        explore=options.explore,
    )
    loss = _run(task, options, stage)
    if loss is None:
        return None
    stage("measuring")
    error = mean_error(load_colorization_network(options.output / NETWORK), held) if held else None
    names = ", ".join(sequence.name for sequence in held)
    return _summary(
        options,
        loss,
        "mean squared error",
        details={"held_out_error": error},
        lines={"held_out": None if error is None else f"{error:.6f} ({names})"},
    )


@command(InpaintingOptions)
def inpainting(options: InpaintingOptions, stage: Stages) -> Summary | None:
    """Learn to fill holes in images, against two critics.

    Writes `network.safetensors`, `checkpoint.safetensors` to go on from, images in `samples/` (with the hole, filled
    coarsely, filled, truth) and a log for TensorBoard. A run that is interrupted or killed goes on with `--resume` and
    the same settings, and ends where it would have ended.

    The defaults are the setting of section 4.4.2 of PSAL.
    """
    from patchattn.networks.architectures import InpaintingArchitecture
    from patchattn.training.holes import HoleSizes
    from patchattn.training.inpainting import InpaintingTask

    architecture = InpaintingArchitecture(
        options.attention, options.attention_settings(), options.channels, options.padding_mode
    )
    architecture.build()  # what is wrong with it, before the work
    stage("reading")
    variation = options.hole_size // 4 if options.hole_variation is None else options.hole_variation
    task = InpaintingTask(
        _images(options),
        architecture,
        HoleSizes(options.size, options.hole_size, variation),
        critic_channels=options.critic_channels,
        critic_steps=options.critic_steps,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    loss = _run(task, options, stage)
    return None if loss is None else _summary(options, loss, "absolute differences from the truth")


@command(SuperResolutionOptions)
def superresolution(options: SuperResolutionOptions, stage: Stages) -> Summary | None:
    """Learn to enlarge images, from images made small.

    Writes `network.safetensors` for `patchattn upscale --model`, `checkpoint.safetensors` to go on from, images in
    `samples/` (bicubic, result, truth) and a log for TensorBoard. A run that is interrupted or killed goes on with
    `--resume` and the same settings, and ends where it would have ended.

    The defaults make the compact networks that come with the package, on a processor. The published one: `--channels
    128 --depth 12 --no-skip --no-alternate --in-scale full --size 96 --batch-size 16 --learning-rate 1e-4 --cooldown
    0`.
    """
    from patchattn.attention.cross_scale import CrossScaleAttention
    from patchattn.attention.cross_scale_patch import CrossScalePatchAttention
    from patchattn.networks.architectures import SuperResolutionArchitecture
    from patchattn.training.superresolution import SuperResolutionTask

    architecture = SuperResolutionArchitecture(
        options.scale,
        options.cross_scale,
        options.cross_scale_settings(),
        options.in_scale,
        options.in_scale_settings(),
        options.channels,
        options.depth,
        options.skip,
    )
    architecture.build()  # what is wrong with it, before the work
    stage("reading")
    images = _images(options)
    other: Any = None
    if options.alternate and options.cross_scale == "full":
        other = CrossScalePatchAttention(**options.patch_attention_settings())
    elif options.alternate:
        other = CrossScaleAttention()
    task = SuperResolutionTask(
        images, architecture, size=options.size, batch_size=options.batch_size, seed=options.seed, alternate=other
    )
    loss = _run(task, options, stage)
    return None if loss is None else _summary(options, loss, "absolute differences from the truth")


def _images(config: TrainConfig) -> ImageDataset:
    from patchattn.training.image_dataset import find_images

    return find_images(config.data, on_error=config.on_error, warn=_warn)


def _warn(message: str) -> None:
    """Print what was left out on stderr, apart from the result."""
    typer.echo(message, err=True)


def _run(task: Task, config: TrainConfig, stage: Stages) -> float | None:
    """Train, and return the last loss; None in all processes but the one that prints."""
    from patchattn.training import loop
    from patchattn.training.devices import make_fabric

    config.output.mkdir(parents=True, exist_ok=True)
    fabric = make_fabric(
        config.output,
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        precision=config.precision,
    )
    fabric.launch()
    stage("training")

    def show(done: int, total: int, loss: float) -> None:
        logger.info("step %d of %d: loss %.6g", done, total, loss)
        stage.show(f"training, loss {loss:.5f}", done, total)

    loss = loop.train(task, config.output, config, fabric, resume=config.resume, progress=show)
    return loss if fabric.is_global_zero else None


def _summary(
    config: TrainConfig,
    loss: float,
    measure: str,
    *,
    details: dict[str, Any] | None = None,
    lines: dict[str, object] | None = None,
) -> Summary:
    from patchattn.training.loop import NETWORK

    network = str(config.output / NETWORK)
    return Summary(
        {"network": network, "steps": config.steps, "loss": loss, **(details or {})},
        {"wrote": network, "loss": f"{loss:.6f} ({measure}, the last steps)", **(lines or {})},
    )


TOOLS.add("train", train)
for function in (colorization, inpainting, superresolution):
    train.command(cls=Command)(function)
