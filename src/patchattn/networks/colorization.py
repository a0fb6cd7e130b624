"""Colorization network: a gray image takes its colors from a reference image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchattn.networks.mirror import mirrored

__all__ = ["ColorizationNetwork"]

LUMA = (0.2126, 0.7152, 0.0722)
"""Luma weights of encoded red, green and blue: near enough to the gray that images are compared in."""


class ColorizationNetwork(nn.Module):
    r"""Colorization network of PSAL's Figure 3: an attention layer between convolutions.

    $$\hat{y} = g + W_O * \operatorname{attention}(W_Q * g,\; W_K * r,\; W_V * r)$$

    g is the gray target, r the colored reference, every W a 3x3 convolution with a bias: W_Q from 1, W_K and W_V from
    3 to `channels` channels, W_O from `channels` to 3. The gray image is added to all three channels of the result, so
    that attention brings the colors alone (the paper's residual connection). With 16 channels there are 1,491
    parameters.

    The paper's figure does not give the padding of the convolutions; here they are reflected, as the patches are. The
    result is not clipped to [0, 1].

    Args:
        attention: any layer that is called as `layer(query, key, value)`.
        channels: of query, key and value (16, section 4.3.1).
        size: side of the frames that it is trained on, kept as an attribute: patches of 7 pixels hold other content in
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
        """Set the key's convolution to the query's, applied to the reference's luma, so that equal grays match.

        Random convolutions of query and key are unrelated, and aligning them takes most of the training (all of it,
        with one match and no votes, where they have no gradients).
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
        Images that are too small for reflection padding are extended by `mirrored` first, and the result is cropped.
        """
        attend = self.attention if attention is None else attention
        height, width = gray.shape[2:]
        gray, reference = (mirrored(image, 1, self._least_side()) for image in (gray, reference))
        attended = attend(self.query(gray), self.key(reference), self.value(reference))
        colored: Tensor = gray + self.output(attended)
        return colored[..., :height, :width]

    def _least_side(self) -> int:
        """The smallest side at which convolutions and patches can be reflected."""
        patch = getattr(self.attention, "patch_size", 3)
        return max(3, *([patch] if isinstance(patch, int) else patch)) // 2 + 1
