"""Conversion between decoded frames and upright RGB images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from patchattn.tasks.images import Image
from patchattn.tasks.video.dynamic_range import DISPLAYED, to_bt709

if TYPE_CHECKING:
    import av

__all__ = ["FrameLayout", "frame_of", "image_of", "layout_of", "samples_of"]

UNSPECIFIED = 2
"""Code point for unspecified matrix, transfer or primaries (H.273)."""
SWSCALE_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""Matrix numbers of FFmpeg's scaler, by H.273 code point."""
BT709 = 1
SCALING = 0x4 | 0x2000 | 0x4000 | 0x40000 | 0x80000
"""Flags of FFmpeg's scaler: bicubic, full chroma, accurate, bit-exact."""


@dataclass(frozen=True)
class FrameLayout:
    """Pixel format, orientation and color encoding of a decoded frame."""

    height: int
    width: int
    """Height and width as stored."""
    format: str
    bits: int
    """Bits per channel."""
    alpha: bool
    interlaced: bool
    turn: tuple[bool, bool, bool]
    """Rotation to upright: transpose, then mirror horizontally, then vertically."""
    slanted: bool
    """Whether the file asks for a rotation that is no multiple of 90 degrees."""
    matrix: int
    primaries: int
    curve: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) when upright."""
        return (self.width, self.height) if self.turn[0] else (self.height, self.width)

    @property
    def deep(self) -> bool:
        """Whether more than 8 bits are needed."""
        return self.bits > 8 or (self.primaries, self.curve) in DISPLAYED


def layout_of(frame: av.VideoFrame) -> FrameLayout:
    """Return the format of a decoded frame."""
    turn, slanted = _turn(frame)
    components = frame.format.components
    matrix = int(frame.colorspace)
    if matrix == UNSPECIFIED:
        # What players take for granted: television of standard definition is BT.601, larger video BT.709.
        matrix = BT709 if frame.width >= 1280 or frame.height > 576 else 6
    return FrameLayout(
        frame.height,
        frame.width,
        frame.format.name,
        max(component.bits for component in components),
        any(component.is_alpha for component in components),
        bool(frame.interlaced_frame),
        turn,
        slanted,
        matrix,
        int(frame.color_primaries),
        int(frame.color_trc),
    )


def image_of(frame: av.VideoFrame, size: tuple[int, int], *, alpha: bool = False) -> Image:
    """Convert a frame to an upright BT.709 RGB image, resized to (height, width) if it differs.

    With `alpha` it has the frame's, if that has any.
    """
    layout = layout_of(frame)
    height, width = size[::-1] if layout.turn[0] else size
    samples: NDArray[Any] = frame.reformat(
        width=width,
        height=height,
        format=("rgba64le" if layout.deep else "rgba") if alpha else ("rgb48le" if layout.deep else "rgb24"),
        src_colorspace=SWSCALE_MATRICES.get(layout.matrix),
        interpolation=SCALING,
    ).to_ndarray()
    exchange, mirror, flip = layout.turn
    samples = samples.transpose(1, 0, 2) if exchange else samples
    samples = samples[:: -1 if flip else 1, :: -1 if mirror else 1]
    scale = 65535 if layout.deep else 255
    color = torch.from_numpy(np.ascontiguousarray(samples.transpose(2, 0, 1), dtype=np.float32)).div_(scale)
    opacity = color[3:][None] if alpha and layout.alpha else None
    color = to_bt709(color[:3], layout.primaries, layout.curve)
    return Image(color[None], opacity, bit_depth=16 if layout.deep else 8)


def samples_of(image: Image, *, deep: bool) -> NDArray[Any]:
    """Convert an image to 8- or 16-bit integers, (height, width, 3)."""
    color = image.color.expand(-1, 3, -1, -1)[0].clamp(0, 1).permute(1, 2, 0)
    scaled = color.mul(65535 if deep else 255).round().cpu().numpy()
    return np.ascontiguousarray(scaled.astype(np.uint16 if deep else np.uint8))


def frame_of(samples: NDArray[Any], pixel_format: str) -> av.VideoFrame:
    """Convert samples to a frame to encode, in BT.709."""
    import av

    frame = av.VideoFrame.from_ndarray(samples, format="rgb24" if samples.dtype == np.uint8 else "rgb48le")
    return frame.reformat(
        format=pixel_format,
        dst_colorspace="ITU709",
        dst_color_range="MPEG",
        interpolation=SCALING,
    )


def _turn(frame: av.VideoFrame) -> tuple[tuple[bool, bool, bool], bool]:
    """Parse the display matrix: x' = a x + c y, y' = b x + d y."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return (False, False, False), False
    a, b, _, c, d, *_ = np.frombuffer(cast("Any", matrix), dtype=np.int32).tolist()
    straight, crossed = abs(a) + abs(d), abs(b) + abs(c)
    if not crossed:
        return (False, a < 0, d < 0), False
    if not straight:
        return (True, c < 0, b < 0), False
    return (False, False, False), True
