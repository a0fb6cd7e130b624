"""Muxing: the encoded video joined with copied audio, subtitles, cover images, chapters and metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from io import BytesIO
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from patchattn.tasks.video.container_metadata import kept_metadata, shifted_chapters, stream_metadata
from patchattn.tasks.video.encoding import ENCODER, EncodedFrame, Encoding, in_decoding_order
from patchattn.tasks.video.reading import packets_of
from patchattn.tasks.video.schedule import Schedule
from patchattn.tasks.video.video_info import ATTACHED, StreamInfo, VideoInfo

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.stream import Stream

__all__ = ["Muxer", "NullFile"]

IMAGE_TYPES = {"mjpeg": "jpeg", "jpegxl": "jxl", "jpeg2000": "jp2"}
"""MIME subtypes of image codecs that differ from FFmpeg's names."""


class Muxer:
    """An output file with the encoded video and streams copied from the source."""

    def __init__(
        self,
        file: BinaryIO | BytesIO | NullFile,
        container: str,
        source: InputContainer,
        info: VideoInfo,
        times: Schedule,
        encoding: Encoding,
        streams: Sequence[StreamInfo],
        *,
        head: bool = True,
    ) -> None:
        import av

        self._source, self._survey, self._times, self._encoding = source, info, times, encoding
        options = {"fflags": "+bitexact"}  # no random numbers, no date: the same bytes from the same work
        if any(name.startswith("com.") for name in info.metadata):
            # Names as QuickTime's cameras write them, which are not among those that every player knows.
            options["movflags"] = "+use_metadata_tags"
        self._result = av.open(
            cast("BinaryIO", file), "w", format=container, container_options=options, metadata_errors="surrogateescape"
        )
        self._video = self._add_video()
        self._targets = {found.index: self._add(found, container) for found in streams}
        self._found = {found.index: found for found in streams}
        self._refused: dict[int, int] = {}
        if head:
            self._result.metadata.update(kept_metadata(info.metadata))
            self._result.set_chapters(shifted_chapters(info.chapters, times.start_offset()))

    def __enter__(self) -> Muxer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._result.close()

    def write(self, coded: Iterator[EncodedFrame]) -> list[str]:
        """Write all packets in order of time; returns messages on what could not be copied."""
        step = round(self._times.step / self._times.unit)
        video = in_decoding_order(coded, self._times.times, self._times.end, step, self._times.unit)
        self.write_first_packets(covers_alone=True)
        packet = next(video, None)
        for copied in self._copies():
            while packet is not None and _decoding_time(packet) <= _decoding_time(copied):
                self._mux_video(packet)
                packet = next(video, None)
            self._mux_copy(copied)
        while packet is not None:
            self._mux_video(packet)
            packet = next(video, None)
        return [
            f"{self._found[index].name}: {count} of its packets cannot be written; left out"
            for index, count in self._refused.items()
        ]

    def write_beginning(self, coded: EncodedFrame) -> None:
        """Write one frame, and the first packets of everything else."""
        for packet in in_decoding_order(iter([coded]), [coded.time], coded.time + 1, 1, self._times.unit):
            self._mux_video(packet)
        self.write_first_packets(covers_alone=False)

    def write_times(self, coded: EncodedFrame) -> None:
        """Write one frame at all times, to test whether the container can hold the times."""
        step = round(self._times.step / self._times.unit)
        times = self._times.times
        frames = (EncodedFrame(time, coded.keyframe, coded.data) for time in times)
        for packet in in_decoding_order(frames, times, self._times.end, step, self._times.unit):
            self._mux_video(packet)

    def write_first_packets(self, *, covers_alone: bool) -> None:
        """Write the first packets of covers, or of all streams."""
        for index, target in self._targets.items():
            found = self._found[index]
            if target is None or (covers_alone and not found.cover):
                continue
            for number, head in enumerate(found.first_packets[: 1 if found.cover else 2]):
                packet = _clone(head)
                packet.pts = packet.dts = number * max(head.duration or 0, 1)
                packet.stream = target
                self._result.mux(packet)

    def _add_video(self) -> Stream:
        video: Any = self._result.add_stream(ENCODER, rate=self._encoding.rate)
        self._encoding.configure(video.codec_context)
        video.time_base = self._encoding.unit
        video.metadata.update(stream_metadata(self._survey.main.metadata))
        video.disposition = self._survey.main.disposition
        return video  # type: ignore[no-any-return]

    def _add(self, found: StreamInfo, container: str) -> Stream | None:
        """Add a copied stream; returns None for attachments, which take no packets."""
        template = self._source.streams[found.index]
        if container == "matroska" and (found.cover or found.type == "attachment"):
            self._result.add_attachment(*_attachment(found, template))
            return None
        added: Any = self._result.add_stream_from_template(template, opaque=True)
        added.metadata.update(stream_metadata(found.metadata))
        added.disposition = ATTACHED if found.cover else found.disposition
        return added  # type: ignore[no-any-return]

    def _copies(self) -> Iterator[av.Packet[Any]]:
        """Yield the packets to copy, with their new times."""
        copied = {
            index: _ShiftedStream(self._found[index], self._times.offsets[index])
            for index, target in self._targets.items()
            if target is not None and not self._found[index].cover
        }
        if copied:
            for packet, _ in packets_of(self._source):
                if packet is not None and packet.size and packet.stream_index in copied:
                    copied[packet.stream_index].place(packet)
                    yield packet

    def _mux_video(self, packet: av.Packet[Any]) -> None:
        packet.stream = self._video
        self._result.mux(packet)

    def _mux_copy(self, packet: av.Packet[Any]) -> None:
        import av

        index = packet.stream_index
        target = self._targets[index]
        assert target is not None
        packet.stream = target
        try:
            self._result.mux(packet)
        except av.FFmpegError:  # where the disk is full, the file itself remembers that
            self._refused[index] = self._refused.get(index, 0) + 1


class NullFile:
    """A file that discards what is written to it."""

    def __init__(self) -> None:
        self._place = self._end = 0

    def write(self, data: bytes) -> int:
        self._place += len(data)
        self._end = max(self._end, self._place)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, self._end)[whence]
        return self._place

    def tell(self) -> int:
        return self._place


class _ShiftedStream:
    """Shifts the times of a copied stream's packets."""

    def __init__(self, stream: StreamInfo, offsets: list[tuple[int, Fraction]]) -> None:
        self._unit, self._offsets = stream.unit, offsets
        self._number = 0
        self._last: int | None = None
        self._following = 0

    def place(self, packet: av.Packet[Any]) -> None:
        """Shift a packet's times, keeping them increasing."""
        added = [added for start, added in self._offsets if start <= self._number][-1]
        ticks = round(added / self._unit)
        self._number += 1
        given = packet.dts if packet.dts is not None else packet.pts
        decoded = self._following if given is None else given + ticks
        if self._last is not None:
            decoded = max(decoded, self._last + 1)  # most containers refuse two packets of one time
        packet.pts = decoded if packet.pts is None else max(decoded, packet.pts + ticks)
        packet.dts = decoded
        self._last, self._following = decoded, decoded + max(packet.duration or 0, 1)


def _attachment(found: StreamInfo, template: Stream) -> tuple[str, str, bytes]:
    """Name, MIME type and content of a Matroska attachment."""
    if found.type == "attachment":
        name = found.metadata.get("filename", "attachment")
        return name, found.metadata.get("mimetype", "application/octet-stream"), template.data  # type: ignore[attr-defined]
    kind = IMAGE_TYPES.get(found.codec, found.codec)
    name = found.metadata.get("filename", f"cover.{'jpg' if kind == 'jpeg' else kind}")
    return name, found.metadata.get("mimetype", f"image/{kind}"), bytes(found.first_packets[0])


def _decoding_time(packet: av.Packet[Any]) -> Fraction:
    assert packet.dts is not None
    return packet.dts * packet.time_base


def _clone(packet: av.Packet[Any]) -> av.Packet[Any]:
    import av

    clone: av.Packet[Any] = av.Packet(bytes(packet))
    clone.time_base, clone.duration, clone.is_keyframe = packet.time_base, packet.duration, packet.is_keyframe
    return clone
