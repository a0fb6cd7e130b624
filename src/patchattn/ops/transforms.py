"""Which of PyTorch's transforms are at work: those of torch.func, and forward-mode derivatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import (
    TransformType,
    get_interpreter_stack,
    get_unwrapped,
    is_functorch_wrapped_tensor,
)
from torch.autograd import forward_ad

from patchattn.checks import is_traced

__all__ = ["differentiates", "forward_mode", "stored_numbers", "transforming"]

DERIVATIVES = (TransformType.Grad, TransformType.Jvp)


def transforming() -> bool:
    """Whether a transform of torch.func, or a level of forward-mode derivatives, is at work."""
    # A graph is traced below the transforms, where the operators themselves are recorded.
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or _dual_level()


def forward_mode() -> bool:
    """Whether forward-mode derivatives may be asked for."""
    return not torch.compiler.is_compiling() and (_dual_level() or TransformType.Jvp in _transforms())


def differentiates(*tensors: Tensor) -> bool:
    """Whether a derivative by one of these may be asked for; any may of what `torch.jit.trace` records."""
    if not torch.is_grad_enabled():
        return forward_mode()
    if is_traced() or any(tensor.requires_grad for tensor in tensors):
        return True
    # What one transform wraps does not say what another asks of it.
    return not torch.compiler.is_compiling() and (_dual_level() or any(kind in DERIVATIVES for kind in _transforms()))


def stored_numbers(tensor: Tensor) -> Tensor:
    """The tensor below all transforms, whose numbers can be read."""
    while not torch.compiler.is_compiling() and is_functorch_wrapped_tensor(tensor):
        tensor = get_unwrapped(tensor)
    return tensor


def _dual_level() -> bool:
    return forward_ad._current_level >= 0


def _transforms() -> list[TransformType]:
    return [interpreter.key() for interpreter in get_interpreter_stack() or ()]
