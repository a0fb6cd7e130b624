"""An attention implementation for Hugging Face `transformers`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from patchattn.extras import extra
from patchattn.plugs.sdpa import replace_sdpa
from patchattn.plugs.tokens import TokenAttention

__all__ = ["register"]


def register(attention: TokenAttention | None = None, *, name: str = "patchattn") -> TokenAttention:
    """Register attention to matches as an attention implementation: `from_pretrained(..., attn_implementation=name)`.

    Layers compute what `"sdpa"` computes, but that self-attention of many tokens without a mask (other than a causal
    one) goes to the best matches; what else there is stays, and is counted in the returned object's `left`.

    Args:
        attention: its settings; None: those of `TokenAttention()`. For a Vision Transformer say `prefix`, the number of
            tokens before those of the image (1 for ViT, 5 for DINOv2 with registers).
        name: under which models ask for it.

    Returns:
        `attention`, whose settings may be changed later.

    Raises:
        RuntimeError: `transformers` is not installed.
    """
    with extra("transformers"):
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.integrations.sdpa_attention import sdpa_attention_forward
        from transformers.masking_utils import sdpa_mask

    chosen = TokenAttention() if attention is None else attention

    def forward(module: nn.Module, *arguments: Any, **named: Any) -> tuple[Tensor, None]:
        with replace_sdpa(chosen):
            output: tuple[Tensor, None] = sdpa_attention_forward(module, *arguments, **named)
            return output

    AttentionInterface.register(name, forward)
    AttentionMaskInterface.register(name, sdpa_mask)
    return chosen
