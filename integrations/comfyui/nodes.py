"""Nodes: fill, enlarge, colorize, match.

Images are `(batch, height, width, 3)` and masks `(batch, height, width)`, floats from 0 to 1, as ComfyUI has them.
A batch of one goes with every image of another input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn import arrays

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

Inputs = dict[str, dict[str, tuple[Any, ...]]]
SEED = ("INT", {"default": 0, "min": 0, "max": 2**63 - 1})


class Inpaint:
    """Fill what is white in the mask with patches of the image itself."""

    CATEGORY, FUNCTION, RETURN_TYPES = "patchattn", "run", ("IMAGE",)
    DESCRIPTION = "Fills what is white in the mask with patches of the image itself. Every other pixel stays as it is."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {
            "required": {
                "image": ("IMAGE",),
                "mask": ("MASK",),
                "quality": (["good", "fast", "best"],),
                "grow": ("INT", {"default": 0, "min": 0, "max": 512, "tooltip": "Dilation of the mask in pixels."}),
                "seed": SEED,
            }
        }

    def run(self, image: Tensor, mask: Tensor, quality: str, grow: int, seed: int) -> tuple[Tensor]:
        def fill(one: NDArray[Any], hole: NDArray[Any]) -> NDArray[Any]:
            return arrays.inpaint(one, hole > 0.5, quality=quality, grow=grow, seed=seed)

        return (_each(fill, image=image, mask=mask),)


class Upscale:
    """Enlarge an image with detail from its own patches."""

    CATEGORY, FUNCTION, RETURN_TYPES = "patchattn", "run", ("IMAGE",)
    DESCRIPTION = "Enlarges an image 2, 3 or 4 times with detail from its own patches; no model is needed."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {"required": {"image": ("IMAGE",), "scale": ("INT", {"default": 2, "min": 2, "max": 4})}}

    def run(self, image: Tensor, scale: int) -> tuple[Tensor]:
        return (_each(lambda one: arrays.upscale(one, scale), image=image),)


class Colorize:
    """Color an image with the colors of similar patches in a reference."""

    CATEGORY, FUNCTION, RETURN_TYPES = "patchattn", "run", ("IMAGE",)
    DESCRIPTION = "Colors an image as what looks like it in the reference is colored; its brightness stays."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {"required": {"image": ("IMAGE",), "reference": ("IMAGE",), "seed": SEED}}

    def run(self, image: Tensor, reference: Tensor, seed: int) -> tuple[Tensor]:
        def color(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
            return arrays.colorize(one, other, seed=seed)

        return (_each(color, image=image, reference=reference),)


class Match:
    """Rebuild an image from the most similar patches of a reference, and show how unlike they are."""

    CATEGORY, FUNCTION, RETURN_TYPES, RETURN_NAMES = "patchattn", "run", ("IMAGE", "MASK"), ("matched", "distance")
    DESCRIPTION = (
        "Puts at every pixel the one of the reference whose patch is most alike. The mask is the distance of the "
        "patches: the root mean square difference, from 0 (the same) to 1."
    )

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        patch = {"default": 7, "min": 1, "max": 31, "step": 2}
        return {"required": {"image": ("IMAGE",), "reference": ("IMAGE",), "patch_size": ("INT", patch), "seed": SEED}}

    def run(self, image: Tensor, reference: Tensor, patch_size: int, seed: int) -> tuple[Tensor, Tensor]:
        def rebuild(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
            coordinates, distance = arrays.nearest_patches(one, other, patch_size=patch_size, seed=seed)
            distance = np.sqrt(distance / (patch_size**2 * one.shape[2]))
            return np.dstack([other[tuple(coordinates)], distance.astype(np.float32)])

        both = _each(rebuild, image=image, reference=reference)
        return both[..., :-1], both[..., -1]


def _each(function: Callable[..., NDArray[Any]], **inputs: Tensor) -> Tensor:
    """Call a function with every image of a batch, and put its results into one."""
    count = max(batch.shape[0] for batch in inputs.values())
    for name, batch in inputs.items():
        if batch.shape[0] not in (1, count):
            raise ValueError(f"{name}: got a batch of {batch.shape[0]}; expected 1 or {count}, as another input has.")
    held = [batch.detach().cpu().float().clamp(0, 1).numpy() for batch in inputs.values()]
    results = [function(*(batch[n % len(batch)] for batch in held)) for n in range(count)]
    return torch.from_numpy(np.stack(results))


NODE_CLASS_MAPPINGS = {
    "PatchattnInpaint": Inpaint,
    "PatchattnUpscale": Upscale,
    "PatchattnColorize": Colorize,
    "PatchattnMatch": Match,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "PatchattnInpaint": "Inpaint (patches)",
    "PatchattnUpscale": "Upscale (patches)",
    "PatchattnColorize": "Colorize by reference (patches)",
    "PatchattnMatch": "Match patches",
}
