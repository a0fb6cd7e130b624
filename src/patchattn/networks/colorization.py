"""Guided colorization: a gray picture takes its colors from a colored one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchattn.networks.mirror import mirrored

__all__ = ["ColorizationNetwork"]

LUMA = (0.2126, 0.7152, 0.0722)
"""Of red, green and blue as they are encoded: near enough to the gray that pictures are compared in."""


class ColorizationNetwork(nn.Module):
    r"""The network of PSAL's Figure 3: as little as possible around an attention layer.

    $$\hat{y} = g + W_O * \operatorname{attention}(W_Q * g,\; W_K * r,\; W_V * r)$$

    g is the gray target, r the colored reference, every W a 3x3 convolution with a bias: W_Q from 1, W_K and W_V from
    3 to `channels` channels, W_O from `channels` to 3. The gray picture is added to all three channels of the result,
    so that attention has but to bring the colors (the paper's residual connection). With 16 channels these are 1,491
    numbers.

    The paper's figure does not say what the convolutions read outside the picture; here they read it reflected, as the
    patches do. The result is not clipped to [0, 1].

    Args:
        attention: any layer that is called as `layer(query, key, value)`.
        channels: of query, key and value (16, section 4.3.1).
        size: side of the frames that it learns from, kept as an attribute: patches of 7 pixels hold other things in
            frames of another size. None: unknown.

    Example:
        >>> import torch
        >>> from patchattn import PatchAttention
        >>> network = ColorizationNetwork(PatchAttention(k=3, patch_size=7))
        >>> network(torch.rand(1, 1, 24, 32), torch.rand(1, 3, 20, 40)).shape
        torch.Size([1, 3, 24, 32])
    """

    def __init__(self, attention: nn.Module, *, channels: int = 16, size: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.attention = attention
        self.query, self.key, self.value, self.output = (
            nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")
            for inputs, outputs in ((1, channels), (3, channels), (3, channels), (channels, 3))
        )

    def align(self) -> None:
        """Let the key's convolution be the query's, applied to the reference's luma: equal grays then match.

        Random convolutions of query and key have nothing to do with each other, and finding a common language takes
        most of the training (all of it, with one match and no votes, where they learn nothing).
        """
        luma = self.query.weight.new_tensor(LUMA).view(1, 3, 1, 1)
        with torch.no_grad():
            self.key.weight.copy_(self.query.weight * luma)
            assert self.key.bias is not None
            assert self.query.bias is not None
            self.key.bias.copy_(self.query.bias)

    def forward(
        self,
        gray: Float[Tensor, "batch 1 height width"],
        reference: Float[Tensor, "batch 3 height2 width2"],
        attention: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Color `gray`, in [0, 1], with the colors of `reference`.

        `attention`, called as `attention(query, key, value)`, takes the place of the network's own for this call.
        What is too small to be reflected is extended by `mirrored` first, and the result is cut to size.
        """
        attend = self.attention if attention is None else attention
        height, width = gray.shape[2:]
        gray, reference = (mirrored(picture, 1, self._least_side()) for picture in (gray, reference))
        attended = attend(self.query(gray), self.key(reference), self.value(reference))
        colored: Tensor = gray + self.output(attended)
        return colored[..., :height, :width]

    def _least_side(self) -> int:
        """The shortest side at which convolutions and patches can be reflected."""
        patch = getattr(self.attention, "patch_size", 3)
        return max(3, *([patch] if isinstance(patch, int) else patch)) // 2 + 1
