"""Operators that are whole layers: what else would be thousands of nodes of a graph, for one size, is one for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor

from patchattn.names import PACKAGE
from patchattn.ops.autocast import without_autocast
from patchattn.ops.flops import counted
from patchattn.ops.register import fake, operator

__all__ = ["layer_operator"]

TENSORS = 5
"""Query, key, value and the two masks; what follows is plain."""


def layer_operator(name: str, function: Callable[..., Tensor]) -> Any:
    """Register `patchattn::name`: a function of query, key, value, query mask, key mask and plain settings.

    Its output is `(B, Cv, *query)` in the dtype of value. Nothing but the arguments is kept for the gradient:
    `patchattn::name_backward` calls the function again, with autograd, tile by tile if the function goes so.
    """

    def forward(*arguments: Any) -> Tensor:
        with torch.no_grad():
            return function(*arguments).contiguous()

    def backward(grad: Tensor, wanted: Sequence[bool], *arguments: Any) -> tuple[Tensor, ...]:
        images = [image.detach().requires_grad_(w) for image, w in zip(arguments[:3], wanted, strict=True)]
        found = _gradients(function, grad, images, arguments[3:], create_graph=False)
        return tuple(
            image.new_empty(0) if gradient is None else gradient.contiguous()
            for image, gradient in zip(images, found, strict=True)
        )

    own = signature(function)
    first = [Parameter(n, Parameter.POSITIONAL_OR_KEYWORD, annotation=t) for n, t in _GRADIENT.items()]
    forward.__signature__ = own  # type: ignore[attr-defined]
    backward.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*first, *own.parameters.values()], return_annotation=tuple[Tensor, Tensor, Tensor]
    )
    apply, differentiate = (operator(name)(forward).overload, operator(f"{name}_backward")(backward).overload)

    @fake(name)
    def _forward_fake(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
        return value.new_empty((query.shape[0], value.shape[1], *query.shape[2:]))

    @fake(f"{name}_backward")
    def _backward_fake(
        grad: Tensor, wanted: Sequence[bool], query: Tensor, key: Tensor, value: Tensor, *_: Any
    ) -> tuple[Tensor, ...]:
        images = zip((query, key, value), wanted, strict=True)
        return tuple(image.new_empty(image.shape if w else 0) for image, w in images)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:TENSORS])
        ctx.settings = inputs[TENSORS:]

    def autograd(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted, others = ctx.needs_input_grad[:3], (None,) * (len(ctx.settings) + TENSORS - 3)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # A gradient of this gradient is asked for: autograd sees all of it. Copies, for one may be given twice.
            images = [image.view_as(image) for image in ctx.saved_tensors[:3]]
            rest = (*ctx.saved_tensors[3:], *ctx.settings)
            return (*_gradients(function, grad, images, rest, create_graph=True), *others)
        found = differentiate(grad, wanted, *ctx.saved_tensors, *ctx.settings)
        return (*(gradient if w else None for gradient, w in zip(found, wanted, strict=True)), *others)

    torch.library.register_autograd(f"{PACKAGE}::{name}", autograd, setup_context=setup_context)
    counted(name, lambda *shapes, **_: _operations(function, shapes))
    counted(
        f"{name}_backward",
        lambda grad, wanted, *shapes, **_: _operations(partial(backward, _like(grad), wanted), shapes),
    )
    return apply


def _operations(function: Callable[..., Any], shapes: tuple[Any, ...]) -> int:
    """Operations that PyTorch counts of a function of tensors of such shapes, and settings."""
    from torch.utils.flop_counter import FlopCounterMode

    images = [_like(shape) for shape in shapes[:3]]
    masks = [None if shape is None else _like(shape, torch.bool) for shape in shapes[3:TENSORS]]
    with FlopCounterMode(display=False) as counter:
        function(*images, *masks, *shapes[TENSORS:])
    return int(counter.get_total_flops())


def _like(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, device="meta")


@contextmanager
def _autograd() -> Iterator[None]:
    """Autograd as outside of operators: a mode that watches them (`FlopCounterMode`, ...) leaves it switched off."""
    keys = torch._C.DispatchKey
    guard: Any = torch._C._SetExcludeDispatchKeyGuard
    with guard(keys.AutogradFunctionality, False), guard(keys.ADInplaceOrView, False):
        yield


_GRADIENT = {"grad": Tensor, "wanted": Sequence[bool]}


def _gradients(
    function: Callable[..., Tensor], grad: Tensor, images: list[Tensor], others: tuple[Any, ...], *, create_graph: bool
) -> list[Tensor | None]:
    """The gradients of the function with respect to those images that want one."""
    wanted = [image for image in images if image.requires_grad]
    with without_autocast(grad.device), _autograd():
        with torch.enable_grad():
            output = function(*images, *others)
        found = iter(torch.autograd.grad(output, wanted, grad, create_graph=create_graph, materialize_grads=True))
    return [next(found) if image.requires_grad else None for image in images]
