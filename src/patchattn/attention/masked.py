"""Patch attention that fills a hole: what is masked attends to what is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchattn.attention.layer import AttentionLayer
from patchattn.attention.patch import patch_attention
from patchattn.attention.precision import promote
from patchattn.backends import KernelBackend
from patchattn.checks import check_mask, check_pair
from patchattn.search_methods import SearchMethod
from patchattn.settings import Backend, Method, PaddingMode, SimilarityName
from patchattn.similarity import Similarity

__all__ = ["MaskedPatchAttention", "masked_patch_attention"]


def masked_patch_attention(
    query: Float[Tensor, "batch channels *spatial"],
    key: Float[Tensor, "key_batch channels *spatial"],
    value: Float[Tensor, "value_batch value_channels *spatial"],
    *,
    k: int = 3,
    patch_size: int | Sequence[int] = 7,
    similarity: SimilarityName | Similarity = "l2",
    temperature: float = 1.0,
    aggregate: bool = False,
    method: Method | SearchMethod = "patchmatch",
    iterations: int | None = 5,
    seed: int = 0,
    padding_mode: PaddingMode = "reflect",
    backend: Backend | KernelBackend | None = None,
    key_mask: Bool[Tensor, "mask_batch *spatial"] | None = None,
) -> Tensor:
    r"""Attend from every masked position to its k best positions that are not; all others keep their value.

    $$O_i = \begin{cases} V_i & m_i = 1 \\ \sum_{j \in \psi(i)} A_{ij} V_j, \quad m_j = 1 & m_i = 0 \end{cases}$$

    with m the `key_mask`, and A and psi those of `patch_attention`. This is how PSAL takes the place of contextual
    attention (section 4.4.2): patches of 7 at full size instead of 3 at half of it, the central pixel of each match,
    k = 3, five iterations of PatchMatch. A position that is not masked is its own best match, at distance 0: it is not
    searched for. Memory is linear in the positions, and so is time in the masked ones.

    Args:
        query, key, value: as in `patch_attention`, all of one spatial size.
        key_mask: bool `(B or 1, *spatial)`: False inside the hole; None: there is no hole.
        k, patch_size, similarity, temperature, aggregate, method, iterations, seed, padding_mode, backend: see
            `patch_attention`. A patch that matches may reach into the hole, its center is outside.

    Returns:
        `(B, Cv, *spatial)` in the dtype of value; 0 in a hole without anything around it.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.
        RuntimeError: the backend does not load.

    Example:
        >>> import torch
        >>> from patchattn import masked_patch_attention
        >>> features = torch.rand(1, 8, 32, 24)
        >>> known = torch.ones(1, 32, 24, dtype=torch.bool)
        >>> known[:, 10:18, 8:16] = False
        >>> filled = masked_patch_attention(features, features, features, key_mask=known)
        >>> torch.equal(filled[..., :10, :], features[..., :10, :])
        True
    """
    query, key, value = promote(query, key, value)
    check_pair(query, key, 1)
    if key.shape[2:] != query.shape[2:] or value.shape[2:] != query.shape[2:]:
        raise ValueError(
            "query, key and value: expected one spatial size, for a position that is not masked keeps its value; got "
            f"{', '.join(str(tuple(image.shape[2:])) for image in (query, key, value))}."
        )
    check_mask("key_mask", key_mask, "key", key, query.shape[0])
    if key_mask is None:
        key_mask = torch.ones((1, *key.shape[2:]), dtype=torch.bool, device=key.device)
    attended = patch_attention(
        query, key, value, k=k, patch_size=patch_size, similarity=similarity, temperature=temperature,
        aggregate=aggregate, method=method, iterations=iterations, seed=seed, query_mask=~key_mask, key_mask=key_mask,
        padding_mode=padding_mode, backend=backend,
    )  # fmt: skip
    return torch.where(key_mask.unsqueeze(1), value, attended)


@dataclass(kw_only=True, eq=False, repr=False)
class MaskedPatchAttention(AttentionLayer):
    """`masked_patch_attention` as a layer without parameters: `layer(query, key, value, key_mask=known)`.

    Example:
        >>> import torch
        >>> from patchattn import MaskedPatchAttention
        >>> features = torch.rand(1, 8, 16, 16)
        >>> MaskedPatchAttention()(features, features, features, key_mask=torch.rand(1, 16, 16) > 0.3).shape
        torch.Size([1, 8, 16, 16])
    """

    function = staticmethod(masked_patch_attention)
    shown = ("k", "patch_size", "similarity", "temperature", "aggregate", "method", "iterations")

    k: int = 3
    patch_size: int | Sequence[int] = 7
    similarity: SimilarityName | Similarity = "l2"
    temperature: float = 1.0
    aggregate: bool = False
    method: Method | SearchMethod = "patchmatch"
    iterations: int | None = 5
    seed: int = 0
    padding_mode: PaddingMode = "reflect"
    backend: Backend | KernelBackend | None = None
