"""Muxing: the encoded video joined with copied audio, subtitles, cover images, chapters and metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from patchattn.tasks.video.encoding import ENCODER, Coded, Encoding, in_decoding_order
from patchattn.tasks.video.probe import ATTACHED, StreamInfo, VideoInfo
from patchattn.tasks.video.reading import packets_of
from patchattn.tasks.video.schedule import Schedule
from patchattn.tasks.video.timeline import clock

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.stream import Stream

__all__ = ["CONTAINERS", "Muxer", "Plan", "plan_copies"]

CONTAINERS = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov"}
"""FFmpeg's names of the output containers, by extension."""
OF_THE_FILE = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "handler_name", "vendor_id"}
STATISTICS = ("_statistics", "bps", "number_of_", "duration-")
"""Prefixes of metadata about the source file rather than its content."""
IMAGE_TYPES = {"mjpeg": "jpeg", "jpegxl": "jxl", "jpeg2000": "jp2"}
"""MIME subtypes of image codecs that differ from FFmpeg's names."""
DEFAULT = 1


@dataclass
class Plan:
    """Streams to copy, and notes on what is left out."""

    container: str
    streams: list[StreamInfo] = field(default_factory=list)
    """Streams that are copied."""
    notes: list[str] = field(default_factory=list)
    """Messages on what is left out."""

    @property
    def audio_streams(self) -> int:
        """Number of audio streams that are copied."""
        return sum(stream.type == "audio" for stream in self.streams)


class Muxer:
    """An output file with the encoded video and streams copied from the source."""

    def __init__(
        self,
        file: BinaryIO | BytesIO | _Nowhere,
        container: str,
        source: InputContainer,
        survey: VideoInfo,
        times: Schedule,
        encoding: Encoding,
        streams: Sequence[StreamInfo],
        *,
        head: bool = True,
    ) -> None:
        import av

        self._source, self._survey, self._times, self._encoding = source, survey, times, encoding
        options = {"fflags": "+bitexact"}  # no random numbers, no date: the same bytes from the same work
        if any(name.startswith("com.") for name in survey.metadata):
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
            self._result.metadata.update(_kept(survey.metadata))
            self._result.set_chapters(_moved(survey.chapters, times.start_offset()))

    def __enter__(self) -> Muxer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._result.close()

    def write(self, coded: Iterator[Coded]) -> list[str]:
        """Write all packets in order of time; returns messages on what could not be copied."""
        step = round(self._times.step / self._times.unit)
        video = in_decoding_order(coded, self._times.times, self._times.end, step, self._times.unit)
        self.write_heads(covers_alone=True)
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

    def write_beginning(self, coded: Coded) -> None:
        """Write one frame, and the first packets of everything else."""
        for packet in in_decoding_order(iter([coded]), [coded.time], coded.time + 1, 1, self._times.unit):
            self._mux_video(packet)
        self.write_heads(covers_alone=False)

    def write_times(self, coded: Coded) -> None:
        """Write one frame at all times, to test whether the container can hold the times."""
        step = round(self._times.step / self._times.unit)
        times = self._times.times
        frames = (Coded(time, coded.keyframe, coded.data) for time in times)
        for packet in in_decoding_order(frames, times, self._times.end, step, self._times.unit):
            self._mux_video(packet)

    def write_heads(self, *, covers_alone: bool) -> None:
        """Write the first packets of covers, or of all streams."""
        for index, target in self._targets.items():
            found = self._found[index]
            if target is None or (covers_alone and not found.cover):
                continue
            for number, head in enumerate(found.heads[: 1 if found.cover else 2]):
                packet = _clone(head)
                packet.pts = packet.dts = number * max(head.duration or 0, 1)
                packet.stream = target
                self._result.mux(packet)

    def _add_video(self) -> Stream:
        video: Any = self._result.add_stream(ENCODER, rate=self._encoding.rate)
        self._encoding.configure(video.codec_context)
        video.time_base = self._encoding.unit
        video.metadata.update(_of_stream(self._survey.main.metadata))
        video.disposition = self._survey.main.disposition
        return video  # type: ignore[no-any-return]

    def _add(self, found: StreamInfo, container: str) -> Stream | None:
        """Add a copied stream; returns None for attachments, which take no packets."""
        template = self._source.streams[found.index]
        if container == "matroska" and (found.cover or found.type == "attachment"):
            self._result.add_attachment(*_attachment(found, template))
            return None
        added: Any = self._result.add_stream_from_template(template, opaque=True)
        added.metadata.update(_of_stream(found.metadata))
        added.disposition = ATTACHED if found.cover else found.disposition
        return added  # type: ignore[no-any-return]

    def _copies(self) -> Iterator[av.Packet[Any]]:
        """Yield the packets to copy, with their new times."""
        copied = {
            index: _Retimed(self._found[index], self._times.offsets[index])
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


class _Nowhere:
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


class _Retimed:
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


def plan_copies(
    source: InputContainer, survey: VideoInfo, times: Schedule, encoding: Encoding, output: Path, argument: str
) -> Plan:
    """Determine what the output container can hold, by writing its beginning to memory and reading it back.

    Raises:
        ValueError: it cannot hold the sound, or the times, which .mkv can.
    """
    import av

    first = _one_frame(encoding)

    def trial(container: str, streams: Sequence[StreamInfo], *, head: bool = False) -> BytesIO | None:
        memory = BytesIO()
        try:
            with Muxer(memory, container, source, survey, times, encoding, streams, head=head) as muxer:
                muxer.write_beginning(first)
        except (av.FFmpegError, ValueError):
            return None
        memory.seek(0)
        return memory

    def fits(container: str, found: StreamInfo) -> bool:
        memory = trial(container, [found])
        if memory is None:
            return False
        with av.open(memory, metadata_errors="surrogateescape") as result:
            return len(result.streams) == 2

    suffix = output.suffix.lower()
    plan = Plan(CONTAINERS[suffix])
    for found in survey.others:
        others = [other for other in CONTAINERS if other != suffix]
        if found.type == "video" and not found.cover:
            plan.notes.append(f"its {found.name} is left out: one video is written, the default or the largest one")
        elif not found.heads and found.type != "attachment":
            continue  # there is nothing in it; a list of chapters, say, which are written as such
        elif fits(plan.container, found):
            plan.streams.append(found)
        elif found.type == "audio" and suffix != ".mkv" and fits("matroska", found):
            raise ValueError(f"{argument}: {output} cannot hold the video's sound ({found.codec}); .mkv can.")
        else:
            able = [other for other in others if fits(CONTAINERS[other], found)]
            hint = f"; {' and '.join(able)} can" if able else ""
            plan.notes.append(f"its {found.name} is left out: {suffix} cannot hold it{hint}")
    memory = trial(plan.container, plan.streams, head=True)
    if memory is None:
        raise ValueError(f"{argument}: {output} cannot hold what {survey.path} holds together; try another container.")
    try:
        with Muxer(_Nowhere(), plan.container, source, survey, times, encoding, [], head=False) as muxer:
            muxer.write_times(first)
    except av.FFmpegError as error:
        longest = clock(max((after - before for before, after in pairwise(times.seconds)), default=Fraction(0)))
        raise ValueError(
            f"{argument}: {output} cannot hold the video's times, which jump by up to {longest}; .mkv can."
        ) from error
    plan.notes += _lost_texts(memory, survey, plan)
    return plan


def _one_frame(encoding: Encoding) -> Coded:
    import numpy as np

    from patchattn.tasks.video.encoding import SegmentEncoder

    encoder = SegmentEncoder(encoding)
    kind = np.uint16 if encoding.deep else np.uint8
    encoder.add(np.zeros((encoding.height, encoding.width, 3), kind), 0)
    return encoder.finish()[0]


def _attachment(found: StreamInfo, template: Stream) -> tuple[str, str, bytes]:
    """Name, MIME type and content of a Matroska attachment."""
    if found.type == "attachment":
        name = found.metadata.get("filename", "attachment")
        return name, found.metadata.get("mimetype", "application/octet-stream"), template.data  # type: ignore[attr-defined]
    kind = IMAGE_TYPES.get(found.codec, found.codec)
    name = found.metadata.get("filename", f"cover.{'jpg' if kind == 'jpeg' else kind}")
    return name, found.metadata.get("mimetype", f"image/{kind}"), bytes(found.heads[0])


def _decoding_time(packet: av.Packet[Any]) -> Fraction:
    assert packet.dts is not None
    return packet.dts * packet.time_base


def _clone(packet: av.Packet[Any]) -> av.Packet[Any]:
    import av

    clone: av.Packet[Any] = av.Packet(bytes(packet))
    clone.time_base, clone.duration, clone.is_keyframe = packet.time_base, packet.duration, packet.is_keyframe
    return clone


def _kept(metadata: Mapping[str, str]) -> dict[str, str]:
    return {
        name: text
        for name, text in metadata.items()
        if name.lower() not in OF_THE_FILE and not name.lower().startswith(STATISTICS) and not text.startswith("Lav")
    }


def _of_stream(metadata: Mapping[str, str]) -> dict[str, str]:
    """Filter the metadata of a stream; MP4 reads as "name" what it writes as "title"."""
    return {"title" if name == "name" else name: text for name, text in _kept(metadata).items()}


def _moved(chapters: Sequence[Mapping[str, Any]], offset: Fraction) -> list[Any]:
    moved = []
    for chapter in chapters:
        ticks = round(offset / chapter["time_base"])
        begin, end = max(chapter["start"] + ticks, 0), max(chapter["end"] + ticks, 0)
        moved.append({**chapter, "start": begin, "end": end})
    return moved


def _lost_texts(memory: BytesIO, survey: VideoInfo, plan: Plan) -> list[str]:
    """Return a message on metadata that is lost when the output is read back."""
    import av

    lost: list[str] = []
    with av.open(memory, metadata_errors="surrogateescape") as result:
        read = [
            stream for stream in result.streams if not stream.disposition & ATTACHED and stream.type != "attachment"
        ]
        lost += _lost_names("the file", survey.metadata, result.metadata)
        written = [survey.main, *(found for found in plan.streams if not found.cover and found.type != "attachment")]
        for found, stream in zip(written, read, strict=False):
            name = "the video" if found is survey.main else found.name
            lost += _lost_names(name, _of_stream(found.metadata), _of_stream(stream.metadata))
            flags = found.disposition & ~int(stream.disposition) & ~DEFAULT
            if flags:
                lost.append(f"the mark {type(stream.disposition)(flags).name} of {name}")
        if len(result.chapters()) < len(survey.chapters):
            lost.append("the chapters")
    return [f"{suffix_of(plan.container)} cannot hold, and this is left out: {', '.join(lost)}"] if lost else []


def _lost_names(owner: str, wanted: Mapping[str, str], read: Mapping[str, str]) -> list[str]:
    found = {name.lower(): text.strip() for name, text in read.items()}
    names = [
        name
        for name, text in _kept(wanted).items()
        if found.get(name.lower()) != text.strip() and (name, text) != ("language", "und") and text.strip()
    ]
    return [f"{' and '.join(names)} of {owner}"] if names else []


def suffix_of(container: str) -> str:
    """Return the file name extension of a container."""
    return next(suffix for suffix, name in CONTAINERS.items() if name == container)
