"""The tabs that make a picture: what each takes, which settings it has, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["TOOLS", "Source", "Tool"]

Samples = dict[str, str]
Component = Any


@dataclass(frozen=True)
class Source:
    """A picture that a tool takes."""

    name: str
    """What the job calls it."""
    label: str
    samples: Samples
    """Of `samples.write_sample`, by what their buttons say."""


@dataclass(frozen=True)
class Tool:
    """A tab."""

    job: str
    title: str
    intro: str
    verb: str
    sources: tuple[Source, ...]
    settings: Callable[[], dict[str, Component]]
    """Makes the components of the settings that the job takes."""
    paints: bool = False
    """The first picture is painted on."""


def _inpaint_settings() -> dict[str, Component]:
    import gradio as gr

    hint = "Best takes three times as long as good, and gives sharper texture."
    return {"quality": gr.Radio(["fast", "good", "best"], value="good", label="Quality", info=hint)}


def _colorize_settings() -> dict[str, Component]:
    import gradio as gr

    return {"k": gr.Slider(1, 8, value=3, step=1, label="k", info="Matches of each pixel whose colors are mixed.")}


def _enlarge_settings() -> dict[str, Component]:
    import gradio as gr

    return {"scale": gr.Radio([2, 3, 4], value=2, label="Times larger")}


def _rebuild_settings() -> dict[str, Component]:
    import gradio as gr

    return {
        "k": gr.Slider(1, 8, value=3, step=1, label="k", info="Matches of each pixel."),
        "patch_size": gr.Slider(
            1, 15, value=7, step=2, label="Patch size", info="Side of what is compared, in pixels."
        ),
        "aggregate": gr.Checkbox(True, label="Neighbors vote", info="Smoother, and nearer to the target."),
    }


PHOTOGRAPHS = {"Coffee": "coffee", "Cat": "cat", "Astronaut": "astronaut", "Rocket": "rocket"}

TOOLS = (
    Tool(
        job="inpaint",
        title="Inpaint",
        intro="Paint over what should go. It is filled with patches of the same photograph; every other pixel stays as "
        "it is.",
        verb="Fill",
        sources=(Source("photo", "Photograph", PHOTOGRAPHS),),
        settings=_inpaint_settings,
        paints=True,
    ),
    Tool(
        job="colorize",
        title="Colorize",
        intro="A gray picture takes the colors of what looks like it in another. Its brightness stays as it is.",
        verb="Color",
        sources=(
            Source("photo", "Gray picture", {"Motorcycle, left eye": "gray-left", "Cat": "gray-cat"}),
            Source("reference", "Image with the colors", {"Motorcycle, right eye": "right", "Cat": "cat"}),
        ),
        settings=_colorize_settings,
    ),
    Tool(
        job="enlarge",
        title="Enlarge",
        intro="Larger, with the detail that the photograph's own patches have at other sizes. Beside it: plain bicubic "
        "interpolation.",
        verb="Enlarge",
        sources=(Source("photo", "Photograph", {"Cat": "small-cat", "Astronaut": "small-astronaut"}),),
        settings=_enlarge_settings,
    ),
    Tool(
        job="rebuild",
        title="Rebuild",
        intro="Every pixel of the target is made from pixels of the reference alone.",
        verb="Rebuild",
        sources=(
            Source("photo", "Target", {"Motorcycle, left eye": "left", "Astronaut": "astronaut"}),
            Source("reference", "Reference", {"Motorcycle, right eye": "right", "Coffee": "coffee"}),
        ),
        settings=_rebuild_settings,
    ),
)
