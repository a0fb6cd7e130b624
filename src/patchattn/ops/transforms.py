"""Which of PyTorch's transforms are at work: those of torch.func, and forward-mode derivatives."""

from __future__ import annotations

from functools import reduce
from operator import or_

import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet, _dispatch_keys, _dispatch_tls_local_include_set
from torch._C._functorch import (
    TransformType,
    get_interpreter_stack,
    get_unwrapped,
    is_functorch_wrapped_tensor,
)
from torch.autograd import forward_ad
from torch.nn import Parameter

from patchattn.checks import is_traced

__all__ = ["any_requires_grad", "differentiates", "forward_mode", "is_plain", "stored_numbers", "transforming"]

DERIVATIVES = (TransformType.Grad, TransformType.Jvp)
PLAIN_TYPES = (Tensor, Parameter)


def _bits(*keys: str) -> int:
    """Keys of PyTorch's dispatcher, as it compares them."""
    sets = (DispatchKeySet(getattr(DispatchKey, key)) for key in keys)
    return int(reduce(or_, sets).raw_repr())


# With and without derivatives: PyTorch has fewer keys in inference mode.
PLAIN_KEYS = (_bits("CPU", "ADInplaceOrView", "AutogradCPU", "AutocastCPU"), _bits("CPU", "AutocastCPU"))
PLAIN_MODES = (_bits("BackendSelect", "ADInplaceOrView"), _bits("BackendSelect"))


def is_plain(*arguments: object) -> bool:
    """Whether PyTorch's dispatcher would find nothing to do but to call a kernel, and to record it for a derivative.

    That is so for tensors in the memory of the CPU that are nothing else besides (a subclass, a fake, wrapped by a
    transform), while nobody traces, compiles, counts, profiles or transforms.
    """
    if torch.compiler.is_compiling() or _dual_level() or torch._C._autograd._profiler_enabled():
        return False
    if _dispatch_tls_local_include_set().raw_repr() not in PLAIN_MODES or torch._C._len_torch_function_stack():
        return False
    for argument in arguments:
        if isinstance(argument, Tensor) and (
            type(argument) not in PLAIN_TYPES or _dispatch_keys(argument).raw_repr() not in PLAIN_KEYS
        ):
            return False
    return True


def any_requires_grad(*arguments: object) -> bool:
    """Whether an operator on plain tensors is to be recorded for a derivative."""
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in arguments)


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
