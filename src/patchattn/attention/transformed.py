"""Patch attention to rotated, scaled and mirrored matches: on the canvas of the key's copies."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from patchattn.attention.blocks import fold_blocks, unfold_blocks
from patchattn.attention.tiles import recomputed
from patchattn.checks import is_traced, on_host
from patchattn.field import MatchField
from patchattn.matching.canvas import Canvas
from patchattn.ops.attend import attend
from patchattn.ops.autocast import without_autocast
from patchattn.ops.similarity_at import similarity_at
from patchattn.ops.transforms import transforming
from patchattn.ops.votes import heard, keys_voted, offsets_of
from patchattn.ops.weighted_sum import weighted_sum
from patchattn.problem import PatchGeometry

__all__ = ["attend_on_canvas"]

VALUE_PADDING = "replicate"
"""Beyond the border of values, where interpolation reaches for half a pixel."""
LEAST_WEIGHT = 1e-20
"""Share of all votes from which on those that stay in their copy are weighed as exactly as all: far above the smallest
single-precision number."""


def attend_on_canvas(
    query: Tensor, key: Tensor, value: Tensor, field: MatchField, canvas: Canvas, geometry: PatchGeometry,
    window: tuple[int, ...], temperature: float, ratio: int, *, similarity_is_known: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the output `(B, Cv, *(r query))` and the similarities of the matches, both with gradients.

    A vote that moves on the canvas moves in the key as the match's own transform says.
    """
    assert field.transform is not None
    place = field.transform.place
    found = field.similarity
    if not similarity_is_known:
        drawn = canvas.draw(key, geometry.padding_mode)
        found = similarity_at(query, drawn, place, geometry, canvas.backend)
    blocks = unfold_blocks(canvas.draw(value, VALUE_PADDING, ratio), ratio)
    if prod(window) == 1:
        output = attend(found, place, blocks, window, temperature, canvas.backend)
    else:
        with without_autocast(value.device):
            output = _mean_of_votes_inside(found, place, blocks, canvas, window, temperature)
    return fold_blocks(output, ratio), found


def _mean_of_votes_inside(
    similarity: Tensor, place: Tensor, value: Tensor, canvas: Canvas, window: tuple[int, ...], temperature: float
) -> Tensor:
    """The mean of all votes that stay in their copy, weighted by the softmax.

    The kernels count votes that leave a copy for another place of the canvas. With values of 0 there, and one more
    channel that is 1 inside, the mean of the others is a quotient of two of theirs, as exact as these unless what stays
    inside has next to no weight: then votes are gone through one by one, and always where nothing can be asked.
    """
    heads, inside = place.shape[1], canvas.nearest >= 0
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    if on_host(value) and not transforming() and not is_traced():
        counted = torch.unflatten(inside, 0, tuple(value.shape[2:]))
        split = torch.unflatten(value.to(dtype), 1, (heads, -1)).masked_fill(~counted, 0)
        presence = counted.to(dtype).expand(*split.shape[:2], 1, *counted.shape)
        extended = torch.cat([split, presence], 2).flatten(1, 2)
        found = attend(similarity, place, extended, window, temperature, canvas.backend)
        found = torch.unflatten(found, 1, (heads, -1))
        weight = found[:, :, -1:]
        heard_of = functional.max_pool2d(
            (place >= 0).any(2).to(dtype), window, 1, tuple(size // 2 for size in window)
        )[:, :, None]  # fmt: skip
        if bool(((weight > LEAST_WEIGHT) | (heard_of == 0)).all()):
            mean = torch.where(weight > 0, found[:, :, :-1] / torch.where(weight > 0, weight, 1), 0)
            return mean.flatten(1, 2).to(value.dtype)
    return _mean_of_votes(similarity, place, value, inside, canvas.backend, window, temperature)


def _mean_of_votes(
    similarity: Tensor, place: Tensor, value: Tensor, inside: Tensor, backend: str, window: tuple[int, ...],
    temperature: float,
) -> Tensor:  # fmt: skip
    """The same, one row of the window at a time."""
    heads, size = place.shape[1], tuple(value.shape[2:])
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    # NaN and infinity have no weight, as in `attend`; their places must not be differentiated either.
    score = torch.where((place >= 0) & similarity.isfinite(), similarity.to(dtype) / temperature, -torch.inf)

    def row(score: Tensor, value: Tensor, offsets: list[tuple[int, ...]]) -> Tensor:
        """Weighted sum of the values, sum of the weights, and the largest score, by which weights are divided."""
        votes = keys_voted(place, size, offsets, inside)
        scores = torch.where(votes >= 0, heard(score, offsets, -torch.inf), -torch.inf)
        largest = scores.detach().amax(2, keepdim=True)
        counts = scores > -torch.inf
        weight = torch.where(counts, torch.where(counts, scores - largest, 0).exp(), 0)
        summed = torch.unflatten(weighted_sum(weight, votes, value, backend), 1, (heads, -1))
        return torch.cat([summed, weight.sum(2, keepdim=True), largest], 2)

    offsets, width = offsets_of(window), window[-1]
    # A compiler chooses by itself what to compute again.
    call = (lambda f, *arguments: f(*arguments)) if torch.compiler.is_compiling() else recomputed
    total = top = None
    for at in range(0, len(offsets), width):
        found = call(row, score, value.to(dtype), offsets[at : at + width])
        own, largest = found[:, :, :-1], found[:, :, -1:].detach()
        if total is None or top is None:
            total, top = own, largest
            continue
        highest = torch.maximum(top, largest)
        total = total * _shrunk(top, highest) + own * _shrunk(largest, highest)
        top = highest
    assert total is not None
    weights = total[:, :, -1:]
    some = weights > 0
    mean = torch.where(some, total[:, :, :-1] / torch.where(some, weights, 1), 0)
    return mean.flatten(1, 2).to(value.dtype)


def _shrunk(largest: Tensor, highest: Tensor) -> Tensor:
    """Factor of sums of weights that were divided by one score, beside those divided by a higher one."""
    return torch.where(largest > -torch.inf, (largest - highest).exp(), 0)
