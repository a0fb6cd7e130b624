"""Channel-last copies of images with their padding, as the kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.aligned import LINE
from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.vectors import SLACK
from patchattn.problem import PatchGeometry
from patchattn.similarity import Similarity

__all__ = [
    "PADDING_MODES",
    "ZEROS",
    "PaddedImage",
    "compute_dtype",
    "empty",
    "pad",
    "pad_item",
    "pad_pair",
    "three",
    "unpad_gradient",
    "unpad_item",
    "value_geometry",
]

SMALL = 1 << 16
"""Elements up to which one kernel is faster than PyTorch's functions, of which there is one for each border."""
ZEROS, REPLICATE, REFLECT = range(3)
PADDING_MODES = {"zeros": ZEROS, "replicate": REPLICATE, "reflect": REFLECT}


@dataclass(frozen=True)
class PaddedImage:
    """Images as flat arrays, one for each (batch item, head), of shape (T + 2r, H + 2r, W + 2r, C) each."""

    rows: NDArray[Any]
    """A row for each item: all heads of the first batch item, then of the next. Slack comes after the last."""
    size: tuple[int, int, int]
    """Spatial size without padding, always three dimensions."""
    radius: tuple[int, int, int]
    channels: int

    def item(self, n: int) -> NDArray[Any]:
        """The array of item n; a single batch item is shared by all."""
        row: NDArray[Any] = self.rows[n % len(self.rows)]
        return row


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def three(values: tuple[int, ...], fill: int) -> tuple[int, int, int]:
    """Extend one to three values to three by leading `fill`s."""
    t, y, x = (fill,) * (3 - len(values)) + tuple(values)
    return t, y, x


def empty(count: int, elements: int, dtype: torch.dtype) -> Tensor:
    """Return an aligned `(count, elements)` tensor, rows end to end, with slack after the last."""
    width = dtype.itemsize
    buffer = torch.empty(count * elements + SLACK + LINE // width, dtype=dtype)
    shift = (-buffer.data_ptr() % LINE) // width
    buffer[shift + count * elements :].zero_()
    return buffer[shift : shift + count * elements].view(count, elements)


def pad(image: Tensor, geometry: PatchGeometry, padded: bool = True, dtype: torch.dtype | None = None) -> PaddedImage:
    """Copy `(B, C, *spatial)` to the kernels' layout, in the dtype they compute in, or another.

    With `padded=False` the padding is left out: for values, of which no patches are read.
    """
    dtype = compute_dtype(image.dtype) if dtype is None else dtype
    batch, heads = image.shape[0], geometry.num_heads
    channels = image.shape[1] // heads
    size = three(tuple(image.shape[2:]), 1)
    radius = three(geometry.radius, 0) if padded else (0, 0, 0)
    extent = [n + 2 * r for n, r in zip(size, radius, strict=True)]
    rows = empty(batch * heads, extent[0] * extent[1] * extent[2] * channels, dtype)
    if rows.numel() <= SMALL:
        source = image.detach().to(dtype).reshape(batch * heads, channels, size[0] * size[1] * size[2])
        _pad_items(source.contiguous().numpy(), size, radius, PADDING_MODES[geometry.padding_mode], rows.numpy())
        return PaddedImage(rows.numpy(), size, radius, channels)
    copies = rows.view(batch * heads, *extent, channels)
    interior = copies
    for dim in range(3):
        interior = interior.narrow(dim + 1, radius[dim], size[dim])
    interior.copy_(image.detach().reshape(batch * heads, channels, *size).movedim(1, -1))
    # Innermost first: each later dimension copies whole rows that are padded already.
    for dim in (2, 1, 0):
        _fill_border(copies, dim, size, radius, geometry.padding_mode)
    return PaddedImage(rows.numpy(), size, radius, channels)


@inlined
def pad_item(image: Any, size: Any, radius: Any, padding: int, output: Any) -> None:
    """Write one item, `(channels, positions)`, to the kernels' layout."""
    channels = image.shape[0]
    at = 0
    for slice_ in range(size[0] + 2 * radius[0]):
        t = _inside(slice_ - radius[0], size[0], padding)
        for row in range(size[1] + 2 * radius[1]):
            y = _inside(row - radius[1], size[1], padding)
            for column in range(size[2] + 2 * radius[2]):
                x = _inside(column - radius[2], size[2], padding)
                if t < 0 or y < 0 or x < 0:
                    for c in range(channels):
                        output[at + c] = 0
                else:
                    position = (t * size[1] + y) * size[2] + x
                    for c in range(channels):
                        output[at + c] = image[c, position]
                at += channels


@inlined
def _inside(at: int, size: int, padding: int) -> int:
    """The position that one in the padding is a copy of; -1: it is 0."""
    if 0 <= at < size:
        return at
    if padding == ZEROS:
        return -1
    if padding == REPLICATE:
        return 0 if at < 0 else size - 1
    return -at if at < 0 else 2 * (size - 1) - at


@kernel()
def _pad_items(images: Any, size: Any, radius: Any, padding: int, output: Any) -> None:
    for item in range(len(images)):
        pad_item(images[item], size, radius, padding, output[item])


def value_geometry(index: Tensor) -> PatchGeometry:
    """The geometry of values that a `(B, heads, k, *query)` index points to: split into heads, no patches."""
    return PatchGeometry((1,) * (index.dim() - 3), "zeros", index.shape[1], Similarity("l2"))


def pad_pair(
    query: Tensor, key: Tensor, geometry: PatchGeometry, dtype: torch.dtype | None = None
) -> tuple[PaddedImage, PaddedImage]:
    """`pad` both; one copy serves for both where they are the same tensor (self-attention)."""
    queries = pad(query, geometry, dtype=dtype)
    same = (query.data_ptr(), query.shape, query.stride(), query.dtype) == (
        key.data_ptr(), key.shape, key.stride(), key.dtype,
    )  # fmt: skip
    return queries, queries if same else pad(key, geometry, dtype=dtype)


def _fill_border(copies: Tensor, dim: int, size: tuple[int, ...], radius: tuple[int, ...], mode: str) -> None:
    """Fill the padding of one dimension, over the extent that the dimensions after it have already."""
    r, n = radius[dim], size[dim]
    if r == 0:
        return
    region = copies
    for earlier in range(dim):
        region = region.narrow(earlier + 1, radius[earlier], size[earlier])
    low, high = region.narrow(dim + 1, 0, r), region.narrow(dim + 1, r + n, r)
    if mode == "zeros":
        low.zero_()
        high.zero_()
    elif mode == "replicate":
        low.copy_(region.narrow(dim + 1, r, 1).expand_as(low))
        high.copy_(region.narrow(dim + 1, r + n - 1, 1).expand_as(high))
    else:
        low.copy_(region.narrow(dim + 1, r + 1, r).flip(dim + 1))
        high.copy_(region.narrow(dim + 1, n - 1, r).flip(dim + 1))


def unpad_gradient(
    rows: Tensor, shape: Sequence[int], dtype: torch.dtype, geometry: PatchGeometry, padded: bool = True
) -> Tensor:
    """The adjoint of `pad`: fold the gradient of the padding back; contiguous, with this shape and dtype."""
    batch, heads = shape[0], geometry.num_heads
    channels = shape[1] // heads
    size = three(tuple(shape[2:]), 1)
    radius = three(geometry.radius, 0) if padded else (0, 0, 0)
    output = torch.empty(tuple(shape), dtype=dtype)
    if rows.numel() <= SMALL and geometry.padding_mode != "replicate" and dtype == rows.dtype:
        target = output.view(batch * heads, channels, size[0] * size[1] * size[2]).numpy()
        _unpad_items(rows.numpy(), size, radius, PADDING_MODES[geometry.padding_mode], target)
        return output
    region = rows.view(batch * heads, *(n + 2 * r for n, r in zip(size, radius, strict=True)), channels)
    for dim in range(3):
        region = _fold_border(region, dim + 1, size[dim], radius[dim], geometry.padding_mode)
    output.view(batch * heads, channels, *size).copy_(region.movedim(-1, 1))
    return output


def _fold_border(region: Tensor, dim: int, n: int, r: int, mode: str) -> Tensor:
    if r == 0:
        return region
    if mode == "replicate":
        region.narrow(dim, r, 1).add_(region.narrow(dim, 0, r).sum(dim, keepdim=True))
        region.narrow(dim, r + n - 1, 1).add_(region.narrow(dim, r + n, r).sum(dim, keepdim=True))
    elif mode == "reflect":
        region.narrow(dim, r + 1, r).add_(region.narrow(dim, 0, r).flip(dim))
        region.narrow(dim, n - 1, r).add_(region.narrow(dim, r + n, r).flip(dim))
    return region.narrow(dim, r, n)


@kernel()
def _unpad_items(rows: Any, size: Any, radius: Any, padding: int, output: Any) -> None:
    """Fold one dimension after the other, the lower border before the upper one, as for larger images."""
    for item in range(len(rows)):
        unpad_item(rows[item], size, radius, padding, output[item])


@inlined
def unpad_item(row: Any, size: Any, radius: Any, padding: int, output: Any) -> None:
    """The adjoint of `pad_item`, without `REPLICATE`: `output` is `(channels, positions)`, and `row` is changed."""
    channels = output.shape[0]
    height, width = size[1] + 2 * radius[1], size[2] + 2 * radius[2]
    steps = height * width * channels, width * channels, channels
    # The part that is not folded yet of the dimensions after this one, and no border of those before it.
    if padding == REFLECT:
        for dim in range(3):
            r, n = radius[dim], size[dim]
            for d in range(2 * r):
                source, target = (d, 2 * r - d) if d < r else (n + d, 2 * (n + r - 1) - (n + d))
                _add_plane(row, dim, source * steps[dim], target * steps[dim], size, radius, steps)
    for t in range(size[0]):
        for y in range(size[1]):
            for x in range(size[2]):
                at = ((t + radius[0]) * height + y + radius[1]) * width + x + radius[2]
                position = (t * size[1] + y) * size[2] + x
                for c in range(channels):
                    output[c, position] = row[at * channels + c]


@inlined
def _add_plane(row: Any, dim: int, source: int, target: int, size: Any, radius: Any, steps: Any) -> None:
    first, second = (1, 2) if dim == 0 else ((0, 2) if dim == 1 else (0, 1))
    # Earlier dimensions without their borders, which are folded; later ones with them.
    for a in range(_begin(first, dim, radius), _end(first, dim, size, radius)):
        for b in range(_begin(second, dim, radius), _end(second, dim, size, radius)):
            at = a * steps[first] + b * steps[second]
            for c in range(steps[2]):
                row[target + at + c] += row[source + at + c]


@inlined
def _begin(dim: int, folded: int, radius: Any) -> int:
    return radius[dim] if dim < folded else 0


@inlined
def _end(dim: int, folded: int, size: Any, radius: Any) -> int:
    return size[dim] + radius[dim] if dim < folded else size[dim] + 2 * radius[dim]
