"""H.264 encoding in independent segments of a fixed number of frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from patchattn.extras import extra
from patchattn.tasks.video.pixels import frame_of

if TYPE_CHECKING:
    import av

__all__ = ["EncodedFrame", "Encoding", "SegmentEncoder", "check_encoder", "in_decoding_order"]

ENCODER = "libx264"
FRAMES_IN_SEGMENT = 48
"""Number of frames in a segment; fixed, so that interrupted and uninterrupted runs write the same bytes."""
THREADS = 4
"""Number of x264 threads; fixed, as the output depends on it."""
BT709, LIMITED_RANGE = 1, 1
"""Code point of BT.709 for primaries, transfer and matrix alike (H.273), and FFmpeg's limited color range."""


@dataclass(frozen=True)
class Encoding:
    """Encoder settings of the output: crf 18, BT.709."""

    height: int
    width: int
    deep: bool
    """Whether to encode 10 bits instead of 8."""
    rate: Fraction
    unit: Fraction
    """Time base in seconds."""
    aspect: Fraction
    """Pixel aspect ratio, width over height."""
    primaries: int
    curve: int
    """Transfer characteristics (H.273); `primaries` likewise."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def pixel_format(self) -> str:
        """Pixel format: 4:2:0, as most players expect, if the size is even; otherwise 4:4:4."""
        even = self.height % 2 == self.width % 2 == 0
        return ("yuv420p" if even else "yuv444p") + ("10le" if self.deep else "")

    def configure(self, context: av.VideoCodecContext) -> None:
        """Set up an encoder before it is opened."""
        from av.codec.context import Flags

        context.width, context.height, context.pix_fmt = self.width, self.height, self.pixel_format
        context.time_base, context.framerate = self.unit, self.rate
        context.sample_aspect_ratio = self.aspect
        context.colorspace, context.color_range = BT709, LIMITED_RANGE
        context.color_primaries, context.color_trc = self.primaries, self.curve
        context.thread_count = THREADS
        context.flags |= Flags.global_header
        # Without x264's macroblock tree, whose result is not the same from run to run.
        context.options = {"crf": "18", "g": str(FRAMES_IN_SEGMENT), "mbtree": "0"}


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """An encoded frame."""

    time: int
    keyframe: bool
    data: bytes


class SegmentEncoder:
    """Encoder of one segment."""

    def __init__(self, encoding: Encoding) -> None:
        import av

        self._encoding = encoding
        context = av.CodecContext.create(ENCODER, "w")
        assert isinstance(context, av.VideoCodecContext)
        encoding.configure(context)
        self._context = context
        self._coded: list[EncodedFrame] = []

    def add(self, samples: NDArray[Any], time: int) -> None:
        """Encode the next frame, (height, width, 3)."""
        frame = frame_of(samples, self._encoding.pixel_format)
        frame.pts, frame.time_base = time, self._encoding.unit
        frame.color_primaries, frame.color_trc = self._encoding.primaries, self._encoding.curve
        self._keep(self._context.encode(frame))

    def finish(self) -> list[EncodedFrame]:
        """Return the encoded frames in decoding order."""
        self._keep(self._context.encode(None))
        return self._coded

    def _keep(self, packets: Sequence[av.Packet[Any]]) -> None:
        for packet in packets:
            assert packet.pts is not None
            self._coded.append(EncodedFrame(packet.pts, packet.is_keyframe, bytes(packet)))


def check_encoder() -> None:
    """Raise a RuntimeError if PyAV is not there or cannot encode H.264."""
    with extra("video"):
        import av
    if ENCODER not in av.codecs_available:
        raise RuntimeError(
            f"PyAV's FFmpeg has no encoder {ENCODER}; install PyAV's own build with: pip install --force-reinstall av"
        )


def in_decoding_order(
    coded: Iterator[EncodedFrame], times: Sequence[int], end: int, step: int, unit: Fraction
) -> Iterator[av.Packet[Any]]:
    """Yield packets with decoding times that continue across segments.

    Args:
        coded: all of them, in the order of decoding.
        times: of all frames, in the order of showing.
        end: when the last one ends.
        step: a usual step between frames.
        unit: of all these, in seconds.
    """
    import av

    ends = dict(zip(times, [*times[1:], end], strict=True))
    # A frame is decoded by the time it is shown if all are decoded this many frames earlier.
    for number, one in enumerate(coded):
        packet: av.Packet[Any] = av.Packet(one.data)
        early = number - MAX_REORDERED_FRAMES
        packet.dts = times[early] if early >= 0 else times[0] + early * max(step, 1)
        packet.time_base = unit
        packet.time_base = unit
        packet.pts, packet.duration, packet.is_keyframe = one.time, ends[one.time] - one.time, one.keyframe
        yield packet


MAX_REORDERED_FRAMES = 2
"""Largest number of frames that x264 reorders, with B-frames as references."""


def arrays_of(coded: Sequence[EncodedFrame]) -> dict[str, NDArray[Any]]:
    """Convert encoded frames to arrays for storage."""
    return {
        "times": np.array([one.time for one in coded], np.int64),
        "keyframes": np.array([one.keyframe for one in coded], bool),
        "sizes": np.array([len(one.data) for one in coded], np.int64),
        "data": np.frombuffer(b"".join(one.data for one in coded), np.uint8),
    }


def coded_of(arrays: dict[str, NDArray[Any]]) -> Iterator[EncodedFrame]:
    """Yield the encoded frames stored by `arrays_of`."""
    data, start = arrays["data"].tobytes(), 0
    for time, keyframe, size in zip(arrays["times"], arrays["keyframes"], arrays["sizes"], strict=True):
        yield EncodedFrame(int(time), bool(keyframe), data[start : start + int(size)])
        start += int(size)
