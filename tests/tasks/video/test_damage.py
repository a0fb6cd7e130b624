"""What is damaged, cut off or left out is written as far as it can be decoded, and named."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchattn.tasks.video import VideoReport, map_video
from patchattn.tasks.warnings import FileWarning
from tests.tasks.video.making import FRAMES, frames_of, make_video, remux, shown, times_of

KINDS: dict[str, dict[str, Any]] = {
    ".mkv": {"audio": "aac"},
    ".mp4": {"audio": "aac", "container": {"movflags": "+faststart"}},
    ".ts": {"audio": "aac"},
    ".avi": {"codec": "mpeg4", "audio": "libmp3lame"},
    ".flv": {"audio": "aac"},
    ".webm": {"codec": "libvpx-vp9", "audio": "libopus"},
}


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Undamaged videos, each made once."""
    folder = tmp_path_factory.mktemp("whole")

    def make(suffix: str) -> Path:
        path = folder / f"whole{suffix}"
        return path if path.exists() else make_video(path, **KINDS[suffix])

    return make


def copied(source: Path, output: Path) -> tuple[VideoReport, list[str]]:
    """Write it unchanged; return also what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = map_video(source, output, lambda image: image, source_argument="GRAY")
    assert all(issubclass(one.category, FileWarning) for one in caught)
    messages = [str(one.message) for one in caught]
    for part in report.missing:
        assert any(part in message and str(source) in message for message in messages) or "cannot be written" in part
    return report, messages


@pytest.mark.parametrize("suffix", [*KINDS, ".mov", ".mpg", ".m4v"])
def test_nothing_is_missing_from_a_whole_video(tmp_path: Path, suffix: str) -> None:
    settings = {
        **KINDS,
        ".mov": {"codec": "mjpeg", "pixels": "yuvj420p", "audio": "pcm_s16le"},
        ".mpg": {"codec": "mpeg2video", "audio": "mp2", "options": {"bf": "2"}},
        ".m4v": {"codec": "mpeg4"},
    }[suffix]
    report, messages = copied(make_video(tmp_path / f"a{suffix}", **settings), tmp_path / "out.mkv")
    assert (report.frames, report.missing, messages) == (FRAMES, (), [])
    assert shown(tmp_path / "out.mkv") == list(range(FRAMES))


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts", ".avi", ".webm"])
def test_cut_videos(tmp_path: Path, whole: Callable[[str], Path], suffix: str, part: float) -> None:
    """At whichever byte: what came before it is written, in its place."""
    content = whole(suffix).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(content[: int(len(content) * part)])
    if suffix == ".avi" and part < 0.5:  # no frame of it is left
        with pytest.raises(ValueError, match="GRAY: "):
            copied(cut, tmp_path / "out.mkv")
        return
    report, _ = copied(cut, tmp_path / "out.mkv")
    assert report.missing
    assert report.frames == len(frames_of(cut)) == len(frames_of(tmp_path / "out.mkv"))
    step = times_of(tmp_path / "out.mkv")
    places = [round((time - step[0]) * 25) for time in step]
    assert shown(tmp_path / "out.mkv") == places or suffix == ".avi"


@pytest.mark.parametrize("part", [0.35, 0.5, 0.7])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts", ".webm"])
def test_overwritten_blocks(tmp_path: Path, whole: Callable[[str], Path], suffix: str, part: float) -> None:
    """Where images are lost or wrong, that is told; where nothing is told, every image is right."""
    content = bytearray(whole(suffix).read_bytes())
    start = int(len(content) * part)
    # Of zeros or of noise, in turn.
    noise = np.random.default_rng(0).bytes(600)
    content[start : start + 600] = bytes(600) if round(part * 20) % 2 else noise
    damaged = tmp_path / f"damaged{suffix}"
    damaged.write_bytes(content)
    report, messages = copied(damaged, tmp_path / "out.mkv")
    assert report.frames == len(frames_of(damaged))
    if not report.missing:
        assert messages or shown(tmp_path / "out.mkv") == list(range(FRAMES))


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
@pytest.mark.parametrize(
    ("dropped", "lost", "told"),
    [
        ({0}, 8, "7 frames cannot be decoded"),
        ({8}, 6, "5 frames cannot be decoded"),
        ({3, 4, 5}, 3, "about 3 frames are not in the file"),
        (set(range(8, 16)), 8, "about 8 frames are not in the file"),
        ({13, 14}, 2, "not in the file"),
    ],
)
def test_dropped_packets(
    tmp_path: Path, whole: Callable[[str], Path], suffix: str, dropped: set[int], lost: int, told: str
) -> None:
    def without(number: int, packet: Any) -> list[Any]:
        return [] if packet.stream.type == "video" and number in dropped else [packet]

    damaged = remux(whole(".mp4"), tmp_path / f"dropped{suffix}", without)
    report, _ = copied(damaged, tmp_path / "out.mkv")
    assert report.frames == FRAMES - lost
    assert told in "; ".join(report.missing)


def test_a_pause_of_one_frame_is_told_but_nothing_is_missing(tmp_path: Path, whole: Callable[[str], Path]) -> None:
    """Cameras leave out single frames; the file has all that was in it."""
    damaged = remux(whole(".mp4"), tmp_path / "a.mkv", lambda n, p: [] if p.stream.type == "video" and n == 5 else [p])
    report, messages = copied(damaged, tmp_path / "out.mkv")
    assert report.missing == ()
    assert "a pause is kept, from 0.18 s to 0.22 s" in messages[0]


@pytest.mark.parametrize("times", [[0, 1, 5, 6, 9, 20], [0, 2, 3, 7, 8, 9, 15, 30, 31, 50], list(range(0, 60, 3))])
def test_a_variable_rate_is_no_damage(tmp_path: Path, times: list[int]) -> None:
    source = make_video(tmp_path / "a.mkv", frames=len(times), times=times)
    report, messages = copied(source, tmp_path / "out.mkv")
    assert (report.missing, messages) == ((), [])
    assert times_of(tmp_path / "out.mkv") == times_of(source)


def test_missing_indexes(tmp_path: Path) -> None:
    """Without an index all frames are found all the same; without the table of an MP4 none is."""
    avi = make_video(tmp_path / "a.avi", codec="mpeg4").read_bytes()
    (tmp_path / "b.avi").write_bytes(avi[: avi.rindex(b"idx1")])
    assert copied(tmp_path / "b.avi", tmp_path / "out.mkv")[0].frames == FRAMES
    mkv = make_video(tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(mkv[: mkv.rindex(b"\x1c\x53\xbb\x6b")])
    report, _ = copied(tmp_path / "b.mkv", tmp_path / "out.mkv")
    assert report.frames == FRAMES
    assert "File ended prematurely" in report.missing[0]
    mp4 = make_video(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(mp4[: mp4.rindex(b"moov") - 4])
    with pytest.raises(ValueError, match=r"GRAY: cannot read .*b.mp4 as a video \(moov atom not found\)"):
        copied(tmp_path / "b.mp4", tmp_path / "out2.mkv")
    assert not (tmp_path / "out2.mkv").exists()


def test_interrupted_sound_is_told(tmp_path: Path, whole: Callable[[str], Path]) -> None:
    def without(number: int, packet: Any) -> list[Any]:
        return [] if 8 <= number < 16 else [packet]

    report, _ = copied(remux(whole(".mp4"), tmp_path / "a.mkv", without), tmp_path / "out.mkv")
    assert "audio stream 1 (aac) is interrupted: 0.17 s to 0.34 s" in report.missing


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected a video"),
        (b"\0" * 5000, "cannot read .* as a video"),
        (b"no video" * 100, "cannot read .* as a video"),
        (b"ffconcat version 1.0\nfile whole.mkv\n", "cannot read .* as a video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nwhole.mkv\n#EXT-X-ENDLIST\n", "cannot read .* as a video"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "GRAY: "),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes, message: str, suffix: str) -> None:
    """Play lists least of all: they would read other files."""
    make_video(tmp_path / "whole.mkv")
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        map_video(tmp_path / f"a{suffix}", tmp_path / "out.mkv", lambda image: image, source_argument="GRAY")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{suffix}", "whole.mkv"]


def test_not_one_frame_can_be_decoded(tmp_path: Path) -> None:
    def emptied(number: int, packet: Any) -> list[Any]:
        import av

        noise = av.Packet(b"\xff" * packet.size)
        noise.pts, noise.dts, noise.time_base = packet.pts, packet.dts, packet.time_base
        return [noise]

    source = remux(make_video(tmp_path / "a.mp4", frames=3), tmp_path / "b.mkv", emptied)
    with pytest.raises(ValueError, match=r"GRAY: not one frame of .*b.mkv can be decoded \("):
        copied(source, tmp_path / "out.mkv")


def test_a_step_is_what_is_usual(tmp_path: Path) -> None:
    """The rate that the container tells may be wrong."""
    source = make_video(tmp_path / "a.mkv", rate=Fraction(50), times=list(range(0, 40, 2)))
    assert copied(source, tmp_path / "out.mkv")[0].missing == ()
