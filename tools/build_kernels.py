"""Compile the CPU kernels of the default calls ahead of time, for all CPU levels of this machine's architecture.

python tools/build_kernels.py

The machine code goes into the package of this checkout, as `src/patchattn/kernels/cpu/objects/*.bin`, and from there
into the wheel. It is for the Python, the Numba and the system that run this: what other Pythons' runs have left stays
if it is of the same sources, so that one wheel can serve several.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from numba.core.registry import cpu_target

from patchattn.kernels.cpu.levels import Level, levels_of, supported
from patchattn.kernels.cpu.object_file import ObjectFile
from patchattn.kernels.cpu.shipped import FOLDER, fingerprint, path_of

WORKER = Path(__file__).with_name("kernel_worker.py")
SOURCE = Path(__file__).parents[1] / "src"


def environment(level: Level, cache: Path) -> dict[str, str]:
    """The variables of a process that compiles for a level; what else is set for Numba would show in the code."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    return kept | {
        "NUMBA_CPU_NAME": level.cpu,
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(cache),
        "NUMBA_DISABLE_INTEL_SVML": "1",  # a library that other machines need not have
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(SOURCE),
    }


def start(task: str, level: Level, folder: Path, **pipe: int) -> subprocess.Popen[bytes]:
    """Start a process that writes one level."""
    command = [sys.executable, str(WORKER), task, level.name]
    return subprocess.Popen(command, env=environment(level, folder / level.name), **pipe)


def compile_levels(first: Level, others: list[Level], folder: Path) -> bool:
    """Run the calls at the first level, and compile what they run for all levels; whether all went well."""
    recorder = start("record", first, folder, stdout=subprocess.PIPE)
    compilers = [start("compile", level, folder, stdin=subprocess.PIPE) for level in others]
    processes = [recorder, *compilers]
    try:
        assert recorder.stdout is not None
        while signatures := recorder.stdout.read1(1 << 16):
            for process in compilers:
                assert process.stdin is not None
                process.stdin.write(signatures)
                process.stdin.flush()
        for process in compilers:
            process.communicate()
        codes = [process.wait() for process in processes]
    except BrokenPipeError:  # one of them is gone
        return False
    finally:
        for process in processes:
            process.kill()
    return not any(codes)


def forget_old(levels: tuple[Level, ...]) -> None:
    """Remove what is written anew, and what is of other sources."""
    written = {path_of(level) for level in levels}
    for path in FOLDER.glob("*.bin"):
        if path in written or sources_of(path) != fingerprint():
            path.unlink()


def sources_of(path: Path) -> str | None:
    """The digest of the sources that a file was made of; None if the file cannot be read."""
    try:
        return ObjectFile(path).stamp["sources"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def main() -> None:
    begun = time.monotonic()
    target = cpu_target.target_context.codegen().magic_tuple()
    levels = levels_of(target[0])
    runs = [level for level in levels if supported(level, *target[1:])]
    if not runs:
        raise SystemExit(f"nothing is compiled ahead for {target[0]}, {target[1]}: see levels.py for what is.")
    forget_old(levels)
    with tempfile.TemporaryDirectory() as folder:
        done = compile_levels(runs[0], [level for level in levels if level != runs[0]], Path(folder))
    if not done:
        for level in levels:
            path_of(level).unlink(missing_ok=True)
        raise SystemExit("build_kernels: a process failed; nothing is written.")
    print(f"{len(levels)} levels in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
