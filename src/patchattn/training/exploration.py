r"""Attention to keys drawn at random, with which query and key features learn to agree.

Why: a random convolution of the query and another of the key make features that lie apart, and the keys nearest to all
queries are then the same few (of 1,024 positions, some five). Such matches say nothing of which others would be better,
and gradients of attention to them lead nowhere; the softmax of full attention over l2 distances is as narrow. Random
keys do say it: for each query, with A_j the weights of its matches and o the attended value,

$$\frac{\partial L}{\partial S_j} = \frac{1}{\tau} A_j \left(V_j - o\right) \cdot \frac{\partial L}{\partial o}$$

raises the similarity of keys whose value is better than the others', over the whole of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32
from torch import Tensor, nn

from patchattn.attention import PatchAttention
from patchattn.field import MatchField

__all__ = ["RandomMatches", "draw_matches"]


class RandomMatches:
    """A layer that attends as another does, but to keys drawn at random.

    Args:
        layer: whose patches, similarity and temperature count, and for patch attention also its k and its votes. Others
            are stood in for by patch attention to three keys.

    Raises:
        ValueError: the layer has no similarity of patches that its weights come from, as linear attention has none.

    Example:
        >>> from patchattn.baselines import FullAttention
        >>> attend = RandomMatches(FullAttention(patch_size=5)).attention(range(2), seed=0)
        >>> attend(torch.rand(2, 4, 8, 8), torch.rand(2, 4, 9, 9), torch.rand(2, 3, 9, 9)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, layer: nn.Module) -> None:
        known: dict[str, Any] = getattr(layer, "settings", {})
        if "similarity" not in known:
            raise ValueError(
                f"explore: {type(layer).__name__} has no similarity of patches to learn from random matches; expected "
                "0, or an attention with one: psal, psal-aggregate, full or local."
            )
        shared = {"patch_size", "similarity", "temperature", "num_heads", "padding_mode"}
        if isinstance(layer, PatchAttention):
            shared |= {"k", "aggregate"}
        self.layer = PatchAttention(**{name: known[name] for name in shared & known.keys()})

    def attention(self, numbers: Iterable[int], *, seed: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Return the attention of a batch of these items; draws depend on `seed` and the items' numbers alone."""
        return partial(self._attend, numbers, seed)

    def _attend(self, numbers: Iterable[int], seed: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        heads, k = self.layer.settings["num_heads"], self.layer.settings["k"]
        shapes = tuple(query.shape[2:]), tuple(key.shape[2:])
        index = draw_matches(numbers, heads, k, *shapes, seed=seed).to(query.device)
        # The layer computes similarities anew, of what it attends to.
        field = MatchField(index, query.new_zeros(()).expand(index.shape), shapes[1])
        attended: Tensor = self.layer(query, key, value, field=field)
        return attended


def draw_matches(
    numbers: Iterable[int], heads: int, k: int, query_shape: Sequence[int], key_shape: Sequence[int], *, seed: int
) -> Int32[Tensor, "items heads k *query"]:
    """Draw k key positions for every query position, each as likely as any other.

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
