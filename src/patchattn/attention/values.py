"""Values at the matches of a field: apart, or summed with weights of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from patchattn.attention.blocks import fold_blocks, size_ratio, unfold_blocks
from patchattn.attention.tiles import recomputed
from patchattn.attention.transformed import VALUE_PADDING
from patchattn.backends import KernelBackend
from patchattn.checks import FLOATS, check_features, check_heads
from patchattn.field import MatchField
from patchattn.matching.canvas import Canvas, check_transform
from patchattn.matching.constraints import odd_sizes
from patchattn.matching.define import resolve_backend
from patchattn.matching.indices import check_positions
from patchattn.ops.autocast import without_autocast
from patchattn.ops.votes import heard, keys_voted, offsets_of
from patchattn.ops.weighted_sum import weighted_sum
from patchattn.settings import Backend

__all__ = ["attend", "check_weights", "gather", "values_at"]


def gather(
    field: MatchField,
    value: Float[Tensor, "value_batch value_channels *value"],
    *,
    backend: Backend | KernelBackend | None = None,
) -> Float[Tensor, "batch heads k head_channels *out"]:
    r"""Return the values at the matches of every query, apart.

    $$O_{ik} = V_{\psi_k(i)}$$

    with psi_k(i) the k-th match of query i. This holds k times as much as an output: where a weighted sum is what
    follows, `attend` takes no such memory. The gradient with respect to value is the same from run to run, and can be
    differentiated again.

    Args:
        field: from `match`, or made of an index: `(B, heads, k, *query)`.
        value: `(B or 1, Cv, *(r key))`, float16, bfloat16, float32 or float64, with r a whole number: for r > 1 each
            match brings its block of r pixels in each dimension.
        backend: see `match`.

    Returns:
        `(B, heads, k, Cv / heads, *(r query))` in the dtype of value, head by head, best match first, as
        `field.coordinates()` is; 0 where there is no match.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.
        RuntimeError: the backend does not load.

    Example:
        >>> import torch
        >>> from patchattn import gather, match
        >>> image = torch.rand(1, 3, 16, 16)
        >>> field = match(image, image, k=4, patch_size=3)
        >>> values = gather(field, image)
        >>> values.shape
        torch.Size([1, 1, 4, 3, 16, 16])
        >>> median = values.median(2).values[:, 0]
    """
    ratio, chosen = _check(field, value, backend)
    matches, value, _ = _on_canvas(field, value, ratio, chosen)
    apart = values_at(matches, unfold_blocks(value, ratio), chosen)
    folded = fold_blocks(apart.flatten(0, 2), ratio)
    return folded.reshape(*apart.shape[:3], *folded.shape[1:])


def attend(
    field: MatchField,
    weights: Float[Tensor, "#batch #heads #k *query"],
    value: Float[Tensor, "value_batch value_channels *value"],
    *,
    normalize: bool = False,
    aggregate: bool = False,
    patch_size: int | Sequence[int] = 7,
    backend: Backend | KernelBackend | None = None,
) -> Float[Tensor, "batch value_channels *out"]:
    r"""Sum the values at the matches of every query, with weights of your own.

    $$O_i = \sum_k w_{ik} V_{\psi_k(i)}$$

    with psi_k(i) the k-th match of query i: what `patch_attention` does after its softmax, for weights from anywhere
    and of any sign. With `aggregate=True` the matches of the neighbors vote, as in PSAL's equation (10): for every
    neighbor i' of i within the patch window, match j' of i' brings V at j' + (i - i') with its weight at i'. Votes that
    leave the key's domain do not count; two votes for one key stay two.

    Memory is linear in the pixels, forward and backward, with the numbers of one row of the window at a time
    (k times its extent, for each query): votes are computed again for the gradient. Gradients flow to weights and
    value, are the same from run to run, and can be differentiated again.

    Args:
        field: from `match`, or made of an index: `(B, heads, k, *query)`.
        weights: float of any precision, of a shape that can be broadcast to that of `field.index`. Those of places
            without a match are not looked at.
        value: `(B or 1, Cv, *(r key))`, float16, bfloat16, float32 or float64, with r a whole number: for r > 1 each
            match brings its block of r pixels in each dimension. Sums are taken in float32 at least.
        normalize: divide by the sum of all weights that count, so that the output is a weighted mean; 0 where that sum
            is 0.
        aggregate: let the matches of the neighbors vote.
        patch_size: the window of neighbors that vote, odd, for all dimensions or one for each; of no meaning without
            `aggregate`.
        backend: see `match`.

    Returns:
        `(B, Cv, *(r query))` in the dtype of value; 0 where a query has no match and hears no vote.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.
        RuntimeError: the backend does not load.

    Example:
        >>> import torch
        >>> from patchattn import attend, match
        >>> image = torch.rand(1, 3, 16, 16)
        >>> field = match(image, image, k=4, patch_size=3)
        >>> weights = torch.sigmoid(field.similarity)
        >>> attend(field, weights, image, normalize=True, aggregate=True, patch_size=3).shape
        torch.Size([1, 3, 16, 16])
    """
    ratio, chosen = _check(field, value, backend)
    index = field.index
    check_weights(weights, index, value)
    window = odd_sizes(patch_size, index.dim() - 3) if aggregate else (1,) * (index.dim() - 3)

    weights = weights.expand(index.shape)
    index, value, inside = _on_canvas(field, value, ratio, chosen)
    if index.shape[2] == 0:  # one place that is empty, which the kernels know
        index, weights = index.new_full((*index.shape[:2], 1, *index.shape[3:]), -1), weights.sum(2, keepdim=True)
    blocks, heads = unfold_blocks(value, ratio), index.shape[1]
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    with without_autocast(value.device):
        if normalize:  # a channel of ones in each head sums the weights
            split = torch.unflatten(blocks.to(dtype), 1, (heads, blocks.shape[1] // heads))
            blocks = torch.cat([split, torch.ones_like(split[:, :, :1])], 2).flatten(1, 2)
        elif prod(window) > 1:
            blocks = blocks.to(dtype)  # rounded once, at the end
        output = _sum_of_votes(weights, index, blocks, inside, window, chosen)
        if normalize:
            split = torch.unflatten(output, 1, (heads, output.shape[1] // heads))
            total = split[:, :, -1:]
            known = total != 0
            output = torch.where(known, split[:, :, :-1] / torch.where(known, total, 1), 0).flatten(1, 2)
        return fold_blocks(output.to(value.dtype), ratio)


def check_weights(weights: Tensor, index: Tensor, value: Tensor) -> None:
    """Check weights of one's own against the index of a field and its values."""
    if not isinstance(weights, Tensor) or weights.dtype not in FLOATS:
        came = weights.dtype if isinstance(weights, Tensor) else type(weights).__name__
        raise ValueError(f"weights: expected a tensor of float16, bfloat16, float32 or float64, got {came}.")
    if weights.dim() != index.dim() or any(
        n not in (1, all_) for n, all_ in zip(weights.shape, index.shape, strict=True)
    ):
        raise ValueError(
            f"weights: expected a shape that can be broadcast to that of field.index, {tuple(index.shape)}, got "
            f"{tuple(weights.shape)}."
        )
    if weights.device != value.device:
        raise ValueError(f"weights: expected device {value.device} as value has, got {weights.device}.")


def values_at(index: Tensor, value: Tensor, backend: str) -> Tensor:
    """The values at every match, `(B, heads, k, Cv / heads, *query)`; 0 where there is none."""
    batch, heads, k, *query = index.shape
    # Every match is a query with one key.
    flat = index.flatten(2).unsqueeze(2)
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    one = torch.ones(flat.shape, dtype=dtype, device=index.device)
    found: Tensor = weighted_sum(one, flat, value.flatten(2), backend)
    return found.reshape(batch, heads, found.shape[1] // heads, k, *query).transpose(2, 3)


def _sum_of_votes(
    weights: Tensor, index: Tensor, value: Tensor, inside: Tensor | None, window: tuple[int, ...], backend: str
) -> Tensor:
    """The sum over all votes, one row of the window at a time."""
    if prod(window) == 1:
        output: Tensor = weighted_sum(weights, index, value, backend)
        return output
    key_size = tuple(value.shape[2:])

    def row(weights: Tensor, value: Tensor, offsets: list[tuple[int, ...]]) -> Tensor:
        votes = keys_voted(index, key_size, offsets, inside)
        found: Tensor = weighted_sum(heard(weights, offsets, 0), votes, value, backend)
        return found

    offsets, width = offsets_of(window), window[-1]
    rows = [offsets[at : at + width] for at in range(0, len(offsets), width)]
    # A compiler chooses by itself what to compute again.
    call = (lambda f, *arguments: f(*arguments)) if torch.compiler.is_compiling() else recomputed
    total = call(row, weights, value, rows[0])
    for own in rows[1:]:
        total = total + call(row, weights, value, own)
    return total


def _on_canvas(field: MatchField, value: Tensor, ratio: int, backend: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Matches and value, of transformed matches on the canvas of the copies, and there where votes may go."""
    if field.transform is None:
        return field.index, value, None
    canvas = Canvas.of(field.transform.layout, field.index.device, backend)
    return field.transform.place, canvas.draw(value, VALUE_PADDING, ratio), canvas.nearest >= 0


def _check(field: MatchField, value: Tensor, backend: str | KernelBackend | None) -> tuple[int, str]:
    """The size of a block of value, and the backend."""
    if not isinstance(field, MatchField):
        raise ValueError(f"field: expected a MatchField, got {type(field).__name__}.")
    check_features("value", value)
    index = field.index
    if index.dtype != torch.int32 or index.dim() != value.dim() + 1 or len(field.key_shape) != value.dim() - 2:
        raise ValueError(
            f"field: expected an int32 index (B, heads, k, *query) with {value.dim() - 2} spatial dimensions as value "
            f"has, got {index.dtype} {tuple(index.shape)} and key_shape {field.key_shape}."
        )
    if index.device != value.device:
        raise ValueError(f"field: expected device {value.device} as value has, got {index.device}.")
    if value.shape[0] not in (1, index.shape[0]):
        raise ValueError(f"value: expected batch size {index.shape[0]} as field has, or 1, got {value.shape[0]}.")
    check_heads("value", value, index.shape[1])
    check_positions("field: its index", index, prod(field.key_shape))
    check_transform("field", field)
    return size_ratio(field.key_shape, value), resolve_backend(backend, value)
