"""Files that are read and files that are written must be apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from patchattn.cli.streams import is_stream

__all__ = ["check_apart"]


def check_apart(written: Mapping[str, Path | None], read: Mapping[str, Path | None]) -> None:
    """Refuse to write over what is read, or twice to one place. Both are named as the user knows them."""
    check_one_stream(read)
    check_one_stream(written)
    taken = {path.resolve(): argument for argument, path in read.items() if path is not None and not is_stream(path)}
    for argument, path in written.items():
        if path is None or is_stream(path):
            continue
        other = taken.setdefault(path.resolve(), argument)
        if other != argument:
            kind = "folders" if path.is_dir() else "files"
            raise ValueError(f"{argument}: {path} is also {other}; expected two different {kind}.")


def check_one_stream(paths: Mapping[str, Path | None]) -> None:
    """Refuse `-` for two arguments: there is one standard input, and one standard output."""
    streams = [argument for argument, path in paths.items() if is_stream(path)]
    if len(streams) > 1:
        raise ValueError(f"{streams[1]}: - is {streams[0]} already; expected a file for one of the two.")
