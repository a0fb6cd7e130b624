"""Small videos for the tests: a photograph that moves, with what else is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import skimage.data

PHOTOGRAPH = skimage.data.coffee()[100:148, 200:264]
RATE = Fraction(25)
FRAMES = 20


def image(number: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """What frame `number` shows."""
    return np.ascontiguousarray(np.roll(PHOTOGRAPH, 2 * number, 1)[: size[0], : size[1]])


def make_video(
    path: Path,
    *,
    frames: int = FRAMES,
    size: tuple[int, int] = (48, 64),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: Fraction = RATE,
    times: Sequence[int] | None = None,
    audio: str = "",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    setup: Callable[[Any, Any], None] | None = None,
    shows: Callable[[int, tuple[int, int]], np.ndarray] = image,
) -> Path:
    """Write a video; `setup` is called with the container and the stream before the first frame."""
    defaults = {"preset": "veryfast", "crf": "12", "g": "8", "bf": "2"} if codec == "libx264" else {}
    with av.open(str(path), "w", container_options=container or {}) as video:
        stream = video.add_stream(codec, rate=rate, options={**defaults, **(options or {})})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = 1 / rate
        if not defaults and codec not in ("rawvideo", "png", "ffv1", "qtrle"):
            stream.bit_rate = 4_000_000
        tone = video.add_stream(audio, rate=48000, layout="mono") if audio else None
        if setup is not None:
            setup(video, stream)
        sound = Sound(tone, frames / rate) if tone is not None else None
        for number in range(frames):
            time = times[number] if times else number
            frame = av.VideoFrame.from_ndarray(shows(number, size), format="rgb24")
            frame.pts, frame.time_base = time, 1 / rate
            video.mux(stream.encode(frame))
            if sound is not None:
                video.mux(sound.until(time / rate))
        video.mux(stream.encode())
        if sound is not None:
            video.mux(sound.rest())
    return path


class Sound:
    """A tone, encoded piece by piece."""

    def __init__(self, stream: Any, seconds: Fraction) -> None:
        self._stream, self._total, self._done = stream, round(seconds * 48000), 0
        self._size = stream.codec_context.frame_size or 1024

    def until(self, seconds: Fraction) -> list[Any]:
        packets: list[Any] = []
        while self._done < min(self._total, round(seconds * 48000)):
            wave = np.sin(np.arange(self._done, self._done + 1024) / 20).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.rate, frame.pts, frame.time_base = 48000, self._done, Fraction(1, 48000)
            resampled = av.AudioResampler(self._stream.codec_context.format.name, "mono", 48000).resample(frame)
            packets += [packet for part in resampled for packet in self._stream.encode(part)]
            self._done += 1024
        return packets

    def rest(self) -> list[Any]:
        return [*self.until(Fraction(10**6)), *self._stream.encode(None)]


def frames_of(path: Path) -> list[av.VideoFrame]:
    """Decode the video of a file, as far as it can be decoded."""
    frames: list[av.VideoFrame] = []
    with av.open(str(path)) as video:
        for packet in video.demux(video.streams.video[0]):
            with suppress(av.FFmpegError):
                frames += packet.decode()
    return frames


def times_of(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in frames_of(path)]


def samples(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="rgb24").astype(int)


def shown(path: Path) -> list[int]:
    """Return which of the images each frame shows."""
    images = [image(number).astype(int) for number in range(FRAMES)]
    return [int(np.argmin([np.abs(samples(frame) - one).mean() for one in images])) for frame in frames_of(path)]


def packets_of(path: Path, kind: str = "audio") -> list[tuple[bytes, Fraction]]:
    with av.open(str(path)) as video:
        streams = getattr(video.streams, kind)
        return [(bytes(p), p.pts * p.time_base) for p in video.demux(streams) if p.pts is not None]


def remux(
    source: Path, target: Path, change: Callable[[int, Any], Iterable[Any]], *, container: dict[str, str] | None = None
) -> Path:
    """Copy packets; `change` gets the number of a packet in its stream and the packet, and returns what is written."""
    with av.open(str(source)) as old, av.open(str(target), "w", container_options=container or {}) as new:
        streams = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        counts = dict.fromkeys(streams, -1)
        for packet in old.demux():
            if packet.size:
                packet.dts = packet.pts if packet.dts is None else packet.dts
                counts[packet.stream.index] += 1
                index = packet.stream.index
                for one in change(counts[index], packet):
                    one.stream = streams[index]
                    new.mux(one)
    return target
