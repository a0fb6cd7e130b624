"""Super-resolution of a gray image by its self-similarity across scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from patchattn.attention import patch_attention
from patchattn.reuse import keep_prepared_keys
from patchattn.tasks.resampling import back_project, resize
from patchattn.tasks.windows import running_sum

__all__ = ["STEPS", "SelfSimilarityUpscaler"]

STEPS = {2: 3, 3: 4, 4: 4}
"""Number of enlargement steps, by equal ratios, for each scale. Fewer find less detail (two instead of three at scale
2: 0.1 dB on buildings), more cost time."""
BLEND = 0.5
"""Interpolation weight of what resembles the result: how far each step moves towards the low image's own patches."""
CENTERING = 0.4
"""Share of its local mean that patches are compared without. Detail recurs under other light: 0.1 dB better than 0.
Without all of it flat areas match anything."""
FIRST_SCANS, LATER_SCANS = 2, 1
"""Scans of the guided search in the first step and in the others, which are larger. Two in all steps gain 0.03 to
0.05 dB on buildings for an eighth more time, one in all loses 0.01 to 0.02 dB."""
FLAT = 3 / 255
"""Standard deviation of a window of luma below which nothing is searched: no detail is missing there."""
BUSY = 16 / 255
"""Standard deviation of a window from which on pixels that alternate are no grain, but detail: 0.2 dB on buildings."""
MIN_WINDOW = 3
"""Smallest side of the window of local mean and standard deviation, else `patch_size`."""
BAND_PIXELS = 2**21
"""Number of queries that are processed at once, which bounds the memory of their matches."""
HALO = 32
"""Overlap of bands in rows above and below (more for larger patches); also the granularity of band heights.

A guided search hands matches on within 16 rows and to those beside them, and a vote comes from less than 16 rows away:
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
        steps = STEPS[scale]
        ratio = scale ** (1 / steps)
        blurred = resize(resize(low, _sized(low, 1 / ratio)), _sized(low, 1))
        key = blurred - CENTERING * self._local_mean(blurred)
        value = torch.cat([low - blurred, low, torch.ones_like(low)], 1)
        high = low
        with keep_prepared_keys():
            for step in range(1, steps + 1):
                report(f"step {step} of {steps}")
                high = resize(high, _sized(low, ratio**step))
                detail, similar = self._attend(high, key, value, FIRST_SCANS if step == 1 else LATER_SCANS)
                high = back_project(high + detail, low)
                high = back_project(high.lerp(similar, BLEND), low)
        return high

    def _attend(self, image: Tensor, key: Tensor, value: Tensor, scans: int) -> tuple[Tensor, Tensor]:
        """Attend to all of the key from one band of the image after another.

        Return the detail that the patches of the low image lost by blurring, and those patches; where no patch was
        asked, no detail and the image.
        """
        detail, similar = torch.empty_like(image), torch.empty_like(image)
        height, width = image.shape[2:]
        halo = -(-2 * self.patch_size // HALO) * HALO  # the local mean, the patch and the vote: half a patch each
        for low, high in _bands(height, width, self.band):
            first, last = max(low - halo, 0), min(high + halo, height)
            band = image[:, :, first:last]
            mean = self._local_mean(band)
            variance = self._local_mean(band.square()) - mean.square()
            attended = patch_attention(
                band - CENTERING * mean,
                key,
                value,
                k=min(self.k, key.numel()),
                patch_size=self.patch_size,
                temperature=self.temperature,
                aggregate=True,
                iterations=scans,
                query_mask=_asked(variance),
                seed=self.seed,
                padding_mode="replicate",
            )
            inner = slice(low - first, high - first)
            lost, found, heard = (attended[:, n : n + 1] for n in range(3))
            found = torch.where(heard > 0.5, found, band)
            for part, output in ((lost, detail), (found, similar)):
                part = torch.where(variance < BUSY**2, _without_chessboard(part), part)
                output[:, :, low:high] = part[:, :, inner]
        return detail, similar

    def _local_mean(self, image: Tensor) -> Tensor:
        side = max(self.patch_size, MIN_WINDOW)
        padded = functional.pad(image, (side // 2,) * 4, mode="replicate")
        return running_sum(running_sum(padded, side, 2), side, 3) / side**2


def _asked(variance: Tensor) -> Tensor:
    """Every second patch, as on a chessboard, of those that are not flat: each pixel lies in a dozen others.

    Bands begin at even rows, so that the pattern is that of the whole image.
    """
    rows, columns = (torch.arange(size, device=variance.device) for size in variance.shape[2:])
    return (variance[:, 0] > FLAT**2) & ((rows[:, None] + columns) % 2 == 0)


def _without_chessboard(image: Tensor) -> Tensor:
    """Remove the finest pattern: black and white squares of one pixel.

    The pixels of one color of the chessboard hear none of those that the others hear, which smooth areas show as grain.
    """
    padded = functional.pad(image, (1, 1, 1, 1), mode="replicate")
    rows = padded[:, :, :-2] - 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    return image - (rows[..., :-2] - 2 * rows[..., 1:-1] + rows[..., 2:]) / 16


def _bands(height: int, width: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield bands of rows of about `size` pixels; they depend on the image size only."""
    rows = max(size // width // HALO, 1) * HALO
    for low in range(0, height, rows):
        yield low, min(low + rows, height)


def _sized(image: Tensor, ratio: float) -> tuple[int, int]:
    height, width = (max(round(ratio * extent), 1) for extent in image.shape[2:])
    return height, width
