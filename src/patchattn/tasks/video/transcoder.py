"""Transcoding of a video: unfinished frames are changed and encoded, then all segments are joined."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from numpy.typing import NDArray
from torch import Tensor

from patchattn.tasks.images import Image
from patchattn.tasks.video.copy_plan import CopyPlan
from patchattn.tasks.video.encoding import FRAMES_IN_SEGMENT, Encoding, SegmentEncoder
from patchattn.tasks.video.muxer import Muxer
from patchattn.tasks.video.pixels import image_of, samples_of
from patchattn.tasks.video.probe import decoder_of
from patchattn.tasks.video.reading import ffmpeg_errors, open_video, packets_of
from patchattn.tasks.video.resume_folder import ResumeFolder, Stateful
from patchattn.tasks.video.schedule import Schedule
from patchattn.tasks.video.video_info import VideoInfo

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

__all__ = ["Transcoder"]

SAVE_INTERVAL = 2.0
"""Seconds between saves of finished frames."""


@dataclass(frozen=True)
class Transcoder:
    """Transcoder of one video."""

    info: VideoInfo
    times: Schedule
    encoding: Encoding
    plan: CopyPlan
    source_argument: str

    def fingerprint(self, settings: str) -> str:
        """Return a digest of everything that finished frames depend on."""
        import av

        from patchattn import __version__

        versions = [__version__, av.__version__, str(FRAMES_IN_SEGMENT)]
        parts = [*versions, self.info.digest, repr(self.times.times), repr(self.encoding), settings]
        return blake2b(json.dumps(parts).encode("ascii"), digest_size=16).hexdigest()

    def do(
        self,
        work: ResumeFolder,
        change: Callable[[Image], Image],
        state: Stateful | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Change and encode all unfinished frames."""
        total = len(self.times.times)
        if state is not None and 0 < work.frames < total:
            state.load_state_dict(work.state())
        encoder = SegmentEncoder(self.encoding)
        for number, samples in enumerate(work.kept(), work.segments * FRAMES_IN_SEGMENT):
            encoder.add(samples, self.times.times[number])
        unsaved: list[NDArray[Any]] = []
        saved = time.monotonic()
        for number, frame in self._frames(work.frames):
            samples = self._changed(change, frame, number)
            encoder.add(samples, self.times.times[number])
            unsaved.append(samples)
            ends = (number + 1) % FRAMES_IN_SEGMENT == 0 or number + 1 == total
            if ends or time.monotonic() - saved > SAVE_INTERVAL:
                carried: dict[str, Tensor] = {} if state is None else state.state_dict()
                if ends:
                    work.save_segment(encoder.finish(), carried)
                    encoder = SegmentEncoder(self.encoding)
                else:
                    work.save_frames(unsaved, carried)
                unsaved, saved = [], time.monotonic()
            if progress is not None:
                progress(number + 1, total)

    def join(self, work: ResumeFolder, file: BinaryIO) -> list[str]:
        """Write the output file; returns messages on what could not be copied."""
        streams = self.plan.streams
        with (
            open_video(self.info.path, self.source_argument) as source,
            Muxer(file, self.plan.container, source, self.info, self.times, self.encoding, streams) as muxer,
        ):
            return muxer.write(work.coded())

    def _changed(self, change: Callable[[Image], Image], frame: av.VideoFrame, number: int) -> NDArray[Any]:
        size = self.encoding.size
        changed = change(image_of(frame, size))
        if changed.size != size:
            raise ValueError(f"change: frame {number} became {changed.size}; expected {size}, (height, width).")
        return samples_of(changed, deep=self.encoding.deep)

    def _frames(self, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the unfinished frames with their indices."""
        total, number = len(self.times.times), 0
        if first == total:
            return
        for frame in self._decoded():
            if first <= number < total:
                yield number, frame
            number += 1
        if number != total:
            raise ValueError(
                f"{self.source_argument}: {self.info.path} changed during the work: {number} frames came instead of "
                f"{total}."
            )

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Decode all frames, as `probe_video` does."""
        with open_video(self.info.path, self.source_argument) as container:
            decoder = decoder_of(cast("VideoStream", container.streams[self.info.main.index]))
            for packet, _ in packets_of(container):
                if packet is not None and packet.size and packet.stream_index == self.info.main.index:
                    yield from self._frames_in(decoder, packet)
            yield from self._frames_in(decoder, None)

    @staticmethod
    def _frames_in(decoder: av.VideoCodecContext, packet: av.Packet[Any] | None) -> list[av.VideoFrame]:
        frames: list[av.VideoFrame] = []
        with ffmpeg_errors():
            frames += decoder.decode(packet)
        return frames
