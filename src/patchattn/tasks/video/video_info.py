"""Streams, packets and frames of a video file, as `probe` finds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchattn.tasks.video.pixels import FrameLayout

if TYPE_CHECKING:
    import av

__all__ = ["ATTACHED", "STILL", "THUMBNAILS", "FrameInfo", "PacketInfo", "StreamInfo", "VideoInfo"]

ATTACHED, THUMBNAILS, STILL = 1 << 10, 1 << 11, 1 << 20
"""FFmpeg's dispositions of images that are not video."""
IMAGE_CODECS = ("mjpeg", "png", "bmp", "gif", "webp", "tiff", "jpegxl", "jpeg2000")


@dataclass(frozen=True, slots=True)
class PacketInfo:
    """A packet with content; times are in units of its stream."""

    time: int | None
    """Presentation time; the decoding time if there is none."""
    decoded: int | None
    """Decoding time."""
    length: int
    corrupt: bool
    """Whether the container marks the packet as corrupt."""
    shown: bool
    """Whether the packet should give a frame: it is not marked for discarding, nor a "not coded" marker."""


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """A decoded frame, in presentation order."""

    time: int | None
    length: int
    corrupt: bool
    packet: int | None
    """Index of the packet that it was decoded from."""


@dataclass
class StreamInfo:
    """A stream of the file."""

    index: int
    type: str
    codec: str
    """FFmpeg's codec name; empty if unknown."""
    unit: Fraction
    disposition: int
    metadata: dict[str, str]
    stated_packets: int
    """Number of packets stated by the container; 0: not stated."""
    stated_end: Fraction | None
    """End in seconds as stated by the container."""
    packets: list[PacketInfo] = field(default_factory=list)
    first_packets: list[av.Packet[Any]] = field(default_factory=list)
    """The first packets, with their data."""
    main_packets: list[int] = field(default_factory=list)
    """Number of video packets before each packet in the file; only for subtitles and data."""

    @property
    def cover(self) -> bool:
        """Whether the stream is a cover image, marked as such or the only packet of its stream."""
        if self.type != "video":
            return False
        return bool(self.disposition & ATTACHED) or (self.codec in IMAGE_CODECS and len(self.packets) == 1)

    @property
    def name(self) -> str:
        """Name of the stream in messages."""
        language = self.metadata.get("language", "und")
        details = [self.codec or "unknown format", *([language] if language != "und" else [])]
        kind = "cover image" if self.cover else f"{self.type} stream"
        return f"{kind} {self.index} ({', '.join(details)})"


@dataclass
class VideoInfo:
    """Streams, packets, frames and metadata of a video file."""

    path: Path
    size: int
    """File size in bytes."""
    container: str
    """FFmpeg's names of the format, separated by commas."""
    stated_end: Fraction | None
    """Duration in seconds as stated by the container; None where FFmpeg guesses it."""
    main: StreamInfo
    """The video."""
    others: list[StreamInfo]
    rate: Fraction
    """Frames per second as stated by the container; 0: not stated."""
    aspect: Fraction
    """Pixel aspect ratio as stored, width over height."""
    metadata: dict[str, str]
    chapters: list[dict[str, Any]]
    frames: list[FrameInfo] = field(default_factory=list)
    layouts: list[tuple[int, FrameLayout]] = field(default_factory=list)
    """First frame of each frame format, with the format."""
    errors: list[str] = field(default_factory=list)
    """FFmpeg's error messages."""
    digest: str = ""
    """Digest of the video's packets."""
