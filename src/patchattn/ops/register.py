"""The one recipe by which operators are registered, with their derivatives and for PyTorch's transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function

from patchattn.names import PACKAGE
from patchattn.ops.batching import batched
from patchattn.ops.schema import Schema
from patchattn.ops.transforms import any_requires_grad, is_plain, transforming
from patchattn.similarity import Similarity

__all__ = ["Operator", "fake", "operator", "schema_of"]

Call = TypeVar("Call", bound=Callable[..., Any])

_fakes: dict[str, Callable[..., Any]] = {}
_schemas: dict[str, Schema] = {}


class Operator:
    """An operator `patchattn::name`, to be called with the arguments of the function that it was made of.

    PyTorch knows it by the flat arguments of its `schema`: autograd, compilers and exporters as `overload`. The
    transforms of torch.func and forward-mode derivatives do not see through an operator of Python's making: where one
    is at work, the same function is called as a `torch.autograd.Function`, with a rule for each of them. Where the
    dispatcher would do nothing but call it (`is_plain`), the function is called without one.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], overload: Any, schema: Schema, shared: Sequence[str]
    ) -> None:
        self.name = name
        self._kernel = function
        self._recorded: type[Function] | None = None
        self.overload = overload
        self.schema = schema
        self.shared = tuple(schema.names.index(argument) for argument in shared)
        # Until it is told otherwise, nothing can be differentiated: matches are positions.
        self._function = _function_of(self, _save_nothing, _refuse_backward, _no_tangents, (None,) * self.outputs)

    @property
    def outputs(self) -> int:
        return len(self.overload._schema.returns)

    def __call__(self, *arguments: Any) -> Any:
        if is_plain(*arguments, *self.schema.inner_tensors(arguments)) and arguments[0].numel() > 0:
            if not any_requires_grad(*arguments):
                return self._kernel(*arguments)
            if self._recorded is not None:
                return self._recorded.apply(*arguments)  # type: ignore[no-untyped-call]
        return self.call_flat(*self.schema.flatten(arguments))

    def call_flat(self, *flat: Any) -> Any:
        """The same, called with the arguments of the schema."""
        if transforming():
            return self._function.apply(*flat)  # type: ignore[no-untyped-call]
        return self.overload(*flat)

    def differentiable(
        self,
        save: Callable[..., None],
        backward: Callable[..., Any],
        jvp: Callable[..., Any] | None = None,
        like: Sequence[int | None] | None = None,
    ) -> None:
        """Say how to differentiate.

        Args:
            save: keeps on its first argument what the derivatives need, of `inputs` and `output`, see
                `torch.library.register_autograd`.
            backward: from the gradients of the outputs to those of the inputs; made of operators, it can be
                differentiated again.
            jvp: from the tangents of the inputs to those of the outputs, alike; None: whoever calls it finds another
                way, see `forward_mode`.
            like: see `batched`.
        """
        schema = self.schema

        def save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            save(ctx, schema.rebuild(inputs), output)

        def spread(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
            return schema.spread(backward(ctx, *gradients))

        def tangents(ctx: Any, *flat: Tensor | None) -> Any:
            assert jvp is not None
            return jvp(ctx, *schema.tangents(flat))

        def forward(ctx: Any, *arguments: Any) -> Any:
            output = self._kernel(*arguments)
            save(ctx, arguments, output)
            return output

        rules = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        self._recorded = type(self.name, (Function,), rules)
        torch.library.register_autograd(self.name, spread, setup_context=save_inputs)
        self._function = _function_of(
            self, save_inputs, spread, None if jvp is None else tangents, like or (None,) * self.outputs
        )


def operator(name: str, shared: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Operator]:
    """Register a function of tensors, data classes and plain settings as `patchattn::name`.

    Its schema is read off the annotations, see `Schema`. `shared` are the tensors that may have a batch of one, shared
    by all queries.

    What `torch.library.custom_op` does, but for the `torch._dynamo.disable` around each call, which imports the
    compiler (a second and more) even where nothing is compiled. Fake and derivatives are registered by name.

    Where the first argument, which is as large as what there is to do, holds nothing, the function is not called: the
    outputs are those of the fake, filled with 0 (what is empty, and gradients of what is not).
    """

    def register(function: Callable[..., Any]) -> Operator:
        qualified = f"{PACKAGE}::{name}"
        schema = Schema(function)

        @wraps(function)
        def kernel(first: Tensor, *others: Any) -> Any:
            if first.numel() == 0:
                return _zeros(_fakes[name](first, *others))
            with _host_by_default():
                return function(*schema.rebuild((first, *others)))

        kernel.__signature__ = schema.signature  # type: ignore[attr-defined]
        inferred = torch.library.infer_schema(kernel, mutates_args=())
        torch.library.define(qualified, inferred, tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(qualified, "CompositeExplicitAutograd")(kernel)
        made = Operator(qualified, function, getattr(getattr(torch.ops, PACKAGE), name).default, schema, shared)
        _schemas[name] = schema
        return made

    return register


def schema_of(name: str) -> Schema:
    """The parameters of `patchattn::name`."""
    return _schemas[name]


def fake(name: str) -> Callable[[Call], Call]:
    """Register a function that makes `patchattn::name`'s outputs without computing them, from the same arguments.

    Its similarities are names alone: a graph can be read where they are not known.
    """

    def register(function: Call) -> Call:
        schema = _schemas[name]

        def flat(*arguments: Any) -> Any:
            return function(*schema.rebuild(arguments, Similarity))

        torch.library.register_fake(f"{PACKAGE}::{name}")(flat)
        _fakes[name] = flat
        return function

    return register


def _zeros(outputs: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return outputs.zero_() if isinstance(outputs, Tensor) else tuple(output.zero_() for output in outputs)


def _host_by_default() -> AbstractContextManager[Any]:
    """Kernels name every device but the CPU; `torch.set_default_device` is about the user's own tensors."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


def _function_of(
    called: Operator,
    save: Callable[..., None],
    backward: Callable[..., Any],
    jvp: Callable[..., Any] | None,
    like: Sequence[int | None],
) -> type[Function]:
    """The operator as PyTorch's transforms want it."""

    def forward(*arguments: Any) -> Any:
        return called.overload(*arguments)

    def vmap(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
        return batched(called.call_flat, called.shared, like, info.batch_size, in_dims, arguments)

    rules = {"forward": forward, "setup_context": save, "backward": backward, "vmap": vmap}
    if jvp is not None:
        rules["jvp"] = jvp
    return type(called.name, (Function,), {name: staticmethod(rule) for name, rule in rules.items()})


def _save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Tensor | tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*(output if isinstance(output, tuple) else (output,)))
    ctx.outputs = len(output) if isinstance(output, tuple) else 1


def _refuse_backward(ctx: Any, *gradients: Tensor) -> Any:
    raise AssertionError("Outputs without a gradient are never asked for one.")


def _no_tangents(ctx: Any, *tangents: Tensor | None) -> Any:
    return None if ctx.outputs == 1 else (None,) * ctx.outputs
