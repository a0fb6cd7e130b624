"""Times: kept where they are in order, put in order where they are not, and sound in step with them."""

from __future__ import annotations

import warnings
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from patchattn.tasks.video import VideoReport, map_video
from patchattn.tasks.video.timeline import epoch_offsets, epoch_spans, epoch_starts, in_order, usual_step
from tests.tasks.video.making import FRAMES, RATE, make_video, packets_of, remux, shown, times_of

STEP = 1 / RATE


def copied(source: Path, output: Path) -> tuple[VideoReport, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = map_video(source, output, lambda image: image)
    return report, [str(one.message) for one in caught]


def appended(target: Path, *parts: Path) -> Path:
    """Recordings one after the other in one file, as some cameras leave them."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


@pytest.mark.parametrize(
    ("suffix", "output", "count"),
    [
        (".ts", "out.mkv", 2),
        (".ts", "out.mp4", 3),
        (".mpg", "out.mkv", 3),
        (".mpg", "out.mp4", 2),
        (".ts", "out.mov", 2),
    ],
)
def test_times_that_begin_anew_go_on(tmp_path: Path, suffix: str, output: str, count: int) -> None:
    settings: dict[str, Any] = {"codec": "mpeg2video", "audio": "mp2", "frames": 15}
    part = make_video(tmp_path / f"part{suffix}", **settings)
    source = appended(tmp_path / f"a{suffix}", *[part] * count)
    report, messages = copied(source, tmp_path / output)
    assert report.frames == 15 * count
    assert report.missing == ()
    assert "its times begin anew (at " in messages[0]
    assert len(messages) == 1
    times = times_of(tmp_path / output)
    steps = [after - before for before, after in pairwise(times)]
    assert all(abs(step - STEP) < 0.002 for number, step in enumerate(steps, 1) if number % 15)
    # Where one ends before its sound does, the next begins when the sound has ended.
    assert all(STEP - Fraction(1, 500) <= steps[number - 1] < 3 * STEP for number in range(15, 15 * count, 15))
    # What was heard with an image is heard with it.
    images, heard = times_of(part), [time for _, time in packets_of(part)]
    sound = [time for _, time in packets_of(tmp_path / output)]
    assert len(sound) == count * len(heard)
    for number in range(count):
        moved = times[15 * number] - images[0]
        for was, now in zip(heard, sound[number * len(heard) :], strict=False):
            assert abs(was + moved - now) < 0.003


@pytest.mark.parametrize("shift", [-5, 30, 100_000])
def test_sound_and_video_begin_at_0_together(tmp_path: Path, shift: int) -> None:
    """Times before 0, and those that begin late, as broadcasts do."""
    whole = make_video(tmp_path / "a.mp4", audio="aac")

    def moved(number: int, packet: Any) -> list[Any]:
        ticks = round(shift / packet.time_base)
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return [packet]

    options = {"avoid_negative_ts": "disabled"}
    source = remux(whole, tmp_path / ("b.ts" if shift < 0 else "b.mkv"), moved, container=options)
    report, _ = copied(source, tmp_path / "out.mkv")
    assert report.missing == ()
    times, sound = times_of(tmp_path / "out.mkv"), packets_of(tmp_path / "out.mkv")
    assert min(times[0], sound[0][1]) == 0
    before, heard = times_of(source), packets_of(source)
    assert [time - times[0] for time in times] == pytest.approx([time - before[0] for time in before], abs=0.002)
    assert float(sound[5][1] - times[5]) == pytest.approx(float(heard[5][1] - before[5]), abs=0.002)


def test_frames_that_an_mp4_hides_stay_hidden(tmp_path: Path) -> None:
    """Its edit list begins after some of them, as after cutting on a phone."""

    def earlier(number: int, packet: Any) -> list[Any]:
        ticks = round(Fraction(1, 5) / packet.time_base)
        packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
        return [packet]

    options = {"avoid_negative_ts": "disabled"}
    source = remux(make_video(tmp_path / "a.mp4"), tmp_path / "b.mp4", earlier, container=options)
    report, messages = copied(source, tmp_path / "out.mkv")
    assert (report.frames, report.missing, messages) == (FRAMES - 5, (), [])
    assert shown(tmp_path / "out.mkv") == list(range(5, FRAMES))
    assert times_of(tmp_path / "out.mkv")[0] == 0


def test_a_jump_forwards_is_kept_and_named(tmp_path: Path) -> None:
    times = [*range(10), *range(100, 110)]
    report, _ = copied(make_video(tmp_path / "a.mkv", times=times), tmp_path / "out.mkv")
    assert report.missing == ("about 90 frames are not in the file: 0.40 s to 4.00 s",)
    assert times_of(tmp_path / "out.mkv") == [time * STEP for time in times]


def test_a_clock_that_jumps_in_a_broadcast_goes_on(tmp_path: Path) -> None:
    times = [*range(10), *range(25_000, 25_010)]
    report, messages = copied(make_video(tmp_path / "a.ts", times=times), tmp_path / "out.mkv")
    assert report.missing == ()
    assert "its times begin anew (at 0.40 s)" in messages[0]
    assert times_of(tmp_path / "out.mkv") == pytest.approx([time * STEP for time in range(FRAMES)], abs=0.001)


def rewritten(tmp_path: Path, change: Any, suffix: str = ".mkv") -> Path:
    """A video without B-frames whose packets get other times."""
    whole = make_video(tmp_path / "whole.mp4", options={"bf": "0"})

    def moved(number: int, packet: Any) -> list[Any]:
        packet.pts = packet.dts = round(change(number) * STEP / packet.time_base)
        return [packet]

    return remux(whole, tmp_path / f"rewritten{suffix}", moved)


@pytest.mark.parametrize(
    "change",
    [
        lambda number: number // 2 * 2,  # each time twice
        lambda number: number - number % 3 / 2,
        lambda number: number if number != 7 else 6,
        lambda number: 0 if number < 3 else number,
        lambda number: min(number, 15),
    ],
)
def test_doubled_times(tmp_path: Path, change: Any) -> None:
    report, messages = copied(rewritten(tmp_path, change), tmp_path / "out.mkv")
    assert report.frames == FRAMES
    times = times_of(tmp_path / "out.mkv")
    assert all(after > before for before, after in pairwise(times))
    assert max(abs(float(time - number * STEP)) for number, time in enumerate(times)) <= 3.1 * STEP
    assert shown(tmp_path / "out.mkv") == list(range(FRAMES))
    if messages:
        assert any("times out of order or twice" in message for message in messages) or report.missing


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("libx264", ".h264"), ("libx264", ".avi"), ("mpeg4", ".m4v"), ("mpeg4", ".avi"), ("mpeg2video", ".avi")],
)
def test_files_that_do_not_tell_times(tmp_path: Path, codec: str, suffix: str) -> None:
    """Bare streams of frames, and AVI, which tells of decoding only."""
    source = make_video(tmp_path / f"a{suffix}", codec=codec, options={"bf": "2"})
    report, _ = copied(source, tmp_path / "out.mkv")
    assert report.frames == FRAMES
    assert report.missing == ()
    # FFmpeg itself writes AVI whose first frame is shown twice.
    late = STEP if suffix == ".avi" else Fraction(1, 500)
    times = times_of(tmp_path / "out.mkv")
    assert all(
        0 <= time - number * STEP + Fraction(1, 1000) <= late + Fraction(2, 1000) for number, time in enumerate(times)
    )
    assert shown(tmp_path / "out.mkv") == list(range(FRAMES))


@pytest.mark.parametrize(
    ("times", "starts"),
    [
        ([0, 1, 2, 3, 4], [0]),
        ([0, 1, 2, 0, 1, 2], [0, 3]),
        ([0, 1, 2, 0, 1, 2, 0, 1, 2], [0, 3, 6]),
        ([5, 6, 7, 8, 2, 3, 4], [0, 4]),
        ([0, 1, 9, 2, 3, 4], [0]),
        ([0, 1, 2, 1, 3, 4], [0]),
        ([0, 0, 1, 1, 2, 2], [0]),
        ([0, 1, 2, 3, 0], [0]),
        ([None, None, 0, 1, 2, None, 0, 1, 2], [0, 6]),
        ([None, None], [0]),
        ([], [0]),
        ([0, 1, 2, 500, 501, 502], [0]),
    ],
)
def test_where_times_begin_anew(times: list[int | None], starts: list[int]) -> None:
    assert epoch_starts(times) == starts


def test_steps_forwards_are_a_beginning_where_said() -> None:
    assert epoch_starts([0, 1, 2, 500, 501, 502], may_skip=100) == [0, 3]
    assert epoch_starts([0, 1, 500, 2, 3, 4], may_skip=100) == [0]
    assert epoch_starts([0, 50, 100, 150], may_skip=100) == [0]


@pytest.mark.parametrize(
    "times",
    [
        [0, 1, 2, 3],
        [0, 0, 0, 0],
        [3, 2, 1, 0],
        [None, None, None],
        [None, 5, None, 6],
        [0, 10, None, None, None, 11],
        [0, 1, 90, 2, 3, 4],
        [7],
        [None],
    ],
)
def test_times_in_order_increase_and_keep_what_they_can(times: list[int | None]) -> None:
    result, unit = in_order(times, Fraction(1, 25), Fraction(1, 25))
    assert len(result) == len(times)
    assert all(after > before for before, after in pairwise(result))
    kept = sum(
        time is not None and time * Fraction(1, 25) == new * unit for time, new in zip(times, result, strict=True)
    )
    assert kept >= min(1, sum(time is not None for time in times))
    if times == sorted(set(times), key=lambda time: time or 0) and None not in times:
        assert (result, unit) == (times, Fraction(1, 25))


def test_a_time_far_ahead_moves_nothing() -> None:
    """One time is wrong, and later ones begin anew: they go on after those that are right."""
    times = [0, 1, 2, 10**6, 4, 5, 6, 7, 0, 1, 2, 3]
    assert epoch_starts(times) == [0, 8]
    spans = epoch_spans(times, [1] * 12, [0, 8], Fraction(1, 25))
    assert epoch_offsets(Fraction(0), [spans]) == [0, Fraction(8, 25)]
    in_epochs = [*times[:8], *(time + 8 for time in times[8:])]
    assert in_order(in_epochs, Fraction(1, 25_000), Fraction(1, 25)) == (list(range(12)), Fraction(1, 25_000))


def test_epochs_follow_each_other_in_all_streams() -> None:
    video = epoch_spans([0, 1, 2, 0, 1, 2], [1] * 6, [0, 3], Fraction(1, 2))
    assert video == [(0, Fraction(3, 2)), (0, Fraction(3, 2))]
    sound = [(Fraction(1, 4), Fraction(2)), (Fraction(-1, 4), Fraction(1))]
    assert epoch_offsets(Fraction(1), [video, sound]) == [1, Fraction(13, 4)]
    assert epoch_offsets(Fraction(0), [[None, (Fraction(5), Fraction(6))]]) == [0, 0]
    assert usual_step([0, 2, 4, 9, 11, None]) == 2
    assert usual_step([1, 1, None]) is None
