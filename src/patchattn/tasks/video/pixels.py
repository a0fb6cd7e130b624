"""Decoded frames as upright RGB pictures, and pictures as frames to be encoded."""

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

__all__ = ["Layout", "frame_of", "layout_of", "picture_of", "samples_of"]

UNSPECIFIED = 2
"""H.273's number for matrices, curves and primaries that a file does not tell."""
SWSCALE_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""FFmpeg's scaler's numbers of matrices, by H.273's."""
BT709 = 1
SCALING = 0x4 | 0x2000 | 0x4000 | 0x40000 | 0x80000
"""FFmpeg's scaler: bicubic, with chroma at full size, accurate, and alike on every processor."""


@dataclass(frozen=True)
class Layout:
    """What the numbers of a decoded frame mean."""

    height: int
    width: int
    """As stored."""
    format: str
    bits: int
    """Of one channel."""
    alpha: bool
    interlaced: bool
    turn: tuple[bool, bool, bool]
    """To show it upright: exchange rows and columns, then mirror left and right, then top and bottom."""
    slanted: bool
    """The file asks for another turn than by quarters."""
    matrix: int
    primaries: int
    curve: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) when upright."""
        return (self.width, self.height) if self.turn[0] else (self.height, self.width)

    @property
    def deep(self) -> bool:
        """More than 8 bits are needed."""
        return self.bits > 8 or (self.primaries, self.curve) in DISPLAYED


def layout_of(frame: av.VideoFrame) -> Layout:
    """Return what a frame's numbers mean."""
    turn, slanted = _turn(frame)
    components = frame.format.components
    matrix = int(frame.colorspace)
    if matrix == UNSPECIFIED:
        # What players take for granted: television of standard definition is BT.601, larger video BT.709.
        matrix = BT709 if frame.width >= 1280 or frame.height > 576 else 6
    return Layout(
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


def picture_of(frame: av.VideoFrame, size: tuple[int, int]) -> Image:
    """Return a frame upright in RGB of BT.709, scaled to (height, width) where it has another size."""
    layout = layout_of(frame)
    height, width = size[::-1] if layout.turn[0] else size
    samples: NDArray[Any] = frame.reformat(
        width=width,
        height=height,
        format="rgb48le" if layout.deep else "rgb24",
        src_colorspace=SWSCALE_MATRICES.get(layout.matrix),
        interpolation=SCALING,
    ).to_ndarray()
    exchange, mirror, flip = layout.turn
    samples = samples.transpose(1, 0, 2) if exchange else samples
    samples = samples[:: -1 if flip else 1, :: -1 if mirror else 1]
    scale = 65535 if layout.deep else 255
    color = torch.from_numpy(np.ascontiguousarray(samples.transpose(2, 0, 1), dtype=np.float32)).div_(scale)
    color = to_bt709(color, layout.primaries, layout.curve)
    return Image(color[None], bit_depth=16 if layout.deep else 8)


def samples_of(picture: Image, *, deep: bool) -> NDArray[Any]:
    """Return a picture's (height, width, 3) whole numbers of 8 bits, or of 16."""
    color = picture.color.expand(-1, 3, -1, -1)[0].clamp(0, 1).permute(1, 2, 0)
    scaled = color.mul(65535 if deep else 255).round().cpu().numpy()
    return np.ascontiguousarray(scaled.astype(np.uint16 if deep else np.uint8))


def frame_of(samples: NDArray[Any], pixel_format: str) -> av.VideoFrame:
    """Return a frame to encode, in BT.709."""
    import av

    frame = av.VideoFrame.from_ndarray(samples, format="rgb24" if samples.dtype == np.uint8 else "rgb48le")
    return frame.reformat(
        format=pixel_format,
        dst_colorspace="ITU709",
        dst_color_range="MPEG",
        interpolation=SCALING,
    )


def _turn(frame: av.VideoFrame) -> tuple[tuple[bool, bool, bool], bool]:
    """Read the display matrix: x' = a x + c y, y' = b x + d y."""
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
