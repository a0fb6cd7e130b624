"""Similarities at the matches of a field, for weights of one's own."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from patchattn.attention.precision import promote
from patchattn.backends import KernelBackend
from patchattn.field import MatchField
from patchattn.matching.define import define_geometry, resolve_backend
from patchattn.matching.match import check_field, refuse_transform
from patchattn.names import Backend, PaddingMode, SimilarityName
from patchattn.ops.similarity_at import similarity_at as measured
from patchattn.settings import CommonSettings
from patchattn.similarity import Similarity

__all__ = ["similarity_at"]


def similarity_at(
    query: Float[Tensor, "batch channels *query"],
    key: Float[Tensor, "key_batch channels *key"],
    field: MatchField,
    *,
    patch_size: int | Sequence[int] = 1,
    similarity: SimilarityName | Similarity = "l2",
    padding_mode: PaddingMode = "reflect",
    backend: Backend | KernelBackend | None = None,
) -> Float[Tensor, "batch heads k *query"]:
    r"""Return the similarity of every query and its matches, differentiable in both.

    $$S_{im} = s(Q_i, K_{\psi_m(i)})$$

    with psi_m(i) the m-th match of query i. `match` finds positions, of which there are no gradients; this is how a
    weight of one's own gets one: `attend(field, f(similarity_at(query, key, field)), value)`. Memory is linear in the
    positions. Gradients are the same from run to run, can be differentiated again, and taken in forward mode.

    Args:
        query: `(B, C, *query)`; float16, bfloat16, float32 or float64. Sums are taken in float32 at least.
        key: `(B or 1, C, *key)`.
        field: from `match`, or made of an index: `(B, heads, k, *query)`. The channels are split into as many groups as
            it has heads.
        patch_size, similarity, padding_mode, backend: see `match`.

    Returns:
        `(B, heads, k, *query)`, float32 (float64 for float64 features); -inf where there is no match.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.
        RuntimeError: the backend does not load; or gradients of a pointwise similarity without a derivative.

    Example:
        >>> import torch
        >>> from patchattn import attend, match, similarity_at
        >>> image = torch.rand(1, 8, 16, 16, requires_grad=True)
        >>> field = match(image, image, k=4, patch_size=3, similarity="dot")
        >>> scores = similarity_at(image, image, field, patch_size=3, similarity="dot")
        >>> attend(field, scores.relu(), image, normalize=True).shape
        torch.Size([1, 8, 16, 16])
    """
    query, key = promote(query, key)
    if not isinstance(field, MatchField):
        raise ValueError(f"field: expected a MatchField, got {type(field).__name__}.")
    settings = CommonSettings(num_heads=field.index.shape[1], padding_mode=padding_mode)
    geometry = define_geometry(query, key, settings, patch_size, similarity)
    check_field("field", field, query, key, geometry.num_heads)
    refuse_transform("field", field, "the similarities it holds are those of the transformed patches")
    found: Tensor = measured(query, key, field.index, geometry, resolve_backend(backend, query))
    return found
