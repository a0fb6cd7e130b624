"""Swaps in trained networks: chosen modules attend to matches, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

from torch import nn

from patchattn.plugs.sdpa import replace_sdpa
from patchattn.plugs.tokens import TokenAttention

__all__ = ["Swap", "swap_modules", "with_matches"]

Kind = TypeVar("Kind")


class Swap:
    """Layers that were swapped; `undo()` puts them back."""

    attention: TokenAttention
    """Counts what it answered (`replaced`), and what not, by reason (`left`)."""
    names: tuple[str, ...]
    """Names of the layers that were swapped."""

    def __init__(self, attention: TokenAttention, names: Iterable[str], undo: Callable[[], None]) -> None:
        self.attention, self.names, self._undo = attention, tuple(names), undo

    def undo(self) -> None:
        """Let the network compute again what it did."""
        self._undo()

    def __repr__(self) -> str:
        counts = f"replaced={self.attention.replaced}, left={dict(self.attention.left)}"
        return f"Swap({len(self.names)} layers, {counts})"


def swap_modules(model: nn.Module, attention: TokenAttention, select: Callable[[str, nn.Module], bool]) -> Swap:
    """Let the modules that `select(name, module)` chooses attend to their best matches.

    A module computes what it did, but for its calls of `scaled_dot_product_attention`, see `replace_sdpa`. Parameters,
    names and `state_dict` stay. It can be copied (`copy.deepcopy`); save the `state_dict`, not the module.

    Raises:
        ValueError: nothing was selected.

    Example:
        >>> import torch
        >>> from torch.nn.functional import scaled_dot_product_attention
        >>> from patchattn.plugs import TokenAttention, swap_modules
        >>> class SelfAttention(torch.nn.Module):
        ...     def forward(self, x):
        ...         return scaled_dot_product_attention(x, x, x)
        >>> layer = SelfAttention()
        >>> swap = swap_modules(layer, TokenAttention(k=8, min_tokens=16), lambda name, module: module is layer)
        >>> layer(torch.randn(1, 4, 64, 8)).shape
        torch.Size([1, 4, 64, 8])
        >>> swap
        Swap(1 layers, replaced=1, left={})
        >>> swap.undo()
    """
    chosen = {name: module for name, module in model.named_modules() if select(name, module)}
    if not chosen:
        raise ValueError(f"select: it chose none of the modules of {type(model).__name__}.")
    kinds = {name: type(module) for name, module in chosen.items()}
    for module in chosen.values():
        module.__class__ = with_matches(type(module), "forward", attention)

    def undo() -> None:
        for name, module in chosen.items():
            module.__class__ = kinds[name]

    return Swap(attention, chosen, undo)


def with_matches(kind: type[Kind], method: str, attention: TokenAttention) -> type[Kind]:
    """A subclass whose method attends to matches. (A class, not an instance's method, which a copy would not own.)"""
    original = getattr(kind, method)

    @wraps(original)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        with replace_sdpa(attention):
            return original(self, *arguments, **named)

    return type(kind.__name__, (kind,), {method: call, "__module__": kind.__module__})
