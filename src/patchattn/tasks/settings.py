"""The settings of the tools, each declared once: the command line, the page and the manual's tables are made from them.

Nothing here imports PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from patchattn.names import Method, SimilarityName
from patchattn.options import Option
from patchattn.registry import METHODS, SIMILARITIES

__all__ = [
    "ColorizeSettings",
    "InpaintSettings",
    "MatchSettings",
    "Matches",
    "PatchSize",
    "ReconstructSettings",
    "SearchSettings",
    "Seed",
    "Similarity",
    "Temperature",
    "UpscaleSettings",
]

Matches = Annotated[int, Option("Matches of each pixel.", min=1)]
PatchSize = Annotated[int, Option("Side of the patches that are compared, in pixels; odd.", min=1)]
Similarity = Annotated[SimilarityName | str, Option("How patches are compared.", registry=SIMILARITIES)]
Temperature = Annotated[float, Option("Temperature of the softmax over matches; smaller weighs the best match more.")]
Seed = Annotated[int, Option("Seed of the search's random choices; the same seed, the same result.")]


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Options of a search for matches."""

    method: Annotated[
        Method | str,
        Option("How matches are found; exact is slow, repeated is SCRAM's Algorithm 1.", registry=METHODS),
    ] = "auto"
    iterations: Annotated[int | None, Option("Iterations of the search.", min=0, shown_default="the method's own")] = (
        None
    )
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class ReconstructSettings(SearchSettings):
    """Options of the reconstruction itself."""

    k: Matches = 3
    patch_size: PatchSize = 7
    aggregate: Annotated[bool, Option("Let the matches of the neighboring pixels vote too: smoother, better.")] = False
    similarity: Similarity = "l2"
    temperature: Temperature = 1.0


@dataclass(frozen=True, kw_only=True)
class ColorizeSettings(SearchSettings):
    """Options of the coloring itself."""

    k: Matches = 3
    patch_size: Annotated[
        int, Option("Side of the patches that are compared, in pixels of the reduced images; odd.", min=1)
    ] = 11
    scale: Annotated[
        int | None,
        Option(
            "By how much images are reduced to be compared; colors keep the full size.",
            min=1,
            shown_default="2; with --model, to the size of the frames that it learned from",
        ),
    ] = None
    aggregate: Annotated[
        bool, Option("Let the matches of the neighboring pixels vote too: far fewer stray colors.")
    ] = True
    temperature: Temperature = 1.0


@dataclass(frozen=True, kw_only=True)
class InpaintSettings:
    """Options of the completion itself."""

    grow: Annotated[
        int | None,
        Option(
            "Widen the hole on all sides, where what is to go has left traces around it.",
            min=0,
            metavar="PIXELS",
            shown_default="2 around objects in a JPEG photograph, else 0",
        ),
    ] = None
    quality: Annotated[Literal["fast", "good", "best"], Option("How long to improve.")] = "good"
    patch_size: PatchSize = 11
    levels: Annotated[
        int | None,
        Option("How many sizes, each half the next.", min=1, shown_default="until the hole is a patch wide"),
    ] = None
    iterations: Annotated[
        int | None, Option("Searches and votes at each size.", min=1, shown_default="the quality's")
    ] = None
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class UpscaleSettings:
    """Options of the enlargement itself."""

    scale: Annotated[Literal[2, 3, 4, 8, 16], Option("How many times larger.")] = 2
    patch_size: PatchSize = 5
    k: Annotated[int, Option("Matches of each patch; more are smoother.", min=1)] = 3
    temperature: Temperature = 0.1
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class MatchSettings(SearchSettings):
    """Options of the search itself."""

    k: Matches = 1
    patch_size: PatchSize = 7
    similarity: Similarity = "l2"
