"""Apply a function to every frame of a video, keeping times and audio."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from patchattn.deprecation import warn_renamed
from patchattn.tasks.files import PathLike, atomic_writer, check_input_file, check_output_file
from patchattn.tasks.images import Image
from patchattn.tasks.video.container_metadata import CONTAINERS
from patchattn.tasks.video.copy_plan import plan_copies
from patchattn.tasks.video.damage import missing_parts, short_pauses
from patchattn.tasks.video.decoded_frames import DecodedFrames, usual_size
from patchattn.tasks.video.dynamic_range import DISPLAYED, describe
from patchattn.tasks.video.encoding import Encoding, check_encoder
from patchattn.tasks.video.pixels import UNSPECIFIED
from patchattn.tasks.video.probe import probe_video
from patchattn.tasks.video.reading import open_video
from patchattn.tasks.video.resume_folder import ResumeFolder, Stateful, open_resume_folder, resume_folder_path
from patchattn.tasks.video.schedule import Schedule, schedule
from patchattn.tasks.video.timeline import format_time
from patchattn.tasks.video.transcoder import Transcoder
from patchattn.tasks.video.video_info import VideoInfo
from patchattn.tasks.warnings import FileWarning

__all__ = ["VIDEO_SUFFIXES", "VideoReport", "check_video_output", "map_video"]

VIDEO_SUFFIXES = (
    ".mp4",
    ".mkv",
    ".mov",
    ".avi",
    ".webm",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".m2ts",
    ".wmv",
    ".flv",
)
"""Extensions of video files; the format is recognized by the content."""

BT709 = 1


@dataclass(frozen=True)
class VideoReport:
    """Outcome of `map_video`."""

    frames: int
    size: tuple[int, int]
    """(height, width) in pixels."""
    rate: Fraction
    """Average frames per second."""
    audio_streams: int
    """Number of copied audio streams."""
    missing: tuple[str, ...] = ()
    """Messages on damaged or missing parts of the source; empty if it is complete."""
    finished_before: int = 0
    """Number of frames finished by an earlier run."""

    @property
    def sounds(self) -> int:  # deprecated name
        """Old name of `audio_streams`."""
        warn_renamed("VideoReport.sounds", "VideoReport.audio_streams")
        return self.audio_streams


def check_video_output(path: PathLike, *, argument: str = "path") -> None:
    """Raise the errors of `map_video` about its output, before the work.

    Raises:
        ValueError: the extension is unknown, or nothing can be written there.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in CONTAINERS:
        raise ValueError(
            f"{argument}: {path} ends in {suffix or 'no extension'}; allowed for a video are .mp4, .mkv and .mov."
        )
    check_output_file(path, argument=argument)


def map_video(
    source: PathLike,
    output: PathLike,
    change: Callable[[Image], Image],
    *,
    state: Stateful | None = None,
    prepare: Callable[[DecodedFrames, int], None] | None = None,
    resume: bool = False,
    settings: str = "",
    progress: Callable[[int, int], None] | None = None,
    source_argument: str = "source",
    output_argument: str = "output",
    resume_argument: str = "resume=True",
) -> VideoReport:
    """Apply `change` to every frame of a video and write the result.

    The source is decoded once before the work, so that all that is wrong with it is known by then: what is damaged, cut
    off, left out or converted is a `FileWarning` each, and what is missing is listed in the result too. What can be
    decoded is written. Where not a single frame can be, that is an error.

    - **Times** are kept, be the rate constant or not; they begin at 0. Where they begin anew in the middle, they go on
      from there; where they are missing, double or out of order, frames are placed between their neighbors. Sound
      stays in step.
    - **Frames** are turned upright, and decoded by the matrix and range stated in the file (where there is none:
      BT.601 up to 576 lines, BT.709 above). High dynamic range and wide color are converted to BT.709. Where the size
      changes, all get the size of most. The shape of pixels is kept.
    - **Encoding** is H.264 at crf 18, in 10 bits where the source has more than 8. Sizes that are even get halved
      chroma, as most players expect.
    - **Other streams** are copied as they are: audio, subtitles, cover images, attached files, chapters, title and
      language. What the container cannot hold is left out.

    One frame at a time is held, however long the video is. The file appears whole or not at all. Finished work is kept
    in a hidden folder beside the output, `.NAME.patchattn`, until the file is there: a process that is killed loses a
    few seconds. An error or an interruption removes the folder, unless `resume`: then it stays for the next run.

    Args:
        source: a video of any format that FFmpeg reads.
        output: .mp4, .mkv or .mov.
        change: called with every frame, in order: an RGB image in BT.709, of 8 or 16 bits. It returns an image of
            the same size.
        state: what `change` carries from frame to frame, if anything; stored with finished work.
        prepare: called before the work with all frames, which can be read more than once, and the number of the first
            one that `change` is called with. Not called where all are finished.
        resume: go on with the finished work of an earlier run; the result has the same bytes as without interruption.
            ResumeFolder on another video, or with other `settings`, is not taken.
        settings: all that the frames depend on beside the video, as a text.
        progress: called with the number of frames done and of all.
        source_argument, output_argument, resume_argument: what messages call these.

    Returns:
        Outcome of `map_video`.

    Raises: ValueError: there is no video to read; or it cannot be written there; or `change` returned another size.
        RuntimeError: the extra `video` is not installed, or its FFmpeg has no H.264 encoder.
    """
    check_video_output(output, argument=output_argument)
    path = check_input_file(source, argument=source_argument)
    target = check_output_file(output, argument=output_argument)
    check_encoder()
    info = probe_video(path, source_argument)
    times = schedule(info)
    encoding = _encoding_of(info, times)
    with open_video(path, source_argument) as container:
        plan = plan_copies(container, info, times, encoding, Path(output), output_argument)
    missing = missing_parts(info, times)
    for note in [*missing, *times.notes, *_conversions(info, times, missing), *plan.notes]:
        _warn(f"{source_argument}: {path}: {note}.")

    job = Transcoder(info, times, encoding, plan, source_argument)
    folder = resume_folder_path(target)
    with open_resume_folder(
        folder, len(times.times), job.fingerprint(settings), resume=resume, argument=output_argument
    ) as work:
        if work.stale:
            why = (
                "of another video or other settings" if resume else f"without {resume_argument} it is not gone on with"
            )
            _warn(f"{output_argument}: {work.stale} finished frames of an interrupted run are thrown away: {why}.")
        before = work.frames
        try:
            job.do(work, change, state, prepare, progress)
            with atomic_writer(output, argument=output_argument) as file:
                missing += _joined(job, work, file, f"{output_argument}: cannot write {output}")
        except BaseException:
            if resume and work.frames:
                _warn(
                    f"{output_argument}: {work.frames} of {len(times.times)} frames are kept in {folder}; "
                    f"go on with {resume_argument}."
                )
            raise
    rate = info.rate or len(times.times) / ((times.end - times.times[0]) * times.unit)
    return VideoReport(len(times.times), (encoding.height, encoding.width), rate, plan.audio_streams, missing, before)


def _encoding_of(info: VideoInfo, times: Schedule) -> Encoding:
    """Choose the encoding of the output by the most common frame format."""
    size = usual_size(info)
    layout = next(layout for _, layout in info.layouts if layout.size == size)
    deep = any(layout.deep for _, layout in info.layouts)
    converted = (layout.primaries, layout.curve) in DISPLAYED
    primaries = BT709 if converted or layout.primaries == UNSPECIFIED else layout.primaries
    curve = BT709 if converted or layout.curve == UNSPECIFIED else layout.curve
    aspect = 1 / info.aspect if layout.turn[0] else info.aspect
    rate = info.rate or 1 / times.step
    return Encoding(*size, deep, rate, times.unit, aspect, primaries, curve)


def _conversions(info: VideoInfo, times: Schedule, missing: tuple[str, ...]) -> list[str]:
    """Return messages on properties of the source's frames that the output does not keep."""
    layouts = [layout for _, layout in info.layouts]
    first = layouts[0]
    notes = []
    if changes := [(start, one.size) for start, one in info.layouts if one.size != _encoding_of(info, times).size]:
        start, (height, width) = changes[0]
        notes.append(
            f"its size changes ({width} x {height} at {format_time(times.seconds[start])}); all frames get one size"
        )
    if not missing and (pauses := short_pauses(info, times)):
        notes.append(pauses)
    if color := describe(first.primaries, first.curve):
        notes.append(f"it is in {color}; it is converted to the standard range and colors of BT.709")
    if any(layout.interlaced for layout in layouts):
        notes.append("it is interlaced; both fields stay in each frame, and the output is not marked as interlaced")
    if any(layout.alpha for layout in layouts) or info.main.metadata.get("alpha_mode") == "1":
        notes.append("its transparency is left out; H.264 has none")
    if any(layout.slanted for layout in layouts):
        notes.append("it asks to be turned by an angle that is no quarter; its frames stay as they are stored")
    if (bits := max(layout.bits for layout in layouts)) > 10:
        notes.append(f"its {bits} bits are written as 10")
    return notes


def _joined(job: Transcoder, work: ResumeFolder, file: BinaryIO, failure: str) -> tuple[str, ...]:
    """Write the output file; returns messages on what could not be copied."""
    import av

    try:
        return tuple(job.join(work, file))
    except av.FFmpegError as error:  # a full disk is reported by the file itself
        raise ValueError(f"{failure}: {error.strerror}.") from error


def _warn(message: str) -> None:
    warnings.warn(message, FileWarning, stacklevel=3)
