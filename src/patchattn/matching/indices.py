"""Checks of the numbers in tensors, such as indices: positions of keys, or -1."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from patchattn.checks import on_host
from patchattn.kernels import default_backend
from patchattn.ops.transforms import stored_numbers

__all__ = ["check_positions", "require"]


def check_positions(whose: str, index: Tensor, keys: int) -> None:
    """Refuse an index that holds what is neither a position of one of so many keys nor -1.

    `whose` begins the message: "index: it", "field: its index".

    It is read and checked at once on the CPU. On a GPU, and in a compiled graph, nothing is read, which would wait for
    the device: the check is enqueued, and an index out of range fails as an assertion there.
    """
    if index.numel() == 0 or index.is_meta:
        return
    index = stored_numbers(index)
    if _is_enqueued(index):
        low, high = index.aminmax()
        message = f"{whose} holds what is neither -1 nor one of the {keys} positions of key."
        torch._assert_async((low >= -1) & (high < keys), message)
    elif not torch.compiler.is_compiling():
        smallest, largest = (int(extreme) for extreme in index.aminmax())
        if largest >= keys:
            raise ValueError(f"{whose} holds {largest}, but key has only {keys} positions.")
        if smallest < -1:
            raise ValueError(f"{whose} holds {smallest}; expected positions of key, from 0, or -1 for none.")


def require(tensor: Tensor, condition: Callable[[Tensor], Tensor], message: str) -> None:
    """Refuse a tensor unless a condition holds for all its numbers; read, or enqueued, as `check_positions` is."""
    if tensor.numel() == 0 or tensor.is_meta:
        return
    holds = condition(stored_numbers(tensor).detach()).all()
    if _is_enqueued(holds):
        torch._assert_async(holds, message)
    elif not torch.compiler.is_compiling() and not bool(holds):
        raise ValueError(message)


def _is_enqueued(tensor: Tensor) -> bool:
    """Whether a check waits for nothing: on a GPU, and in a compiled graph. (Apple's devices have no such check.)"""
    return default_backend(tensor.device.type) != "reference" and not on_host(tensor)
