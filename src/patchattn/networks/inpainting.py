"""Inpainting network with contextual attention: a coarse network, and a refinement that attends to known patches."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from patchattn.attention.contextual import ContextualAttention
from patchattn.attention.masked import MaskedPatchAttention
from patchattn.checks import check_choice, check_count, check_features
from patchattn.deprecation import renamed_argument
from patchattn.networks.mirror import mirrored

__all__ = ["ATTENTIONS", "Critic", "InpaintingNetwork", "from_public_inpainting_state"]

ATTENTIONS = {"psal": MaskedPatchAttention, "contextual": ContextualAttention}
"""Attention layers for the refinement, by their names in files and on the command line."""
PADDING_MODES = ("reflect", "zeros")
GRID = 8
"""Height and width are padded to multiples of this: two strides of 2, and one more in contextual attention."""
LEAST = 72
"""Smallest side for reflection padding of the widest convolution, dilated by 16 at a quarter of the size."""


class InpaintingNetwork(nn.Module):
    r"""Generator of Generative Image Inpainting with Contextual Attention (Yu et al. 2018).

    $$x_1 = f_1(x \odot (1 - m), 1, m), \qquad
    x_2 = f_2(\, x_1 \odot m + x \odot (1 - m),\, 1,\, m), \qquad x_1, x_2 \in [-1, 1]$$

    for an image x in [-1, 1] and a hole m. The coarse network f_1 has 17 convolutions, four of them dilated, at full,
    half and a quarter of the size. The refinement f_2 has two branches, one of convolutions as in f_1, one with an
    attention layer at a quarter of the size, joined by seven more. All are followed by ELU, but the one before the
    attention by ReLU, and the last of f_1 and f_2 by clipping. With 32 channels there are 3,601,542
    parameters.

    The attention has no parameters and is called as `layer(features, features, features, key_mask=known)`: another one
    can take its place in a trained network (`network.refinement.attention = ...`).

    Images of any size are reflected to multiples of 8 pixels, and at least 72 with `padding_mode="reflect"`; the
    results are cropped.

    Args:
        attention: the layer; see `ATTENTIONS` for the two of section 4.4 of PSAL.
        channels: of the first convolutions (32); even.
        padding_mode: of the convolutions: `"reflect"`, as in the paper, or `"zeros"`, with which the public checkpoints
            were trained.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> from patchattn import MaskedPatchAttention
        >>> network = InpaintingNetwork(MaskedPatchAttention(), channels=4)
        >>> hole = torch.zeros(1, 90, 75, dtype=torch.bool)
        >>> hole[:, 30:50, 20:40] = True
        >>> coarse, refined = network(torch.rand(1, 3, 90, 75) * 2 - 1, hole)
        >>> refined.shape
        torch.Size([1, 3, 90, 75])
    """

    def __init__(self, attention: nn.Module, *, channels: int = 32, padding_mode: str = "reflect") -> None:
        super().__init__()
        check_choice("padding_mode", padding_mode, PADDING_MODES)
        check_count("channels", channels, 2)
        if channels % 2:
            raise ValueError(f"channels: got {channels}; expected an even number.")
        self.padding_mode = padding_mode
        self.coarse = CoarseNetwork(channels, padding_mode)
        self.refinement = RefinementNetwork(attention, channels, padding_mode)

    @renamed_argument("picture", "image")
    def forward(
        self, image: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "mask_batch height width"]
    ) -> tuple[Tensor, Tensor]:
        """Reconstruct images in [-1, 1]; their pixels inside the hole (True) are ignored.

        Returns:
            The outputs of the coarse network and of the refinement, known pixels included: `(B, 3, height, width)`.

        Raises:
            ValueError: the image has other channels, or the hole another size, or it is not bool.
            RuntimeError: contextual attention does not fit into memory.
        """
        _check(image, hole)
        height, width = image.shape[2:]
        hole = hole.unsqueeze(1).expand(len(image), 1, height, width)
        known = self._padded(image.masked_fill(hole, 0))
        hole = self._padded(hole)
        self._check_memory(known)
        marks = torch.cat([torch.ones_like(known[:, :1]), hole.to(known.dtype)], 1)
        coarse = self.coarse(torch.cat([known, marks], 1))
        refined = self.refinement(torch.cat([torch.where(hole, coarse, known), marks], 1), hole)
        return coarse[..., :height, :width], refined[..., :height, :width]

    @renamed_argument("picture", "image")
    def fill(
        self, image: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "mask_batch height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Fill the hole (True) of images in [0, 1]; known pixels are returned as they are.

        Example:
            >>> import torch
            >>> from patchattn import ContextualAttention
            >>> network = InpaintingNetwork(ContextualAttention(), channels=4)
            >>> image, hole = torch.rand(1, 3, 80, 80), torch.zeros(1, 80, 80, dtype=torch.bool)
            >>> torch.equal(network.fill(image, hole), image)
            True
        """
        _check(image, hole)
        _, refined = self(image * 2 - 1, hole)
        return torch.where(hole.unsqueeze(1), (refined + 1) / 2, image)

    def _check_memory(self, image: Tensor) -> None:
        """Raise the attention's error for too large an image before minutes of convolutions."""
        if isinstance(self.refinement.attention, ContextualAttention):
            features = image[:, :, ::4, ::4]
            self.refinement.attention.check_memory(features, features)

    def _padded(self, image: Tensor) -> Tensor:
        """The image with reflection padding to the right and below, up to a size that the network takes."""
        return mirrored(image, GRID, LEAST if self.padding_mode == "reflect" else GRID)


def _check(image: Tensor, hole: Tensor) -> None:
    check_features("image", image)
    if image.dim() != 4 or image.shape[1] != 3:
        raise ValueError(f"image: expected shape (B, 3, height, width), got {tuple(image.shape)}.")
    size = tuple(image.shape[2:])
    if hole.dtype != torch.bool or hole.dim() != 3 or hole.shape[1:] != size or len(hole) not in (1, len(image)):
        raise ValueError(
            f"hole: expected bool (True = to be filled) of shape ({len(image)} or 1, {size[0]}, {size[1]}) as "
            f"image has, got {hole.dtype} of shape {tuple(hole.shape)}."
        )


class Convolution(nn.Conv2d):
    """A convolution that keeps or halves the size, and its activation."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, dilation: int = 1, padding_mode: str,
        activation: str = "elu",
    ) -> None:  # fmt: skip
        padding = dilation * (kernel // 2)
        super().__init__(
            inputs,
            outputs,
            kernel,
            stride,
            padding,
            dilation,
            padding_mode=padding_mode,  # type: ignore[arg-type]
        )
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        output = super().forward(input)
        # In place: at full size each copy of a large image's features takes gigabytes.
        if self.activation == "elu":
            return functional.elu(output, inplace=True)
        if self.activation == "relu":
            return functional.relu(output, inplace=True)
        return output


class ConvolutionNetwork(nn.Module):
    """A network of named convolutions, which are applied in groups."""

    def __init__(self, layers: Mapping[str, Convolution]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def apply_in_order(self, features: Tensor, *names: str) -> Tensor:
        """Apply layers one after another; `"enlarge"` doubles the size by nearest-neighbor interpolation."""
        for name in names:
            if name == "enlarge":
                features = functional.interpolate(features, scale_factor=2, mode="nearest")
            else:
                features = self.get_submodule(name)(features)
        return features


class CoarseNetwork(ConvolutionNetwork):
    """The coarse network: `(B, 5, height, width)` to `(B, 3, height, width)`."""

    def __init__(self, channels: int, padding_mode: str) -> None:
        c, conv = channels, partial(Convolution, padding_mode=padding_mode)
        super().__init__(
            {
                "conv1": conv(5, c, 5),
                "conv2_downsample": conv(c, 2 * c, stride=2),
                "conv3": conv(2 * c, 2 * c),
                "conv4_downsample": conv(2 * c, 4 * c, stride=2),
                "conv5": conv(4 * c, 4 * c),
                "conv6": conv(4 * c, 4 * c),
                "conv7_atrous": conv(4 * c, 4 * c, dilation=2),
                "conv8_atrous": conv(4 * c, 4 * c, dilation=4),
                "conv9_atrous": conv(4 * c, 4 * c, dilation=8),
                "conv10_atrous": conv(4 * c, 4 * c, dilation=16),
                "conv11": conv(4 * c, 4 * c),
                "conv12": conv(4 * c, 4 * c),
                "conv13": conv(4 * c, 2 * c),
                "conv14": conv(2 * c, 2 * c),
                "conv15": conv(2 * c, c),
                "conv16": conv(c, c // 2),
                "conv17": conv(c // 2, 3, activation="none"),
            }
        )

    def forward(self, marked: Tensor) -> Tensor:
        return self.apply_in_order(
            marked, "conv1", "conv2_downsample", "conv3", "conv4_downsample", "conv5", "conv6", "conv7_atrous",
            "conv8_atrous", "conv9_atrous", "conv10_atrous", "conv11", "conv12", "enlarge", "conv13", "conv14",
            "enlarge", "conv15", "conv16", "conv17",
        ).clamp(-1, 1)  # fmt: skip


class RefinementNetwork(ConvolutionNetwork):
    """The refinement of the coarse result: `(B, 5, height, width)` to `(B, 3, height, width)`."""

    def __init__(self, attention: nn.Module, channels: int, padding_mode: str) -> None:
        c, conv = channels, partial(Convolution, padding_mode=padding_mode)
        super().__init__(
            {
                "conv1": conv(5, c, 5),
                "conv2_downsample": conv(c, c, stride=2),
                "conv3": conv(c, 2 * c),
                "conv4_downsample": conv(2 * c, 2 * c, stride=2),
                "conv5": conv(2 * c, 4 * c),
                "conv6": conv(4 * c, 4 * c),
                "conv7_atrous": conv(4 * c, 4 * c, dilation=2),
                "conv8_atrous": conv(4 * c, 4 * c, dilation=4),
                "conv9_atrous": conv(4 * c, 4 * c, dilation=8),
                "conv10_atrous": conv(4 * c, 4 * c, dilation=16),
                "pmconv1": conv(5, c, 5),
                "pmconv2_downsample": conv(c, c, stride=2),
                "pmconv3": conv(c, 2 * c),
                "pmconv4_downsample": conv(2 * c, 4 * c, stride=2),
                "pmconv5": conv(4 * c, 4 * c),
                "pmconv6": conv(4 * c, 4 * c, activation="relu"),
                "pmconv9": conv(4 * c, 4 * c),
                "pmconv10": conv(4 * c, 4 * c),
                "allconv11": conv(8 * c, 4 * c),
                "allconv12": conv(4 * c, 4 * c),
                "allconv13": conv(4 * c, 2 * c),
                "allconv14": conv(2 * c, 2 * c),
                "allconv15": conv(2 * c, c),
                "allconv16": conv(c, c // 2),
                "allconv17": conv(c // 2, 3, activation="none"),
            }
        )
        self.attention = attention

    def forward(self, marked: Tensor, hole: Tensor) -> Tensor:
        features = self.apply_in_order(
            marked, "pmconv1", "pmconv2_downsample", "pmconv3", "pmconv4_downsample", "pmconv5", "pmconv6"
        )
        # Every fourth pixel of the hole, as in the published programs.
        attended = self.attention(features, features, features, key_mask=~hole[:, 0, ::4, ::4])
        attended = self.apply_in_order(attended, "pmconv9", "pmconv10")
        imagined = self.apply_in_order(
            marked, "conv1", "conv2_downsample", "conv3", "conv4_downsample", "conv5", "conv6", "conv7_atrous",
            "conv8_atrous", "conv9_atrous", "conv10_atrous",
        )  # fmt: skip
        return self.apply_in_order(
            torch.cat([imagined, attended], 1), "allconv11", "allconv12", "enlarge", "allconv13", "allconv14",
            "enlarge", "allconv15", "allconv16", "allconv17",
        ).clamp(-1, 1)  # fmt: skip


class Critic(nn.Module):
    """WGAN critic of a square image: four convolutions with stride 2, and one number.

    The local critic sees the square around the hole (128 pixels in the paper), the global critic the whole image (256).
    Convolutions are padded with zeros.

    Args:
        size: side of the images, in pixels.
        channels: of the first convolution (64).

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> import torch
        >>> Critic(32, channels=4)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 1])
    """

    def __init__(self, size: int, *, channels: int = 64) -> None:
        super().__init__()
        check_count("size", size, 1)
        check_count("channels", channels, 1)
        c = channels
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            nn.Conv2d(inputs, outputs, 5, 2, 2)
            for inputs, outputs in ((3, c), (c, 2 * c), (2 * c, 4 * c), (4 * c, 4 * c))
        )
        # Each convolution leaves half of the pixels, rounded up.
        self.linear = nn.Linear(4 * c * (-(-size // 16)) ** 2, 1)

    @renamed_argument("picture", "image")
    def forward(self, image: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 1"]:
        """Score images in [-1, 1]; the more real, the larger."""
        features = image
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            features = functional.leaky_relu(layer(features), 0.2)
        score: Tensor = self.linear(features.flatten(1))
        return score


def from_public_inpainting_state(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename the weights of a public PyTorch checkpoint (daa233/generative-inpainting-pytorch) to ours.

    | there | here |
    |---|---|
    | `coarse_generator.NAME.conv.weight` | `coarse.NAME.weight` |
    | `fine_generator.NAME.conv.weight` | `refinement.NAME.weight` |
    | `localD` / `dis_conv_module.NAME.conv.weight` | `local_critic.NAME.weight` |
    | `globalD` / `linear.weight` | `global_critic.linear.weight` |

    and biases alike: three prefixes differ, and `conv.` and `dis_conv_module.` are dropped. Shapes are the same.

    Args:
        state: of a generator (`gen_*.pt`), or of both critics (`dis_*.pt`, with the entries `localD` and `globalD`).

    Returns:
        The state of an `InpaintingNetwork`, or those of both critics.

    Raises:
        ValueError: a name is none of these.

    Example:
        >>> import torch
        >>> list(from_public_inpainting_state({"coarse_generator.conv1.conv.bias": torch.zeros(32)}))
        ['coarse.conv1.bias']
    """
    renamed: dict[str, Tensor] = {}
    for name, entry in state.items():
        if name in ("localD", "globalD"):
            critic = {"localD": "local_critic", "globalD": "global_critic"}[name]
            for inner, tensor in entry.items():
                renamed[f"{critic}.{inner.removeprefix('dis_conv_module.').replace('.conv.', '.')}"] = tensor
            continue
        prefix, _, rest = name.partition(".")
        if prefix not in ("coarse_generator", "fine_generator"):
            raise ValueError(
                f"state: got a tensor {name!r}; expected names that begin with coarse_generator or fine_generator, or "
                "the entries localD and globalD."
            )
        ours = {"coarse_generator": "coarse", "fine_generator": "refinement"}[prefix]
        renamed[f"{ours}.{rest.replace('.conv.', '.')}"] = entry
    return renamed
