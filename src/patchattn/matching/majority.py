"""`majority_vote`: for every position the key position that most of the patches holding it say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from patchattn.backends import KernelBackend
from patchattn.checks import check_mask
from patchattn.field import MatchField
from patchattn.matching.constraints import odd_sizes
from patchattn.matching.define import resolve_backend
from patchattn.matching.match import refuse_transform
from patchattn.names import Backend
from patchattn.ops.majority import majority
from patchattn.problem import Constraints

__all__ = ["majority_vote"]


def majority_vote(
    field: MatchField,
    patch_size: int | Sequence[int],
    *,
    query_mask: Bool[Tensor, "mask_batch *query"] | None = None,
    key_mask: Bool[Tensor, "mask_batch2 *key"] | None = None,
    backend: Backend | KernelBackend | None = None,
) -> MatchField:
    r"""Return the key position that most of the patches that hold a query position match it with.

    A patch around i + o, matched with $\psi(i + o)$, lays the key position $\psi(i + o) - o$ upon i. Each position i
    gets the most frequent of these,

    $$j(i) = \operatorname*{arg\,max}_j \; |\{o \in \text{patch}, m \le k : \psi_m(i + o) - o = j\}|$$

    (the first in row-major order of those as frequent). Values at j(i) are copied, not averaged: an image made of them
    is as sharp as what it is made of, with seams where the majority changes. `patch_attention(aggregate=True)` takes
    the mean of the same votes. There are no gradients: matches are positions.

    Args:
        field: the matches of patches, of any k.
        patch_size: the odd size that they were found with.
        query_mask: `(B or 1, *query)`, False: this position gets no match.
        key_mask: `(B or 1, *key)`, False: votes for this key position do not count.
        backend: as for `match`.

    Returns:
        A `MatchField` of single positions with k = 1. Its similarity is the share of the votes that the match has, in
        (0, 1]; -inf without any vote.

    Raises:
        ValueError: an argument is out of range, or a mask does not fit.

    Example:
        >>> import torch
        >>> from patchattn import majority_vote, match
        >>> image = torch.rand(1, 3, 32, 32)
        >>> field = match(image, image.roll((2, 5), dims=(2, 3)), patch_size=5, method="exact")
        >>> vote = majority_vote(field, 5)
        >>> vote.offsets()[0, 0, 0, :, 10, 10], vote.similarity[0, 0, 0, 10, 10]
        (tensor([2, 5]), tensor(1.))
    """
    if not isinstance(field, MatchField):
        raise ValueError(f"field: expected a MatchField, got {type(field).__name__}.")
    refuse_transform("field", field, "search without transforms")
    window = odd_sizes(patch_size, len(field.query_shape))
    # Tensors of the two sizes without memory: of query and key the sizes alone are known.
    batch, empty = field.index.shape[0], field.similarity.detach().new_empty(())
    query, key = (empty.expand(batch, 1, *shape) for shape in (field.query_shape, field.key_shape))
    check_mask("query_mask", query_mask, "field.query_shape", query, batch)
    check_mask("key_mask", key_mask, "field.key_shape", key, batch)
    constraints, index = Constraints(query_mask, key_mask), field.index.detach()
    found, share = majority(index, key[:1], window, constraints, resolve_backend(backend, index))
    return MatchField(found, torch.where(found >= 0, share, -torch.inf), field.key_shape)
