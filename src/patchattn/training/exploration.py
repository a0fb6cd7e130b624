"""Attention to keys drawn at random, by number: what it takes for query and key to find a common language."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np
import torch
from jaxtyping import Int32
from torch import Tensor

__all__ = ["draw_matches"]


def draw_matches(
    numbers: Iterable[int], heads: int, k: int, query_shape: Sequence[int], key_shape: Sequence[int], *, seed: int
) -> Int32[Tensor, "items heads k *query"]:
    r"""Draw k key positions for every query position, each as likely as any other.

    Why: a random convolution of the query and another of the key make features that lie apart, and the keys nearest to
    all queries are then the same few (of 1,024 positions, some five). Such matches say nothing of which others would be
    better, and gradients of attention to them lead nowhere. Random keys do: for each query, with A_j the weights of its
    matches and o the attended value,

    $$\frac{\partial L}{\partial S_j} = \frac{1}{\tau} A_j \left(V_j - o\right) \cdot \frac{\partial L}{\partial o}$$

    raises the similarity of keys whose value is better than the others', over the whole of the image.

    Args:
        numbers: of the items; what is drawn depends on `seed` and the item's number alone.
        heads: for each of which matches are drawn.
        k: matches of each position.
        query_shape: spatial size of the query.
        key_shape: spatial size of the key.
        seed: of the draws.

    Returns:
        Flat key positions, as in `MatchField.index`.

    Example:
        >>> draw_matches(range(4), 1, 3, (8, 8), (6, 10), seed=0).shape
        torch.Size([4, 1, 3, 8, 8])
    """
    # The third number keeps these draws apart from those of the pairs.
    generators = [np.random.default_rng((seed, number, 1)) for number in numbers]
    drawn = [one.integers(prod(key_shape), size=(heads, k, *query_shape), dtype=np.int32) for one in generators]
    return torch.from_numpy(np.stack(drawn))
