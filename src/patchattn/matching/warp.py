"""Images drawn on a canvas: copies rotated, scaled and mirrored by bicubic interpolation, with gradients."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor
from torch.nn import functional

from patchattn.canvas import GRID, CanvasLayout, Tile
from patchattn.ops.weighted_sum import weighted_sum

__all__ = ["draw"]

BANDS, MIN_ROWS, BAND_PIXELS = 8, 16, 2**18
"""Bands of rows, in which only what lies about the image is drawn: their number, the rows that they have at least if
there are several, and the pixels at most: each takes 16 positions and weights."""


def draw(image: Tensor, layout: CanvasLayout, padding_mode: str, backend: str, ratio: int = 1) -> Tensor:
    """Draw the copies of an image, `(B, C, *(ratio key))`, on their canvas: `(B, C, *(ratio canvas))`.

    Copies that are smaller than the image are blurred as a reduced image is, by Keys' kernel (a = -1/2) of their
    pixels' width. Where pixels fall on pixels (quarter turns and mirrors), they are copied. Around a copy the
    image goes on as its padding does. All are sums with fixed weights: gradients are the same from run to
    run, and of every order.
    """
    batch, channels, *size = image.shape
    if tuple(size) != tuple(ratio * n for n in layout.key_shape):
        raise AssertionError(f"expected {ratio} times {layout.key_shape}, got {tuple(size)}")
    planes = image.reshape(1, batch * channels, *size)
    height, width = (ratio * n for n in layout.shape)
    rows = []
    for top in sorted({tile.top for tile in layout.tiles}):
        shelf = sorted((tile for tile in layout.tiles if tile.top == top), key=lambda tile: tile.left)
        copies = [_copy(planes, tile, layout, padding_mode, backend, ratio) for tile in shelf]
        highest = ratio * max(tile.height for tile in shelf)
        copies = [_enlarged(copy, highest, copy.shape[3]) for copy in copies]
        rows.append(_enlarged(torch.cat(copies, 3), highest, width))
    return torch.cat(rows, 2).reshape(batch, channels, height, width)


def _enlarged(image: Tensor, height: int, width: int) -> Tensor:
    return functional.pad(image, (0, width - image.shape[3], 0, height - image.shape[2]))


def _copy(image: Tensor, tile: Tile, layout: CanvasLayout, padding_mode: str, backend: str, ratio: int) -> Tensor:
    """One copy, `(1, planes, ratio height, ratio width)`."""
    sizes = image.shape[2], image.shape[3]
    scale, reach = tile.transform.scale, float(2 * ratio * sum(layout.margin))
    reduction = max(scale, 1.0)
    if scale > 1:
        # Patches at the border, and what interpolation reads beyond them.
        extra = ceil(reach) + 3
        for dim in (2, 3):
            size = ceil(image.shape[dim] / scale) + 2 * extra
            image = _reduced(image, size, scale, padding_mode, backend, dim)
        padding_mode = "replicate"
    drawn = image.shape[2], image.shape[3]
    height, width = ratio * tile.height, ratio * tile.width
    count = max(1, min(height // MIN_ROWS, BANDS), -(-height * width // BAND_PIXELS))
    bands = []
    for n in range(count):
        rows = range(height * n // count, height * (n + 1) // count)
        columns = tile.columns_within(sizes, rows, reach * reduction + 1, ratio)
        at = tile.positions(drawn, image.device, ratio=ratio, reduction=reduction, rows=slice(rows.start, rows.stop))
        y, x = (one[:, columns.start : columns.stop] for one in at)
        if tile.transform.keeps_pixels:
            part = _interpolated(image, _whole(y, drawn[0], padding_mode), _whole(x, drawn[1], padding_mode), backend)
        else:
            part = _interpolated(image, _taps(y, drawn[0], padding_mode), _taps(x, drawn[1], padding_mode), backend)
        bands.append(functional.pad(part, (columns.start, width - columns.stop)))
    return torch.cat(bands, 2)


Taps = tuple[Tensor, Tensor]
"""Sources along one dimension, int32 with -1 for none, and their weights: `(*positions, taps)`."""


def _interpolated(image: Tensor, rows: Taps, columns: Taps, backend: str) -> Tensor:
    """Sum the pixels at all pairs of taps."""
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    (y, of_y), (x, of_x) = ((source, weight.to(dtype)) for source, weight in (rows, columns))
    y, x = y[..., None], x[..., None, :]
    index = torch.where((y < 0) | (x < 0), -1, y * image.shape[3] + x)
    weight = (of_y[..., None] * of_x[..., None, :]).expand(index.shape)
    lists = (one.flatten(2).movedim(2, 0)[None, None] for one in (weight, index))
    output: Tensor = weighted_sum(*lists, image, backend)
    return output


def _whole(at: Tensor, size: int, padding_mode: str) -> Taps:
    """Whole positions, each its own source."""
    at = at.div(GRID, rounding_mode="floor")[..., None]
    return _sources(at, size, padding_mode), torch.ones((1,) * at.dim(), dtype=torch.float64, device=at.device)


def _taps(at: Tensor, size: int, padding_mode: str) -> Taps:
    """Sources and weights of Keys' kernel about positions in parts of `GRID`."""
    first = at.div(GRID, rounding_mode="floor")
    steps = torch.arange(-1, 3, dtype=torch.int32, device=at.device)
    parts = torch.arange(GRID, dtype=torch.float64, device=at.device)[:, None] / GRID
    table = _keys_kernel(parts - steps)
    return _sources(first[..., None] + steps, size, padding_mode), table[(at - GRID * first).long()]


def _keys_kernel(distance: Tensor) -> Tensor:
    """Keys' cubic kernel with a = -1/2, normalized over the last dimension."""
    distance = distance.abs()
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weight = torch.where(distance < 1, near, torch.where(distance < 2, far, 0))
    return weight / weight.sum(-1, keepdim=True)


def _reduced(image: Tensor, size: int, scale: float, padding_mode: str, backend: str, dim: int) -> Tensor:
    """Reduce one dimension to `size` pixels, each `scale` pixels wide; the centers of both images coincide."""
    own, other = image.shape[dim], image.shape[5 - dim]
    at = (torch.arange(size, dtype=torch.float64, device=image.device) - (size - 1) / 2) * scale + (own - 1) / 2
    taps = (at - 2 * scale).floor()[:, None] + torch.arange(1, ceil(4 * scale) + 2, device=image.device)
    along = _sources(taps.int(), own, padding_mode), _keys_kernel((taps - at[:, None]) / scale)
    positions = torch.arange(other, dtype=torch.int32, device=image.device)[:, None]
    across = positions, torch.ones((1, 1), dtype=torch.float64, device=image.device)
    if dim == 2:
        return _interpolated(image, _on_rows(along), _on_columns(across), backend)
    return _interpolated(image, _on_rows(across), _on_columns(along), backend)


def _on_rows(taps: Taps) -> Taps:
    return taps[0][:, None], taps[1][:, None]


def _on_columns(taps: Taps) -> Taps:
    return taps[0][None], taps[1][None]


def _sources(at: Tensor, size: int, padding_mode: str) -> Tensor:
    """The positions inside of a line that positions on it, and beyond its ends, read; -1 reads zero."""
    if padding_mode == "zeros":
        return torch.where((at >= 0) & (at < size), at, -1)
    if padding_mode == "replicate":
        return at.clamp(0, size - 1)
    period = max(1, 2 * (size - 1))
    at = at.remainder(period)
    return torch.minimum(at, period - at)
