"""Share of a completed hole that repeats what it copies, measured on the result of any program.

For every patch of 7x7 wholly inside the hole, the nearest patch wholly outside it is found in the original; the pixel
in the center of the latter is the source of the one in the center of the former. A source that more than two pixels
have is repeated. Each patch is taken less its mean color: programs that copy fit the brightness of their copies to the
surroundings, by amounts that vary slowly, and without the means a copy in a smooth area would be found where the
brightness is equal instead of where it comes from. Natural images repeat too (sky), so the truth's own share is the
one to compare with.

The search is guided, not exact: on holes of 512x512 photographs the shares differ by less than 0.01 where the truth or
copies fill the hole (by 0.05 where a blur does), in a tenth of the time.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import unfold

from patchattn import match

PATCH = 7
MAX_USES = 2
"""A source of more pixels is repeated."""
Image = NDArray[np.float64]
"""RGB (height, width, 3) in [0, 1]."""
Mask = NDArray[np.bool_]


def repeated_copies(filled: Image, original: Image, hole: Mask) -> float:
    """Share of the hole's pixels whose source in the original is repeated; nan if no patch fits into the hole."""
    inside, outside = whole_patches(hole), whole_patches(~hole)
    if not outside.any():
        raise ValueError(
            f"hole: no patch of {PATCH}x{PATCH} pixels lies outside of it, so that nothing can be a source; expected "
            "a smaller hole."
        )
    if not inside.any():
        return math.nan
    field = match(
        patches_of(filled), patches_of(original), patch_size=1, method="guided",
        query_mask=inside[None], key_mask=outside[None],
    )  # fmt: skip
    sources = field.index[0, 0, 0][inside]
    return float((sources.bincount()[sources] > MAX_USES).double().mean())


def whole_patches(where: Mask) -> Tensor:
    """Patches, by their first pixels, that lie wholly in a mask."""
    return torch.from_numpy(sliding_window_view(where, (PATCH, PATCH)).all((2, 3)))


def patches_of(image: Image) -> Tensor:
    """All patches, less their mean colors, as the channels of a (1, channels, height - 6, width - 6) tensor."""
    pixels = torch.from_numpy(image).float().movedim(2, 0)[None]
    patches = unfold(pixels, PATCH).view(1, 3, PATCH**2, -1)
    height, width = (extent - PATCH + 1 for extent in image.shape[:2])
    return (patches - patches.mean(2, keepdim=True)).view(1, -1, height, width)
