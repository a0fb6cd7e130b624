"""The rule by which `torch.vmap` goes through an operator: the new dimension is folded into the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["batched"]


def batched(
    call: Callable[..., Any], shared: Sequence[int], like: Sequence[int | None], size: int, in_dims: Sequence[Any],
    arguments: Sequence[Any],
) -> tuple[Any, Any]:  # fmt: skip
    """Call an operator once for all entries of a mapped dimension, and return its outputs and where it is in them.

    Every operator treats the items of a batch on their own (not even random numbers differ), so that one call with a
    larger batch gives what a loop gives.

    Args:
        call: the operator, by the arguments of its schema.
        shared: the numbers of the arguments that may have a batch of one, shared by all queries.
        like: for each output, the number of the argument that it is the gradient of; None for what belongs to queries.
        size: of the mapped dimension.
        in_dims: where it is in each argument.
        arguments: those that are tensors begin with the batch.
    """
    tensors = {at: value for at, value in enumerate(arguments) if isinstance(value, Tensor)}
    batches = {at: _batch(value, in_dims[at]) for at, value in tensors.items()}
    batch = 1 if all(n == 1 for n in batches.values()) else max(n for n in batches.values() if n != 1)
    folded = list(arguments)
    for at, value in tensors.items():
        dim = in_dims[at]
        if dim is None and batches[at] == 1 and at in shared:
            continue  # not copied
        entries = value.unsqueeze(0) if dim is None else value.movedim(dim, 0)
        folded[at] = entries.expand(size, batch, *entries.shape[2:]).flatten(0, 1)
    outputs = call(*folded)
    several = isinstance(outputs, tuple)
    found = []
    for output, source in zip(outputs if several else (outputs,), like, strict=True):
        entries = torch.unflatten(output, 0, (size, batch))
        was_shared = source is not None and batches[source] == 1 and batch != 1
        found.append(entries.sum(1, keepdim=True) if was_shared else entries)
    return (tuple(found), (0,) * len(found)) if several else (found[0], 0)


def _batch(value: Tensor, dim: int | None) -> int:
    return value.shape[0] if dim is None else value.movedim(dim, 0).shape[1]
