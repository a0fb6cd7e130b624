"""Swaps of the attention processors of `diffusers` models."""

from __future__ import annotations

from copy import copy
from typing import Any

from torch import nn

from patchattn.plugs.modules import Swap, with_matches
from patchattn.plugs.tokens import TokenAttention

__all__ = ["swap"]


def swap(model: nn.Module, attention: TokenAttention | None = None) -> Swap:
    """Let the self-attention of a `diffusers` model (a UNet, a DiT, a VAE) attend to its best matches.

    Every attention processor goes on as it is, but for its calls of `scaled_dot_product_attention` with as many keys as
    queries, no mask, and at least `min_tokens` tokens. Cross-attention to text, and the low-resolution layers, are left
    alone, and counted in `attention.left`. For models that put text tokens before those of the image (Flux), say
    `prefix`.

    Args:
        model: with `attn_processors` and `set_attn_processor`, or with modules that have a `processor`: `pipe.unet`,
            `pipe.transformer`, `pipe.vae`.
        attention: its settings; None: those of `TokenAttention()`.

    Raises:
        ValueError: no layer of the model has an attention processor.

    Example:
        >>> from patchattn.plugs import TokenAttention
        >>> from patchattn.plugs.diffusers import swap
        >>> swapped = swap(pipe.unet, TokenAttention(k=128, min_tokens=4096))  # doctest: +SKIP
        >>> swapped.undo()  # doctest: +SKIP
    """
    chosen = TokenAttention() if attention is None else attention
    layers: dict[str, Any] = {
        name: module for name, module in model.named_modules() if callable(getattr(module, "processor", None))
    }
    if not layers:
        raise ValueError(f"model: expected a diffusers model with attention processors, got {type(model).__name__}.")
    before = {name: layer.processor for name, layer in layers.items()}
    for layer in layers.values():
        processor = copy(layer.processor)
        processor.__class__ = with_matches(type(processor), "__call__", chosen)
        layer.processor = processor

    def undo() -> None:
        for name, layer in layers.items():
            layer.processor = before[name]

    return Swap(chosen, layers, undo)
