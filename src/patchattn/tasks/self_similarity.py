"""Super-resolution of a gray image by its self-similarity across scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchattn.attention import patch_attention
from patchattn.tasks.resampling import back_project, resize

__all__ = ["STEPS", "SelfSimilarityUpscaler"]

STEPS = 4
"""Number of enlargement steps by equal ratios, whatever the scale. Fewer find less detail at large ratios; 8 took twice
the time for the same PSNR."""
BLEND = 0.5
"""Interpolation weight of the second attention: how far each step moves towards the low image's own patches."""
BAND_PIXELS = 2**21
"""Number of queries that are processed at once, which bounds the memory of their matches."""
HALO = 32
"""Overlap of bands in rows above and below (more for larger patches); also the granularity of band heights.

A guided search hands matches on within 16 rows and to the 16 beside them, and a vote comes from less than 16 rows away:
with two times 16 rows beyond it a band has the matches and votes that it would have in the whole image."""


@dataclass(frozen=True)
class SelfSimilarityUpscaler:
    """Patch-based upscaler of gray images; see `tasks.upscale.upscale` for method and settings."""

    patch_size: int
    k: int
    temperature: float
    seed: int
    band: int = BAND_PIXELS

    def enlarge(
        self, low: Float[Tensor, "1 1 height width"], scale: int, report: Callable[[str], None]
    ) -> Float[Tensor, "1 1 high_height high_width"]:
        """Enlarge an image `scale` times, reporting each step as it begins."""
        ratio = scale ** (1 / STEPS)
        blurred = resize(resize(low, _sized(low, 1 / ratio)), _sized(low, 1))
        detail = low - blurred
        high = low
        for step in range(1, STEPS + 1):
            report(f"step {step} of {STEPS}")
            high = resize(high, _sized(low, ratio**step))
            high = back_project(high + self._attend(high, blurred, detail), low)
            high = back_project(high.lerp(self._attend(high, low, low), BLEND), low)
        return high

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend to all of the key from one band of the query after another."""
        output = torch.empty_like(query)
        height, width = query.shape[2:]
        halo = -(-self.patch_size // HALO) * HALO
        for low, high in _bands(height, width, self.band):
            first, last = max(low - halo, 0), min(high + halo, height)
            attended = patch_attention(
                query[:, :, first:last],
                key,
                value,
                k=min(self.k, key.numel()),
                patch_size=self.patch_size,
                temperature=self.temperature,
                aggregate=True,
                seed=self.seed,
                padding_mode="replicate",
            )
            output[:, :, low:high] = attended[:, :, low - first : high - first]
        return output


def _bands(height: int, width: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield bands of rows of about `size` pixels; they depend on the image size only."""
    rows = max(size // width // HALO, 1) * HALO
    for low in range(0, height, rows):
        yield low, min(low + rows, height)


def _sized(image: Tensor, ratio: float) -> tuple[int, int]:
    height, width = (max(round(ratio * extent), 1) for extent in image.shape[2:])
    return height, width
