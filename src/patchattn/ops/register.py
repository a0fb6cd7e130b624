"""The one recipe by which operators are registered."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["fake", "operator"]

Function = TypeVar("Function", bound=Callable[..., Any])

_fakes: dict[str, Callable[..., Any]] = {}


def operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Register a function of tensors and plain settings as `patchattn::name`; its schema is read off the annotations.

    What `torch.library.custom_op` does, but for the `torch._dynamo.disable` around each call, which imports the
    compiler (a second and more) even where nothing is compiled. Fake and autograd are registered by name.

    Where the first argument, which is as large as what there is to do, holds nothing, the function is not called: the
    outputs are those of the fake, filled with 0 (what is empty, and gradients of what is not).
    """

    def register(function: Callable[..., Any]) -> Any:
        qualified = f"patchattn::{name}"
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(qualified, schema, tags=(torch.Tag.pt2_compliant_tag,))

        @wraps(function)
        def kernel(first: Tensor, *others: Any) -> Any:
            if first.numel() == 0:
                return _zeros(_fakes[name](first, *others))
            with _host_by_default():
                return function(first, *others)

        torch.library.impl(qualified, "CompositeExplicitAutograd")(kernel)
        return getattr(torch.ops.patchattn, name).default

    return register


def fake(name: str) -> Callable[[Function], Function]:
    """Register a function that makes `patchattn::name`'s outputs without computing them."""

    def register(function: Function) -> Function:
        torch.library.register_fake(f"patchattn::{name}")(function)
        _fakes[name] = function
        return function

    return register


def _zeros(outputs: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return outputs.zero_() if isinstance(outputs, Tensor) else tuple(output.zero_() for output in outputs)


def _host_by_default() -> AbstractContextManager[Any]:
    """Kernels name every device but the CPU; `torch.set_default_device` is about the user's own tensors."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
