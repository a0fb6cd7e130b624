"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar, cast

import typer

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Iterations",
    "Json",
    "Method",
    "PatchSize",
    "Seed",
    "Similarity",
    "Temperature",
    "Threads",
    "on_device",
    "use_threads",
]

Movable = TypeVar("Movable", bound="Tensor | nn.Module")
PatchSize = Annotated[int, typer.Option(min=1, help="Side of the patches that are compared, in pixels; odd.")]
Similarity = Annotated[str, typer.Option(help="How patches are compared: l2, dot, scaled_dot, cosine or l1.")]
Temperature = Annotated[
    float, typer.Option(help="Temperature of the softmax over matches; smaller weighs the best match more.")
]
Method = Annotated[str, typer.Option(help="How matches are found: auto, exact (slow), guided or patchmatch.")]
Iterations = Annotated[
    int | None, typer.Option(min=0, help="Iterations of the search.", show_default="the method's own")
]
Seed = Annotated[int, typer.Option(help="Seed of the search's random choices; the same seed, the same result.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads to use.", show_default="one for each core")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else.")]


def use_threads(threads: int | None) -> None:
    """Compute on so many threads; None: as many as PyTorch takes."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def on_device(moved: Movable, device: str) -> Movable:
    """Move a tensor or a network to the device that was asked for."""
    try:
        return cast("Movable", moved.to(device))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: cannot compute on {device} ({str(error).splitlines()[0]}).") from error
