"""The tools of the page: inputs and texts of each, and which of its settings are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from patchattn.demo.controls import Shown
from patchattn.tasks.settings import ColorizeSettings, InpaintSettings, ReconstructSettings, UpscaleSettings

__all__ = ["TOOLS", "Source", "Tool"]

Samples = dict[str, str]


@dataclass(frozen=True)
class Source:
    """An image that a tool takes as input."""

    name: str
    """Its key in the job."""
    label: str
    samples: Samples
    """Names of samples (see `samples.write_sample`) by the labels of their buttons."""


@dataclass(frozen=True)
class Tool:
    """A tool, which has a tab of the page."""

    job: str
    title: str
    intro: str
    verb: str
    sources: tuple[Source, ...]
    settings: type[Any]
    """The dataclass that declares the settings."""
    shown: tuple[Shown, ...]
    """The settings that the page has controls for; all others have their defaults."""
    paints: bool = False
    """Whether a mask can be painted on the first image."""


SAMPLES = {"Coffee": "coffee", "Cat": "cat", "Astronaut": "astronaut", "Rocket": "rocket"}

TOOLS = (
    Tool(
        job="inpaint",
        title="Inpaint",
        intro="Paint over what should go. It is filled with patches of the same photograph; every other pixel stays as "
        "it is.",
        verb="Fill",
        sources=(Source("image", "Photograph", SAMPLES),),
        settings=InpaintSettings,
        shown=(Shown("quality"),),
        paints=True,
    ),
    Tool(
        job="colorize",
        title="Colorize",
        intro="A gray picture takes the colors of what looks like it in another. Its brightness stays as it is.",
        verb="Color",
        sources=(
            Source("image", "Gray picture", {"Motorcycle, left eye": "gray-left", "Cat": "gray-cat"}),
            Source("reference", "Picture with the colors", {"Motorcycle, right eye": "right", "Cat": "cat"}),
        ),
        settings=ColorizeSettings,
        shown=(Shown("k", max=8),),
    ),
    Tool(
        job="upscale",
        title="Upscale",
        intro="Larger, with the detail that the photograph's own patches have at other sizes. Beside it: plain bicubic "
        "interpolation.",
        verb="Upscale",
        sources=(Source("image", "Photograph", {"Cat": "small-cat", "Astronaut": "small-astronaut"}),),
        settings=UpscaleSettings,
        shown=(Shown("scale"),),
    ),
    Tool(
        job="reconstruct",
        title="Reconstruct",
        intro="Every pixel of the target is made from pixels of the reference alone.",
        verb="Reconstruct",
        sources=(
            Source("image", "Target", {"Motorcycle, left eye": "left", "Astronaut": "astronaut"}),
            Source("reference", "Reference", {"Motorcycle, right eye": "right", "Coffee": "coffee"}),
        ),
        settings=ReconstructSettings,
        shown=(Shown("k", max=8), Shown("patch_size", max=15, step=2), Shown("aggregate", initial=True)),
    ),
)
