"""Architectures of the networks, as their weight files store them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from patchattn.networks.attention_layers import named_attention
from patchattn.networks.colorization import ColorizationNetwork
from patchattn.networks.inpainting import ATTENTIONS, InpaintingNetwork
from patchattn.networks.superresolution import CROSS_SCALE, IN_SCALE, SuperResolutionNetwork

__all__ = ["AnyArchitecture", "ColorizationArchitecture", "InpaintingArchitecture", "SuperResolutionArchitecture"]


@dataclass(frozen=True)
class ColorizationArchitecture:
    """Architecture of a colorization network.

    Example:
        >>> ColorizationArchitecture(attention="psal", settings={"k": 1}).build().attention
        PatchAttention(k=1, patch_size=7, similarity='l2', temperature=1.0, aggregate=False, num_heads=1, method='auto')
    """

    task: ClassVar[str] = "colorization"

    attention: str = "psal-aggregate"
    """A name of `networks.attention_layers`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The attention layer's arguments that are not its defaults."""
    channels: int = 16
    size: int | None = None
    """Side of the frames that it was trained on; None: unknown."""

    def build(self) -> ColorizationNetwork:
        """Build the network, with random weights.

        Raises:
            ValueError: there is no such layer, or it has no such setting.
        """
        attention = named_attention(self.attention, self.settings)
        return ColorizationNetwork(attention, channels=self.channels, size=self.size)


@dataclass(frozen=True)
class InpaintingArchitecture:
    """Architecture of an inpainting network.

    Example:
        >>> InpaintingArchitecture("contextual", {"rate": 1}, channels=4).build().refinement.attention
        ContextualAttention(patch_size=3, rate=1, scale=10.0, fuse=True, norm='floor')
    """

    task: ClassVar[str] = "inpainting"

    attention: str = "psal"
    """A name of `networks.inpainting.ATTENTIONS`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The attention layer's arguments that are not its defaults."""
    channels: int = 32
    padding_mode: str = "reflect"

    def build(self) -> InpaintingNetwork:
        """Build the network, with random weights.

        Raises:
            ValueError: there is no such layer, it has no such setting, or another argument is out of range.
        """
        attention = named_attention(self.attention, self.settings, ATTENTIONS)
        return InpaintingNetwork(attention, channels=self.channels, padding_mode=self.padding_mode)


@dataclass(frozen=True)
class SuperResolutionArchitecture:
    """Architecture of a super-resolution network.

    Example:
        >>> SuperResolutionArchitecture(3, "psal", {"k": 5}).build().cross_scale_attention
        CrossScalePatchAttention(k=5, patch_size=3, scale=10.0, divisor=6.0, method='auto')
    """

    task: ClassVar[str] = "superresolution"

    scale: int = 2
    cross_scale: str = "full"
    """A name of `networks.superresolution.CROSS_SCALE`."""
    cross_scale_settings: dict[str, Any] = field(default_factory=dict)
    """That layer's arguments that are not its defaults."""
    in_scale: str = "local"
    """A name of `networks.superresolution.IN_SCALE`."""
    in_scale_settings: dict[str, Any] = field(default_factory=dict)
    """That layer's arguments that are not its defaults."""
    channels: int = 16
    depth: int = 2
    skip: bool = True

    def build(self) -> SuperResolutionNetwork:
        """Build the network, with random weights.

        Raises:
            ValueError: there is no such layer, it has no such setting, or another argument is out of range.
        """
        return SuperResolutionNetwork(
            self.scale,
            named_attention(self.cross_scale, self.cross_scale_settings, CROSS_SCALE, "cross_scale"),
            named_attention(self.in_scale, self.in_scale_settings, IN_SCALE, "in_scale"),
            channels=self.channels,
            depth=self.depth,
            skip=self.skip,
        )


AnyArchitecture = ColorizationArchitecture | InpaintingArchitecture | SuperResolutionArchitecture
