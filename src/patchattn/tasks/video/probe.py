"""Probing of a video: every frame is decoded once, and streams, packets and frames are recorded."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from patchattn.tasks.video.pixels import layout_of
from patchattn.tasks.video.reading import ffmpeg_errors, ffmpeg_logging, open_video, packets_of
from patchattn.tasks.video.video_info import (
    ATTACHED,
    STILL,
    THUMBNAILS,
    FrameInfo,
    PacketInfo,
    StreamInfo,
    VideoInfo,
)

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

__all__ = ["decoder_of", "probe_video"]

MIN_FRAME_BYTES = 32
"""Smallest size of an MPEG-4 packet that holds a frame, in bytes."""


def probe_video(path: Path, argument: str, progress: Callable[[int], None] | None = None) -> VideoInfo:
    """Decode a video once and record its streams, packets and frames.

    Args:
        path: the file.
        argument: name of the file in error messages.
        progress: called with the number of frames so far.

    Raises:
        ValueError: there is no video in the file, or not one frame of it can be decoded.
    """
    with open_video(path, argument) as container, ffmpeg_logging():
        main = _choose(container, path, argument)
        info = _described(container, main, path)
        streams = {stream.index: stream for stream in (info.main, *info.others)}
        decoder = decoder_of(main)
        hashed = blake2b(digest_size=16)
        for packet, messages in packets_of(container):
            info.errors += messages
            if packet is None or not packet.size or packet.stream_index not in streams:
                continue
            if packet.stream_index == main.index:
                # In a list of its own: PyAV tells these objects apart by their identity.
                packet.opaque = [len(info.main.packets)]
                hashed.update(bytes(packet))
                _note(info.main, packet, 0)
                _decode(info, decoder, packet)
                if progress is not None:
                    progress(len(info.frames))
            else:
                _note(streams[packet.stream_index], packet, len(info.main.packets))
        _decode(info, decoder, None)
    if not info.frames:
        raise ValueError(f"{argument}: not one frame of {path} can be decoded{_first(info.errors)}.")
    info.digest = hashed.hexdigest()
    return info


def decoder_of(stream: VideoStream) -> av.VideoCodecContext:
    """Return a stream's decoder, configured so that frames refer to their packets.

    One thread: what is made of damage must not depend on which of several was first.
    """
    decoder = stream.codec_context
    decoder.thread_count = 1
    decoder.copy_opaque = True
    return decoder


def _choose(container: InputContainer, path: Path, argument: str) -> VideoStream:
    """Choose the main video stream: among moving ones the default, or else the largest."""
    videos = [stream for stream in container.streams.video if stream.codec_context is not None]
    moving = [stream for stream in videos if not stream.disposition & (ATTACHED | THUMBNAILS | STILL)]
    if not moving:
        found = "only a cover image" if videos else "no video that FFmpeg can decode"
        if not container.streams.video:
            found = "only audio" if container.streams.audio else "no stream that FFmpeg knows"
        raise ValueError(f"{argument}: there are no moving images in {path}: {found}.")
    if len(moving) == 1:
        return moving[0]
    counts = _count_packets(path, argument)

    def rank(stream: VideoStream) -> tuple[bool, bool, int, int]:
        area = stream.codec_context.width * stream.codec_context.height
        return (counts.get(stream.index, 0) > 1, bool(stream.disposition & 1), area, -stream.index)

    return max(moving, key=rank)


def _count_packets(path: Path, argument: str) -> dict[int, int]:
    counts: dict[int, int] = {}
    with open_video(path, argument) as container, ffmpeg_logging():
        for packet, _ in packets_of(container):
            if packet is not None and packet.size:
                counts[packet.stream_index] = counts.get(packet.stream_index, 0) + 1
    return counts


def _described(container: InputContainer, main: VideoStream, path: Path) -> VideoInfo:
    cut = container.format.name == "avi" and _is_cut_avi(path)
    streams = {stream.index: _stream_found(stream, container.format.name, cut) for stream in container.streams}
    rate = main.average_rate or main.guessed_rate or main.codec_context.framerate
    return VideoInfo(
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


def _stream_found(stream: Stream, container: str, cut: bool) -> StreamInfo:
    context = stream.codec_context
    name = context.codec.canonical_name if context is not None else getattr(stream, "name", None)
    return StreamInfo(
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
    """Return the duration stated by the file; where FFmpeg guesses it, streams have one too."""
    stated = container.format.name.startswith("matroska") or container.format.name in ("flv", "asf")
    if not stated or container.duration is None or any(stream.duration is not None for stream in container.streams):
        return None
    return Fraction(container.duration, 1_000_000)


def _seconds(text: str | None) -> Fraction | None:
    """Parse hours:minutes:seconds."""
    try:
        hours, minutes, seconds = (text or "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except (ValueError, ZeroDivisionError):
        return None


def _note(stream: StreamInfo, packet: av.Packet[Any], main_packets: int) -> None:
    time = packet.pts if packet.pts is not None else packet.dts
    stream.packets.append(
        PacketInfo(time, packet.dts, packet.duration or 0, packet.is_corrupt, _is_shown(stream, packet))
    )
    if stream.type not in ("video", "audio"):
        stream.main_packets.append(main_packets)
    if len(stream.first_packets) < 2:
        stream.first_packets.append(packet)


def _is_shown(stream: StreamInfo, packet: av.Packet[Any]) -> bool:
    # MPEG-4 in AVI has packets of a few bytes that say "not coded".
    return not packet.is_discard and (stream.codec != "mpeg4" or packet.size > MIN_FRAME_BYTES)


def _decode(info: VideoInfo, decoder: av.VideoCodecContext, packet: av.Packet[Any] | None) -> None:
    with ffmpeg_errors() as messages:
        for frame in decoder.decode(packet):
            layout = layout_of(frame)
            if not info.layouts or info.layouts[-1][1] != layout:
                info.layouts.append((len(info.frames), layout))
            number = cast("list[int] | None", frame.opaque)
            info.frames.append(
                FrameInfo(frame.pts, frame.duration or 0, frame.is_corrupt, number[0] if number else None)
            )
    info.errors += messages


def _first(ffmpeg_errors: list[str]) -> str:
    return f" ({ffmpeg_errors[0].rstrip('.')})" if ffmpeg_errors else ""
