"""Sequences of frames, read from folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from patchattn.checks import check_choice, check_count
from patchattn.tasks.codecs import FORMATS
from patchattn.tasks.folders import ON_ERROR
from patchattn.tasks.images import read_image

__all__ = ["FrameSequence", "read_sequences"]


@dataclass(frozen=True)
class FrameSequence:
    """Frames of one scene."""

    name: str
    frames: Tensor
    """(frames, 3, height, width), uint8: thousands of frames fit into memory, and no step waits for a disk."""

    def __len__(self) -> int:
        return len(self.frames)


def read_sequences(
    folder: Path,
    *,
    size: int,
    on_error: str = "stop",
    warn: Callable[[str], None] = print,
    progress: Callable[[int, int], None] | None = None,
) -> list[FrameSequence]:
    """Read a folder of folders of frames, each resized to `size` x `size` (as section 4.3.1 of PSAL has it).

    Args:
        folder: holds one folder for each sequence, with frames in the order of their names.
        size: pixels in each dimension; all frames take 3 size² bytes each.
        on_error: what a file that cannot be read does: `"stop"` the reading, or `"skip"` the file.
        warn: called with a message for every file that is skipped, and every sequence with fewer than two frames.
        progress: called with (files read, files in all).

    Returns:
        The sequences of at least two frames, by name.

    Raises:
        ValueError: there is no such folder, it holds no sequence, or a file cannot be read and `on_error` is "stop".
    """
    check_choice("on_error", on_error, ON_ERROR)
    check_count("size", size, 8)
    if not folder.is_dir():
        raise ValueError(f"data: there is no folder {folder}; expected one that holds a folder of frames per sequence.")
    files = {
        entry.name: sorted(path for path in entry.iterdir() if path.suffix.lower() in FORMATS)
        for entry in sorted(folder.iterdir())
        if entry.is_dir()
    }
    total, done = sum(map(len, files.values())), 0
    sequences: list[FrameSequence] = []
    for name, paths in files.items():
        frames = []
        for path in paths:
            try:
                frames.append(_frame(path, size))
            except ValueError as error:
                if on_error == "stop":
                    raise ValueError(f"{error} (With on_error 'skip' training goes on without it.)") from error
                warn(f"left out: {error}")
            done += 1
            if progress is not None:
                progress(done, total)
        if len(frames) >= 2:
            sequences.append(FrameSequence(name, torch.stack(frames)))
        elif paths:
            warn(f"left out: {folder / name} has {len(frames)} readable frame(s); a pair takes two.")
    if not sequences:
        raise ValueError(
            f"data: {folder} holds no folder with two or more frames ({', '.join(FORMATS)}); "
            "expected one folder for each sequence."
        )
    return sequences


def _frame(path: Path, size: int) -> Tensor:
    color = read_image(path, argument="data").color.expand(-1, 3, -1, -1)
    small = functional.interpolate(color, (size, size), mode="bilinear", antialias=True)
    return small[0].clamp(0, 1).mul(255).round().to(torch.uint8)
