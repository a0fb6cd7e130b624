"""`scaled_dot_product_attention` answered by matches, while a block lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from patchattn.plugs.tokens import TokenAttention

__all__ = ["replace_sdpa"]


@contextmanager
def replace_sdpa(attention: TokenAttention) -> Iterator[TokenAttention]:
    """Let every self-attention of a block attend to its best matches, whoever calls it.

    Calls of `torch.nn.functional.scaled_dot_product_attention` with many tokens and without mask or dropout are
    answered by `attention`; all others stay as they are, and are counted by reason in `attention.left`. Those inside of
    `torch.nn.MultiheadAttention` are not seen, as it is one function to PyTorch: `MultiheadPatchAttention2d` takes its
    place and its weights.

    Example:
        >>> import torch
        >>> from torch.nn import functional
        >>> from patchattn.plugs import TokenAttention, replace_sdpa
        >>> tokens = torch.randn(1, 2, 64, 8)
        >>> with replace_sdpa(TokenAttention(k=64, min_tokens=64)) as attention:
        ...     output = functional.scaled_dot_product_attention(tokens, tokens, tokens)
        >>> attention.replaced
        1
        >>> torch.allclose(output, functional.scaled_dot_product_attention(tokens, tokens, tokens), atol=1e-5)
        True
    """
    with _Replacing(attention):
        yield attention


class _Replacing(TorchFunctionMode):
    def __init__(self, attention: TokenAttention) -> None:
        super().__init__()
        self.attention = attention

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        named = named or {}
        if function is functional.scaled_dot_product_attention:
            return self._attend(*arguments, **named)
        return function(*arguments, **named)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        attention = self.attention
        reason = attention.refuses(query, key, attn_mask, dropout_p, is_causal)
        if reason is None:
            attention.replaced += 1
            return attention(query, key, value, is_causal=is_causal, scale=scale)
        attention.left[reason] += 1
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
