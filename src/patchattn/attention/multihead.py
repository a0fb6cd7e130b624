"""Multi-head attention between images: learned projections around any of the layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import Unpack

from patchattn.attention.scoring import Bias
from patchattn.attention.scram import ScramAttention
from patchattn.attention.scram_settings import ScramLayerOptions
from patchattn.checks import check_count

__all__ = ["MultiheadPatchAttention2d"]


def _project(projection: nn.Conv2d, image: Tensor) -> Tensor:
    """The 1x1 convolution, of an image without positions too, which PyTorch refuses."""
    if 0 not in image.shape[2:]:
        projected: Tensor = projection(image)
        return projected
    return functional.linear(image.movedim(1, -1), projection.weight[..., 0, 0], projection.bias).movedim(-1, 1)


class MultiheadPatchAttention2d(nn.Module):
    r"""Multi-head attention between images of any size: `torch.nn.MultiheadAttention` for transformer blocks.

    $$O = W^O\, \operatorname{attention}(W^Q Q,\, W^K K,\, W^V V)$$

    with W 1x1 convolutions; head h attends with the h-th `embed_dim / num_heads` channels of each. This is section 2 of
    SCRAM (its d_model is our `embed_dim`, h our `num_heads`, and d_k = d_v = embed_dim / num_heads).

    Args:
        embed_dim: channels of query and output; a multiple of `num_heads`.
        num_heads: groups of channels that attend on their own.
        attention: the layer, called as `attention(num_heads=num_heads, **settings)`; `ScramAttention`, or another of
            this library's layers: all are called alike, so that one can take another's place in a trained network.
        kdim: channels of key; None: `embed_dim`.
        vdim: channels of value; None: `embed_dim`.
        bias: whether the projections add one.
        attention_bias: the `bias` of the layer, added to its scores: such as a table of relative offsets that is
            learned.
        settings: the layer's other arguments; type checkers know those of `ScramAttention`.

    Raises:
        ValueError: a number is out of range, or an argument is no image; the message says what is allowed.

    Example:
        >>> import torch
        >>> from patchattn import MultiheadPatchAttention2d
        >>> from patchattn.baselines import FullAttention
        >>> block = MultiheadPatchAttention2d(32, num_heads=4, k=4, expand=1)
        >>> features = torch.rand(2, 32, 24, 24)
        >>> block(features).shape
        torch.Size([2, 32, 24, 24])
        >>> exact = MultiheadPatchAttention2d(
        ...     32, num_heads=4, attention=FullAttention, patch_size=1, similarity="scaled_dot"
        ... )
        >>> exact.load_state_dict(block.state_dict())
        <All keys matched successfully>
    """

    @overload
    def __init__(
        self, embed_dim: int, num_heads: int, *, attention: type[ScramAttention] = ..., kdim: int | None = None,
        vdim: int | None = None, bias: bool = True, attention_bias: Bias | None = None,
        **settings: Unpack[ScramLayerOptions],
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self, embed_dim: int, num_heads: int, *, attention: Callable[..., nn.Module], kdim: int | None = None,
        vdim: int | None = None, bias: bool = True, attention_bias: Bias | None = None, **settings: Any,
    ) -> None: ...  # fmt: skip
    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        attention: Callable[..., nn.Module] = ScramAttention,
        kdim: int | None = None,
        vdim: int | None = None,
        bias: bool = True,
        attention_bias: Bias | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        kdim = embed_dim if kdim is None else kdim
        vdim = embed_dim if vdim is None else vdim
        numbers = {"embed_dim": embed_dim, "num_heads": num_heads, "kdim": kdim, "vdim": vdim}
        embed_dim, num_heads, kdim, vdim = (check_count(name, number, 1) for name, number in numbers.items())
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim: expected a multiple of num_heads = {num_heads}, got {embed_dim}.")
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.query_projection = nn.Conv2d(embed_dim, embed_dim, 1, bias=bias)
        self.key_projection = nn.Conv2d(kdim, embed_dim, 1, bias=bias)
        self.value_projection = nn.Conv2d(vdim, embed_dim, 1, bias=bias)
        self.output_projection = nn.Conv2d(embed_dim, embed_dim, 1, bias=bias)
        if attention_bias is not None:  # some layers have none
            settings["bias"] = attention_bias
        self.attention = attention(num_heads=num_heads, **settings)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as `torch.nn.MultiheadAttention` does; biases are 0."""
        for projection in self.children():
            if isinstance(projection, nn.Conv2d):
                nn.init.xavier_uniform_(projection.weight)
                if projection.bias is not None:
                    nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None, **call: Any) -> Any:
        """Attend from `query` `(B, embed_dim, H, W)` to `key` `(B or 1, kdim, H', W')`.

        Without key and value this is self-attention; without value, value is key. `call` goes to the layer (masks,
        field, return_field ...). Returns `(B, embed_dim, H, W)`; or a tuple of it and what else the layer returns.
        """
        key = query if key is None else key
        value = key if value is None else value
        for name, image in (("query", query), ("key", key), ("value", value)):
            if not isinstance(image, Tensor) or image.dim() != 4:
                came = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
                raise ValueError(f"{name}: expected an image (B, C, H, W), got {came}.")
        projections = self.query_projection, self.key_projection, self.value_projection
        images = (_project(*pair) for pair in zip(projections, (query, key, value), strict=True))
        attended = self.attention(*images, **call)
        if isinstance(attended, tuple):
            return (_project(self.output_projection, attended[0]), *attended[1:])
        return _project(self.output_projection, attended)

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"
