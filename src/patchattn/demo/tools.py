"""The tools of the page: inputs, settings and texts of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["TOOLS", "Source", "Tool"]

Samples = dict[str, str]
Component = Any


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
    settings: Callable[[], dict[str, Component]]
    """Makes the components of the job's settings."""
    paints: bool = False
    """Whether a mask can be painted on the first image."""


def _inpaint_settings() -> dict[str, Component]:
    import gradio as gr

    hint = "Best takes three times as long as good, and gives sharper texture."
    return {"quality": gr.Radio(["fast", "good", "best"], value="good", label="Quality", info=hint)}


def _colorize_settings() -> dict[str, Component]:
    import gradio as gr

    return {"k": gr.Slider(1, 8, value=3, step=1, label="k", info="Matches of each pixel whose colors are mixed.")}


def _upscale_settings() -> dict[str, Component]:
    import gradio as gr

    return {"scale": gr.Radio([2, 3, 4], value=2, label="Times larger")}


def _reconstruct_settings() -> dict[str, Component]:
    import gradio as gr

    return {
        "k": gr.Slider(1, 8, value=3, step=1, label="k", info="Matches of each pixel."),
        "patch_size": gr.Slider(
            1, 15, value=7, step=2, label="Patch size", info="Side of what is compared, in pixels."
        ),
        "aggregate": gr.Checkbox(True, label="Neighbors vote", info="Smoother, and nearer to the target."),
    }


SAMPLES = {"Coffee": "coffee", "Cat": "cat", "Astronaut": "astronaut", "Rocket": "rocket"}

TOOLS = (
    Tool(
        job="inpaint",
        title="Inpaint",
        intro="Paint over what should go. It is filled with patches of the same photograph; every other pixel stays as "
        "it is.",
        verb="Fill",
        sources=(Source("image", "Photograph", SAMPLES),),
        settings=_inpaint_settings,
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
        settings=_colorize_settings,
    ),
    Tool(
        job="upscale",
        title="Upscale",
        intro="Larger, with the detail that the photograph's own patches have at other sizes. Beside it: plain bicubic "
        "interpolation.",
        verb="Upscale",
        sources=(Source("image", "Photograph", {"Cat": "small-cat", "Astronaut": "small-astronaut"}),),
        settings=_upscale_settings,
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
        settings=_reconstruct_settings,
    ),
)
