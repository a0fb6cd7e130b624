"""Frames upright and in the right colors, whatever the file says of them, and written as players expect."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from patchattn.tasks.images import Image
from patchattn.tasks.video import VideoReport, map_video
from patchattn.tasks.video.dynamic_range import to_bt709
from tests.tasks.video.making import frames_of, image, make_video, samples

PATCHES = np.array([[[200, 40, 40], [40, 200, 40]], [[40, 40, 200], [180, 170, 60]]], np.uint8)


def patches(number: int, size: tuple[int, int]) -> np.ndarray:
    """Four colors, each of which fills a quarter."""
    return np.ascontiguousarray(PATCHES.repeat(size[0] // 2, 0).repeat(size[1] // 2, 1))


def copied(source: Path, output: Path) -> tuple[VideoReport, list[str], list[Image]]:
    seen: list[Image] = []

    def see(given: Image) -> Image:
        seen.append(given)
        return given

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = map_video(source, output, see)
    return report, [str(one.message) for one in caught], seen


def bytes_of(given: Image) -> np.ndarray:
    return given.color[0].permute(1, 2, 0).numpy() * 255


TURNS = [(90, (0, 0)), (180, (0, 0)), (270, (0, 0)), (-90, (0, 0))]
MIRRORS = [(0, (1, 0)), (0, (0, 1)), (90, (1, 0)), (270, (0, 1))]
"""Which Matroska does not tell."""


@pytest.mark.parametrize(
    ("degrees", "flips", "suffix", "output"),
    [
        *((*turn, ".mkv", "out.mp4") for turn in TURNS),
        *((*turn, ".mp4", "out.mkv") for turn in TURNS + MIRRORS),
        *((*turn, ".mov", "out.mov") for turn in TURNS + MIRRORS),
    ],
)
def test_frames_are_turned_upright(
    tmp_path: Path, degrees: int, flips: tuple[int, int], suffix: str, output: str
) -> None:
    """Portraits as phones write them, and mirrored ones."""

    def turn(_: Any, stream: Any) -> None:
        stream.set_display_rotation(degrees, hflip=bool(flips[0]), vflip=bool(flips[1]))
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    source = make_video(tmp_path / f"a{suffix}", frames=3, pixels="yuv444p", setup=turn, shows=patches)
    report, messages, seen = copied(source, tmp_path / output)
    upright = np.rot90(patches(0, (48, 64)), degrees // 90)
    upright = upright[:, ::-1] if flips[0] else upright
    upright = upright[::-1] if flips[1] else upright
    assert messages == []
    assert report.size == upright.shape[:2]
    for given, frame in zip(seen, frames_of(tmp_path / output), strict=True):
        assert np.abs(bytes_of(given) - upright).mean() < 3
        assert np.abs(samples(frame) - upright).mean() < 6
        assert frame.rotation == 0
    with av.open(str(tmp_path / output)) as result:
        aspect = Fraction(3, 4) if upright.shape[0] > upright.shape[1] else Fraction(4, 3)
        assert result.streams.video[0].sample_aspect_ratio == aspect


def test_a_turn_that_is_no_quarter_is_said(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", frames=2, setup=lambda _, stream: stream.set_display_rotation(30))
    _, messages, seen = copied(source, tmp_path / "out.mkv")
    assert "turned by an angle that is no quarter" in messages[0]
    assert np.abs(bytes_of(seen[0]) - image(0)).mean() < 6


MATRICES = {1: "ITU709", 5: "ITU601", 6: "SMPTE170M", 7: "SMPTE240M", 9: "BT2020"}


@pytest.mark.parametrize(
    ("matrix", "full", "told"),
    # What is not told can be known of television's alone.
    [*((matrix, full, True) for matrix in MATRICES for full in (False, True)), (5, False, False), (6, False, False)],
)
def test_matrices_and_ranges(tmp_path: Path, matrix: int, full: bool, told: bool) -> None:
    """Colors come back as they were, by whichever matrix they were encoded; untold, by that of television."""
    with av.open(str(tmp_path / "a.mkv"), "w") as video:
        stream = video.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        if told:
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        for number in range(2):
            frame = av.VideoFrame.from_ndarray(patches(number, (48, 64)), format="rgb24")
            levels = "JPEG" if full else "MPEG"
            frame = frame.reformat(format="yuv444p", dst_colorspace=MATRICES[matrix], dst_color_range=levels)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    _, messages, seen = copied(tmp_path / "a.mkv", tmp_path / "out.mkv")
    assert messages == []
    written = frames_of(tmp_path / "out.mkv")[0]
    assert (int(written.colorspace), int(written.color_range)) == (1, 1)
    for got in (bytes_of(seen[0]), samples(written)):
        centers = got[12::24, 16::32]
        assert np.abs(centers - PATCHES).max() <= 4


def test_large_video_without_a_matrix_is_that_of_large_screens(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as video:
        stream = video.add_stream("libx264", rate=25, options={"crf": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 720, "yuv444p"
        frame = av.VideoFrame.from_ndarray(patches(0, (720, 64)), format="rgb24")
        video.mux(stream.encode(frame.reformat(format="yuv444p", dst_colorspace="ITU709", dst_color_range="MPEG")))
        video.mux(stream.encode())
    _, _, seen = copied(tmp_path / "a.mkv", tmp_path / "out.mkv")
    assert np.abs(bytes_of(seen[0])[180::360, 16::32] - PATCHES).max() <= 4


@pytest.mark.parametrize(
    ("codec", "pixels", "written"),
    [
        ("ffv1", "yuv420p10le", "yuv420p10le"),
        ("ffv1", "yuv444p16le", "yuv420p10le"),
        ("ffv1", "gray", "yuv420p"),
        ("ffv1", "gray10le", "yuv420p10le"),
        ("png", "rgb24", "yuv420p"),
        ("png", "rgb48be", "yuv420p10le"),
        ("rawvideo", "yuv422p", "yuv420p"),
        ("mjpeg", "yuvj422p", "yuv420p"),
    ],
)
def test_depth(tmp_path: Path, codec: str, pixels: str, written: str) -> None:
    source = make_video(tmp_path / ("a.mov" if codec == "png" else "a.mkv"), frames=2, codec=codec, pixels=pixels)
    report, messages, seen = copied(source, tmp_path / "out.mkv")
    frame = frames_of(tmp_path / "out.mkv")[0]
    assert (report.frames, frame.format.name) == (2, written)
    assert seen[0].bit_depth == (16 if "10" in written else 8)
    gray = pixels.startswith("gray")
    expected = image(0) @ np.array([0.299, 0.587, 0.114])[:, None] if gray else image(0)
    assert np.abs(bytes_of(seen[0]) - expected).mean() < 6
    assert np.abs(samples(frame) - expected).mean() < 8
    assert messages == (
        ["source: " + str(source) + ": its 16 bits are written as 10."] if "16" in pixels or "48" in pixels else []
    )


def test_ten_bits_are_kept(tmp_path: Path) -> None:
    """A ramp has more steps than 8 bits could hold."""
    ramp = np.linspace(20000, 24000, 64).astype(np.uint16)
    with av.open(str(tmp_path / "a.mkv"), "w") as video:
        stream = video.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p10le"
        frame = av.VideoFrame.from_ndarray(np.tile(ramp[None, :, None], (48, 1, 3)), format="rgb48le")
        video.mux(stream.encode(frame))
        video.mux(stream.encode())
    copied(tmp_path / "a.mkv", tmp_path / "out.mkv")
    levels = frames_of(tmp_path / "out.mkv")[0].to_ndarray(format="gray10le")
    assert len(np.unique(levels)) > 30  # of 8 bits, 14


def test_odd_sizes_and_one_pixel(tmp_path: Path) -> None:
    for size in ((47, 63), (48, 63), (1, 1), (2, 50)):
        source = make_video(tmp_path / "a.mkv", frames=2, size=size, pixels="yuv444p")
        report, _, _ = copied(source, tmp_path / "out.mkv")
        assert report.size == size == samples(frames_of(tmp_path / "out.mkv")[0]).shape[:2]


@pytest.mark.parametrize(
    "sizes", [((48, 64), (96, 128)), ((96, 128), (48, 64)), ((48, 64), (64, 48)), ((48, 64), (144, 128))]
)
def test_sizes_that_change(tmp_path: Path, sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """As where a broadcast changes its format: all frames get the size that most have."""
    parts = []
    for size, count in zip(sizes, (4, 6), strict=True):
        path = make_video(
            tmp_path / "part.ts",
            frames=count,
            size=size,
            shows=patches,
        )
        parts.append(path.read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    report, messages, seen = copied(tmp_path / "a.ts", tmp_path / "out.mkv")
    assert (report.frames, report.size) == (10, sizes[1])
    assert all(given.size == sizes[1] for given in seen)
    height, width = sizes[0]
    assert any(f"its size changes ({width} x {height} at 0.0" in message for message in messages)
    for frame in frames_of(tmp_path / "out.mkv"):
        centers = samples(frame)[sizes[1][0] // 4 :: sizes[1][0] // 2, sizes[1][1] // 4 :: sizes[1][1] // 2]
        assert np.abs(centers[:2, :2] - PATCHES).max() < 40


def test_pixel_formats_that_change(tmp_path: Path) -> None:
    parts = [make_video(tmp_path / "p.ts", frames=4, pixels=pixels).read_bytes() for pixels in ("yuv420p", "yuv422p")]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    report, _, seen = copied(tmp_path / "a.ts", tmp_path / "out.mkv")
    assert report.frames == 8
    for number, given in enumerate(seen):
        assert np.abs(bytes_of(given) - image(number % 4)).mean() < 9


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix"), [("png", "rgba", ".mov"), ("qtrle", "argb", ".mov"), ("ffv1", "yuva420p", ".mkv")]
)
def test_transparency_is_said(tmp_path: Path, codec: str, pixels: str, suffix: str) -> None:
    source = make_video(tmp_path / f"a{suffix}", frames=2, codec=codec, pixels=pixels)
    _, messages, _ = copied(source, tmp_path / "out.mkv")
    assert "its transparency is left out; H.264 has none" in messages[0]


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_interlaced_video_is_said(tmp_path: Path, codec: str) -> None:
    def interlace(_: Any, stream: Any) -> None:
        from av.codec.context import Flags

        stream.codec_context.flags |= Flags.interlaced_dct | Flags.interlaced_me

    source = make_video(tmp_path / "a.ts", frames=4, codec=codec, setup=interlace)
    report, messages, _ = copied(source, tmp_path / "out.mkv")
    assert (report.frames, report.missing) == (4, ())
    if any(frame.interlaced_frame for frame in frames_of(source)):
        assert "it is interlaced; both fields stay in each frame" in messages[0]
    else:
        assert codec == "libx264"


def tagged(path: Path, primaries: int, curve: int, level: float) -> Path:
    """Two frames of one gray in 10 bits."""
    with av.open(str(path), "w") as video:
        stream = video.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, primaries, curve, 1
        for number in range(2):
            gray = np.full((48, 64, 3), round(level * 65535), np.uint16)
            frame = av.VideoFrame.from_ndarray(gray, format="rgb48le")
            frame = frame.reformat(format="yuv420p10le", dst_colorspace="BT2020", dst_color_range="MPEG")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            frame.color_primaries, frame.color_trc = primaries, curve
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("primaries", "curve", "level", "words", "expected"),
    [
        (9, 16, 0.58, "high dynamic range (PQ) and the colors of BT.2020", 0.95),
        (9, 16, 0.75, "high dynamic range (PQ)", 1.0),
        (9, 18, 0.75, "high dynamic range (HLG)", 0.95),
        (9, 14, 0.5, "the colors of BT.2020", 0.5),
        (12, 1, 0.5, "the colors of Display P3", 0.5),
    ],
)
def test_high_dynamic_range_is_converted(
    tmp_path: Path, primaries: int, curve: int, level: float, words: str, expected: float
) -> None:
    """White stays white, and gray gray; it is said, and the file says what it holds."""
    source = tagged(tmp_path / "a.mkv", primaries, curve, level)
    _, messages, seen = copied(source, tmp_path / "out.mkv")
    assert f"it is in {words}" in messages[0]
    assert bytes_of(seen[0]).mean() / 255 == pytest.approx(expected, abs=0.03)
    frame = frames_of(tmp_path / "out.mkv")[0]
    assert (int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc)) == (1, 1, 1)
    assert samples(frame).mean() / 255 == pytest.approx(expected, abs=0.03)


def test_conversion_from_wide_colors() -> None:
    """White and gray stay; BT.709's red, in BT.2020's numbers, is red again; light rises with light."""
    for primaries in (9, 12):
        gray = torch.linspace(0, 1, 9).expand(3, 1, 9)
        torch.testing.assert_close(to_bt709(gray, primaries, 1), gray, atol=2e-4, rtol=0)
    red = torch.tensor([0.627404, 0.069097, 0.016391])[:, None, None] ** (1 / 2.4)
    torch.testing.assert_close(to_bt709(red, 9, 14), torch.tensor([1.0, 0, 0])[:, None, None], atol=0.02, rtol=0)
    for curve in (16, 18):
        light = to_bt709(torch.linspace(0, 1, 50).expand(3, 1, 50), 9, curve)[0, 0]
        assert (light.diff() >= -1e-6).all()
        assert light.min() == 0
        assert 0.99 < light.max() <= 1


def test_primaries_of_television_are_kept(tmp_path: Path) -> None:
    def tell(_: Any, stream: Any) -> None:
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 5, 5, 6, 1

    copied(make_video(tmp_path / "a.mkv", frames=2, setup=tell), tmp_path / "out.mkv")
    frame = frames_of(tmp_path / "out.mkv")[0]
    assert (int(frame.color_primaries), int(frame.color_trc), int(frame.colorspace)) == (5, 6, 1)
