"""Commands on a video: one file in, one file out, with times and audio kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from patchattn.cli.image_tool import ImageTool
from patchattn.cli.printing import Report

if TYPE_CHECKING:
    from patchattn.tasks.images import Image
    from patchattn.tasks.video import DecodedFrames, Stateful

__all__ = ["run_video"]


def run_video(
    tool: ImageTool[Any],
    change: Callable[[Image], Image],
    *,
    state: Stateful,
    settings: str,
    prepare: Callable[[DecodedFrames, int], None] | None = None,
) -> Report:
    """Change every frame of the tool's video, and report it; the arguments are those of `map_video`."""
    from patchattn.tasks.peak_memory import peak_memory
    from patchattn.tasks.video import map_video

    began = time.perf_counter()

    def progress(done: int, total: int) -> None:
        tool.stage(f"frame {done + 1} of {total}" if total else f"frame {done + 1}")

    video = map_video(
        tool.source,
        tool.output,
        change,
        state=state,
        prepare=prepare,
        resume=tool.options.resume,
        settings=settings,
        progress=progress,
        source_argument=tool.argument,
        output_argument="--output",
        resume_argument="--resume",
    )
    height, width = video.size
    rate = float(video.rate)
    return Report(
        output=tool.output,
        done=[str(tool.source)],
        finished_before=video.finished_before,
        seconds=time.perf_counter() - began,
        peak_memory=peak_memory(),
        settings=tool.settings,
        model=tool.model.name,
        details={
            "frames": video.frames,
            "height": height,
            "width": width,
            "rate": rate,
            "sounds": video.audio_streams,
            "missing": list(video.missing),
        },
        lines={
            "wrote": f"{tool.output} ({video.frames} frames of {width} x {height}, {rate:.3g} a second)",
            "finished before": video.finished_before if tool.options.resume else None,
            "missing": "\n".join(video.missing) or None,
            "sound": f"{video.audio_streams} copied",
        },
        is_incomplete=bool(video.missing),
    )
