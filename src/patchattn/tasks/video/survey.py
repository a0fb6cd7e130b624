"""A video looked through once before any work: every frame is decoded, and what is found is noted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from patchattn.tasks.video.pixels import Layout, layout_of
from patchattn.tasks.video.reading import complaints, listening, opened, packets_of

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

__all__ = ["FrameFound", "PacketFound", "StreamFound", "Survey", "decoder_of", "look_through"]

ATTACHED, THUMBNAILS, STILL = 1 << 10, 1 << 11, 1 << 20
"""FFmpeg's dispositions of pictures that are no video."""
SMALLEST_FRAME = 32
"""Bytes of a packet of MPEG-4 that holds a frame."""
PICTURE_CODECS = ("mjpeg", "png", "bmp", "gif", "webp", "tiff", "jpegxl", "jpeg2000")


@dataclass(frozen=True, slots=True)
class PacketFound:
    """A packet that has content, in units of its stream."""

    time: int | None
    """When it is shown; where the file does not tell, when it is decoded."""
    decoded: int | None
    """When it is decoded."""
    length: int
    corrupt: bool
    """The container says so."""
    shown: bool
    """It should give a frame: the container does not say otherwise, and it is no mere sign that nothing changed."""


@dataclass(frozen=True, slots=True)
class FrameFound:
    """A decoded frame, in the order of showing."""

    time: int | None
    length: int
    corrupt: bool
    packet: int | None
    """Which packet of its stream it came in."""


@dataclass
class StreamFound:
    """A stream of the file."""

    index: int
    type: str
    codec: str
    """FFmpeg's name; empty where it knows none."""
    unit: Fraction
    disposition: int
    metadata: dict[str, str]
    claimed_packets: int
    """How many packets the container counts; 0: it does not tell."""
    claimed_end: Fraction | None
    """When it ends, in seconds, as the container tells."""
    packets: list[PacketFound] = field(default_factory=list)
    heads: list[av.Packet[Any]] = field(default_factory=list)
    """The first packets themselves."""
    main_packets: list[int] = field(default_factory=list)
    """For each packet, how many of the video came before it in the file. Of subtitles and data alone."""

    @property
    def cover(self) -> bool:
        """It is a picture about the video, marked as such or alone in its stream."""
        if self.type != "video":
            return False
        return bool(self.disposition & ATTACHED) or (self.codec in PICTURE_CODECS and len(self.packets) == 1)

    @property
    def name(self) -> str:
        """What messages call it."""
        language = self.metadata.get("language", "und")
        details = [self.codec or "unknown format", *([language] if language != "und" else [])]
        kind = "cover picture" if self.cover else f"{self.type} stream"
        return f"{kind} {self.index} ({', '.join(details)})"


@dataclass
class Survey:
    """What was found."""

    path: Path
    size: int
    """Of the file, in bytes."""
    container: str
    """FFmpeg's names of the format, with commas between them."""
    claimed_end: Fraction | None
    """When the whole ends, in seconds, as the container tells; None where that is a guess."""
    main: StreamFound
    """The video."""
    others: list[StreamFound]
    rate: Fraction
    """Frames a second, as the container tells; 0: it does not."""
    aspect: Fraction
    """Width of a stored pixel over its height."""
    metadata: dict[str, str]
    chapters: list[dict[str, Any]]
    frames: list[FrameFound] = field(default_factory=list)
    layouts: list[tuple[int, Layout]] = field(default_factory=list)
    """From which frame on frames are laid out in which way."""
    complaints: list[str] = field(default_factory=list)
    """What FFmpeg complained of."""
    digest: str = ""
    """Of the content of the video's packets."""


def look_through(path: Path, argument: str, progress: Callable[[int], None] | None = None) -> Survey:
    """Decode a video once.

    Args:
        path: the file.
        argument: what errors call it.
        progress: called with the number of frames so far.

    Raises:
        ValueError: there is no video in the file, or not one frame of it can be decoded.
    """
    with opened(path, argument) as container, listening():
        main = _choose(container, path, argument)
        survey = _described(container, main, path)
        streams = {stream.index: stream for stream in (survey.main, *survey.others)}
        decoder = decoder_of(main)
        hashed = blake2b(digest_size=16)
        for packet, messages in packets_of(container):
            survey.complaints += messages
            if packet is None or not packet.size or packet.stream_index not in streams:
                continue
            if packet.stream_index == main.index:
                # In a list of its own: PyAV tells these objects apart by their identity.
                packet.opaque = [len(survey.main.packets)]
                hashed.update(bytes(packet))
                _note(survey.main, packet, 0)
                _decode(survey, decoder, packet)
                if progress is not None:
                    progress(len(survey.frames))
            else:
                _note(streams[packet.stream_index], packet, len(survey.main.packets))
        _decode(survey, decoder, None)
    if not survey.frames:
        raise ValueError(f"{argument}: not one frame of {path} can be decoded{_first(survey.complaints)}.")
    survey.digest = hashed.hexdigest()
    return survey


def decoder_of(stream: VideoStream) -> av.VideoCodecContext:
    """Return a stream's decoder, whose frames know their packets.

    One thread: what is made of damage must not depend on which of several was first.
    """
    decoder = stream.codec_context
    decoder.thread_count = 1
    decoder.copy_opaque = True
    return decoder


def _choose(container: InputContainer, path: Path, argument: str) -> VideoStream:
    """Return the stream that is the video: of those that move, the default one, or else the largest."""
    videos = [stream for stream in container.streams.video if stream.codec_context is not None]
    moving = [stream for stream in videos if not stream.disposition & (ATTACHED | THUMBNAILS | STILL)]
    if not moving:
        found = "only a cover picture" if videos else "no video that FFmpeg can decode"
        if not container.streams.video:
            found = "only audio" if container.streams.audio else "no stream that FFmpeg knows"
        raise ValueError(f"{argument}: there are no moving pictures in {path}: {found}.")
    if len(moving) == 1:
        return moving[0]
    counts = _count_packets(path, argument)

    def rank(stream: VideoStream) -> tuple[bool, bool, int, int]:
        area = stream.codec_context.width * stream.codec_context.height
        return (counts.get(stream.index, 0) > 1, bool(stream.disposition & 1), area, -stream.index)

    return max(moving, key=rank)


def _count_packets(path: Path, argument: str) -> dict[int, int]:
    counts: dict[int, int] = {}
    with opened(path, argument) as container, listening():
        for packet, _ in packets_of(container):
            if packet is not None and packet.size:
                counts[packet.stream_index] = counts.get(packet.stream_index, 0) + 1
    return counts


def _described(container: InputContainer, main: VideoStream, path: Path) -> Survey:
    cut = container.format.name == "avi" and _is_cut_avi(path)
    streams = {stream.index: _stream_found(stream, container.format.name, cut) for stream in container.streams}
    rate = main.average_rate or main.guessed_rate or main.codec_context.framerate
    return Survey(
        path,
        path.stat().st_size,
        container.format.name,
        _claimed_end(container),
        streams.pop(main.index),
        list(streams.values()),
        Fraction(rate) if rate else Fraction(0),
        Fraction(main.sample_aspect_ratio or main.codec_context.sample_aspect_ratio or 1),
        dict(container.metadata),
        [dict(chapter) for chapter in container.chapters()],
    )


def _stream_found(stream: Stream, container: str, cut: bool) -> StreamFound:
    context = stream.codec_context
    name = context.codec.canonical_name if context is not None else getattr(stream, "name", None)
    return StreamFound(
        stream.index,
        stream.type,
        name or "",
        stream.time_base or Fraction(1, 1000),
        int(stream.disposition),
        dict(stream.metadata),
        _claimed_packets(stream, container, cut),
        _seconds(stream.metadata.get("DURATION")),
    )


def _claimed_packets(stream: Stream, container: str, cut: bool) -> int:
    if "mov" in container.split(","):
        # The table of samples that are shown: what an edit list leaves out is not in it.
        return len(stream.index_entries)
    if container == "avi" and stream.type == "video":
        # Its head counts chunks without content too, which stand for a frame that is shown on; its index, at the end,
        # is not there where the file is cut.
        return stream.frames if cut else len(stream.index_entries)
    return 0


def _is_cut_avi(path: Path) -> bool:
    with path.open("rb") as file:
        return int.from_bytes(file.read(8)[4:], "little") + 8 > path.stat().st_size


def _claimed_end(container: InputContainer) -> Fraction | None:
    """Return the duration that the file states; where it states none, FFmpeg guesses, and gives it to streams too."""
    stated = container.format.name.startswith("matroska") or container.format.name in ("flv", "asf")
    if not stated or container.duration is None or any(stream.duration is not None for stream in container.streams):
        return None
    return Fraction(container.duration, 1_000_000)


def _seconds(text: str | None) -> Fraction | None:
    """Read hours:minutes:seconds."""
    try:
        hours, minutes, seconds = (text or "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except (ValueError, ZeroDivisionError):
        return None


def _note(stream: StreamFound, packet: av.Packet[Any], main_packets: int) -> None:
    time = packet.pts if packet.pts is not None else packet.dts
    stream.packets.append(
        PacketFound(time, packet.dts, packet.duration or 0, packet.is_corrupt, _is_shown(stream, packet))
    )
    if stream.type not in ("video", "audio"):
        stream.main_packets.append(main_packets)
    if len(stream.heads) < 2:
        stream.heads.append(packet)


def _is_shown(stream: StreamFound, packet: av.Packet[Any]) -> bool:
    # MPEG-4 in AVI has packets of a few bytes that say "not coded".
    return not packet.is_discard and (stream.codec != "mpeg4" or packet.size > SMALLEST_FRAME)


def _decode(survey: Survey, decoder: av.VideoCodecContext, packet: av.Packet[Any] | None) -> None:
    with complaints() as messages:
        for frame in decoder.decode(packet):
            layout = layout_of(frame)
            if not survey.layouts or survey.layouts[-1][1] != layout:
                survey.layouts.append((len(survey.frames), layout))
            number = cast("list[int] | None", frame.opaque)
            survey.frames.append(
                FrameFound(frame.pts, frame.duration or 0, frame.is_corrupt, number[0] if number else None)
            )
    survey.complaints += messages


def _first(complaints: list[str]) -> str:
    return f" ({complaints[0].rstrip('.')})" if complaints else ""
