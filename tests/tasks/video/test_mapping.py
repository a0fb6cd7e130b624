"""Videos: every frame changed, times and sound kept, whole or not at all."""

from __future__ import annotations

import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import skimage.data
import torch

from patchattn.tasks.images import Image
from patchattn.tasks.video import check_video_output, map_video

RATE = Fraction(24000, 1001)
FRAMES = 6
PHOTOGRAPH = skimage.data.coffee()[100:148, 200:264]


def write_video(
    path: Path, *, size: tuple[int, int] = (48, 64), times: list[int] | None = None, sound: str = ""
) -> Path:
    """A photograph that moves to the right, with a tone if asked for."""
    with av.open(path, "w") as film:
        stream = film.add_stream("libx264", rate=RATE, options={"crf": "10"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv444p"
        stream.codec_context.time_base = 1 / RATE
        tone = film.add_stream(sound, rate=44100, layout="mono") if sound else None
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(np.roll(PHOTOGRAPH, number, 1)[: size[0], : size[1]]), format="rgb24"
            )
            frame.pts, frame.time_base = times[number] if times else number, 1 / RATE
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
        if tone is not None:
            wave = np.sin(np.arange(8192) / 20).astype(np.float32)[None]
            for start in range(0, wave.shape[1], 1024):
                part = av.AudioFrame.from_ndarray(wave[:, start : start + 1024].copy(), format="fltp", layout="mono")
                part.rate, part.pts = 44100, start
                film.mux(tone.encode(part))
            film.mux(tone.encode())
    return path


def frames_of(path: Path) -> list[av.VideoFrame]:
    with av.open(path) as film:
        return list(film.decode(film.streams.video[0]))


def samples(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="rgb24").astype(int)


def packets_of_sound(path: Path) -> list[tuple[bytes, Fraction]]:
    with av.open(path) as film:
        return [(bytes(p), p.pts * p.time_base) for p in film.demux(film.streams.audio) if p.pts is not None]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_every_frame_is_changed_in_order(tmp_path: Path, suffix: str) -> None:
    source = write_video(tmp_path / "video.mp4")
    seen: list[Image] = []
    told: list[tuple[int, int]] = []

    def negative(image: Image) -> Image:
        seen.append(image)
        return Image(1 - image.color)

    film = map_video(source, tmp_path / f"out{suffix}", negative, progress=lambda *done: told.append(done))
    assert (film.frames, film.size, film.rate, film.audio_streams) == (FRAMES, (48, 64), RATE, 0)
    assert told == [(done, FRAMES) for done in range(1, FRAMES + 1)]
    for number, (image, frame) in enumerate(zip(seen, frames_of(tmp_path / f"out{suffix}"), strict=True)):
        expected = np.roll(PHOTOGRAPH, number, 1).astype(int)
        assert np.abs(image.color[0].permute(1, 2, 0).numpy() * 255 - expected).mean() < 4
        assert np.abs(samples(frame) - (255 - expected)).mean() < 8  # chroma is halved
        assert np.abs((samples(frame) - (255 - expected)).mean((0, 1))).max() < 3


def test_irregular_times_are_kept(tmp_path: Path) -> None:
    source = write_video(tmp_path / "video.mkv", times=[0, 1, 5, 6, 9, 20])
    map_video(source, tmp_path / "out.mkv", lambda image: image)
    before, after = ([f.pts * f.time_base for f in frames_of(tmp_path / name)] for name in ("video.mkv", "out.mkv"))
    assert after == before
    assert float(after[-1]) == pytest.approx(20 / RATE, abs=0.001)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_sound_is_copied(tmp_path: Path, suffix: str) -> None:
    source = write_video(tmp_path / "video.mp4", sound="aac")
    film = map_video(source, tmp_path / f"out{suffix}", lambda image: image)
    assert film.audio_streams == 1
    before, after = packets_of_sound(source), packets_of_sound(tmp_path / f"out{suffix}")
    assert [data for data, _ in after] == [data for data, _ in before]
    assert len(before) > 6
    # Matroska begins at 0 and moves all tracks alike, where the others begin before it.
    start, new_start = (frames_of(film)[0] for film in (source, tmp_path / f"out{suffix}"))
    moved = new_start.pts * new_start.time_base - start.pts * start.time_base
    assert all(abs(one + moved - other) < 0.002 for (_, one), (_, other) in zip(before, after, strict=True))


def test_gray_stays_gray(tmp_path: Path) -> None:
    source = write_video(tmp_path / "video.mp4")
    map_video(
        source,
        tmp_path / "out.mp4",
        lambda image: Image(image.color.mean(1, keepdim=True).expand(-1, 3, -1, -1)),
    )
    assert np.ptp(samples(frames_of(tmp_path / "out.mp4")[0]), 2).max() <= 3


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    source = write_video(tmp_path / "video.mp4")
    (tmp_path / "out.mp4").write_bytes(b"before")
    calls: list[Image] = []

    def interrupted(image: Image) -> Image:
        calls.append(image)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return image

    with pytest.raises(KeyboardInterrupt):
        map_video(source, tmp_path / "out.mp4", interrupted)
    assert (tmp_path / "out.mp4").read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "video.mp4"]


def test_sound_alone_and_nothing_at_all(tmp_path: Path) -> None:
    with av.open(tmp_path / "video.mkv", "w") as film:
        tone = film.add_stream("aac", rate=44100, layout="mono")
        part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        part.rate, part.pts = 44100, 0
        film.mux(tone.encode(part))
        film.mux(tone.encode())
    for name, message in (
        ("video.mkv", "no moving images in .*video.mkv: only audio"),
        ("none.mp4", "there is no file"),
    ):
        with pytest.raises(ValueError, match=f"GRAY: .*{message}"):
            map_video(tmp_path / name, tmp_path / "out.mp4", lambda image: image, source_argument="GRAY")
    assert not (tmp_path / "out.mp4").exists()


def test_output_is_checked_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"-o: .*out.avi ends in .avi; allowed for a video are .mp4, .mkv and .mov"):
        check_video_output(tmp_path / "out.avi", argument="-o")
    with pytest.raises(ValueError, match="-o: cannot write"):
        check_video_output(tmp_path / "none" / "out.mp4", argument="-o")


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    """Each frame is gone when the next one comes."""
    alive: list[weakref.ref[Any]] = []
    most = 0

    def watch(image: Image) -> Image:
        nonlocal most
        alive.append(weakref.ref(image))
        most = max(most, sum(reference() is not None for reference in alive))
        return Image(torch.zeros_like(image.color))

    map_video(write_video(tmp_path / "video.mp4"), tmp_path / "out.mp4", watch)
    assert len(alive) == FRAMES
    assert most == 1
