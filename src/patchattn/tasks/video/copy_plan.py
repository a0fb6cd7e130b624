"""Plan of what is copied beside the video, by what the output container can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchattn.tasks.video.container_metadata import CONTAINERS, lost_metadata
from patchattn.tasks.video.encoding import EncodedFrame, Encoding, SegmentEncoder
from patchattn.tasks.video.muxer import Muxer, NullFile
from patchattn.tasks.video.schedule import Schedule
from patchattn.tasks.video.timeline import format_time
from patchattn.tasks.video.video_info import StreamInfo, VideoInfo

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["CopyPlan", "plan_copies"]


@dataclass
class CopyPlan:
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


def plan_copies(
    source: InputContainer, info: VideoInfo, times: Schedule, encoding: Encoding, output: Path, argument: str
) -> CopyPlan:
    """Determine what the output container can hold, by writing its beginning to memory and reading it back.

    Raises:
        ValueError: it cannot hold the audio, or the times, which .mkv can.
    """
    import av

    first = _one_frame(encoding)

    def trial(container: str, streams: Sequence[StreamInfo], *, head: bool = False) -> BytesIO | None:
        memory = BytesIO()
        try:
            with Muxer(memory, container, source, info, times, encoding, streams, head=head) as muxer:
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
    plan = CopyPlan(CONTAINERS[suffix])
    for found in info.others:
        others = [other for other in CONTAINERS if other != suffix]
        if found.type == "video" and not found.cover:
            plan.notes.append(f"its {found.name} is left out: one video is written, the default or the largest one")
        elif not found.first_packets and found.type != "attachment":
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
        raise ValueError(f"{argument}: {output} cannot hold what {info.path} holds together; try another container.")
    try:
        with Muxer(NullFile(), plan.container, source, info, times, encoding, [], head=False) as muxer:
            muxer.write_times(first)
    except av.FFmpegError as error:
        longest = format_time(max((after - before for before, after in pairwise(times.seconds)), default=Fraction(0)))
        raise ValueError(
            f"{argument}: {output} cannot hold the video's times, which jump by up to {longest}; .mkv can."
        ) from error
    plan.notes += lost_metadata(memory, info, plan.container, plan.streams)
    return plan


def _one_frame(encoding: Encoding) -> EncodedFrame:
    encoder = SegmentEncoder(encoding)
    kind = np.uint16 if encoding.deep else np.uint8
    encoder.add(np.zeros((encoding.height, encoding.width, 3), kind), 0)
    return encoder.finish()[0]
