"""What is beside the frames: covers, sound, subtitles, files, chapters and texts are copied, or said to be left out."""

from __future__ import annotations

import io
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from patchattn.tasks.video import VideoReport, map_video
from tests.tasks.video.making import FRAMES, RATE, Sound, image, make_video, packets_of, shown


def copied(source: Path, output: Path) -> tuple[VideoReport, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = map_video(source, output, lambda image: image, output_argument="--output")
    return report, [str(one.message) for one in caught]


def cover(kind: str = "JPEG") -> bytes:
    memory = io.BytesIO()
    Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save(memory, kind)
    return memory.getvalue()


def encoded(count: int, **settings: Any) -> list[Any]:
    """Packets of a small video."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height = settings.get("size", (64, 48))
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", 1 / RATE, RATE
    encoder.options = {"preset": "ultrafast", "crf": "10"}
    packets = []
    for number in range(count):
        samples = image(number)[: encoder.height, : encoder.width]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(samples), format="rgb24")
        frame.pts, frame.time_base = number, 1 / RATE
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


def write(path: Path, *videos: tuple[int, dict[str, Any]], image_at: int | None = None, flag: bool = False) -> Path:
    """Several videos, of so many frames, with such sizes and dispositions; and a cover as a stream among them."""
    with av.open(str(path), "w") as result:
        streams, packets = [], []
        count = 0
        for place in range(len(videos) + (image_at is not None)):
            if place == image_at:
                stream = result.add_stream("mjpeg", rate=1)
                stream.width = stream.height = 40
                stream.pix_fmt = "yuvj420p"
                stream.disposition = 1024 if flag else 0
                packet = av.Packet(cover())
                packet.pts = packet.dts = 0
                packet.time_base, packet.is_keyframe = 1 / RATE, True
                packets.append([packet])
            else:
                frames, settings = videos[count]
                count += 1
                stream = result.add_stream("libx264", rate=RATE)
                stream.width, stream.height = settings.get("size", (64, 48))
                stream.disposition = settings.get("disposition", 0)
                packets.append(encoded(frames, **settings))
            streams.append(stream)
        for stream, some in zip(streams, packets, strict=True):
            for packet in some:
                packet.stream = stream
                result.mux(packet)
    return path


@pytest.mark.parametrize(
    ("suffix", "flag", "place", "output"),
    [
        (".mkv", False, 0, "out.mkv"),
        (".mkv", False, 1, "out.mp4"),
        (".mp4", False, 0, "out.mp4"),
        (".mp4", True, 0, "out.mkv"),
        (".mp4", True, 1, "out.mp4"),
        (".mp4", False, 1, "out.mkv"),
    ],
)
def test_a_cover_is_no_video_and_is_kept(tmp_path: Path, suffix: str, flag: bool, place: int, output: str) -> None:
    source = write(tmp_path / f"a{suffix}", (FRAMES, {}), image_at=place, flag=flag)
    report, messages = copied(source, tmp_path / output)
    assert (report.frames, report.missing, messages) == (FRAMES, (), [])
    with av.open(str(tmp_path / output)) as result:
        images = [stream for stream in result.streams.video if stream.disposition & 1024]
        assert len(result.streams.video) == 2
        assert len(images) == 1
        assert bytes(next(result.demux(images[0]))) == cover()
    assert shown(tmp_path / output) == list(range(FRAMES))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_attached_images_and_files(tmp_path: Path, kind: str) -> None:
    def attach(video: Any, stream: Any) -> None:
        video.add_attachment(f"cover.{kind.lower()}", f"image/{kind.lower()}", cover(kind))
        video.add_attachment("font.ttf", "application/x-truetype-font", b"letters")

    source = make_video(tmp_path / "a.mkv", setup=attach)
    assert copied(source, tmp_path / "out.mkv")[1] == []
    with av.open(str(tmp_path / "out.mkv")) as result:
        assert result.streams.attachments[0].data == b"letters"
        assert result.streams.attachments[0].name == "font.ttf"
        images = [stream for stream in result.streams.video if stream.disposition & 1024]
        assert bytes(next(result.demux(images[0]))) == cover(kind)
    _, messages = copied(source, tmp_path / "out.mp4")
    assert len(messages) == 1
    assert "its attachment stream 2 (font.ttf) is left out: .mp4 cannot hold it; .mkv can" in messages[0]


def test_a_cover_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as result:
        tone = result.add_stream("aac", rate=48000, layout="mono")
        result.add_attachment("cover.jpg", "image/jpeg", cover())
        result.mux(Sound(tone, Fraction(1)).rest())
    with pytest.raises(ValueError, match=r"there are no moving images in .*: only a cover image"):
        copied(tmp_path / "a.mkv", tmp_path / "out.mkv")


@pytest.mark.parametrize(
    ("videos", "taken"),
    [
        ([(20, {}), (5, {"size": (32, 32)})], 0),
        ([(5, {"size": (32, 32)}), (20, {})], 1),
        ([(20, {"disposition": 0}), (5, {"size": (32, 32), "disposition": 1})], 1),
        ([(20, {"size": (32, 32)}), (20, {"size": (32, 32)})], 0),
        ([(1, {"disposition": 1}), (20, {"size": (32, 32)})], 1),
    ],
)
def test_of_several_videos_one_is_taken(tmp_path: Path, videos: list[Any], taken: int) -> None:
    source = write(tmp_path / "a.mkv", *videos)
    report, messages = copied(source, tmp_path / "out.mkv")
    frames, settings = videos[taken]
    assert (report.frames, report.size) == (frames, settings.get("size", (64, 48))[::-1])
    assert len(messages) == 1
    assert f"its video stream {1 - taken} (h264) is left out: one video is written" in messages[0]


def subtitled(path: Path, texts: int = 3) -> Path:
    """A video with sound, subtitles, chapters and texts about everything."""
    codec = "mov_text" if path.suffix in (".mp4", ".mov") else "subrip"
    with av.open(str(path), "w") as result:
        video = result.add_stream("libx264", rate=RATE)
        video.width, video.height = 64, 48
        video.metadata["title"] = "what is seen"
        video.metadata["language"] = "fra"
        tones = [result.add_stream("aac", rate=48000, layout="mono") for _ in range(2)]
        for tone, language in zip(tones, ("fra", "eng"), strict=True):
            tone.metadata["language"] = language
        tones[1].disposition = 1 << 3 if path.suffix == ".mkv" else 0
        words = result.add_mux_stream(codec)
        words.time_base = Fraction(1, 1000)
        words.metadata["language"] = "ita"
        result.metadata.update(title="A title", comment="söme wörds", artist="Somebody", date="1923")
        halves = [{"id": n, "start": n * 400, "end": n * 400 + 400, "time_base": Fraction(1, 1000)} for n in range(2)]
        result.set_chapters([{**half, "metadata": {"title": f"Part {half['id']}"}} for half in halves])
        for packet in encoded(FRAMES):
            packet.stream = video
            result.mux(packet)
        for tone in tones:
            result.mux(Sound(tone, FRAMES / RATE).rest())
        for number in range(texts):
            text = f"Line {number}".encode()
            packet = av.Packet(len(text).to_bytes(2, "big") + text if codec == "mov_text" else text)
            packet.pts = packet.dts = number * 200
            packet.duration, packet.time_base, packet.stream = 150, Fraction(1, 1000), words
            result.mux(packet)
    return path


@pytest.mark.parametrize(("suffix", "output"), [(".mkv", ".mkv"), (".mp4", ".mp4"), (".mov", ".mov"), (".mp4", ".mov")])
def test_everything_beside_the_frames_is_kept(tmp_path: Path, suffix: str, output: str) -> None:
    source = subtitled(tmp_path / f"a{suffix}")
    report, messages = copied(source, tmp_path / f"out{output}")
    assert (report.audio_streams, messages) == (2, [])
    with av.open(str(source)) as old, av.open(str(tmp_path / f"out{output}")) as new:
        for name in ("title", "comment", "artist", "date"):
            assert {key.lower(): text for key, text in new.metadata.items()}[name] == {
                key.lower(): text for key, text in old.metadata.items()
            }[name]
        kinds = [(stream.type, stream.language, stream.disposition & ~1) for stream in old.streams]
        assert [(stream.type, stream.language, stream.disposition & ~1) for stream in new.streams][
            : len(kinds)
        ] == kinds
        assert "what is seen" in new.streams.video[0].metadata.values()
        parts = [(one["start"] * one["time_base"], one["metadata"]["title"]) for one in new.chapters()]
        assert parts == [(0, "Part 0"), (Fraction(2, 5), "Part 1")]
    for kind in ("audio", "subtitles"):
        before, after = packets_of(source, kind), packets_of(tmp_path / f"out{output}", kind)
        # MP4 fills pauses between subtitles with empty ones.
        before, after = ([one for one in some if one[0] != b"\0\0"] for some in (before, after))
        assert [data for data, _ in before] == [data for data, _ in after]
        moved = after[0][1] - before[0][1]
        assert all(abs(one + moved - other) < 0.002 for (_, one), (_, other) in zip(before, after, strict=True))


@pytest.mark.parametrize(("suffix", "output", "codec"), [(".mkv", ".mp4", "subrip"), (".mp4", ".mkv", "mov_text")])
def test_subtitles_that_do_not_fit_are_named(tmp_path: Path, suffix: str, output: str, codec: str) -> None:
    _, messages = copied(subtitled(tmp_path / f"a{suffix}"), tmp_path / f"out{output}")
    told = [message for message in messages if "subtitle" in message]
    assert len(told) == 1
    assert f"its subtitle stream 3 ({codec}, ita) is left out: {output} cannot hold it; " in told[0]


def test_texts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    def tell(video: Any, stream: Any) -> None:
        video.metadata.update(title="kept", mood="lost")
        stream.metadata.update(weather="lost")

    _, messages = copied(make_video(tmp_path / "a.mkv", setup=tell), tmp_path / "out.mp4")
    assert len(messages) == 1
    assert ".mp4 cannot hold, and this is left out: MOOD of the file, WEATHER of the video" in messages[0]


def test_texts_as_cameras_write_them(tmp_path: Path) -> None:
    names = {"com.apple.quicktime.make": "Maker", "com.apple.quicktime.location.ISO6709": "+47.1+008.2/"}

    def tell(video: Any, stream: Any) -> None:
        video.metadata.update(names)

    source = make_video(tmp_path / "a.mov", container={"movflags": "use_metadata_tags"}, setup=tell)
    for output in ("out.mov", "out.mp4", "out.mkv"):
        assert copied(source, tmp_path / output)[1] == []
        with av.open(str(tmp_path / output)) as result:
            read = {name.lower(): text for name, text in result.metadata.items()}
        assert names.items() <= {name: read.get(name.lower()) for name in names}.items()


def test_texts_that_are_not_utf_8(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.avi", codec="mpeg4", setup=lambda video, _: video.metadata.update(title="T?tle"))
    source.write_bytes(source.read_bytes().replace(b"T?tle", b"T\xeftle"))
    report, _ = copied(source, tmp_path / "out.mkv")
    assert report.frames == FRAMES


@pytest.mark.parametrize("name", [b"f\xff.mkv", b"a:b.mkv", b"http:x.mkv", b"100%d.mkv", b" -.mkv"])
def test_any_name(tmp_path: Path, name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are not UTF-8, and what FFmpeg takes for an address or a sequence."""
    import os

    monkeypatch.chdir(tmp_path)
    whole = make_video(Path("whole.mkv"), frames=3)
    source = Path(os.fsdecode(name))
    os.rename(whole, source)
    assert copied(source, Path(os.fsdecode(b"out-" + name)))[0].frames == 3


def test_sound_that_no_container_holds_is_an_error_where_another_does(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mkv", audio="pcm_u8")
    with pytest.raises(ValueError, match=r"--output: .*out.mp4 cannot hold the video's sound \(pcm_u8\); .mkv can"):
        copied(source, tmp_path / "out.mp4")
    assert copied(source, tmp_path / "out.mkv")[0].audio_streams == 1
