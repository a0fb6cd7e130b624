"""Transcoding of a video: unfinished frames are changed and encoded, then all segments are joined."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, BinaryIO

from numpy.typing import NDArray
from torch import Tensor

from patchattn.tasks.images import Image
from patchattn.tasks.video.copy_plan import CopyPlan
from patchattn.tasks.video.decoded_frames import DecodedFrames
from patchattn.tasks.video.encoding import FRAMES_IN_SEGMENT, Encoding, SegmentEncoder
from patchattn.tasks.video.muxer import Muxer
from patchattn.tasks.video.pixels import samples_of
from patchattn.tasks.video.reading import open_video
from patchattn.tasks.video.resume_folder import ResumeFolder, Stateful
from patchattn.tasks.video.schedule import Schedule
from patchattn.tasks.video.video_info import VideoInfo

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
        prepare: Callable[[DecodedFrames, int], None] | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Change and encode all unfinished frames."""
        total = len(self.times.times)
        if prepare is not None and work.frames < total:
            prepare(self.frames(), work.frames)
        if state is not None and 0 < work.frames < total:
            state.load_state_dict(work.state())
        encoder = SegmentEncoder(self.encoding)
        for number, samples in enumerate(work.kept(), work.segments * FRAMES_IN_SEGMENT):
            encoder.add(samples, self.times.times[number])
        unsaved: list[NDArray[Any]] = []
        saved = time.monotonic()
        for number, frame in enumerate(self.frames().starting_at(work.frames), work.frames):
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

    def frames(self) -> DecodedFrames:
        """The source's frames."""
        return DecodedFrames(self.info, self.encoding.size, self.source_argument)

    def _changed(self, change: Callable[[Image], Image], frame: Image, number: int) -> NDArray[Any]:
        size = self.encoding.size
        changed = change(frame)
        if changed.size != size:
            raise ValueError(f"change: frame {number} became {changed.size}; expected {size}, (height, width).")
        return samples_of(changed, deep=self.encoding.deep)
