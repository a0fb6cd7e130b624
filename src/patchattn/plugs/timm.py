"""Swaps of the attention of `timm` Vision Transformers."""

from __future__ import annotations

from typing import Any

from torch import nn

from patchattn.plugs.modules import Swap, swap_modules
from patchattn.plugs.tokens import TokenAttention

__all__ = ["swap"]


def swap(model: nn.Module, attention: TokenAttention | None = None) -> Swap:
    """Let the self-attention of a `timm` Vision Transformer attend to its best matches.

    That of every module that has timm's `fused_attn`, which is set for the time being: the other path multiplies
    matrices itself. Calls with fewer than `min_tokens` tokens, with a mask or dropout are left alone, and counted in
    `attention.left`.

    Args:
        model: of `timm.create_model`.
        attention: its settings; None: those of `TokenAttention()` with the model's own `num_prefix_tokens` as `prefix`.

    Raises:
        ValueError: no module has `fused_attn`.

    Example:
        >>> from patchattn.plugs import TokenAttention
        >>> from patchattn.plugs.timm import swap
        >>> swapped = swap(model, TokenAttention(k=128, prefix=model.num_prefix_tokens))  # doctest: +SKIP
        >>> swapped.undo()  # doctest: +SKIP
    """
    chosen = TokenAttention(prefix=getattr(model, "num_prefix_tokens", 0)) if attention is None else attention
    swapped = swap_modules(model, chosen, lambda name, module: hasattr(module, "fused_attn"))
    layers: list[Any] = [model.get_submodule(name) for name in swapped.names]
    before = [layer.fused_attn for layer in layers]
    for layer in layers:
        layer.fused_attn = True

    def undo() -> None:
        swapped.undo()
        for layer, fused in zip(layers, before, strict=True):
            layer.fused_attn = fused

    return Swap(chosen, swapped.names, undo)
