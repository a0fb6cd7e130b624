"""The one recipe by which operators are registered, with their derivatives and for PyTorch's transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function

from patchattn.ops.batching import batched
from patchattn.ops.transforms import transforming

__all__ = ["Operator", "fake", "operator"]

Call = TypeVar("Call", bound=Callable[..., Any])

SEQUENCES = "collections.abc."

_fakes: dict[str, Callable[..., Any]] = {}


class Operator:
    """An operator `patchattn::name`, to be called.

    Autograd, compilers and exporters know it as `overload`. The transforms of torch.func and forward-mode derivatives
    do not see through an operator of Python's making: where one is at work, the same function is called as a
    `torch.autograd.Function`, with a rule for each of them.
    """

    def __init__(self, name: str, overload: Any, shared: Sequence[int]) -> None:
        self.name = name
        self.overload = overload
        self.shared = shared
        # Until it is told otherwise, nothing can be differentiated: matches are positions.
        self._function = _function_of(self, _save_nothing, _refuse_backward, _no_tangents, (None,) * self.outputs)

    @property
    def outputs(self) -> int:
        return len(self.overload._schema.returns)

    def __call__(self, *arguments: Any) -> Any:
        if transforming():
            return self._function.apply(*arguments)  # type: ignore[no-untyped-call]
        return self.overload(*arguments)

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
        torch.library.register_autograd(self.name, backward, setup_context=save)
        self._function = _function_of(self, save, backward, jvp, like or (None,) * self.outputs)


def operator(name: str, shared: Sequence[int] = ()) -> Callable[[Callable[..., Any]], Operator]:
    """Register a function of tensors and plain settings as `patchattn::name`; its schema is read off the annotations.

    `shared` are the numbers of the arguments that may have a batch of one, shared by all queries.

    What `torch.library.custom_op` does, but for the `torch._dynamo.disable` around each call, which imports the
    compiler (a second and more) even where nothing is compiled. Fake and derivatives are registered by name.

    Where the first argument, which is as large as what there is to do, holds nothing, the function is not called: the
    outputs are those of the fake, filled with 0 (what is empty, and gradients of what is not).
    """

    def register(function: Callable[..., Any]) -> Operator:
        qualified = f"patchattn::{name}"
        schema = _schema_of(function)
        torch.library.define(qualified, schema, tags=(torch.Tag.pt2_compliant_tag,))

        @wraps(function)
        def kernel(first: Tensor, *others: Any) -> Any:
            if first.numel() == 0:
                return _zeros(_fakes[name](first, *others))
            with _host_by_default():
                return function(first, *others)

        torch.library.impl(qualified, "CompositeExplicitAutograd")(kernel)
        return Operator(qualified, getattr(torch.ops.patchattn, name).default, shared)

    return register


def _schema_of(function: Callable[..., Any]) -> str:
    """`torch.library.infer_schema`, which in PyTorch 2.6 knows collections.abc.Sequence by its bare name only."""
    own = signature(function)

    def prototype() -> None: ...

    prototype.__signature__ = Signature(  # type: ignore[attr-defined]
        [_named(parameter) for parameter in own.parameters.values()], return_annotation=own.return_annotation
    )
    return torch.library.infer_schema(prototype, mutates_args=())


def _named(parameter: Parameter) -> Parameter:
    text = str(parameter.annotation)
    return parameter.replace(annotation=text.replace(SEQUENCES, "")) if SEQUENCES in text else parameter


def fake(name: str) -> Callable[[Call], Call]:
    """Register a function that makes `patchattn::name`'s outputs without computing them."""

    def register(function: Call) -> Call:
        torch.library.register_fake(f"patchattn::{name}")(function)
        _fakes[name] = function
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
        return batched(called, called.shared, like, info.batch_size, in_dims, arguments)

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
