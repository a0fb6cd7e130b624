"""Decoded frames of a video, in the order in which they are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from patchattn.tasks.files import PathLike, check_input_file
from patchattn.tasks.images import Image
from patchattn.tasks.video.pixels import image_of
from patchattn.tasks.video.probe import decoder_of, probe_video
from patchattn.tasks.video.reading import ffmpeg_errors, open_video, packets_of
from patchattn.tasks.video.video_info import VideoInfo

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

__all__ = ["DecodedFrames", "read_video_frames", "usual_size"]


@dataclass(frozen=True)
class DecodedFrames:
    """Frames of one video, which can be decoded more than once."""

    info: VideoInfo
    size: tuple[int, int]
    """(height, width) of the images; frames of other sizes are resized."""
    argument: str
    """Name of the video in error messages."""

    def __len__(self) -> int:
        return len(self.info.frames)

    @property
    def path(self) -> Path:
        """The file."""
        return self.info.path

    @property
    def digest(self) -> str:
        """Digest of the file's frames."""
        return self.info.digest

    @property
    def has_alpha(self) -> bool:
        """Whether there are transparent frames."""
        return any(layout.alpha for _, layout in self.info.layouts)

    def starting_at(self, first: int, *, alpha: bool = False) -> Iterator[Image]:
        """Yield upright BT.709 images from a frame on; with their alpha, or without.

        Raises:
            ValueError: the file has changed since it was probed.
        """
        for frame in self.raw_starting_at(first):
            yield image_of(frame, self.size, alpha=alpha)

    def raw_starting_at(self, first: int) -> Iterator[av.VideoFrame]:
        """Yield frames as they are stored."""
        total, number = len(self), 0
        if first == total:
            return
        for frame in self._decoded():
            if first <= number < total:
                yield frame
            number += 1
        if number != total:
            raise ValueError(
                f"{self.argument}: {self.path} changed during the work: {number} frames came instead of {total}."
            )

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Decode all frames, as `probe_video` does."""
        with open_video(self.path, self.argument) as container:
            decoder = decoder_of(cast("VideoStream", container.streams[self.info.main.index]))
            for packet, _ in packets_of(container):
                if packet is not None and packet.size and packet.stream_index == self.info.main.index:
                    yield from _frames_in(decoder, packet)
            yield from _frames_in(decoder, None)


def read_video_frames(path: PathLike, *, argument: str = "path") -> DecodedFrames:
    """Examine a video whose frames are to be read; all get the size of most.

    Raises:
        ValueError: there is no such file, or no frame of it can be decoded.
        RuntimeError: the extra `video` is not installed.
    """
    info = probe_video(check_input_file(path, argument=argument), argument)
    return DecodedFrames(info, usual_size(info), argument)


def usual_size(info: VideoInfo) -> tuple[int, int]:
    """(height, width) of most of a video's frames, which all get."""
    ends = [*(start for start, _ in info.layouts[1:]), len(info.frames)]
    sizes: Counter[tuple[int, int]] = Counter()
    for (start, layout), end in zip(info.layouts, ends, strict=True):
        sizes[layout.size] += end - start
    return sizes.most_common(1)[0][0]


def _frames_in(decoder: av.VideoCodecContext, packet: av.Packet[Any] | None) -> list[av.VideoFrame]:
    frames: list[av.VideoFrame] = []
    with ffmpeg_errors():
        frames += decoder.decode(packet)
    return frames
