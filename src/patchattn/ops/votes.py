"""The votes of `attend` written out: softmax and sums made of operators that can be differentiated again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from patchattn.ops.weighted_sum import weighted_sum, weighted_sum_backward

__all__ = ["attended", "attended_backward_again", "heard", "keys_voted", "offsets_of"]


@dataclass(frozen=True)
class Votes:
    """Who votes for whom: each query hears the matches of its spatial neighbors in a window."""

    key: Tensor
    """int32 `(B, heads, votes, *query)`: the key voted for; -1 for none."""
    weight: Tensor
    """`(B, heads, votes, *query)`: the softmax of the similarities; 0 for none."""
    window: tuple[int, ...]
    temperature: float
    backend: str

    def heard(self, of_matches: Tensor) -> Tensor:
        """Values of the matches, `(B, heads, k, *query)`, at the votes; 0 where no neighbor is."""
        return heard(of_matches, offsets_of(self.window), 0)

    def transposed(self, of_votes: Tensor) -> Tensor:
        """The transpose of `heard`: what the votes say, summed for each match."""
        parts = of_votes.chunk(prod(self.window), 2)
        moved = [_moved(part, [-by for by in o], 0) for o, part in zip(offsets_of(self.window), parts, strict=True)]
        return torch.stack(moved).sum(0)

    def mean(self, of_votes: Tensor) -> Tensor:
        """The mean over the votes of a query, `(B, heads, 1, *query)`."""
        return (self.weight * of_votes).sum(2, keepdim=True)

    def sum(self, weight: Tensor, value: Tensor) -> Tensor:
        found: Tensor = weighted_sum(weight, self.key, value, self.backend)
        return found

    def sum_backward(self, grad: Tensor, weight: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        by_weight, by_value = weighted_sum_backward(grad, weight, self.key, value, self.backend)
        return by_weight, by_value


def votes_of(
    similarity: Tensor, index: Tensor, value: Tensor, window: tuple[int, ...], temperature: float, backend: str
) -> Votes:
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    offsets = offsets_of(window)
    key = keys_voted(index, tuple(value.shape[2:]), offsets)
    # NaN and infinity have no weight, as in the kernels; their places must not be differentiated either.
    score = torch.where((index >= 0) & similarity.isfinite(), similarity.to(dtype) / temperature, -torch.inf)
    score = torch.where(key >= 0, heard(score, offsets, -torch.inf), -torch.inf)
    largest = score.detach().amax(2, keepdim=True) if score.shape[2] else score.new_zeros(())
    counts = score > -torch.inf
    weight = torch.where(counts, torch.where(counts, score - largest, 0).exp(), 0)
    total = weight.sum(2, keepdim=True)
    return Votes(key, weight / torch.where(total > 0, total, 1), window, float(temperature), backend)


def attended(
    similarity: Tensor, index: Tensor, value: Tensor, window: tuple[int, ...], temperature: float, backend: str
) -> Tensor:
    """The first output of `attend`."""
    votes = votes_of(similarity, index, value, window, temperature, backend)
    return votes.sum(votes.weight, value)


def attended_backward_again(
    grad: Tensor, similarity: Tensor, index: Tensor, value: Tensor, of_similarity: Tensor, of_value: Tensor,
    window: tuple[int, ...], temperature: float, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    r"""The gradients of `attend_backward` with respect to the gradient g of the output, similarity and value.

    Its outputs are $w_v (a_v - \bar a) / \tau$ for the similarity of vote v, with $a_v = g \cdot V_{j_v}$, and
    $w_v g$ for $V_{j_v}$; w are the softmax's weights, and a bar is the mean with them. `of_similarity` and `of_value`
    are the gradients x and y of these. With $x' = x / \tau$ at the votes and $b_v = g \cdot y_{j_v}$, each query adds
    $\overline{x' a} - \overline{x'}\,\overline{a} + \overline{b}$, which is what is differentiated.
    """
    votes = votes_of(similarity, index, value, window, temperature, backend)
    weight = votes.weight
    along = votes.heard(of_similarity.to(weight.dtype)) / votes.temperature
    tilted = weight * (along - votes.mean(along))  # the derivative by a
    # Each is linear in g, a weight and an image: one call for a and the gradient of V, one for b.
    agreement, by_value = votes.sum_backward(grad, tilted, value)
    agreement_too, _ = votes.sum_backward(grad, weight, of_value)
    by_grad = votes.sum(tilted, value) + votes.sum(weight, of_value)
    mean, mean_along = votes.mean(agreement), votes.mean(along)
    moment = along * agreement - mean * along - mean_along * agreement + agreement_too
    by_score = weight * (moment - votes.mean(moment))
    return by_grad, votes.transposed(by_score / votes.temperature).to(similarity.dtype), by_value


def offsets_of(window: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Offsets of the neighbors in a window, in row-major order."""
    return list(product(*(range(-(size // 2), size // 2 + 1) for size in window)))


def heard(of_matches: Tensor, offsets: Sequence[tuple[int, ...]], outside: float) -> Tensor:
    """Values of the matches, `(B, heads, k, *query)`, at the neighbors of each query, those of one after the other."""
    return torch.cat([_moved(of_matches, by, outside) for by in offsets], 2)


def _moved(image: Tensor, by: Sequence[int], outside: float) -> Tensor:
    """At each position what is at an offset from it."""
    if not any(by) or image.numel() == 0:  # PyTorch 2.6 does not pad what is empty
        return image
    padding = [side for d in reversed(by) for side in (max(-d, 0), max(d, 0))]
    moved = functional.pad(image, padding, value=outside)
    for dim, d in enumerate(by, start=3):
        moved = moved.narrow(dim, max(d, 0), image.shape[dim])
    return moved


def keys_voted(
    index: Tensor, key_size: tuple[int, ...], offsets: Sequence[tuple[int, ...]], allowed: Tensor | None = None
) -> Tensor:
    """The key of every vote: the neighbor's match, moved as the neighbor is moved to the query; -1 for none.

    `allowed`: bool for each key position, row by row; where it is False votes do not count.
    """
    if not any(map(any, offsets)) and allowed is None:
        return index
    found = []
    for by in offsets:
        flat = _moved(index, by, -1).long()
        inside, stride, key = flat >= 0, 1, torch.zeros_like(flat)
        for size, d in zip(reversed(key_size), reversed(by), strict=True):
            at = flat % size - d
            inside = inside & (at >= 0) & (at < size)
            key, flat, stride = key + at * stride, flat.div(size, rounding_mode="floor"), stride * size
        if allowed is not None:
            inside = inside & allowed[torch.where(inside, key, 0)]
        found.append(torch.where(inside, key, -1).int())
    return torch.cat(found, 2)
