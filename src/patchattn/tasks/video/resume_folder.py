"""Resume folder: finished segments and frames in a hidden folder beside the output."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.tasks.files import atomic_writer
from patchattn.tasks.video.encoding import FRAMES_IN_SEGMENT, EncodedFrame, arrays_of, coded_of

__all__ = ["ResumeFolder", "Stateful", "open_resume_folder", "resume_folder_path"]

Arrays = Mapping[str, Any]


class Stateful(Protocol):
    """An object with state that is carried from frame to frame."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore a state."""


def resume_folder_path(output: Path) -> Path:
    """Return the path of the resume folder of an output."""
    # File systems allow names of 255 bytes.
    return output.with_name(f".{os.fsdecode(os.fsencode(output.name)[:200])}.patchattn")


@contextmanager
def open_resume_folder(
    folder: Path, frames: int, fingerprint: str, *, resume: bool, argument: str
) -> Iterator[ResumeFolder]:
    """Create or reopen a resume folder, and remove it at the end.

    Whatever ends the work early, an interruption included, leaves nothing behind, unless `resume`: then finished work
    stays for the next run with it. A process that is killed leaves the folder in any case.

    Args:
        folder: see `resume_folder_path`.
        frames: how many there are to do.
        fingerprint: of all that the work depends on. Work with another one is thrown away.
        resume: go on with what is there.
        argument: name of the output in error messages.

    Raises:
        ValueError: the folder cannot be made, or another process works in it.
    """
    try:
        folder.mkdir(exist_ok=True)
        lock = _locked(folder)
    except BlockingIOError:
        raise ValueError(f"{argument}: another run is writing this file; it works in {folder}.") from None
    except OSError as error:
        raise ValueError(f"{argument}: cannot write in {folder}: {error.strerror}.") from error
    work, whole = ResumeFolder(folder, frames, argument), False
    try:
        work.begin(fingerprint, resume=resume)
        yield work
        whole = True
    finally:
        if whole or not resume or not work.frames:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


class ResumeFolder:
    """Resume folder of one output."""

    def __init__(self, folder: Path, total: int, argument: str) -> None:
        self.folder, self._total, self._argument = folder, total, argument
        self.segments = 0
        """Number of finished segments."""
        self.frames = 0
        """Number of finished frames, those in segments included."""
        self.stale = 0
        """Number of finished frames of other work that were discarded."""
        self._batches: list[Path] = []

    def begin(self, fingerprint: str, *, resume: bool) -> None:
        """Find finished frames, and discard those of other work."""
        named = self.folder / "fingerprint"
        same = False
        with suppress(OSError):
            same = named.read_text(encoding="ascii") == fingerprint
        self._find()
        if not (resume and same):
            self.stale, self.segments, self.frames, self._batches = self.frames, 0, 0, []
        wanted = {named, self.folder / "lock", *self._batches, *map(self._segment, range(self.segments))}
        wanted |= {self._state(self.frames), self._state(self._border())}
        for path in self.folder.iterdir():
            if path not in wanted and not path.is_dir():
                path.unlink(missing_ok=True)
        with atomic_writer(named, argument=self._argument) as file:
            file.write(fingerprint.encode("ascii"))

    def state(self) -> dict[str, Tensor]:
        """State after the last finished frame."""
        arrays = _load(self._state(self.frames))
        return {name: torch.from_numpy(array) for name, array in (arrays or {}).items()}

    def kept(self) -> Iterator[NDArray[Any]]:
        """Yield the finished frames of the unfinished segment."""
        for path in self._batches:
            yield from (_load(path) or {})["samples"]

    def save_frames(self, samples: Sequence[NDArray[Any]], state: Mapping[str, Tensor]) -> None:
        """Save the next frames of the segment, and the state after them."""
        before, after = self.frames, self.frames + len(samples)
        # The state first: frames count only together with it.
        self._save(self._state(after), {name: tensor.numpy() for name, tensor in state.items()})
        batch = self.folder / f"frames-{before:08}-{after:08}"
        self._save(batch, {"samples": np.stack(samples)})
        self.frames = after
        self._batches.append(batch)
        if before != self._border():
            self._state(before).unlink(missing_ok=True)

    def save_segment(self, coded: Sequence[EncodedFrame], state: Mapping[str, Tensor]) -> None:
        """Save a finished segment in place of its frames."""
        before, start = self.frames, self._border()
        self.frames = start + len(coded)
        self._save(self._state(self.frames), {name: tensor.numpy() for name, tensor in state.items()})
        self._save(self._segment(self.segments), arrays_of(coded))
        self.segments += 1
        for path in (*self._batches, self._state(before), self._state(start)):
            if path != self._state(self.frames):
                path.unlink(missing_ok=True)
        self._batches = []

    def coded(self) -> Iterator[EncodedFrame]:
        """Yield all encoded frames in decoding order."""
        for number in range(self.segments):
            arrays = _load(self._segment(number))
            if arrays is None:
                raise ValueError(f"{self._argument}: {self._segment(number)} was changed during the work.")
            yield from coded_of(arrays)

    def _find(self) -> None:
        """Count the finished segments and frames that are there."""
        while _load(self._segment(self.segments)) is not None:
            self.segments += 1
        self.frames = self._border()
        if self.frames and _load(self._state(self.frames)) is None:
            self.segments = self.frames = 0
        batches = {}
        for path in self.folder.iterdir():
            if match := re.fullmatch(r"frames-(\d{8})-(\d{8})", path.name):
                batches[int(match[1])] = (path, int(match[2]))
        reached = self.frames
        whole: list[Path] = []
        while (found := batches.get(reached)) and _load(found[0]) is not None:
            whole.append(found[0])
            reached = found[1]
            if _load(self._state(reached)) is not None:
                # Frames count together with what was carried on after them.
                self._batches, self.frames = list(whole), reached

    def _border(self) -> int:
        """Return the frame at which the finished segments end."""
        return min(self.segments * FRAMES_IN_SEGMENT, self._total)

    def _segment(self, number: int) -> Path:
        return self.folder / f"segment-{number:06}"

    def _state(self, frames: int) -> Path:
        return self.folder / f"state-{frames:08}"

    def _save(self, path: Path, arrays: Arrays) -> None:
        with atomic_writer(path, argument=self._argument) as file:
            np.savez(file, **arrays)


def _load(path: Path) -> dict[str, NDArray[Any]] | None:
    """Load arrays; None if missing or incomplete."""
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, BadZipFile):
        return None


def _locked(folder: Path) -> int:
    """Lock the folder until the returned descriptor is closed or the process ends."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        import fcntl
    except ImportError:  # there is no such lock on Windows
        return descriptor
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
