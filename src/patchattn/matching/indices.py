"""Checks of indices: positions of keys, or -1."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.checks import on_host
from patchattn.kernels import default_backend
from patchattn.ops.transforms import stored_numbers

__all__ = ["check_positions"]


def check_positions(whose: str, index: Tensor, keys: int) -> None:
    """Refuse an index that holds what is neither a position of one of so many keys nor -1.

    `whose` begins the message: "index: it", "field: its index".

    It is read and checked at once on the CPU. On a GPU, and in a compiled graph, nothing is read, which would wait for
    the device: the check is enqueued, and an index out of range fails as an assertion there.
    """
    if index.numel() == 0 or index.is_meta:
        return
    index = stored_numbers(index)
    traced = torch.compiler.is_compiling()
    if default_backend(index.device.type) != "reference" and not on_host(index):
        low, high = index.aminmax()
        message = f"{whose} holds what is neither -1 nor one of the {keys} positions of key."
        torch._assert_async((low >= -1) & (high < keys), message)
    elif not traced:
        smallest, largest = (int(extreme) for extreme in index.aminmax())
        if largest >= keys:
            raise ValueError(f"{whose} holds {largest}, but key has only {keys} positions.")
        if smallest < -1:
            raise ValueError(f"{whose} holds {smallest}; expected positions of key, from 0, or -1 for none.")
