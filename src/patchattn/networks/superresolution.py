"""Super-resolution network with cross-scale attention, which uses patches that recur at other scales."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from patchattn.attention.cross_scale import CrossScaleAttention
from patchattn.attention.cross_scale_patch import CrossScalePatchAttention
from patchattn.attention.layer import AttentionLayer
from patchattn.baselines.full import FullAttention
from patchattn.baselines.local import LocalAttention
from patchattn.checks import check_choice, check_count, check_features
from patchattn.deprecation import renamed_argument
from patchattn.networks.mirror import mirrored

__all__ = ["CROSS_SCALE", "IN_SCALE", "SCALES", "SuperResolutionNetwork", "from_public_superresolution_state"]

CROSS_SCALE = {"full": CrossScaleAttention, "psal": CrossScalePatchAttention}
"""Attention layers for the cross-scale branch, by their names in files and on the command line."""


def _in_scale_full() -> FullAttention:
    return FullAttention(patch_size=1, similarity="dot")


def _in_scale_local(window: int = 16) -> LocalAttention:
    return LocalAttention(patch_size=1, similarity="dot", window=window)


IN_SCALE: dict[str, Callable[..., AttentionLayer]] = {"full": _in_scale_full, "local": _in_scale_local}
"""Attention layers for the in-scale branch: to every position, or to those in a window."""
SCALES = (2, 3, 4)
MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of the published network's training images, which is subtracted."""


class SuperResolutionNetwork(nn.Module):
    r"""CSNLN, the cross-scale non-local network of Mei et al. (2020), which section 4.6 of PSAL puts its layer into.

    $$h_t, x_{t + 1} = \operatorname{SEM}(x_t), \qquad
    y = W_T * [h_1, \dots, h_T], \qquad x_1 = f(x - \mu)$$

    f has two convolutions; SEM, a self-exemplars mining cell, upsamples features to h and downsamples them again; the
    same cell is applied `depth` = T times, and a convolution of all its upsampled features is the image. In the cell,

    $$F = D + e(U - D), \qquad h = F + \operatorname{up}(x_t - \operatorname{down}(F)), \qquad
    D = \operatorname{up}(\operatorname{in}(x_t)), \quad U = \operatorname{cross}(x_t)$$

    in- and cross-scale attention are joined by mutual projection: e, a residual block, sees only where they differ;
    then the residual after downsampling is projected back. For scale 4, both are done twice, upsampling by 2 each time.
    All convolutions are followed by PReLU, but those of e's end and of the image. With 128
    channels and a depth of 12 this is the published network, of 3 to 6.4 million numbers.

    The attention layers have no parameters and are called as `layer(query, key, value)`; others can take their places
    in a trained network (`network.cross_scale_attention = ...`, or for one call `network(image, cross_scale=...)`),
    as Table 7 of PSAL does.

    Images of any size are reflected to multiples of the scale; the results are cropped.

    Args:
        scale: 2, 3 or 4.
        cross_scale: the layer of the cross-scale branch, see `CROSS_SCALE`; value has the scale's multiple of the key's
            size.
        in_scale: the layer of the in-scale branch, see `IN_SCALE`.
        channels: of the features (128); even.
        depth: number of times that the cell is applied (12).
        skip: add the bicubic interpolation of the image to the result, so that small networks learn the residual
            alone. The published network has no such path.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> network = SuperResolutionNetwork(2, CrossScalePatchAttention(), LocalAttention(patch_size=1), channels=4,
        ...                                  depth=2)
        >>> network(torch.rand(1, 3, 15, 20)).shape
        torch.Size([1, 3, 30, 40])
    """

    def __init__(
        self, scale: int, cross_scale: nn.Module, in_scale: nn.Module, *, channels: int = 128, depth: int = 12,
        skip: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        check_choice("scale", scale, SCALES)
        check_count("channels", channels, 2)
        check_count("depth", depth, 1)
        if channels % 2:
            raise ValueError(f"channels: got {channels}; expected an even number.")
        self.scale, self.channels, self.depth, self.skip = scale, channels, depth, skip
        self.head = nn.Sequential(*convolution(3, channels), *convolution(channels, channels))
        self.cell = MiningCell(scale, channels)
        self.tail = nn.Conv2d(channels * depth, 3, 3, padding=1)
        self.cross_scale_attention, self.in_scale_attention = cross_scale, in_scale

    @renamed_argument("picture", "image")
    def forward(
        self, image: Float[Tensor, "batch 3 height width"], *, cross_scale: nn.Module | None = None
    ) -> Float[Tensor, "batch 3 rheight rwidth"]:
        """Upscale an RGB image in [0, 1]; the result is not clipped to it.

        Args:
            image: the image to upscale.
            cross_scale: the layer for the cross-scale branch in this call; default: the network's own.

        Raises:
            ValueError: the image has other channels.
        """
        check_features("image", image)
        if image.dim() != 4 or image.shape[1] != 3:
            raise ValueError(f"image: expected shape (B, 3, height, width), got {tuple(image.shape)}.")
        size = [self.scale * n for n in image.shape[2:]]
        padded = mirrored(image, self.cell.ratio)
        mean = padded.new_tensor(MEAN)[:, None, None]
        features = self.head(padded - mean)
        # The last convolution is summed turn by turn, so that the features of one turn are kept at a time.
        weights = torch.split(self.tail.weight, self.channels, 1)
        attention = self.cross_scale_attention if cross_scale is None else cross_scale
        enlarged: Any = 0
        for turn, weight in enumerate(weights, 1):
            high, features = self.cell(features, attention, self.in_scale_attention, last=turn == self.depth)
            enlarged = enlarged + functional.conv2d(high, weight, padding=1)
        assert self.tail.bias is not None
        enlarged = enlarged + self.tail.bias[:, None, None]
        base = mean
        if self.skip:
            base = functional.interpolate(padded, scale_factor=self.scale, mode="bicubic", antialias=True)
        output: Tensor = (enlarged + base)[..., : size[0], : size[1]]
        return output

    @renamed_argument("picture", "image")
    def enlarge(self, image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 rheight rwidth"]:
        """Upscale an RGB image in [0, 1], clipped to it, without gradients.

        Example:
            >>> import torch
            >>> network = SuperResolutionNetwork(3, CrossScaleAttention(), FullAttention(patch_size=1), channels=4)
            >>> network.enlarge(torch.rand(1, 3, 9, 8)).shape
            torch.Size([1, 3, 27, 24])
        """
        with torch.no_grad():
            enlarged: Tensor = self(image)
            return enlarged.clamp(0, 1)


def convolution(inputs: int, outputs: int, kernel: int = 3) -> tuple[nn.Module, nn.Module]:
    """A convolution that keeps the size, and a PReLU."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.PReLU()


def reduction(channels: int, factor: int) -> nn.Sequential:
    """A convolution with stride `factor`, and a PReLU."""
    kernel, padding = RESIZING[factor]
    return nn.Sequential(nn.Conv2d(channels, channels, kernel, factor, padding), nn.PReLU())


def enlargement(channels: int, factor: int) -> nn.Sequential:
    """A transposed convolution with stride `factor`, and a PReLU."""
    kernel, padding = RESIZING[factor]
    return nn.Sequential(nn.ConvTranspose2d(channels, channels, kernel, factor, padding), nn.PReLU())


RESIZING = {2: (6, 2), 3: (9, 3), 4: (8, 2)}
"""Kernel size and padding of strided convolutions, by the factor."""


class MiningCell(nn.Module):
    """Self-exemplars mining cell: upsamples features, and makes those of the next turn.

    Args:
        scale: 2, 3 or 4.
        channels: of the features.
    """

    def __init__(self, scale: int, channels: int) -> None:
        super().__init__()
        self.ratio = 2 if scale == 4 else scale
        """Upsampling factor of each projection."""
        self.projection = Projection(channels, self.ratio)
        self.down = reduction(channels, self.ratio)
        self.up = enlargement(channels, self.ratio)
        self.twice = scale == 4
        if self.twice:
            self.projection_2 = Projection(channels, self.ratio)
            self.down_2, self.up_2 = reduction(channels, scale), enlargement(channels, scale)
        self.next_down = reduction(channels, scale)
        self.next = nn.Sequential(*convolution(channels, channels))

    def forward(
        self, features: Tensor, cross_scale: nn.Module, in_scale: nn.Module, *, last: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Upsample `(B, C, height, width)`; the `last` turn does not downsample again."""
        high = self.projection(features, cross_scale, in_scale)
        high = high + self.up(features - self.down(high))
        if self.twice:
            high = self.projection_2(high, cross_scale, in_scale)
            high = high + self.up_2(features - self.down_2(high))
        return high, features if last else self.next(self.next_down(high))


class Projection(nn.Module):
    """Mutual projection of in-scale and cross-scale attention: upsamples features."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.cross_scale = CrossScaleBranch(channels, ratio)
        self.in_scale = InScaleBranch(channels)
        self.up = enlargement(channels, ratio)
        self.encoder = nn.Sequential(*convolution(channels, channels), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, features: Tensor, cross_scale: nn.Module, in_scale: nn.Module) -> Tensor:
        down = self.up(self.in_scale(features, in_scale))
        difference = self.cross_scale(features, cross_scale) - down
        # The encoder is a residual block.
        fused: Tensor = down + difference + self.encoder(difference)
        return fused


class InScaleBranch(nn.Module):
    """In-scale attention: similar positions at the same scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Sequential(*convolution(channels, channels // 2, 1)) for _ in range(2))
        self.value = nn.Sequential(*convolution(channels, channels, 1))

    def forward(self, features: Tensor, attention: nn.Module) -> Tensor:
        attended: Tensor = attention(self.query(features), self.key(features), self.value(features))
        return attended


class CrossScaleBranch(nn.Module):
    """Cross-scale attention: full-size patches whose downscaled versions are similar."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.query, self.key = (nn.Sequential(*convolution(channels, channels // 2, 1)) for _ in range(2))
        self.value = nn.Sequential(*convolution(channels, channels, 1))

    def forward(self, features: Tensor, attention: nn.Module) -> Tensor:
        size = [n // self.ratio for n in features.shape[2:]]
        smaller = functional.interpolate(features, size, mode="bilinear")
        attended: Tensor = attention(self.query(features), self.key(smaller), self.value(features))
        return attended


PUBLIC_NAMES = (
    ("SEM.", "cell."),
    ("head.0.0.", "head.0."),
    ("head.0.1.", "head.1."),
    ("head.1.0.", "head.2."),
    ("head.1.1.", "head.3."),
    ("tail.0.", "tail."),
    ("multi_source_projection_2.", "projection_2."),
    ("multi_source_projection.", "projection."),
    ("up_attention.", "cross_scale."),
    ("down_attention.", "in_scale."),
    ("conv_match_1.", "query."),
    ("conv_match_2.", "key."),
    ("conv_match1.", "query."),
    ("conv_match2.", "key."),
    ("conv_assembly.", "value."),
    ("upsample.", "up."),
    ("encoder.body.", "encoder."),
    ("post_conv.", "next."),
)
"""Parts of tensor names in the published checkpoints, and ours."""
PUBLIC_CELL_NAMES = {
    2: (("down_sample_1.", "down."), ("error_encode.", "up."), ("down_sample_2.", "next_down.")),
    4: (
        ("down_sample_1.", "down."),
        ("error_encode.", "up."),
        ("down_sample_3.", "down_2."),
        ("error_encode_2.", "up_2."),
        ("down_sample_4.", "next_down."),
    ),
}
"""Tensor names of the cell's own layers, for scales 2 and 3, and for 4."""


def from_public_superresolution_state(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename the weights of a published checkpoint (SHI-Labs/Cross-Scale-Non-Local-Attention) to ours.

    | there | here |
    |---|---|
    | `head.I.0.weight`, `head.I.1.weight` (its slope) | `head.{2 I}.weight`, `head.{2 I + 1}.weight` |
    | `SEM.multi_source_projection.` | `cell.projection.` (`_2` likewise, scale 4) |
    | `...up_attention.conv_match_1`, `conv_match_2`, `conv_assembly` | `...cross_scale.query`, `key`, `value` |
    | `...down_attention.conv_match1`, `conv_match2`, `conv_assembly` | `...in_scale.query`, `key`, `value` |
    | `...upsample`, `...encoder.body` | `...up`, `...encoder` |
    | `SEM.down_sample_1`, `SEM.error_encode` | `cell.down`, `cell.up` |
    | `SEM.down_sample_3`, `SEM.error_encode_2` (scale 4) | `cell.down_2`, `cell.up_2` |
    | `SEM.down_sample_2` (`_4` for scale 4), `SEM.post_conv` | `cell.next_down`, `cell.next` |
    | `tail.0.` | `tail.` |
    | `...escape_NaN`, `sub_mean`, `add_mean` | constants here |

    Args:
        state: the published state; its network must take RGB in [0, 1].

    Returns:
        The state of a `SuperResolutionNetwork` with as many channels, as deep and of the same scale.

    Raises:
        ValueError: a name is none of these, or the network expects another range than RGB in [0, 1].

    Example:
        >>> import torch
        >>> list(from_public_superresolution_state({"SEM.post_conv.0.bias": torch.zeros(128)}))
        ['cell.next.0.bias']
    """
    twice = any(name.startswith("SEM.multi_source_projection_2.") for name in state)
    names = (*PUBLIC_CELL_NAMES[4 if twice else 2], *PUBLIC_NAMES)
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(("sub_mean.", "add_mean.")):
            _check_range(name, tensor)
            continue
        if name.endswith(".escape_NaN"):
            continue
        if not name.startswith(("head.", "SEM.", "tail.")):
            raise ValueError(f"state: got a tensor {name!r}; expected names that begin with head, SEM or tail.")
        for theirs, ours in names:
            name = name.replace(theirs, ours)
        renamed[name] = tensor
    return renamed


def _check_range(name: str, tensor: Tensor) -> None:
    """Check the input range by the bias of the convolution that subtracts the mean in the published network."""
    if name == "sub_mean.bias" and not torch.allclose(tensor, -tensor.new_tensor(MEAN), atol=1e-3):
        raise ValueError(
            f"state: the network subtracts {(-tensor).tolist()} from images; expected {list(MEAN)}, as of RGB in "
            "[0, 1]."
        )
