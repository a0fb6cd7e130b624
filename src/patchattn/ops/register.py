"""The one recipe by which operators are registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

__all__ = ["fake", "operator"]

Function = TypeVar("Function", bound=Callable[..., Any])


def operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Register a function of tensors and plain settings as `patchattn::name`; its schema is read off the annotations.

    What `torch.library.custom_op` does, but for the `torch._dynamo.disable` around each call, which imports the
    compiler (a second and more) even where nothing is compiled. Fake and autograd are registered by name.
    """

    def register(function: Callable[..., Any]) -> Any:
        qualified = f"patchattn::{name}"
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(qualified, schema, tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(qualified, "CompositeExplicitAutograd")(function)
        return getattr(torch.ops.patchattn, name).default

    return register


def fake(name: str) -> Callable[[Function], Function]:
    """Register a function that makes `patchattn::name`'s outputs without computing them."""

    def register(function: Function) -> Function:
        torch.library.register_fake(f"patchattn::{name}")(function)
        return function

    return register
