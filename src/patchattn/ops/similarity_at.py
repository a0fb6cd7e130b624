"""The similarities of a given field, differentiable in query and key, again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchattn.ops.cosine import cosine_at
from patchattn.ops.similarity_operators import similarity_at_backward, similarity_operator, similarity_tangent
from patchattn.ops.transforms import transforming
from patchattn.similarity import resolve_similarity

__all__ = ["similarity_at"]

QUADRATIC = ("l2", "dot", "scaled_dot")


def similarity_at(
    query: Tensor,
    key: Tensor,
    index: Tensor,
    patch_size: Sequence[int],
    padding_mode: str,
    num_heads: int,
    similarity: str,
    backend: str,
) -> Tensor:
    """Return the similarity of every query patch and the key patches that `index` names, both `(B, heads, k, *query)`;
    -inf where `index` is -1, and instead of NaN. It can be differentiated in every mode.
    """
    if similarity == "cosine" and transforming():
        return cosine_at(query, key, index, patch_size, padding_mode, num_heads, backend)
    found: Tensor = similarity_operator(query, key, index, patch_size, padding_mode, num_heads, similarity, backend)
    return found


# The similarities of products and squared differences are quadratic: their gradient is linear in query and key, so that
# its derivative along a direction is the gradient at that direction. With s' the derivative of s along (u, v):
# gradient of s'(q, k; u, v) with respect to (u, v) = gradient of s at (q, k), with respect to (q, k) = that at (u, v).


def _curvature(
    grad: Tensor, by_query: Tensor, by_key: Tensor, index: Tensor, settings: Any
) -> tuple[Tensor | None, Tensor | None]:
    """The derivative of the gradient of `similarity_at` along a direction."""
    similarity = settings[3]
    if similarity == "l1":
        return None, None
    if similarity not in QUADRATIC:
        raise RuntimeError(
            f"similarity: {similarity} has no second derivative; pointwise_similarity() takes the first alone. Use "
            "'l2', 'dot', 'scaled_dot', 'cosine' or 'l1' where gradients are differentiated (create_graph=True)."
        )
    grad_query, grad_key = similarity_at_backward(grad, by_query, by_key, index, *settings)
    return grad_query, grad_key


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, key, index, *ctx.settings = inputs
    _hold_similarity(ctx)
    ctx.save_for_backward(query, key, index)
    ctx.save_for_forward(query, key, index)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    query, key, index = ctx.saved_tensors
    patch_size, padding_mode, num_heads, similarity, backend = ctx.settings
    if similarity == "cosine" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        # To be differentiated once more.
        with torch.enable_grad():
            found = cosine_at(query, key, index, patch_size, padding_mode, num_heads, backend)
        wanted = [x for x in (query, key) if x.requires_grad]
        gradients = iter(torch.autograd.grad(found, wanted, grad, create_graph=True))
        pair = [next(gradients) if x.requires_grad else None for x in (query, key)]
    else:
        pair = similarity_at_backward(grad, query, key, index, *ctx.settings)
    return *pair, None, *_nothing(ctx)


def _jvp(ctx: Any, by_query: Tensor, by_key: Tensor, *rest: None) -> Tensor:
    found: Tensor = similarity_tangent(*ctx.saved_tensors, by_query, by_key, *ctx.settings)
    return found


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    grad, query, key, index, *ctx.settings = inputs
    _hold_similarity(ctx)
    ctx.save_for_backward(grad, query, key, index)
    ctx.save_for_forward(grad, query, key, index)


def _backward_of_backward(ctx: Any, by_query: Tensor, by_key: Tensor) -> tuple[Tensor | None, ...]:
    grad, query, key, index = ctx.saved_tensors
    by_grad = similarity_tangent(query, key, index, by_query, by_key, *ctx.settings).to(grad.dtype)
    curves = any(ctx.needs_input_grad[1:3])
    of_pair = _curvature(grad, by_query, by_key, index, ctx.settings) if curves else (None, None)
    return by_grad, *of_pair, None, *_nothing(ctx)


def _jvp_of_backward(ctx: Any, by_grad: Tensor, by_query: Tensor, by_key: Tensor, *rest: None) -> tuple[Tensor, Tensor]:
    grad, query, key, index = ctx.saved_tensors
    grad_query, grad_key = similarity_at_backward(by_grad, query, key, index, *ctx.settings)
    curved = _curvature(grad, by_query, by_key, index, ctx.settings)
    return _sum(grad_query, curved[0]), _sum(grad_key, curved[1])


def _save_tangent(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, key, index, by_query, by_key, *ctx.settings = inputs
    _hold_similarity(ctx)
    ctx.save_for_backward(query, key, index, by_query, by_key)
    ctx.save_for_forward(query, key, index, by_query, by_key)


def _backward_of_tangent(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    query, key, index, by_query, by_key = ctx.saved_tensors
    curves = any(ctx.needs_input_grad[:2])
    of_pair = _curvature(grad, by_query, by_key, index, ctx.settings) if curves else (None, None)
    of_direction = similarity_at_backward(grad, query, key, index, *ctx.settings)
    return *of_pair, None, *of_direction, *_nothing(ctx)


def _jvp_of_tangent(ctx: Any, *tangents: Tensor) -> Tensor:
    query, key, index, by_query, by_key = ctx.saved_tensors
    along_query, along_key, _, again_by_query, again_by_key, *_ = tangents
    found: Tensor = similarity_tangent(query, key, index, again_by_query, again_by_key, *ctx.settings)
    if ctx.settings[3] == "l1":
        return found
    if ctx.settings[3] not in QUADRATIC:
        _curvature(found, along_query, along_key, index, ctx.settings)  # says that there is none
    curved: Tensor = similarity_tangent(along_query, along_key, index, by_query, by_key, *ctx.settings)
    return found + curved


def _hold_similarity(ctx: Any) -> None:
    """Keep a user's similarity until the gradient is computed: its name is known only as long as something holds it."""
    ctx.similarity = resolve_similarity(ctx.settings[3])


def _nothing(ctx: Any) -> tuple[None, ...]:
    return (None,) * len(ctx.settings)


def _sum(first: Tensor, second: Tensor | None) -> Tensor:
    return first if second is None else first + second


similarity_operator.differentiable(_save, _backward, _jvp)
similarity_at_backward.differentiable(_save_backward, _backward_of_backward, _jvp_of_backward, like=(1, 2))
similarity_tangent.differentiable(_save_tangent, _backward_of_tangent, _jvp_of_tangent)
