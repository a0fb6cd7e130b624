"""Damage report of a video: lost frames, gaps and truncated streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from patchattn.tasks.video.schedule import Schedule
from patchattn.tasks.video.timeline import format_time
from patchattn.tasks.video.video_info import StreamInfo, VideoInfo

__all__ = ["missing_parts", "short_pauses"]

ONE_FRAME_PER_PACKET = (
    "h264",
    "hevc",
    "mpeg1video",
    "mpeg2video",
    "mpeg4",
    "av1",
    "vp9",
    "mjpeg",
    "ffv1",
    "prores",
    "rawvideo",
)
"""Codecs in which each packet shows one frame; in others, some packets show none."""
MAX_RANGES = 8
MIN_STEADY_SHARE = 0.8
"""Smallest share of equal time steps at which a longer step counts as a gap."""


@dataclass(frozen=True)
class _Gap:
    begin: Fraction
    end: Fraction
    frames: int


def missing_parts(info: VideoInfo, schedule: Schedule) -> tuple[str, ...]:
    """Return messages on missing parts, one for each kind of damage."""
    times, step, epochs = schedule.seconds, schedule.step, schedule.epochs
    lost = _lost_packets(info)
    spliced = {info.frames[start].packet for start in epochs[1:]}
    corrupt = [number for number, frame in enumerate(info.frames) if _is_corrupt(info, number, spliced)]
    short = _short_ends(info) if len(epochs) == 1 else []
    evidence = bool(lost or corrupt or short or info.errors)
    lost_times = [time for packet in lost if (time := schedule.packet_times[packet]) is not None]
    gaps = _gaps(info, times, lost_times, step, epochs, evidence)
    if not evidence:
        # A pause may be meant; one of a single frame, as cameras make them, is only reported.
        gaps = [gap for gap in gaps if gap.frames > 1]
    parts = []
    if lost:
        parts.append(f"{_frames(len(lost))} cannot be decoded{_where(lost_times, step)}")
    if corrupt:
        verb = "is" if len(corrupt) == 1 else "are"
        parts.append(
            f"{_frames(len(corrupt))} {verb} damaged{_where([times[number] for number in corrupt], step)} and written "
            "as far as can be decoded"
        )
    if gaps:
        count = sum(gap.frames for gap in gaps)
        parts.append(f"about {_frames(count)} {'is' if count == 1 else 'are'} not in the file: {_ranges(gaps)}")
    parts += short
    parts += [
        f"{stream.name}: {count} of its packets {'is' if count == 1 else 'are'} marked as damaged"
        for stream in info.others
        if stream.type in ("audio", "subtitle")
        and (count := sum(packet.corrupt for packet in stream.packets[: _unspliced(stream, epochs)]))
    ]
    if parts and len(epochs) == 1:
        parts += [part for stream in info.others for part in _pauses(stream)]
    if info.errors and not parts:
        message = info.errors[0]
        parts.append(f"something is damaged, of which FFmpeg says: {message.rstrip('.')}")
    return tuple(parts)


def _lost_packets(info: VideoInfo) -> list[int]:
    """Return the indices of video packets that gave no frame."""
    if info.main.codec not in ONE_FRAME_PER_PACKET:
        return []
    shown = {frame.packet for frame in info.frames}
    if None in shown:
        return []
    lost = [number for number, packet in enumerate(info.main.packets) if number not in shown and packet.shown]
    if any(layout.interlaced for _, layout in info.layouts):
        # The two fields of a frame may come in two packets.
        lost = [number for number in lost if not {number - 1, number + 1} & shown]
    return lost


def _is_corrupt(info: VideoInfo, number: int, spliced: set[int | None]) -> bool:
    frame = info.frames[number]
    if frame.packet is None or not info.main.packets[frame.packet].corrupt:
        return frame.corrupt
    # Where one recording is appended to another, the container's counters jump, and the packet before it is marked.
    return not any(start is not None and 0 < start - frame.packet <= 3 for start in spliced)


def _unspliced(stream: StreamInfo, epochs: Sequence[int]) -> int:
    """Number of packets whose corruption marks count: none where recordings were concatenated."""
    return len(stream.packets) if len(epochs) == 1 else 0


def _gaps(
    info: VideoInfo,
    times: Sequence[Fraction],
    lost: Sequence[Fraction],
    step: Fraction,
    epochs: Sequence[int],
    evidence: bool,
) -> list[_Gap]:
    if info.container == "avi":
        return []  # a frame that is shown on has a packet of its own there
    steps = [after - before for before, after in pairwise(times)]
    near = max(Fraction(1, 1000), step / 50)
    steady = sum(abs(one - step) <= near for one in steps)
    if not evidence and (len(steps) < 8 or steady < MIN_STEADY_SHARE * len(steps)):
        return []
    if evidence and steady < len(steps) / 2:
        return []
    gaps = []
    for number, one in enumerate(steps):
        frames = round(one / step) - 1 - sum(times[number] < time < times[number + 1] for time in lost)
        if number + 1 not in epochs and frames > 0:
            gaps.append(_Gap(times[number] + step, times[number + 1], frames))
    return gaps


def short_pauses(info: VideoInfo, schedule: Schedule) -> str | None:
    """Return a message on single frames that seem to be missing from an otherwise steady video."""
    gaps = _gaps(info, schedule.seconds, [], schedule.step, schedule.epochs, evidence=False)
    short = [gap for gap in gaps if gap.frames == 1]
    return f"it has no frame, and a pause is kept, from {_ranges(short)}" if short else None


def _ranges(gaps: Sequence[_Gap]) -> str:
    return _listed([f"{format_time(gap.begin)} to {format_time(gap.end)}" for gap in gaps])


def _short_ends(info: VideoInfo) -> list[str]:
    """Return messages on streams that end earlier than the container states."""
    short = []
    if info.container == "mpegts" and all(info.size % size for size in (188, 192, 204)):
        short.append("the file is cut off in the middle of a packet")
    ends: list[Fraction] = []
    for stream in (info.main, *info.others):
        if stream.type not in ("video", "audio") or not stream.packets:
            continue
        known = [packet.time + packet.length for packet in stream.packets if packet.time is not None]
        end = max(known, default=0) * stream.unit
        ends.append(end)
        name = "the video" if stream is info.main else stream.name
        length = max((packet.length for packet in stream.packets), default=0) * stream.unit
        if stream.stated_packets > len(stream.packets):
            came, claimed = len(stream.packets), stream.stated_packets
            kind = "frames" if stream.type == "video" else "packets"
            short.append(f"{name} has {came} of the {claimed} {kind} that the container counts")
        elif stream.stated_end is not None and stream.stated_end - end > max(Fraction(3, 2) * length, Fraction(1, 20)):
            short.append(f"{name} ends at {format_time(end)} of {format_time(stream.stated_end)}")
    tolerance = Fraction(1) if info.container in ("flv", "asf") else Fraction(1, 2)
    if not short and info.stated_end is not None and ends and info.stated_end - max(ends) > tolerance:
        short.append(f"the file ends at {format_time(max(ends))} of {format_time(info.stated_end)}")
    return short


def _pauses(stream: StreamInfo) -> list[str]:
    """Return messages on interruptions of an audio stream."""
    if stream.type != "audio":
        return []
    known = [(packet.time, packet.time + packet.length) for packet in stream.packets if packet.time is not None]
    pauses = [
        f"{format_time(end * stream.unit)} to {format_time(begin * stream.unit)}"
        for (_, end), (begin, _) in pairwise(known)
        if (begin - end) * stream.unit > Fraction(1, 10)
    ]
    return [f"{stream.name} is interrupted: {_listed(pauses)}"] if pauses else []


def _frames(count: int) -> str:
    return f"{count} frame{'s' * (count != 1)}"


def _where(times: Sequence[Fraction], step: Fraction) -> str:
    """Format times for a message, with neighbors joined into ranges."""
    ranges: list[tuple[Fraction, Fraction]] = []
    for time in sorted(times):
        if ranges and time - ranges[-1][1] <= 2 * step:
            ranges[-1] = (ranges[-1][0], time)
        else:
            ranges.append((time, time))
    if not ranges:
        return ""
    texts = [
        format_time(begin) if begin == end else f"{format_time(begin)} to {format_time(end)}" for begin, end in ranges
    ]
    return f" (at {_listed(texts)})"


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - MAX_RANGES
    return ", ".join(texts[:MAX_RANGES]) + (f" and {more} more" if more > 0 else "")
