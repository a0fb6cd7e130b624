"""Films, frame by frame: every picture of one is changed, and the result written with the same times and sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import torch

from patchattn.extras import extra
from patchattn.tasks.files import PathLike, atomic_writer, check_input_file, check_output_file
from patchattn.tasks.images import Picture

if TYPE_CHECKING:
    import av
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

__all__ = ["FILM_SUFFIXES", "Film", "check_film_output", "map_film"]

FILM_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv")
"""What the names of films end in; their content says what they are."""

CONTAINERS = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov"}
"""What is written: FFmpeg's names, by the file name's extension."""

ENCODER = "libx264"
BT709 = 1
"""The number that H.273 gives these colours, in tables of primaries, curves and matrices alike."""
LIMITED_RANGE = 1


@dataclass(frozen=True)
class Film:
    """What was written."""

    frames: int
    size: tuple[int, int]
    """(height, width) in pixels."""
    rate: Fraction
    """Frames a second, on average."""
    sounds: int
    """How many tracks of sound were copied."""


def check_film_output(path: PathLike, *, argument: str = "path") -> None:
    """Raise what `map_film` would raise about its output, before the work.

    Raises:
        ValueError: the extension is unknown, or nothing can be written there.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in CONTAINERS:
        raise ValueError(
            f"{argument}: {path} ends in {suffix or 'no extension'}; allowed for a film are .mp4, .mkv and .mov."
        )
    check_output_file(path, argument=argument)


def map_film(
    source: PathLike,
    output: PathLike,
    change: Callable[[Picture], Picture],
    *,
    progress: Callable[[int, int], None] | None = None,
    source_argument: str = "source",
    output_argument: str = "output",
) -> Film:
    """Write a film whose frames are `change` of the frames of another.

    One frame at a time is held, whatever the length. Times are kept, so the rate is, be it constant or not; sound is
    copied as it is; subtitles and other tracks are left out. The pictures are encoded by H.264 at good quality (crf
    18) in 8 bits, in BT.709 colours. Sizes that are even get halved chroma, as most players expect. The file appears
    whole or not at all.

    Args:
        source: a film of any format that FFmpeg reads.
        output: .mp4, .mkv or .mov.
        change: called with every frame, in order; an RGB picture of 8 bits. It returns a picture of the same size.
        progress: called with the number of frames done and, as far as the file tells, of all (0: not told).
        source_argument, output_argument: what errors call the two.

    Returns:
        What was written.

    Raises:
        ValueError: there is no film to read, or it is damaged, turned by its metadata or without times; or it cannot be
            written there.
        RuntimeError: the extra `video` is not installed, or its FFmpeg has no H.264 encoder.
    """
    check_film_output(output, argument=output_argument)
    path = check_input_file(source, argument=source_argument)
    _check_encoder()
    with _opened(path, source_argument) as film:
        if not film.streams.video:
            raise ValueError(f"{source_argument}: {path} has no moving pictures.")
        with atomic_writer(output, argument=output_argument) as file:
            return _Copy(film, file, Path(output), path, source_argument, output_argument).run(change, progress)


class _Copy:
    """One film on its way into another."""

    def __init__(
        self, film: InputContainer, file: BinaryIO, output: Path, path: Path, source_argument: str, argument: str
    ) -> None:
        import av

        self.film, self.path, self.source_argument = film, path, source_argument
        self.pictures = film.streams.video[0]
        self.pictures.thread_type = "AUTO"
        self.result: OutputContainer = av.open(file, "w", format=CONTAINERS[output.suffix.lower()])
        for sound in film.streams.audio:
            if sound.codec_context.name not in self.result.supported_codecs:
                raise ValueError(
                    f"{argument}: {output} cannot hold the film's sound ({sound.codec_context.name}); .mkv can."
                )
        self.encoder = _add_encoder(self.result, self.pictures)
        self.sounds = {
            sound.index: self.result.add_stream_from_template(sound, opaque=True) for sound in film.streams.audio
        }

    def run(self, change: Callable[[Picture], Picture], progress: Callable[[int, int], None] | None) -> Film:
        frames = 0
        with self.result as result:
            for part in self._parts():
                if isinstance(part, _Moment):
                    result.mux(self.encoder.encode(_encoded(change(_decoded(part)), part, self.encoder)))
                    frames += 1
                    if progress is not None:
                        progress(frames, self.pictures.frames)
                else:
                    part.stream = self.sounds[part.stream.index]
                    result.mux(part)
            if not frames:
                raise ValueError(f"{self.source_argument}: {self.path} has no frame that can be read.")
            result.mux(self.encoder.encode())
        size = (self.pictures.codec_context.height, self.pictures.codec_context.width)
        return Film(frames, size, self.pictures.average_rate or Fraction(0), len(self.sounds))

    def _parts(self) -> Iterator[_Moment | av.Packet[Any]]:
        """Frames, and packets of sound, as they follow each other in the file."""
        with _reading(self.path, self.source_argument):
            for packet in self.film.demux(self.pictures, *self.film.streams.audio):
                if packet.stream.index == self.pictures.index:
                    for frame in self.pictures.decode(packet):
                        yield self._moment(frame)
                elif packet.dts is not None:  # the packet without times marks the end
                    yield packet

    def _moment(self, frame: av.VideoFrame) -> _Moment:
        where = f"{self.source_argument}: {self.path}"
        if frame.rotation:
            raise ValueError(f"{where} is stored turned by {frame.rotation} degrees; turn its pictures upright first.")
        if frame.pts is None or frame.time_base is None:
            raise ValueError(f"{where} does not tell when its frames are shown; put it into .mp4 or .mkv first.")
        return _Moment(frame, frame.pts, frame.time_base)


@dataclass(frozen=True)
class _Moment:
    """A decoded frame and when it is shown."""

    frame: av.VideoFrame
    time: int
    """In units of `unit` seconds."""
    unit: Fraction


def _add_encoder(result: OutputContainer, pictures: VideoStream) -> VideoStream:
    source = pictures.codec_context
    stream = cast("VideoStream", result.add_stream(ENCODER, rate=pictures.average_rate, options={"crf": "18"}))
    stream.width, stream.height = source.width, source.height
    # Halved chroma needs even sizes.
    even = source.width % 2 == source.height % 2 == 0
    stream.pix_fmt = "yuv420p" if even else "yuv444p"
    context = stream.codec_context
    if pictures.time_base is not None:
        context.time_base = pictures.time_base
    if source.sample_aspect_ratio is not None:
        context.sample_aspect_ratio = source.sample_aspect_ratio
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE
    return stream


def _decoded(moment: _Moment) -> Picture:
    samples = moment.frame.to_ndarray(format="rgb24")
    colour = torch.from_numpy(np.ascontiguousarray(samples.transpose(2, 0, 1), dtype=np.float32)).div_(255)
    return Picture(colour[None])


def _encoded(picture: Picture, moment: _Moment, encoder: VideoStream) -> av.VideoFrame:
    import av

    samples = picture.colour[0].clamp(0, 1).mul(255).round().permute(1, 2, 0).to(torch.uint8)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(samples.numpy()), format="rgb24")
    frame = frame.reformat(format=encoder.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG")
    frame.pts, frame.time_base = moment.time, moment.unit
    return frame


def _check_encoder() -> None:
    with extra("video"):
        import av
    if ENCODER not in av.codecs_available:
        raise RuntimeError(
            f"PyAV's FFmpeg has no encoder {ENCODER}; install PyAV's own build with: pip install --force-reinstall av"
        )


@contextmanager
def _opened(path: Path, argument: str) -> Iterator[InputContainer]:
    with _reading(path, argument):
        import av

        film = av.open(path)
    with film:
        yield film


@contextmanager
def _reading(path: Path, argument: str) -> Iterator[None]:
    """Say of FFmpeg's errors which file they are about."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise ValueError(f"{argument}: cannot read {path} as a film ({error.strerror}).") from error
