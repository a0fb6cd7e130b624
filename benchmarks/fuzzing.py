"""Damaged files for every reader: a sentence or a result, never a crash, a hang, or memory without bounds.

Small valid files of every format (mutations.py) are changed at random and read: as an image, as frames or pages, as a
mask, and as a video. Allowed are a result, and a ValueError in a sentence. Everything else counts as a failure: another
error, the death of the process, more than 10 seconds, and more than 1 GiB of memory beyond what the process had.

    python benchmarks/fuzzing.py [--inputs 24000] [--first 0] [--results FOLDER]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from machine import table
from mutations import mutated, seeds, videos
from page import machine_line, write_page

from patchattn.tasks.images import Image, read_image
from patchattn.tasks.masks import read_mask
from patchattn.tasks.sequences import read_frames
from patchattn.tasks.video import map_video
from patchattn.tasks.warnings import FileWarning

PHOTO = Image(torch.rand(1, 3, 24, 32))
"""The photograph that masks belong to."""
SECONDS = 10
MEMORY = 2**30
BATCH = 200
"""Files that one process reads, so that memory is measured anew."""


def read_photo(data: bytes, folder: Path) -> None:
    read_image(data)


def read_sequence(data: bytes, folder: Path) -> None:
    for _ in read_frames(data):
        pass


def read_hole(data: bytes, folder: Path) -> None:
    path = folder / "mask"
    path.write_bytes(data)
    read_mask(path, PHOTO)


def read_video(data: bytes, folder: Path) -> None:
    path = folder / "clip.mkv"
    path.write_bytes(data)
    map_video(path, folder / "out.mkv", lambda image: image)


READERS: dict[str, Callable[[bytes, Path], None]] = {
    "image": read_photo,
    "frames": read_sequence,
    "mask": read_hole,
    "video": read_video,
}
SHARES = {"image": 0.5, "frames": 0.25, "mask": 0.15, "video": 0.1}


class Late(BaseException):
    """It took too long."""


def try_one(reader: str, data: bytes, folder: Path) -> str:
    """Read a file; returns `read`, `refused` or a failure."""

    def late(*_: object) -> None:
        raise Late

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FileWarning)
            READERS[reader](data, folder)
        outcome = "read"
    except ValueError as error:
        words = str(error)
        outcome = "refused" if words and "\n" not in words.strip() else f"not a sentence: {words!r}"
    except Late:
        outcome = f"longer than {SECONDS} s"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return outcome if grown <= MEMORY else f"{grown / 2**30:.1f} GiB of memory"


def batch(reader: str, files: dict[str, bytes], numbers: range, log: Path) -> None:
    """Read some changed files, and write what came of each to a log."""
    names = sorted(files)
    with tempfile.TemporaryDirectory() as folder, log.open("w") as file:
        for number in numbers:
            name = names[number % len(names)]
            print(json.dumps({"number": number, "name": name}), file=file, flush=True)
            began = time.perf_counter()
            outcome = try_one(reader, mutated(files[name], number), Path(folder))
            seconds = time.perf_counter() - began
            print(json.dumps({"outcome": outcome, "seconds": seconds}), file=file, flush=True)
            gc.collect(0)


def run_batch(reader: str, files: dict[str, bytes], numbers: range, log: Path) -> list[dict[str, Any]]:
    """Do a batch in a child of this process; where the child dies, go on after the file that killed it."""
    found: list[dict[str, Any]] = []
    while numbers:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries print there what they think of damaged files
            batch(reader, files, numbers, log)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        found += [one | other for one, other in zip(lines[::2], lines[1::2], strict=False)]
        if len(lines) % 2 == 0:
            break
        code = os.waitstatus_to_exitcode(status)
        found.append(lines[-1] | {"outcome": f"the process ended with {code}", "seconds": 0.0})
        numbers = range(lines[-1]["number"] + 1, numbers.stop)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=24000)
    parser.add_argument("--first", type=int, default=0, help="number of the first change")
    parser.add_argument("--only", nargs="*", choices=READERS, help="readers")
    parser.add_argument("--results", type=Path, help="folder for fuzzing.md and fuzzing.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    PIL.Image.MAX_IMAGE_PIXELS = None  # as the commands have it
    PIL.Image.preinit()
    sound = {"image": seeds(), "frames": seeds(), "mask": seeds(mask=True), "video": videos()}
    rows, results = [], []
    with tempfile.TemporaryDirectory() as folder:
        for reader in asked.only or READERS:
            files = sound[reader]
            outcomes: list[dict[str, Any]] = []
            last = asked.first + round(asked.inputs * SHARES[reader])
            for start in range(asked.first, last, BATCH):
                outcomes += run_batch(reader, files, range(start, min(start + BATCH, last)), Path(folder, "log"))
            kinds = Counter(one["outcome"] for one in outcomes)
            failures = [one for one in outcomes if one["outcome"] not in ("read", "refused")]
            slowest = max(one["seconds"] for one in outcomes)
            numbers = (len(outcomes), kinds["read"], kinds["refused"], len(failures))
            rows.append([reader, *map(str, numbers), f"{slowest:.2f} s"])
            results.append({"reader": reader, "inputs": len(outcomes), "read": kinds["read"],
                            "refused": kinds["refused"], "failures": failures, "slowest_seconds": slowest})  # fmt: skip
            print(rows[-1], flush=True)
            for one in failures[:20]:
                print("  ", one, flush=True)
    if asked.results:
        parts = [
            "# Damaged files",
            str(__doc__).split("    python")[0].strip(),
            "Measured with `python benchmarks/fuzzing.py --results docs/results`. " + machine_line(),
            table(["read as", "files", "read", "refused in a sentence", "failures", "slowest"], rows),
        ]
        write_page(asked.results, "fuzzing", parts, results)


if __name__ == "__main__":
    main()
