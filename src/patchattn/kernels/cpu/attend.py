"""Softmax over the votes of each query, and the weighted sum of values; PSAL's equations (5) and (10)."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.batch import Each, groups, item_kernel, run_items
from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.cpu.dense_attend import dense_attend, dense_attend_backward
from patchattn.kernels.cpu.exponential import exp_of_differences
from patchattn.kernels.cpu.fields import lists_of, store_lists
from patchattn.kernels.cpu.inverse import invert
from patchattn.kernels.cpu.padded_image import compute_dtype, empty, pad, three, unpad_gradient, value_geometry
from patchattn.kernels.cpu.patch_similarity import CHUNK
from patchattn.kernels.cpu.patch_sums import PatchSteps, sum_product
from patchattn.kernels.cpu.vectors import SLACK, add_scaled

__all__ = ["BACKWARD", "attend", "attend_backward", "mean_of"]

FORWARD, BACKWARD = 4, 16
"""From one match for so many keys on, all keys are multiplied (docs/performance.md)."""


class Votes(NamedTuple):
    """Who votes for whom: each query hears the matches of its spatial neighbors within `radius`."""

    q_t: int
    q_h: int
    q_w: int
    k_t: int
    k_h: int
    k_w: int
    radius: tuple[int, int, int]
    k: int
    channels: int


def _votes(index: Tensor, value: Tensor, window: tuple[int, ...]) -> Votes:
    radius = three(tuple(size // 2 for size in window), 0)
    return Votes(
        *three(tuple(index.shape[3:]), 1), *three(tuple(value.shape[2:]), 1), radius, index.shape[2],
        value.shape[1] // index.shape[1],
    )  # fmt: skip


def attend(
    similarity: Tensor, index: Tensor, value: Tensor, window: tuple[int, ...], temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the output `(B, Cv, *query)` and the logarithm of the softmax's denominator `(B, heads, *query)`."""
    votes, geometry = _votes(index, value, window), value_geometry(index)
    values = pad(value, geometry)
    count = votes.q_t * votes.q_h * votes.q_w
    dtype = compute_dtype(value.dtype)
    items = index.shape[0] * index.shape[1]
    output = empty(items, count * votes.channels, dtype)
    normalizer = torch.empty((items, count), dtype=dtype)
    number = normalizer.numpy().dtype
    at_most = votes.k * prod(2 * r + 1 for r in votes.radius)

    def scratch() -> tuple[NDArray[Any], ...]:
        return np.empty(at_most, np.int64), np.empty(at_most + SLACK, number), np.empty(votes.channels + SLACK, number)

    inverse_temperature = number.type(1 / temperature)
    arrays = (output.numpy(), normalizer.numpy())
    for group in groups(items, count):
        similarities, matches = lists_of(similarity, group, dtype), lists_of(index, group)
        if _is_dense(votes, FORWARD):
            dense_attend(group, similarities, matches, values.rows, votes.channels, inverse_temperature, *arrays)
            continue
        run_items(
            _attend_range, group, count, CHUNK, Each(similarities), Each(matches), Each(values.rows), votes,
            inverse_temperature, *(Each(part) for part in arrays), scratch=scratch,
        )  # fmt: skip
    shape = (index.shape[0], value.shape[1], *index.shape[3:])
    return unpad_gradient(output, shape, value.dtype, geometry), normalizer.view(*index.shape[:2], *index.shape[3:])


def _is_dense(votes: Votes, keys_per_match: int) -> bool:
    """Whether rows of all keys cost less than the matches, one by one."""
    return votes.radius == (0, 0, 0) and votes.k * keys_per_match >= votes.k_t * votes.k_h * votes.k_w


def _reads_finite(
    similarities: NDArray[Any], matches: NDArray[np.int32], values: NDArray[Any], group: range, votes: Votes
) -> bool:
    """Whether all that matches take is finite: others must not be multiplied, not even by 0."""
    unfit = ~np.isfinite(values.reshape(len(values), -1, votes.channels)).all(2)
    if not unfit.any():
        return True
    own = unfit[np.arange(group.start, group.stop) % len(unfit)]
    counts = (matches >= 0) & (similarities > -np.inf)
    return not (counts & np.take_along_axis(own, np.maximum(matches, 0), 1)).any()


@item_kernel()
def _attend_range(
    low: int, high: int, similarity: Any, index: Any, value: Any, votes: Any, inverse_temperature: Any,
    output: Any, normalizer: Any, voted: Any, weight: Any, total: Any,
) -> None:  # fmt: skip
    v = votes
    nothing = -inverse_temperature * np.inf
    for i in range(low, high):
        i_x, i_row = i % v.q_w, i // v.q_w
        i_y, i_t = i_row % v.q_h, i_row // v.q_h
        count = 0
        largest = nothing
        for o_t in range(max(-v.radius[0], -i_t), min(v.radius[0], v.q_t - 1 - i_t) + 1):
            for o_y in range(max(-v.radius[1], -i_y), min(v.radius[1], v.q_h - 1 - i_y) + 1):
                for o_x in range(max(-v.radius[2], -i_x), min(v.radius[2], v.q_w - 1 - i_x) + 1):
                    neighbor = i + (o_t * v.q_h + o_y) * v.q_w + o_x
                    for m in range(neighbor * v.k, (neighbor + 1) * v.k):
                        j = np.int64(index[m])
                        if j < 0:
                            continue
                        s = similarity[m] * inverse_temperature
                        if s > nothing:
                            j = _shifted(j, -o_t, -o_y, -o_x, v.k_t, v.k_h, v.k_w)
                            if j >= 0:
                                voted[count] = j
                                weight[count] = s
                                largest = max(largest, s)
                                count += 1
        normalizer[i] = mean_of(voted, weight, count, largest, value, v.channels, total)
        for c in range(v.channels):
            output[i * v.channels + c] = total[c]


@inlined
def mean_of(voted: Any, weight: Any, count: int, largest: Any, value: Any, channels: int, total: Any) -> Any:
    """Write the mean of the values of `count` keys to `total`, with weights by the softmax of what `weight` holds.

    Return the logarithm of the softmax's denominator; -inf where there is no key, whose mean is 0.
    """
    total[:] = 0
    mass = 0.0
    exp_of_differences(weight, count, largest)
    for n in range(count):
        mass += weight[n]
        add_scaled(total, value, voted[n] * channels, channels, weight[n])
    factor = 1 / mass if count > 0 else mass
    for c in range(channels):
        total[c] *= factor
    return largest + np.log(mass) if count > 0 else largest


@inlined
def _shifted(j: int, d_t: int, d_y: int, d_x: int, n_t: int, n_h: int, n_w: int) -> int:
    """The flat position at an offset from j; -1 outside."""
    row = np.int64(np.uint32(j) // np.uint32(n_w))
    x = j - row * n_w + d_x
    if not 0 <= x < n_w:
        return -1
    t = np.int64(0)
    if n_t > 1:
        t = np.int64(np.uint32(row) // np.uint32(n_h))
    y = row - t * n_h + d_y
    t += d_t
    if not (0 <= y < n_h and 0 <= t < n_t):
        return -1
    return (t * n_h + y) * n_w + x


def attend_backward(
    grad_output: Tensor,
    similarity: Tensor,
    index: Tensor,
    value: Tensor,
    output: Tensor,
    log_normalizer: Tensor,
    window: tuple[int, ...],
    temperature: float,
) -> tuple[Tensor, Tensor]:
    r"""Gradients of `attend` with respect to similarity and value.

    With weights $w = \exp(s / \tau - \log Z_i)$ computed anew from the saved normalizer,
    $\partial s = \sum_i w\, (g_i \cdot V_j - g_i \cdot O_i) / \tau$ over the queries i that hear the match (PSAL's
    equations (7) and (8) in one), and $\partial V_j = \sum w\, g_i$ over the votes for j (equation (6)).
    """
    votes, geometry = _votes(index, value, window), value_geometry(index)
    values, grads = pad(value, geometry), pad(grad_output, geometry)
    batch, heads = index.shape[:2]
    dtype = compute_dtype(value.dtype)
    count, keys = votes.q_t * votes.q_h * votes.q_w, votes.k_t * votes.k_h * votes.k_w
    grad_similarity = torch.empty(similarity.shape, dtype=similarity.dtype)
    grad_values = empty(*values.rows.shape, dtype)
    grad_values.zero_()
    number = grad_values.numpy().dtype
    # g . O for each query and head.
    items = batch * heads
    product = (grad_output.to(dtype) * output.to(dtype)).reshape(items, votes.channels, count).sum(1)
    normalizer = log_normalizer.detach().to(dtype).reshape(items, count).contiguous().numpy()
    inverse_temperature = number.type(1 / temperature)
    settings = (Each(normalizer), votes, inverse_temperature, Each(grads.rows))
    for group in groups(items, max(count, keys)):
        matches = lists_of(index, group)
        similarities = lists_of(similarity, group, dtype)
        found = np.empty(matches.shape, number)
        if (
            _is_dense(votes, BACKWARD)
            and bool(np.isfinite(grads.rows).all())
            and _reads_finite(similarities, matches, values.rows, group, votes)
        ):
            for n, item in enumerate(group):
                dense_attend_backward(
                    similarities[n], matches[n], normalizer[item], inverse_temperature, grads.item(item),
                    values.item(item), votes.channels, product[item].numpy(), found[n],
                    grad_values[item % len(grad_values)].numpy(),
                )  # fmt: skip
            store_lists(found, group, grad_similarity)
            continue
        lists = (Each(similarities), Each(matches))
        run_items(
            _grad_similarity_range, group, count, CHUNK, *lists, *settings, Each(values.rows),
            Each(product.numpy()), Each(found),
        )  # fmt: skip
        store_lists(found, group, grad_similarity)
        inverse = invert(matches, keys)
        run_items(
            _grad_value_range, group, keys, CHUNK, *lists, *settings, *(Each(part) for part in inverse),
            Each(grad_values.numpy()), targets=min(len(grad_values), len(group)),
            scratch=lambda: (np.empty(votes.channels + SLACK, number),),
        )  # fmt: skip
    return grad_similarity, unpad_gradient(grad_values, value.shape, value.dtype, geometry)


@item_kernel()
def _grad_similarity_range(
    low: int, high: int, similarity: Any, index: Any, normalizer: Any, votes: Any, inverse_temperature: Any,
    grad: Any, value: Any, product: Any, output: Any,
) -> None:  # fmt: skip
    """Each match sums over the queries that hear it."""
    v = votes
    steps = PatchSteps(1, 1, v.channels, 0, 0, 0, 0, 1)
    for neighbor in range(low, high):
        n_x, n_row = neighbor % v.q_w, neighbor // v.q_w
        n_y, n_t = n_row % v.q_h, n_row // v.q_h
        for m in range(neighbor * v.k, (neighbor + 1) * v.k):
            total = inverse_temperature * 0
            s = similarity[m] * inverse_temperature
            if index[m] >= 0 and s > -np.inf:
                for o_t in range(max(-v.radius[0], n_t - v.q_t + 1), min(v.radius[0], n_t) + 1):
                    for o_y in range(max(-v.radius[1], n_y - v.q_h + 1), min(v.radius[1], n_y) + 1):
                        for o_x in range(max(-v.radius[2], n_x - v.q_w + 1), min(v.radius[2], n_x) + 1):
                            j = _shifted(np.int64(index[m]), -o_t, -o_y, -o_x, v.k_t, v.k_h, v.k_w)
                            if j < 0:
                                continue
                            i = neighbor - ((o_t * v.q_h + o_y) * v.q_w + o_x)
                            agreement = sum_product(grad, i * v.channels, value, j * v.channels, steps, s)
                            total += np.exp(s - normalizer[i]) * (agreement - product[i])
            output[m] = total * inverse_temperature


@item_kernel()
def _grad_value_range(
    low: int, high: int, similarity: Any, index: Any, normalizer: Any, votes: Any, inverse_temperature: Any,
    grad: Any, first: Any, match: Any, output: Any, total: Any,
) -> None:  # fmt: skip
    """Each key sums over the votes it gets: the matches to the keys around it, heard from one offset away."""
    v = votes
    for j in range(low, high):
        j_x, j_row = j % v.k_w, j // v.k_w
        j_y, j_t = j_row % v.k_h, j_row // v.k_h
        total[:] = 0
        for o_t in range(max(-v.radius[0], -j_t), min(v.radius[0], v.k_t - 1 - j_t) + 1):
            for o_y in range(max(-v.radius[1], -j_y), min(v.radius[1], v.k_h - 1 - j_y) + 1):
                for o_x in range(max(-v.radius[2], -j_x), min(v.radius[2], v.k_w - 1 - j_x) + 1):
                    matched = j + (o_t * v.k_h + o_y) * v.k_w + o_x
                    for entry in range(first[matched], first[matched + 1]):
                        m = match[entry]
                        s = similarity[m] * inverse_temperature
                        i = _shifted(m // v.k, -o_t, -o_y, -o_x, v.q_t, v.q_h, v.q_w)
                        if i >= 0 and s > -np.inf:
                            add_scaled(total, grad, i * v.channels, v.channels, np.exp(s - normalizer[i]))
        for c in range(v.channels):
            output[j * v.channels + c] += total[c]
