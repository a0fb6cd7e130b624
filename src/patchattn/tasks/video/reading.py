"""Opening and demuxing of video files, with FFmpeg's error messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchattn.extras import extra

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

__all__ = ["MAX_ERRORS", "ffmpeg_errors", "ffmpeg_logging", "open_video", "packets_of"]

MAX_ERRORS = 50
"""Number of consecutive errors without a packet after which reading ends."""


@contextmanager
def open_video(path: Path, argument: str) -> Iterator[InputContainer]:
    """Open a video.

    FFmpeg gets the open file, so that names of any bytes are read, and names with a colon are no addresses. It opens
    nothing else: what looks like a play list reaches no other file.

    Raises:
        ValueError: FFmpeg does not know the format, or it is that of a single image.
    """
    with extra("video"):
        import av
    if not path.stat().st_size:
        raise ValueError(f"{argument}: {path} is empty; expected a video.")
    with path.open("rb") as file:
        container: Any = None
        with ffmpeg_logging(), ffmpeg_errors() as messages:
            container = av.open(
                file, container_options={"protocol_whitelist": "none"}, metadata_errors="surrogateescape"
            )
        if container is None:
            # The first is the cause, where FFmpeg reported one.
            raise ValueError(f"{argument}: cannot read {path} as a video ({messages[0].rstrip('.')}).")
        with container:
            if container.format.name.endswith("_pipe"):
                raise ValueError(f"{argument}: {path} holds an image ({container.format.name[:-5]}), not a video.")
            yield container


@contextmanager
def ffmpeg_logging() -> Iterator[None]:
    """Enable FFmpeg's error messages, which `ffmpeg_errors` collects."""
    import av.logging

    before = av.logging.get_level()
    repeated = av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        yield
    finally:
        av.logging.set_level(before)
        av.logging.set_skip_repeated(repeated)


@contextmanager
def ffmpeg_errors() -> Iterator[list[str]]:
    """Collect the errors that FFmpeg logs or raises inside the block."""
    import av
    import av.logging

    messages: list[str] = []
    with av.logging.Capture() as logs:
        try:
            yield messages
        except av.FFmpegError as error:
            messages.append(error.strerror or str(error))
    messages[:0] = [message.strip() for _, _, message in logs]


def packets_of(container: InputContainer) -> Iterator[tuple[av.Packet[Any] | None, list[str]]]:
    """Yield the packets of all streams with the errors before each; None where there is only an error.

    Reading goes on after errors as long as packets come.
    """
    errors = 0
    packets = container.demux()
    while errors < MAX_ERRORS:
        packet = None
        ended = False
        with ffmpeg_errors() as messages:
            try:
                packet = next(packets, None)
            except IndexError:  # PyAV's, at the end, where a stream began after the head
                packet = None
            ended = packet is None
        if ended:
            if messages:
                yield None, messages
            return
        if packet is None:  # an error was raised, which ends that generator
            errors += 1
            packets = container.demux()
            yield None, messages
        else:
            errors = 0
            yield packet, messages
