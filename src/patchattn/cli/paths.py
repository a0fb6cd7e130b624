"""What is read and what is written must be apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["check_apart"]


def check_apart(written: Mapping[str, Path | None], read: Mapping[str, Path | None]) -> None:
    """Refuse to write over what is read, or twice to one place. Both are named as the user knows them."""
    taken = {path.resolve(): argument for argument, path in read.items() if path is not None}
    for argument, path in written.items():
        if path is None:
            continue
        other = taken.setdefault(path.resolve(), argument)
        if other != argument:
            kind = "folders" if path.is_dir() else "files"
            raise ValueError(f"{argument}: {path} is also {other}; expected two different {kind}.")
