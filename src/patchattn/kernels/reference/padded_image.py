"""A padded image and its patches, which are read one element at a time and never copied whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from patchattn.kernels.reference.gather import split_heads, sum_by_position, take
from patchattn.kernels.reference.positions import centered, coordinates, flatten
from patchattn.problem import PatchGeometry

__all__ = ["PaddedImage", "pad", "sources", "unpad_gradient"]


def sources(size: int, radius: int, padding_mode: str) -> list[int]:
    """Return which position of a line of `size` each position of the padded line reads; -1 reads zero.

    Reflection goes on to and fro where the radius exceeds the line, as in `numpy.pad`.
    """
    line = range(-radius, size + radius)
    if padding_mode == "zeros":
        return [position if 0 <= position < size else -1 for position in line]
    if padding_mode == "replicate":
        return [min(max(position, 0), size - 1) for position in line]
    period = max(1, 2 * (size - 1))
    return [min(position % period, period - position % period) for position in line]


def pad(image: Tensor, radius: Sequence[int], padding_mode: str) -> Tensor:
    """Pad the last `len(radius)` dimensions of an image by the radius on both sides."""
    for dim, extra in enumerate(radius, start=image.dim() - len(radius)):
        source = torch.tensor(sources(image.shape[dim], extra, padding_mode), device=image.device)
        image = image.index_select(dim, source.clamp(min=0))
        present = source.reshape([-1 if d == dim else 1 for d in range(image.dim())]) >= 0
        image = torch.where(present, image, 0)
    return image


def unpad_gradient(gradient: Tensor, radius: Sequence[int], padding_mode: str) -> Tensor:
    """Return the gradient of an image from that of the padded image: each border line is added to its source."""
    for dim, extra in enumerate(radius, start=gradient.dim() - len(radius)):
        size = gradient.shape[dim] - 2 * extra
        inner = gradient.narrow(dim, extra, size).clone()
        for place, source in enumerate(sources(size, extra, padding_mode)):
            if source >= 0 and not extra <= place < extra + size:
                inner.select(dim, source).add_(gradient.select(dim, place))
        gradient = inner
    return gradient


class PaddedImage:
    """An image that is padded once, and its patches about any of its positions.

    Args:
        image: `(B, C, *spatial)`.
        geometry: Extent of a patch, padding, heads.
        dtype: The compute dtype; the image is converted to it.
    """

    def __init__(self, image: Tensor, geometry: PatchGeometry, dtype: torch.dtype) -> None:
        self.shape = tuple(image.shape[2:])
        self.geometry = geometry
        self.image_dtype = image.dtype
        padded = pad(split_heads(image.to(dtype), geometry.num_heads), geometry.radius, geometry.padding_mode)
        self.padded_shape = tuple(padded.shape[3:])
        self.pixels = padded.flatten(3)
        """`(B, heads, C / heads, padded pixels)`."""

    def places(self, positions: Tensor) -> Iterator[Tensor]:
        """For each offset of the patch, yield the padded pixels under it about int64 `positions`; -1 stays -1."""
        for offset in centered(self.geometry.patch_size):
            shifted = [
                coordinate + radius + by
                for coordinate, radius, by in zip(
                    coordinates(positions, self.shape), self.geometry.radius, offset, strict=True
                )
            ]
            yield torch.where(positions >= 0, flatten(shifted, self.padded_shape), -1)

    def elements(self, positions: Tensor) -> Iterator[Tensor]:
        """For each offset of the patch, yield its pixels: `(B, heads, C / heads, *any)` at `(B, heads, *any)`."""
        return (take(self.pixels, place) for place in self.places(positions))

    def sum_gradient(self, contribution: Tensor, place: Tensor) -> Tensor:
        """Sum contributions to the padded pixels `place`: the transpose of `elements` for one offset."""
        return sum_by_position(contribution, place, self.pixels.shape[3], self.pixels.shape[0])

    def image_gradient(self, gradient: Tensor) -> Tensor:
        """Turn the gradient of `pixels` into that of the image, `(B, C, *spatial)` of the image's dtype."""
        padded = torch.unflatten(gradient, 3, self.padded_shape)
        inner = unpad_gradient(padded, self.geometry.radius, self.geometry.padding_mode)
        return inner.flatten(1, 2).to(self.image_dtype)
