"""What all visitors share: two lanes of work, a folder, and limits."""

from __future__ import annotations

import base64
import binascii
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchattn.demo.lane import Lane
from patchattn.demo.limits import Limits

__all__ = ["House", "write_painted"]

KEPT = 2 * 3600
"""Seconds for which results can be downloaded."""
LARGEST_MASK = 2**24
"""Characters of a painted mask; black and white compress well."""
PNG = "data:image/png;base64,"


@dataclass(frozen=True)
class House:
    """Small things are done in one lane, what takes long in the other, so that none waits for a moment's work."""

    folder: Path
    limits: Limits
    desk: Lane
    bench: Lane

    def job(self, job: str, **asked: Any) -> dict[str, Any]:
        """A job with a new folder, whose name nobody can guess."""
        self._forget()
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir()
        return {"job": job, "folder": str(folder), "megapixels": self.limits.megapixels, **asked}

    def close(self) -> None:
        """End both lanes' processes."""
        self.desk.close()
        self.bench.close()

    def _forget(self) -> None:
        for folder in self.folder.iterdir():
            if folder.stat().st_mtime < time.time() - KEPT:
                shutil.rmtree(folder, ignore_errors=True)


def write_painted(painted: str, folder: Path) -> str:
    """Write what was painted, which comes as the text of a PNG, and return its path."""
    if not painted.startswith(PNG) or len(painted) > LARGEST_MASK:
        raise ValueError("What was painted did not arrive; please reload the page and paint again.")
    path = folder / "painted.png"
    try:
        path.write_bytes(base64.b64decode(painted[len(PNG) :], validate=True))
    except binascii.Error as error:
        raise ValueError("What was painted arrived damaged; please paint again.") from error
    return str(path)
