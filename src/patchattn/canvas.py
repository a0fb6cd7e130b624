"""The canvas of a key image: copies of it under several transforms, side by side in one image.

A patch of the copy under A about the position of x holds the key at x + A o for each offset o of the patch, so that a
search of the canvas for patches as they are finds patches of the key that are rotated, scaled and mirrored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, prod, radians, sin, sqrt

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

__all__ = ["CanvasLayout", "Tile", "Transform"]

GRID = 256
"""Positions are rounded to so many parts of a pixel: quarter turns then fall on pixels exactly, and there are so many
sets of weights to interpolate with."""

Matrix = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Transform:
    """A similarity transform of the plane without its translation: how a match's patch lies in the key.

    Beside the query's patch, that in the key is mirrored left to right (if `mirror`), then rotated counterclockwise by
    `angle` degrees, and `scale` times as large.
    """

    angle: float = 0.0
    scale: float = 1.0
    mirror: bool = False

    @property
    def matrix(self) -> Matrix:
        """The offset in the key, (row, column), of an offset in the query."""
        turn = radians(self.angle)
        c, s = _exact(self.scale * cos(turn)), _exact(self.scale * sin(turn))
        return ((c, s), (s, -c)) if self.mirror else ((c, -s), (s, c))

    @property
    def keeps_pixels(self) -> bool:
        """Whether pixels fall on pixels: nothing is interpolated."""
        return all(entry in (-1, 0, 1) for row in self.matrix for entry in row)


@dataclass(frozen=True)
class Tile:
    """One copy on the canvas: where it lies, and which position of the key each of its positions shows."""

    transform: Transform
    top: int
    left: int
    height: int
    width: int

    def positions(
        self,
        sizes: tuple[int, int],
        device: torch.device | str,
        *,
        ratio: int = 1,
        reduction: float = 1.0,
        rows: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """Return the rows and columns of an image at the tile's pixels, int32 `(rows, ratio width)`, in 1 / `GRID`.

        Args:
            sizes: of the image, the center of which lies on that of the tile.
            device: of what is returned.
            ratio: how many times larger than the key the image is, and than the tile what is drawn.
            reduction: how many times smaller it is.
            rows: those of the `ratio height` rows that are asked for.
        """
        y, x = (
            torch.arange(ratio * n, dtype=torch.float64, device=device) + 0.5 * (1 - ratio * n)
            for n in (self.height, self.width)
        )
        part = GRID / reduction
        found = [
            torch.round((part * row[0] * y[rows])[:, None] + part * row[1] * x + 0.5 * GRID * (n - 1)).int()
            for row, n in zip(self.transform.matrix, sizes, strict=True)
        ]
        return found[0], found[1]

    def columns_within(self, sizes: tuple[int, int], rows: range, reach: float, ratio: int = 1) -> range:
        """Return the columns outside of which no pixel of some rows lies within `reach` of the image."""
        (a, b), (c, d) = self.transform.matrix
        low, high = 0.0, float(ratio * self.width)
        ys = (rows.start - ratio * self.height / 2, rows.stop - ratio * self.height / 2)
        for along, across, n in ((b, a, sizes[0]), (d, c, sizes[1])):
            # |across y + along x| <= n / 2 + reach for some y of the rows; x from the center of the tile.
            if along == 0:
                continue
            least, most = min(across * y for y in ys), max(across * y for y in ys)
            ends = sorted(((-n / 2 - reach - most) / along, (n / 2 + reach - least) / along))
            low = max(low, ends[0] + ratio * self.width / 2)
            high = min(high, ends[1] + ratio * self.width / 2)
        return range(int(low), max(int(low), min(ceil(high), ratio * self.width)))


@dataclass(frozen=True)
class CanvasLayout:
    """Which copies of a key are on a canvas, and where."""

    key_shape: tuple[int, int]
    transforms: tuple[Transform, ...]
    margin: tuple[int, int]
    """Pixels around each copy in which it goes on as the key's padding does: the radius of a patch."""

    def numbers(self) -> tuple[list[int], list[list[float]], list[int]]:
        """The layout as lists of numbers, of which `from_numbers` makes it again."""
        transforms = [[one.angle, one.scale, float(one.mirror)] for one in self.transforms]
        return list(self.key_shape), transforms, list(self.margin)

    @classmethod
    def from_numbers(
        cls, key_shape: Sequence[int], transforms: Sequence[Sequence[float]], margin: Sequence[int]
    ) -> CanvasLayout:
        """Make a layout of what `numbers` returned."""
        copies = tuple(Transform(float(angle), float(scale), bool(mirror)) for angle, scale, mirror in transforms)
        height, width = key_shape
        return cls((int(height), int(width)), copies, (int(margin[0]), int(margin[1])))

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The copies, in the order of the transforms: on shelves, the highest first."""
        sizes = [self._size(transform) for transform in self.transforms]
        longest = max(max(width for _, width in sizes), ceil(sqrt(sum(map(prod, sizes)))))
        tiles: dict[int, Tile] = {}
        top = left = shelf = 0
        for n in sorted(range(len(sizes)), key=lambda n: -sizes[n][0]):
            height, width = sizes[n]
            if left + width > longest:
                top, left, shelf = top + shelf, 0, 0
            tiles[n] = Tile(self.transforms[n], top, left, height, width)
            left, shelf = left + width, max(shelf, height)
        return tuple(tiles[n] for n in range(len(sizes)))

    @property
    def shape(self) -> tuple[int, int]:
        """Size of the canvas."""
        return (
            max(tile.top + tile.height for tile in self.tiles),
            max(tile.left + tile.width for tile in self.tiles),
        )

    def nearest(self, device: torch.device | str = "cpu") -> Int32[Tensor, "height width"]:
        """Return the flat position of the key that is nearest to each position of the canvas; -1 outside the key."""
        height, width = self.key_shape
        found = torch.full(self.shape, -1, dtype=torch.int32, device=device)
        for tile in self.tiles:
            row, column = (at + GRID // 2 for at in tile.positions(self.key_shape, device))
            inside = (row >= 0) & (row <= GRID * height) & (column >= 0) & (column <= GRID * width)
            row, column = ((at // GRID).clamp(0, n - 1) for at, n in ((row, height), (column, width)))
            _part(found, tile).copy_(torch.where(inside, row * width + column, -1))
        return found

    def whole_patches(self, patch: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
        """Return, as bool `(height, width)`, where on the canvas all of a patch lies inside the key."""
        found = torch.zeros(self.shape, dtype=torch.bool, device=device)
        for tile in self.tiles:
            inside = torch.ones((tile.height, tile.width), dtype=torch.bool, device=device)
            reach = [abs(row[0]) * (patch[0] // 2) + abs(row[1]) * (patch[1] // 2) for row in tile.transform.matrix]
            for at, n, r in zip(tile.positions(self.key_shape, device), self.key_shape, reach, strict=True):
                inside &= (at >= GRID * r - 1) & (at <= GRID * (n - 1 - r) + 1)
            _part(found, tile).copy_(inside)
        return found

    def number(self, device: torch.device | str = "cpu") -> Int[Tensor, "height width"]:
        """Return the number of the transform at each position of the canvas, int32; -1 between copies."""
        found = torch.full(self.shape, -1, dtype=torch.int32, device=device)
        for n, tile in enumerate(self.tiles):
            _part(found, tile).fill_(n)
        return found

    def positions(self, place: Tensor) -> Float[Tensor, "2 *places"]:
        """Return rows and columns of the key, float64, at flat positions of the canvas; they need not be whole."""
        number = self.number(place.device).flatten()[place.clamp(min=0).long()].long()
        at = [place.div(self.shape[1], rounding_mode="floor").double(), place.remainder(self.shape[1]).double()]
        matrices = torch.tensor([tile.transform.matrix for tile in self.tiles], dtype=torch.float64)
        centers = torch.tensor(
            [[tile.top + tile.height / 2, tile.left + tile.width / 2] for tile in self.tiles], dtype=torch.float64
        )
        matrices, centers = matrices.to(place.device)[number], centers.to(place.device)[number]
        y, x = (coordinate + 0.5 - centers[..., d] for d, coordinate in enumerate(at))
        found = [
            torch.round(GRID * matrices[..., d, 0] * y + GRID * matrices[..., d, 1] * x + 0.5 * GRID * (n - 1)) / GRID
            for d, n in enumerate(self.key_shape)
        ]
        return torch.stack(found)

    def _size(self, transform: Transform) -> tuple[int, int]:
        """The size of a copy: the box around the transformed key, and the margin."""
        (a, b), (c, d) = transform.matrix
        height, width = self.key_shape
        area = transform.scale**2
        # The inverse of the matrix is its transpose over the square of the scale.
        extents = (abs(a) * height + abs(c) * width, abs(b) * height + abs(d) * width)
        sizes = [ceil(extent / area - 1 / GRID) for extent in extents]
        return max(sizes[0], 1) + 2 * self.margin[0], max(sizes[1], 1) + 2 * self.margin[1]


def _part(canvas: Tensor, tile: Tile) -> Tensor:
    return canvas[..., tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]


def _exact(number: float) -> float:
    """A sine or cosine without the rounding of the angle."""
    nearest = round(number)
    return float(nearest) if abs(number - nearest) < 1e-12 else number
