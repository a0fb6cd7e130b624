"""What a call takes of memory, and measurements in processes of their own; shared by all benchmarks.

Linux only: the peak is read from /proc/self/status and reset through /proc/self/clear_refs.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

MIB = 2**20
T = TypeVar("T")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def peak_beyond(function: Callable[[], T]) -> tuple[int, T]:
    """Bytes by which the peak during a call lies above what was resident before it, and what it returned."""
    # What was freed before stays resident, and a call that used it again would seem to take nothing.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    answer = function()
    return _status("VmHWM") - before, answer


def in_fresh_process(command: Sequence[str]) -> dict[str, Any]:
    """Run a command that prints JSON as its last line; what it says on stderr is shown."""
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


class Forks:
    """Processes that begin as copies of one that has imported some modules and done nothing else: as good as fresh
    ones for what is measured beyond their beginning, and there at once.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        os.environ.update(environment)  # what they are copied from is started with these
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(modules))

    def call(self, function: Callable[..., Any], *arguments: Any, timeout: float) -> Any:
        """What a function of a module returns; TimeoutError after so many seconds."""
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_answer, args=(theirs, function, arguments))
        process.start()
        theirs.close()
        try:
            if not ours.poll(timeout):
                raise TimeoutError(f"{function.__name__}{arguments} took more than {timeout:g} seconds")
            return ours.recv()
        except EOFError as error:
            raise RuntimeError(f"{function.__name__}{arguments} ended without an answer") from error
        finally:
            process.kill()
            process.join()


def _answer(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    pipe.send(function(*arguments))
    pipe.close()
