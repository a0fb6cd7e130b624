"""Attention to very many matches of each query, each of which votes for its own key alone.

The weights of a query are spread over a row of all keys, and that row is multiplied with the values channel by channel:
neighboring numbers in the place of many short reads at random.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.batch import Each, item_kernel, run_items
from patchattn.kernels.cpu.compiler import kernel
from patchattn.kernels.cpu.dense_products import add_transposed_products
from patchattn.kernels.cpu.exponential import exp_of_negative
from patchattn.kernels.cpu.pool import run_ranges

__all__ = ["dense_attend", "dense_attend_backward"]

ROWS = 32
"""Queries in one range of work."""
BYTES = 1 << 24
"""Memory of the weights of a band of queries and all keys."""


class Values(NamedTuple):
    """The values of all keys, for each item."""

    planes: Each
    """Channel by channel; 0 for what is not finite."""
    raw: Each
    """Channel-last, as they are."""
    unfit: Each
    """Mask of the keys whose values are not finite."""


class Matches(NamedTuple):
    """The matches of one item, flat, and their similarities."""

    similarity: NDArray[Any]
    indices: NDArray[np.int32]
    k: int


def dense_attend(
    group: range, similarity: NDArray[Any], index: NDArray[np.int32], values: NDArray[Any], channels: int,
    inverse_temperature: Any, output: NDArray[Any], normalizer: NDArray[Any],
) -> None:  # fmt: skip
    """`attend` for a group of items, numbered through the rows of the last two arrays."""
    count, keys = normalizer.shape[1], values.shape[1] // channels
    k = index.shape[1] // count
    images = _channels_first(values, channels)
    unfit = ~np.isfinite(values.reshape(len(values), keys, channels)).all(2)

    def scratch() -> tuple[NDArray[Any], ...]:
        return np.empty(k, values.dtype), np.empty(keys, values.dtype)

    run_items(
        _attend_range, group, count, ROWS, Each(similarity), Each(index), Values(*map(Each, (images, values, unfit))),
        (k, keys, channels), inverse_temperature, Each(output), Each(normalizer), scratch=scratch,
    )  # fmt: skip


def _channels_first(rows: NDArray[Any], channels: int) -> NDArray[Any]:
    """Images as planes, a row for each; what is not finite is 0: so are its products."""
    planes = np.ascontiguousarray(rows.reshape(len(rows), -1, channels).swapaxes(1, 2)).reshape(len(rows), -1)
    return np.nan_to_num(planes, nan=0, posinf=0, neginf=0)


@item_kernel(vectorize=True)
def _attend_range(
    low: int, high: int, similarity: Any, index: Any, values: Any, sizes: Any, inverse_temperature: Any, output: Any,
    normalizer: Any, weight: Any, row: Any,
) -> None:  # fmt: skip
    k, keys, channels = sizes
    value, raw, unfit = values.planes, values.raw, values.unfit
    nothing = -inverse_temperature * np.inf
    for i in range(low, high):
        s, matched = similarity[i * k : (i + 1) * k], index[i * k : (i + 1) * k]
        largest = nothing
        for m in range(k):
            x = s[m] * inverse_temperature
            weight[m] = x if matched[m] >= 0 and x > nothing else nothing
            largest = max(largest, weight[m])
        normalizer[i] = nothing
        output[i * channels : (i + 1) * channels] = 0
        if largest == nothing:
            continue
        mass = inverse_temperature * 0
        for m in range(k):
            weight[m] = exp_of_negative(weight[m] - largest)
            mass += weight[m]
        row[:] = 0
        reads_unfit = False
        for m in range(k):
            if matched[m] >= 0:
                row[matched[m]] += weight[m]
                reads_unfit |= unfit[matched[m]] and s[m] * inverse_temperature > nothing
        for c in range(channels):
            plane = value[c * keys : (c + 1) * keys]
            total = mass * 0
            for j in range(keys):
                total += row[j] * plane[j]
            if reads_unfit:
                # NaN and infinity where they are read, and nowhere else.
                total = mass * 0
                for m in range(k):
                    if matched[m] >= 0 and s[m] * inverse_temperature > nothing:
                        total += weight[m] * raw[np.int64(matched[m]) * channels + c]
            output[i * channels + c] = total / mass
        normalizer[i] = largest + np.log(mass)


def dense_attend_backward(
    similarity: NDArray[Any], index: NDArray[np.int32], normalizer: NDArray[Any], inverse_temperature: Any,
    grad: NDArray[Any], values: NDArray[Any], channels: int, product: NDArray[Any], by_similarity: NDArray[Any],
    by_values: NDArray[Any],
) -> None:  # fmt: skip
    """`attend_backward` for one item; all arrays are flat. The gradient of the values is added to `by_values`."""
    count, keys = normalizer.size, values.size // channels
    k = index.size // count
    image, grads = (_channels_first(rows[None], channels).reshape(channels, -1) for rows in (values, grad))
    to_values = np.zeros_like(image)
    band = max(1, min(count, BYTES // (keys * values.itemsize)))
    table = np.empty((band, keys), values.dtype)
    scratch = lambda: (np.empty(keys, values.dtype),)  # noqa: E731
    for low in range(0, count, band):
        weights = table[: count - low]
        run_ranges(
            _weights_range, len(weights), ROWS, low, Matches(similarity, index, k), normalizer, inverse_temperature,
            grads, image, product, by_similarity, weights, scratch=scratch,
        )  # fmt: skip
        add_transposed_products(weights, grads[:, low : low + band], to_values)
    by_values += to_values.T.reshape(-1)


@kernel(vectorize=True)
def _weights_range(
    low: int, high: int, first: int, matches: Any, normalizer: Any, inverse_temperature: Any, grads: Any, image: Any,
    product: Any, output: Any, weights: Any, agreement: Any,
) -> None:  # fmt: skip
    similarity, index, k = matches.similarity, matches.indices, matches.k
    nothing = -inverse_temperature * np.inf
    for n in range(low, high):
        i = first + n
        s, matched, found = similarity[i * k : (i + 1) * k], index[i * k : (i + 1) * k], output[i * k : (i + 1) * k]
        agreement[:] = -product[i]
        for c in range(image.shape[0]):
            x, plane = grads[c, i], image[c]
            for j in range(plane.size):
                agreement[j] += x * plane[j]
        for m in range(k):
            x = s[m] * inverse_temperature
            x = x if matched[m] >= 0 and x > nothing else nothing
            found[m] = exp_of_negative(x - normalizer[i])
        row = weights[n]
        row[:] = 0
        for m in range(k):
            j = matched[m]
            if j >= 0 and s[m] * inverse_temperature > nothing:
                row[j] += found[m]
                found[m] *= agreement[j] * inverse_temperature
            else:
                found[m] = 0
