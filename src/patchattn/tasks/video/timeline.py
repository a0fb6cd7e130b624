"""Correction of frame and packet times that restart, repeat or are missing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil
from statistics import median_low

__all__ = ["Span", "epoch_offsets", "epoch_spans", "epoch_starts", "format_time", "in_order", "usual_step"]

Span = tuple[Fraction, Fraction]
"""Begin and end in seconds."""

MAX_UNIT = Fraction(1, 10_000)
"""Coarsest time unit in seconds for placing frames between others."""


def format_time(seconds: Fraction) -> str:
    """Format a time in seconds for messages.

    Example:
        >>> format_time(Fraction(1234, 100)), format_time(Fraction(372345, 100))
        ('12.34 s', '1:02:03.45')
    """
    minutes, hundredths = divmod(round(abs(seconds) * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    sign, tail = "-" if seconds < 0 else "", f"{hundredths / 100:05.2f}"
    if hours:
        return f"{sign}{hours}:{minutes:02}:{tail}"
    return f"{sign}{minutes}:{tail}" if minutes else f"{sign}{hundredths / 100:.2f} s"


def epoch_starts(times: Sequence[int | None], *, may_skip: int | None = None) -> list[int]:
    """Return the positions at which times restart; the first is 0.

    Times begin anew where two of them in a row lie before what came earlier, of which the time just before does not
    count: a single time that is out of order, ahead or behind, is no new beginning.

    Args:
        times: in the order of the file; None where there is none.
        may_skip: a step forward of more than this is a new beginning too. None: no step is.

    Example:
        >>> epoch_starts([0, 10, 20, 0, 10, 20, 30]), epoch_starts([0, 10, 90, 20, 30, 25, 40])
        ([0, 3], [0])
    """
    known = [(place, time) for place, time in enumerate(times) if time is not None]
    starts, earlier, last = [0], None, None
    for number, (place, time) in enumerate(known):
        after = known[number + 1][1] if number + 1 < len(known) else None
        if last is not None and after is not None:
            backwards = earlier is not None and time < earlier and after < last
            skips = may_skip is not None and time - last > may_skip and abs(after - time) <= may_skip
            if backwards or skips:
                starts.append(place)
                earlier = last = None
        if last is None or time >= last:
            earlier, last = last, time
        elif earlier is None or time >= earlier:
            last = time  # the one before was ahead of its time
    return starts


def usual_step(times: Sequence[int | None]) -> int | None:
    """Return the median distance of neighboring times, None where no two of them differ."""
    pairs = pairwise(times)
    steps = [after - before for before, after in pairs if before is not None and after is not None and after > before]
    return median_low(steps) if steps else None


def in_order(times: Sequence[int | None], unit: Fraction, step: Fraction) -> tuple[list[int], Fraction]:
    """Return strictly increasing times that keep as many of the given ones as possible, and their unit.

    The others are placed evenly between their neighbors, or a step apart where there is none on one side.

    Args:
        times: in units; None where there is none.
        unit: in seconds. The result's is the same where nothing has to be placed, else possibly finer.
        step: in seconds, between frames without a neighbor in time.

    Example:
        >>> in_order([0, 1, 1, None, 3], Fraction(1, 20_000), Fraction(1, 25))
        ([0, 1, 2, 3, 4], Fraction(1, 20000))
        >>> in_order([0, 1, 1, None, 3], Fraction(1, 10), Fraction(1, 10))
        ([0, 1000, 1667, 2333, 3000], Fraction(1, 10000))
    """
    kept = _longest_increase(times)
    if len(kept) < len(times):
        finer = ceil(unit / MAX_UNIT)
        unit /= finer
        times = [None if time is None else time * finer for time in times]
    ticks = max(1, round(step / unit))
    result: list[int] = []
    anchors = [(place, time) for place in kept if (time := times[place]) is not None]
    if not anchors:
        return [round(number * step / unit) for number in range(len(times))], unit
    first, begin = anchors[0]
    result += [begin - ticks * (first - place) for place in range(first)]
    for (place, time), (following, end) in pairwise(anchors):
        between = following - place
        result += [time + round(Fraction((end - time) * number, between)) for number in range(between)]
    last, time = anchors[-1]
    result += [time + ticks * number for number in range(len(times) - last)]
    for place in range(1, len(result)):
        result[place] = max(result[place], result[place - 1] + 1)
    return result, unit


def _longest_increase(times: Sequence[int | None]) -> list[int]:
    """Return the positions of a longest strictly increasing run, by patience sorting."""
    ends: list[int] = []
    first_packets: list[int] = []
    before: list[int | None] = []
    for place, time in enumerate(times):
        if time is None:
            before.append(None)
            continue
        pile = bisect_left(ends, time)
        if pile < len(ends) and ends[pile] == time:
            before.append(None)  # of equal ones the first is kept
            continue
        before.append(first_packets[pile - 1] if pile else None)
        ends[pile : pile + 1], first_packets[pile : pile + 1] = [time], [place]
    run: list[int] = []
    place_or_none = first_packets[-1] if first_packets else None
    while place_or_none is not None:
        run.append(place_or_none)
        place_or_none = before[place_or_none]
    return run[::-1]


def epoch_spans(
    times: Sequence[int | None], lengths: Sequence[int], starts: Sequence[int], unit: Fraction
) -> list[Span | None]:
    """Return begin and end of each epoch in seconds; None where nothing in it has a time."""
    spans: list[Span | None] = []
    for start, end in pairwise([*starts, len(times)]):
        # Single times that are out of order say nothing.
        kept = [start + place for place in _longest_increase(times[start:end])]
        known = [(time, time + lengths[place]) for place in kept if (time := times[place]) is not None]
        spans.append((known[0][0] * unit, known[-1][1] * unit) if known else None)
    return spans


def epoch_offsets(first: Fraction, streams: Sequence[Sequence[Span | None]]) -> list[Fraction]:
    """Return the time offset of each epoch in seconds, so that each begins where the previous one ends.

    Args:
        first: offset of the first epoch.
        streams: the epochs of streams that belong together, as many in each: what was together stays together.

    Example:
        >>> epoch_offsets(Fraction(0), [[(Fraction(0), Fraction(2)), (Fraction(1), Fraction(3))]])
        [Fraction(0, 1), Fraction(1, 1)]
    """
    offsets: list[Fraction] = []
    reached = None
    for parts in zip(*streams, strict=True):
        spans = [span for span in parts if span is not None]
        offset = offsets[-1] if offsets else first
        if spans:
            if reached is not None:
                offset = reached - min(begin for begin, _ in spans)
            reached = max(end for _, end in spans) + offset
        offsets.append(offset)
    return offsets
