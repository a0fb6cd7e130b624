"""Searches for rotated, scaled and mirrored matches: what is asked for, and the way to the key's canvas and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from patchattn.canvas import CanvasLayout, Transform
from patchattn.checks import MAX_POSITIONS, is_number, plain
from patchattn.field import MatchField, MatchTransform
from patchattn.matching.indices import check_positions
from patchattn.matching.warp import draw
from patchattn.problem import PatchGeometry, Problem
from patchattn.settings import SearchSettings

__all__ = ["Canvas", "canvas_of", "check_transform", "define_canvas"]


@dataclass(frozen=True)
class Canvas:
    """The canvas of a key: positions on it, and images drawn on it."""

    layout: CanvasLayout
    patch_size: tuple[int, ...]
    whole_patches: bool
    """Whether the patches of keys lie inside the image: `padding_mode="valid"`."""
    nearest: Tensor
    """The nearest position of the key, int32 for each of the canvas, row by row; -1 outside the key."""
    backend: str

    @classmethod
    def of(
        cls,
        layout: CanvasLayout,
        device: torch.device,
        backend: str,
        *,
        patch_size: tuple[int, ...] = (1, 1),
        whole_patches: bool = False,
    ) -> Canvas:
        """Make the canvas of a layout."""
        return cls(layout, patch_size, whole_patches, layout.nearest(device).flatten(), backend)

    def draw(self, image: Tensor, padding_mode: str, ratio: int = 1) -> Tensor:
        """Draw the copies of an image of `ratio` times the key's size; with gradients."""
        return draw(image, self.layout, padding_mode, self.backend, ratio)

    def key_mask(self, key_mask: Tensor | None) -> Tensor:
        """Where on the canvas there are keys, `(1 or B, *canvas)`; a copy's positions have the mask of the nearest."""
        inside = self.nearest >= 0
        if self.whole_patches:
            height, width = self.patch_size
            inside = inside & self.layout.whole_patches((height, width), inside.device).flatten()
        if key_mask is None:
            allowed = inside[None]
        else:
            allowed = inside & key_mask.flatten(1)[:, self.nearest.clamp(min=0).long()]
        return torch.unflatten(allowed, 1, self.layout.shape)

    def field(self, found: MatchField) -> MatchField:
        """Turn a field of the canvas into one of the key."""
        place = found.index
        index = torch.where(place >= 0, self.nearest[place.clamp(min=0).long()], -1)
        return MatchField(index, found.similarity, self.layout.key_shape, MatchTransform(place, self.layout))

    def entered(self, field: MatchField) -> MatchField:
        """Turn a field of the key into one of the canvas: one found on it, or one of translations."""
        if field.transform is None:
            place = self._translated(field.index)
        elif field.transform.layout == self.layout:
            place = field.transform.place
        else:
            raise ValueError(
                "init: it was found with other rotations, scales, mirror or patch_size than are asked for; give a "
                "field that was found with the same, or one of translations."
            )
        return replace(field, index=place, key_shape=self.layout.shape, transform=None)

    def _translated(self, index: Tensor) -> Tensor:
        if Transform() not in self.layout.transforms:
            raise ValueError(
                "init: its matches are translations, which are not among the transforms that are asked for; add "
                "rotation 0 and scale 1."
            )
        tile = self.layout.tiles[self.layout.transforms.index(Transform())]
        top, left = (at + extra for at, extra in zip((tile.top, tile.left), self.layout.margin, strict=True))
        width = self.layout.key_shape[1]
        row, column = index.div(width, rounding_mode="floor") + top, index.remainder(width) + left
        return torch.where(index >= 0, row * self.layout.shape[1] + column, -1).int()


def define_canvas(query: Tensor, key: Tensor, settings: SearchSettings, problem: Problem) -> Canvas | None:
    """Check what a search says of transforms, and describe the canvas; None where all matches are translations."""
    if settings.rotations is None and settings.scales is None and settings.mirror is False:
        return None
    rotations = (0.0,) if settings.rotations is None else _numbers("rotations", settings.rotations)
    scales = (1.0,) if settings.scales is None else _numbers("scales", settings.scales)
    if not all(0.1 <= scale <= 10 for scale in scales):
        raise ValueError(f"scales: expected numbers from 0.1 to 10, got {settings.scales!r}.")
    if not isinstance(settings.mirror, bool):
        raise ValueError(f"mirror: expected True or False, got {settings.mirror!r}.")
    if query.dim() != 4:
        raise ValueError(
            "rotations, scales, mirror: only images can be transformed, (B, C, height, width); got query of shape "
            f"{tuple(query.shape)}."
        )
    _refuse_constraints(problem)
    turns = tuple(dict.fromkeys(angle % 360.0 for angle in rotations))
    sizes = tuple(dict.fromkeys(scales))
    transforms = tuple(
        Transform(angle, scale, mirror)
        for mirror in ((False, True) if settings.mirror else (False,))
        for scale in sizes
        for angle in turns
    )
    height, width = (int(n) for n in key.shape[2:])
    radius = problem.geometry.radius
    layout = CanvasLayout((height, width), transforms, (radius[0], radius[1]))
    if prod(layout.shape) > MAX_POSITIONS:
        raise ValueError(
            f"rotations, scales, mirror: {len(transforms)} copies of a key of size {(height, width)} have "
            f"{prod(layout.shape)} positions; at most 2^31 - 1 can be searched. Ask for fewer."
        )
    valid = settings.padding_mode == "valid"
    patch = problem.geometry.patch_size
    return Canvas.of(layout, query.device, problem.backend, patch_size=patch, whole_patches=valid)


def canvas_of(field: MatchField, geometry: PatchGeometry, backend: str) -> Canvas | None:
    """Return the canvas of a field's transforms; None where all matches are translations."""
    if field.transform is None:
        return None
    layout = field.transform.layout
    if any(radius > extra for radius, extra in zip(geometry.radius, layout.margin, strict=True)):
        found_with = tuple(2 * extra + 1 for extra in layout.margin)
        raise ValueError(
            f"field: its transformed matches were found with patch_size {found_with}, which is less than "
            f"{geometry.patch_size}; search anew."
        )
    return Canvas.of(layout, field.index.device, backend)


def check_transform(name: str, field: MatchField) -> None:
    """Check the transforms of a field against its index."""
    transform = field.transform
    if transform is None:
        return
    if tuple(transform.layout.key_shape) != tuple(field.key_shape) or transform.place.shape != field.index.shape:
        raise ValueError(
            f"{name}: its transform is for a key of size {transform.layout.key_shape} and matches of shape "
            f"{tuple(transform.place.shape)}, its index for {tuple(field.key_shape)} and {tuple(field.index.shape)}."
        )
    check_positions(f"{name}: its transform's place", transform.place, prod(transform.layout.shape))


def _refuse_constraints(problem: Problem) -> None:
    """Constraints that compare positions mean nothing where positions are those of a canvas."""
    constraints = problem.constraints
    for name, given in (
        ("is_causal", constraints.is_causal),
        ("min_separation", constraints.separated),
        ("max_offset", constraints.max_offset is not None),
    ):
        if given:
            raise ValueError(
                f"{name}: not with rotations, scales or mirror, where matches are compared on copies of the key; use "
                "query_mask and key_mask, or search without transforms."
            )


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    values = plain(values)
    whole = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    if not whole or not all(is_number(value) and abs(value) < float("inf") for value in values):
        raise ValueError(f"{name}: expected a sequence of at least one number, got {values!r}.")
    return tuple(float(plain(value)) for value in values)
