"""Presentation times of the output's frames, and time offsets of the other streams."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from patchattn.tasks.video.timeline import epoch_offsets, epoch_spans, epoch_starts, format_time, in_order, usual_step
from patchattn.tasks.video.video_info import StreamInfo, VideoInfo

__all__ = ["Schedule", "schedule"]

BROADCAST = ("mpegts", "mpeg")
"""Broadcast formats, whose times jump where recordings are concatenated."""
MAX_BROADCAST_PAUSE, MAX_PAUSE = 10, 24 * 3600
"""Longest step in seconds that is not such a jump, in broadcast formats and in others."""
DEFAULT_RATE = 25
"""Frames per second if the file states neither times nor a rate."""


@dataclass(frozen=True)
class Schedule:
    """Times of the output."""

    unit: Fraction
    """Unit of the times below, in seconds."""
    times: list[int]
    """Presentation time of each frame; strictly increasing, from 0 or later."""
    end: int
    """End of the last frame."""
    step: Fraction
    """Usual time between frames, in seconds."""
    epochs: list[int]
    """Frames at which the source's times restart."""
    packet_times: list[Fraction | None]
    """Presentation time of each video packet, in seconds."""
    offsets: dict[int, list[tuple[int, Fraction]]]
    """Time offsets of the other streams by index: first packet and offset in seconds."""
    notes: list[str]
    """Messages on times that had to be changed."""

    @property
    def seconds(self) -> list[Fraction]:
        """Presentation time of each frame, in seconds."""
        return [time * self.unit for time in self.times]

    def start_offset(self) -> Fraction:
        """Offset of times in the file's header, in seconds."""
        return next(iter(self.offsets[-1]))[1]


def schedule(info: VideoInfo) -> Schedule:
    """Put the times of a video in order.

    Times begin at 0, or where the audio does. Where they begin anew in the middle (appended recordings, a camera's
    clock that was reset), they go on from where they were, and all streams with them. Frames whose times are missing,
    double or out of order are placed between their neighbors.
    """
    main = info.main
    raw = _given_times(info)
    starts = epoch_starts(raw, may_skip=_longest_pause(info, main.unit))
    step_found = usual_step(raw)
    step = step_found * main.unit if step_found else 1 / (info.rate or Fraction(DEFAULT_RATE))
    lengths = [frame.length or round(step / main.unit) for frame in info.frames]
    spans = epoch_spans(raw, lengths, starts, main.unit)

    audio = {
        stream.index: _Epochs(stream, _longest_pause(info, stream.unit)) for stream in info.others if _runs(stream)
    }
    begin = spans[0][0] if spans[0] else Fraction(0)
    earliest = min([begin, *(epochs.begin for epochs in audio.values() if epochs.begin is not None)])
    first = -begin if begin < 0 else -max(earliest, Fraction(0))
    together = [epochs.spans for epochs in audio.values() if len(epochs.starts) == len(starts)]
    offsets = [round(offset / main.unit) * main.unit for offset in epoch_offsets(first, [spans, *together])]

    packet_starts = _first_packets(info, starts)
    added: dict[int, list[tuple[int, Fraction]]] = {-1: [(0, offsets[0])]}
    for stream in info.others:
        epochs = audio.get(stream.index)
        if epochs is None:
            added[stream.index] = _by_place(stream, packet_starts, offsets)
        else:
            own = offsets if len(epochs.starts) == len(starts) else epoch_offsets(first, [epochs.spans])
            added[stream.index] = list(zip(epochs.starts, own, strict=True))

    ends = [*starts[1:], len(raw)]
    moved = [
        None if time is None else time + round(offset / main.unit)
        for start, end, offset in zip(starts, ends, offsets, strict=True)
        for time in raw[start:end]
    ]
    times, unit = in_order(moved, main.unit, step)
    return Schedule(
        unit,
        times,
        times[-1] + max(1, round(lengths[-1] * main.unit / unit)),
        step,
        starts,
        _packet_times(main, packet_starts, offsets),
        added,
        _notes(
            info,
            moved,
            [time * unit / main.unit for time in times],
            [times[s] * unit for s in starts[1:]],
            step_found,
        ),
    )


def _given_times(info: VideoInfo) -> list[int | None]:
    """Return the frame times stored in the file."""
    packets = [info.main.packets[frame.packet] for frame in info.frames if frame.packet is not None]
    decoded = sorted(packet.decoded for packet in packets if packet.decoded is not None)
    if info.container == "avi" and len(decoded) == len(info.frames):
        # AVI stores decoding times only, which are the same times in another order.
        return list(decoded)
    return [frame.time for frame in info.frames]


class _Epochs:
    """Times of an audio stream, split where they restart."""

    def __init__(self, stream: StreamInfo, may_skip: int) -> None:
        times = [packet.time for packet in stream.packets]
        self.starts = epoch_starts(times, may_skip=may_skip)
        self.spans = epoch_spans(times, [packet.length for packet in stream.packets], self.starts, stream.unit)
        self.begin = self.spans[0][0] if self.spans[0] else None


def _runs(stream: StreamInfo) -> bool:
    """Return whether a stream is continuous (audio), so that its times can be judged by themselves."""
    return stream.type == "audio" and bool(stream.packets)


def _longest_pause(info: VideoInfo, unit: Fraction) -> int:
    return round((MAX_BROADCAST_PAUSE if info.container in BROADCAST else MAX_PAUSE) / unit)


def _first_packets(info: VideoInfo, starts: list[int]) -> list[int]:
    """Return the first packet of the video in each epoch."""
    firsts = [0]
    for start, end in pairwise([*starts[1:], len(info.frames)]):
        packets = [frame.packet for frame in info.frames[start:end] if frame.packet is not None]
        firsts.append(min(packets, default=firsts[-1]))
    return firsts


def _by_place(stream: StreamInfo, packet_starts: list[int], offsets: list[Fraction]) -> list[tuple[int, Fraction]]:
    """Return the time offsets of a stream with pauses, by the position of its packets in the file."""
    added = [(0, offsets[0])]
    for number, before in enumerate(stream.main_packets):
        epoch = sum(first <= before for first in packet_starts[1:])
        if offsets[epoch] != added[-1][1]:
            added.append((number, offsets[epoch]))
    return added


def _packet_times(main: StreamInfo, packet_starts: list[int], offsets: list[Fraction]) -> list[Fraction | None]:
    times: list[Fraction | None] = []
    ends = [*packet_starts[1:], len(main.packets)]
    for start, end, offset in zip(packet_starts, ends, offsets, strict=True):
        part = main.packets[start:end]
        times += [None if packet.time is None else packet.time * main.unit + offset for packet in part]
    return times


def _notes(
    info: VideoInfo, wanted: list[int | None], got: list[Fraction], begins: list[Fraction], step: int | None
) -> list[str]:
    notes = []
    if begins:
        places = ", ".join(format_time(begin) for begin in begins[:8]) + (" and more" if len(begins) > 8 else "")
        notes.append(f"its times begin anew (at {places}); they go on from there")
    without = sum(time is None for time in wanted)
    moved = sum(time is not None and time != new for time, new in zip(wanted, got, strict=True))
    if without == len(wanted) and not info.rate:
        notes.append(f"it does not tell when its frames are shown; they follow each other at {DEFAULT_RATE} a second")
    elif without and step is not None:
        notes.append(f"{without} of its frames have no time; they are placed between their neighbors")
    if moved:
        notes.append(f"{moved} of its frames have times out of order or twice; they are placed between their neighbors")
    return notes
