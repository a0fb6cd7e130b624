"""Faults injected into every command that writes: old results stay whole, no new one is cut, nothing is left behind.

Each command runs once without a fault, which gives the bytes that are right. Then it runs again and again with one
fault each: a full disk, an exception, SIGTERM, SIGINT or SIGKILL at each write, flush, rename and record (ten evenly
chosen ones where there are more), and at each tenth of its work. After each: files that were there hold their old bytes
or the right ones; so do new ones; there is no temporary file (but after SIGKILL, which nobody can answer); a fault is
not reported as success, and is told in a sentence without a traceback. Then the command is run once more (with --resume
where it has that), and must end in the right bytes.

    python benchmarks/faults.py [--only upscale ...] [--results FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from fault_points import FAULTS, POINTS, Fault, count_points, inject
from machine import table
from page import machine_line, write_page
from PIL import Image

from patchattn.cli.app import app

MOST = 10
"""Points of one kind at which faults are injected; evenly chosen ones of more."""
OWN = ".patchattn-"
"""How names of files begin that let a later run go on."""
SECONDS = 120
"""A run that lasts longer hangs."""


@dataclass(frozen=True)
class Command:
    """A command and the files that it writes."""

    name: str
    arguments: tuple[str, ...]
    output: str
    resumes: bool = False
    old: bool = True
    """There is an older result."""


# fmt: off
def commands() -> list[Command]:
    """Every command that writes, in every format."""
    small = ("--patch-size", "5")
    single = [
        Command(f"upscale to .{kind}", ("upscale", "photo.png", "-o", f"out.{kind}", *small), f"out.{kind}")
        for kind in ("png", "jpg", "webp", "tif", "bmp")
    ]
    inpaint = ("--quality", "fast", *small)
    return [
        *single,
        Command("inpaint", ("inpaint", "photo.png", "--mask", "mask.png", "-o", "out.png", *inpaint), "out.png"),
        Command("reconstruct", ("reconstruct", "photo.png", "other.png", "-o", "out.png", *small), "out.png"),
        Command("match", ("match", "photo.png", "other.png", "-o", "out.npz", *small), "out.npz"),
        Command("colorize", ("colorize", "photo.png", "other.png", "-o", "out.png", *small), "out.png"),
        Command("upscale a folder", ("upscale", "photos", "-o", "out", *small), "out", True),
        Command("inpaint a folder", ("inpaint", "photos", "--mask", "mask.png", "-o", "out", *inpaint), "out", True),
        Command("colorize a folder", ("colorize", "photos", "other.png", "-o", "out", *small), "out", True),
        Command(
            "colorize a folder from the previous",
            ("colorize", "photos", "other.png", "-o", "out", "--from", "previous", *small),
            "out",
            True,
        ),
        Command("colorize a video", ("colorize", "clip.mkv", "other.png", "-o", "out.mkv", *small), "out.mkv", True),
        Command(
            "train colorization",
            ("train", "colorization", "--data", "sequences", "-o", "run", "--steps", "6", "--checkpoint-every", "2",
             "--size", "16", "--sample-every", "3", "--patch-size", "3"),
            "run",
            True,
            old=False,
        ),
    ]
# fmt: on


def prepare(folder: Path) -> None:
    """Write the files that the commands read."""
    photo = skimage.data.coffee()[100:148, 200:264]
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[16:24, 20:30] = 255
    Image.fromarray(photo).save(folder / "photo.png")
    Image.fromarray(skimage.data.coffee()[130:180, 220:280]).save(folder / "other.png")
    Image.fromarray(mask).save(folder / "mask.png")
    for name in ("photos", "sequences/one", "sequences/two"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(np.roll(photo, 3 * number, 1)).save(folder / name / f"{number}.png")
    import av

    with av.open(str(folder / "clip.mkv"), "w") as clip:
        stream = clip.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(photo, number, 1)), format="rgb24")
            clip.mux(stream.encode(frame))
        clip.mux(stream.encode())


def put_old(folder: Path, command: Command) -> None:
    """Write an older result."""
    if not command.old:
        return
    path = folder / command.output
    if path.suffix:
        path.write_bytes(b"an older result")
    else:
        path.mkdir()
        (path / "0.png").write_bytes(b"an older result")


def in_child(folder: Path, work: Callable[[], Any]) -> tuple[int, str]:
    """Run in a child of this process, in a folder; returns the exit code (minus the signal) and its stderr."""
    errors = folder.parent / "stderr"
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.chdir(folder)
            for descriptor in (1, 2):
                os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
            torch.set_num_threads(1)
            import signal

            signal.alarm(SECONDS)
            work()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    text = errors.read_text(errors="replace") if errors.exists() else ""
    errors.unlink(missing_ok=True)
    return os.waitstatus_to_exitcode(status), text


def warm_up(folder: Path, command: Command) -> None:
    """Run a command in this process, so that its children have its kernels loaded; of a video's, that of an image.

    Threads that FFmpeg has had in this process would be missing in its children.
    """
    arguments = [{"clip.mkv": "photo.png", "out.mkv": "out.png"}.get(one, one) for one in command.arguments]
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            app(arguments, prog_name="patchattn", standalone_mode=False)
    finally:
        os.chdir(before)


def contents(folder: Path, output: str) -> dict[str, bytes]:
    """The results, and all that lies beside them under hidden names."""
    path = folder / output
    files = path.rglob("*") if path.is_dir() else [path, *folder.glob(".*"), *folder.glob(".*/**/*")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}


def is_temporary(name: str) -> bool:
    return any(part.startswith(".") and not part.startswith(OWN) for part in Path(name).parts)


def results_of(files: dict[str, bytes]) -> dict[str, bytes]:
    # TensorBoard's log holds the time.
    return {
        name: data
        for name, data in files.items()
        if not Path(name).name.startswith("events.") and not any(part.startswith(".") for part in Path(name).parts)
    }


@dataclass
class Outcome:
    """What was seen of a command."""

    command: str
    points: Counter[str]
    injected: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def chosen(count: int, point: str) -> Iterator[int]:
    most = min(count, MOST)
    yield from sorted({round(number * (count - 1) / max(most - 1, 1)) for number in range(most)})


def examine(command: Command) -> Outcome:
    """Inject every fault into a command."""
    with tempfile.TemporaryDirectory() as name:
        given = Path(name) / "given"
        given.mkdir()
        in_child(given, lambda: prepare(given))

        def fresh() -> Path:
            folder = Path(name) / "work"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(given, folder)
            put_old(folder, command)
            return folder

        def run(*more: str) -> None:
            app([*command.arguments, *more], prog_name="patchattn")

        warm_up(fresh(), command)
        folder = fresh()
        counts_file = Path(name) / "counts"

        def counting() -> None:
            counts = count_points(lambda: app([*command.arguments], prog_name="patchattn", standalone_mode=False))
            counts_file.write_text(json.dumps(counts))

        code, errors = in_child(folder, counting)
        if code:
            raise RuntimeError(f"{command.name} fails without a fault ({code}): {errors}")
        expected = results_of(contents(folder, command.output))
        old = results_of(contents(fresh(), command.output))
        points = Counter(json.loads(counts_file.read_text()))
        outcome = Outcome(command.name, points)
        for point in POINTS:
            for number in chosen(points[point], point) if points[point] else ():
                for kind in FAULTS:
                    if kind == "disk full" and point == "work":
                        continue
                    fault = Fault(point, number, kind)
                    outcome.injected[kind] += 1
                    found = faults_of(command, fault, fresh(), run, expected, old)
                    outcome.failures += [f"{fault}: {one}" for one in found]
        return outcome


def faults_of(
    command: Command,
    fault: Fault,
    folder: Path,
    run: Callable[..., None],
    expected: dict[str, bytes],
    old: dict[str, bytes],
) -> Iterator[str]:
    """Yield all that went wrong with one fault."""

    def faulty() -> None:
        inject(fault)
        run()

    code, errors = in_child(folder, faulty)
    if code == 70 or "Traceback" in errors:
        yield f"a traceback: {errors[-500:]}"
    if code == 0 and fault.kind != "exception":
        # An injected exception may meet a place that is rightly tried, as the flush of a folder is.
        files = results_of(contents(folder, command.output))
        if files != expected:
            yield "reported as success"
    files = contents(folder, command.output)
    for name, data in results_of(files).items():
        if data not in (expected.get(name), old.get(name)) and not name.endswith(("checkpoint.safetensors",)):
            yield f"{name} is neither the old nor the right one ({len(data)} bytes)"
    if not set(old) <= set(files):
        yield "an old result is gone"
    left = [name for name in files if is_temporary(name)]
    if left and fault.kind != "SIGKILL":
        yield f"left behind: {left}"
    again = ("--resume",) if command.resumes else ()
    code, errors = in_child(folder, lambda: run(*again))
    if code:
        yield f"going on failed: {errors[-500:]}"
    elif (files := results_of(contents(folder, command.output))) != expected:
        other = [name for name in expected if files.get(name) != expected[name]]
        yield f"going on ended in other bytes: {other or sorted(set(files) - set(expected))}"


def row_of(outcome: Outcome) -> list[str]:
    """A row of the table."""
    counts = [outcome.points[point] for point in POINTS] + [outcome.injected[kind] for kind in FAULTS]
    return [outcome.command, *map(str, counts), survived(outcome)]


def survived(outcome: Outcome) -> str:
    count = sum(outcome.injected.values())
    bad = len({failure.partition(": ")[0] for failure in outcome.failures})
    return f"{count - bad} of {count}"


def loaded(path: Path) -> list[Outcome]:
    """The outcomes of an earlier run."""
    return [
        Outcome(one["command"], Counter(one["points"]), Counter(one["injected"]), one["failures"])
        for one in json.loads(path.read_text())["results"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="commands whose names begin so")
    parser.add_argument("--join", nargs="*", type=Path, default=[], help="faults.json of other runs, for one page")
    parser.add_argument("--results", type=Path, help="folder for faults.md and faults.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # children of a process with threads of its own would wait for them
    outcomes = [outcome for path in asked.join for outcome in loaded(path)]
    for command in commands():
        if asked.only is not None and not any(command.name.startswith(name) for name in asked.only):
            continue
        outcomes.append(examine(command))
        print(f"{command.name}: survived {survived(outcomes[-1])}; {dict(outcomes[-1].points)}", flush=True)
        for failure in outcomes[-1].failures:
            print("  ", failure, flush=True)
    if asked.results:
        parts = [
            "# Faults injected",
            str(__doc__).split("    python")[0].strip(),
            "Measured with `python benchmarks/faults.py --results docs/results`. " + machine_line(),
            "Points of each kind that a run passes, faults of each kind that were injected, and how many of all were "
            "survived:",
            table(["command", *(f"{point}s" for point in POINTS), *FAULTS, "survived"], list(map(row_of, outcomes))),
        ]
        write_page(asked.results, "faults", parts, [vars(outcome) for outcome in outcomes])


if __name__ == "__main__":
    main()
