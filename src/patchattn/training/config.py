"""Training runs declared once: settings with types, defaults, limits and help; `patchattn train` is made from them.

Nothing here imports PyTorch before a run begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from patchattn.names import SimilarityName
from patchattn.options import Option
from patchattn.registry import SIMILARITIES

__all__ = ["ColorizationConfig", "InpaintingConfig", "Schedule", "SuperResolutionConfig", "TrainConfig"]

Steps = Annotated[int, Option("Training steps in all.", min=1)]
BatchSize = Annotated[int, Option("Items of a step, of all processes together.", min=1)]
LearningRate = Annotated[float, Option("Learning rate of Adam.")]
SampleEvery = Annotated[int, Option("Steps between two sample images.", min=1)]
Cooldown = Annotated[
    int, Option("Number of last steps in which the learning rate falls to 0; 0 keeps it constant.", min=0)
]
Size = Annotated[int, Option("Side of the squares that are cut from the images.", min=8)]
Matches = Annotated[int | None, Option("Matches of each patch (psal).", min=1, shown_default="3")]


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of a run, and how often it saves; the defaults are those of section 4.3.1 of PSAL.

    Raises:
        ValueError: a number is out of range.
    """

    steps: Steps = 200_000
    learning_rate: LearningRate = 1e-3
    checkpoint_every: Annotated[int, Option("Steps between checkpoints.", min=1)] = 1000
    """Steps from one checkpoint to the next; there is one more at the end, and when the run is interrupted."""
    log_every: Annotated[int, Option("Steps between two losses in the log.", min=1)] = 100
    sample_every: SampleEvery = 5000
    cooldown: Cooldown = 0
    """Number of last steps in which the learning rate falls to 0 in a straight line: at a constant rate a network
    learned from one pair at a time depends much on the last few pairs. 0 is the paper's."""

    def __post_init__(self) -> None:
        from patchattn.checks import check_count, check_positive

        check_positive("learning_rate", self.learning_rate)
        for name in ("steps", "checkpoint_every", "log_every", "sample_every"):
            check_count(name, getattr(self, name), 1)
        check_count("cooldown", self.cooldown, 0)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.learning_rate * min(1.0, (self.steps - step) / max(1, self.cooldown))

    def describe(self) -> dict[str, Any]:
        """Settings that a resumed run must share; `steps` only if there is a decay at the end."""
        cooldown = [self.cooldown, self.steps] if self.cooldown else None
        return {"learning_rate": self.learning_rate, "cooldown": cooldown}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Schedule):
    """Settings of any run: its schedule, its data, and the processes that share it."""

    data: Annotated[Path, Option("Folder that holds images, in folders or not.")]
    output: Annotated[Path, Option("Folder of the run: network, checkpoint, samples, log.", flags=("--output", "-o"))]
    batch_size: BatchSize
    seed: Annotated[int, Option("Seed of the first weights and of what is drawn from the data.", min=0)] = 0
    resume: Annotated[bool, Option("Go on from the run's checkpoint, if there is one.")] = False
    on_error: Annotated[Literal["stop", "skip"], Option("At a file that cannot be read, stop, or skip it.")] = "stop"
    accelerator: Annotated[str, Option("auto, cpu, cuda, ...: see Lightning Fabric.")] = "auto"
    devices: Annotated[int, Option("Processes on each machine, each with a device.", min=1)] = 1
    num_nodes: Annotated[int, Option("Machines; start the command on each, as torchrun does.", min=1)] = 1
    precision: Annotated[str, Option("32-true, bf16-mixed or 16-mixed; 16-mixed not for inpainting.")] = "32-true"


@dataclass(frozen=True, kw_only=True)
class ColorizationConfig(TrainConfig):
    """Settings of a colorization run; the defaults are those of section 4.3.1 of PSAL."""

    data: Annotated[Path, Option("Folder that holds a folder of frames for each sequence, as DAVIS does.")]
    attention: Annotated[
        Literal["psal", "psal-aggregate", "scram", "full", "local", "linear", "sparse", "performer", "reformer"],
        Option("The network's attention layer."),
    ] = "psal-aggregate"
    k: Annotated[int | None, Option("Matches of each patch.", min=1, shown_default="3; 1 for psal-aggregate")] = None
    patch_size: Annotated[int | None, Option("Side of the patches, in pixels; odd.", min=1, shown_default="7")] = None
    similarity: Annotated[
        SimilarityName | str | None,
        Option("How patches are compared.", shown_default="l2", registry=SIMILARITIES),
    ] = None
    temperature: Annotated[float | None, Option("Temperature of the softmax.", shown_default="1")] = None
    key_stride: Annotated[
        int | None, Option("Distance of the keys that are looked at (full).", min=1, shown_default="1")
    ] = None
    window: Annotated[int | None, Option("Side of the window (local).", min=1, shown_default="50")] = None
    size: Annotated[int, Option("Frames are resized to size x size.", min=8)] = 256
    crop: Annotated[
        int | None, Option("Side of the squares cut from the frames.", min=8, shown_default="whole frames")
    ] = None
    hold_out: Annotated[
        int, Option("Number of sequences, the last by name, that are not learned but measured at the end.", min=0)
    ] = 0
    steps: Steps = 200_000
    batch_size: BatchSize = 1
    start: Annotated[
        Literal["random", "aligned"],
        Option("First weights: random, as in the paper; aligned: equal grays match from the first step on."),
    ] = "random"
    recolor: Annotated[bool, Option("Change the colors of each pair at random: to learn to copy, not which ones.")] = (
        False
    )
    explore: Annotated[
        int,
        Option(
            "Number of first steps that attend to random keys: from random weights, found matches are all alike, and "
            "little is learned from them. For psal, psal-aggregate, full and local.",
            min=0,
        ),
    ] = 0

    def attention_settings(self) -> dict[str, Any]:
        """Return the settings of the attention layer that were chosen."""
        return _chosen(self, "k", "patch_size", "similarity", "temperature", "key_stride", "window")


@dataclass(frozen=True, kw_only=True)
class InpaintingConfig(TrainConfig):
    """Settings of an inpainting run; the defaults are those of section 4.4.2 of PSAL."""

    attention: Annotated[
        Literal["psal", "contextual"],
        Option("The network's attention layer; contextual is the original one. Exchangeable when trained."),
    ] = "psal"
    k: Matches = None
    patch_size: Annotated[
        int | None, Option("Side of the patches; odd.", min=1, shown_default="7; 3 for contextual")
    ] = None
    iterations: Annotated[int | None, Option("Iterations of the search (psal).", min=0, shown_default="5")] = None
    downscaling: Annotated[
        int | None,
        Option("How much smaller patches are compared (contextual).", min=1, flags=("--rate",), shown_default="2"),
    ] = None
    channels: Annotated[int, Option("Channels of the generator's first convolutions; even.", min=2)] = 32
    critic_channels: Annotated[int, Option("Channels of the critics' first convolutions.", min=1)] = 64
    padding_mode: Annotated[
        Literal["reflect", "zeros"],
        Option("What convolutions read outside of the image; zeros as the public checkpoints."),
    ] = "reflect"
    size: Size = 256
    hole_size: Annotated[int, Option("Side of the square around each hole.", min=1)] = 128
    hole_variation: Annotated[
        int | None,
        Option(
            "By how much holes may be smaller than that, in each dimension.",
            min=0,
            shown_default="a quarter of it",
        ),
    ] = None
    steps: Annotated[int, Option("Steps of the critics in all.", min=1)] = 800_000
    critic_steps: Annotated[int, Option("Critic steps per generator step.", min=1)] = 5
    batch_size: BatchSize = 16
    learning_rate: LearningRate = 1e-4

    def attention_settings(self) -> dict[str, Any]:
        """Return the settings of the attention layer that were chosen."""
        rate = {} if self.downscaling is None else {"rate": self.downscaling}
        return _chosen(self, "k", "patch_size", "iterations") | rate


@dataclass(frozen=True, kw_only=True)
class SuperResolutionConfig(TrainConfig):
    """Settings of a super-resolution run; the defaults make the compact networks that come with the package."""

    scale: Annotated[Literal[2, 3, 4], Option("How many times larger.")] = 2
    cross_scale: Annotated[
        Literal["full", "psal"],
        Option("The attention layer of the cross-scale branch; exchangeable when trained."),
    ] = "full"
    alternate: Annotated[
        bool, Option("Attend with the other one of full and psal in every second step: weights suit both.")
    ] = True
    k: Annotated[int | None, Option("Matches of each patch (psal).", min=1, shown_default="8")] = None
    in_scale: Annotated[
        Literal["full", "local"], Option("The attention layer of the in-scale branch; exchangeable when trained.")
    ] = "local"
    window: Annotated[int | None, Option("Side of the window (local).", min=1, shown_default="16")] = None
    channels: Annotated[int, Option("Channels of the features; even. The published network has 128.", min=2)] = 16
    depth: Annotated[int, Option("How often the cell is applied. The published network has 12.", min=1)] = 2
    skip: Annotated[
        bool, Option("Add what bicubic interpolation makes; the published network learns all by itself.")
    ] = True
    size: Size = 64
    steps: Steps = 2500
    batch_size: BatchSize = 8
    cooldown: Cooldown = 2000
    sample_every: SampleEvery = 1000

    def patch_attention_settings(self) -> dict[str, Any]:
        """Return the settings of psal that were chosen."""
        return _chosen(self, "k")

    def cross_scale_settings(self) -> dict[str, Any]:
        """Return the settings of the cross-scale branch; those of psal are wrong if only full attention is trained."""
        return {} if self.cross_scale == "full" and self.alternate else self.patch_attention_settings()

    def in_scale_settings(self) -> dict[str, Any]:
        """Return the settings of the in-scale branch that were chosen."""
        return _chosen(self, "window")


def _chosen(config: TrainConfig, *names: str) -> dict[str, Any]:
    """The settings that are not left to the layer."""
    chosen = {name: getattr(config, name) for name in names}
    return {name: value for name, value in chosen.items() if value is not None}
