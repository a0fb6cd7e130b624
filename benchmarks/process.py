"""What a call takes of memory, and measurements in processes of their own; shared by all benchmarks.

Linux only: the peak is read from /proc/self/status and reset through /proc/self/clear_refs.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import subprocess
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

MIB = 2**20
PATIENCE = 10.0
"""Seconds that a killed process is waited for."""
TRACEBACK_LINES = 25
"""Of a failure's traceback, the last."""
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

    def worker(self) -> Worker:
        """One that answers many calls."""
        return Worker(self._context)

    def call(self, function: Callable[..., Any], *arguments: Any, timeout: float) -> Any:
        """What a function of a module returns, in a process for this call alone; see `Worker.call`."""
        worker = self.worker()
        try:
            return worker.call(function, *arguments, timeout=timeout)
        finally:
            worker.close()


class Worker:
    """A process that answers one call after the other. Where one fails, the next call has a new process: what a failure
    leaves behind, such as a CUDA context that no longer answers, is no matter of theirs.
    """

    _starting = threading.Lock()
    """Several threads may each have a worker; only one at a time may start a process."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._process: Any = None
        self._pipe: Any = None

    def call(self, function: Callable[..., Any], *arguments: Any, timeout: float) -> Any:
        """What a function of a module returns.

        Raises:
            TimeoutError: after so many seconds; the process is killed.
            RuntimeError: the function raised (the message has the end of its traceback), or its process ended.
        """
        if self._process is None:
            self._start()
        what = f"{getattr(function, '__name__', function)}{arguments}"
        try:
            self._pipe.send((function, arguments))
            if not self._pipe.poll(timeout):
                raise TimeoutError(f"{what} took more than {timeout:g} seconds")
            returned, answer = self._pipe.recv()
        except TimeoutError:
            self.close()
            raise
        except (EOFError, OSError) as error:
            code = self.close()
            raise RuntimeError(f"{what} ended without an answer (exit code {code})") from error
        if not returned:
            self.close()
            raise RuntimeError(answer)
        return answer

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_answer, args=(theirs,), daemon=True)
        with self._starting:
            self._process.start()
        theirs.close()

    def close(self) -> int | None:
        """End the process; its exit code, if it had ended by itself."""
        if self._process is None:
            return None
        self._process.join(0.1)
        code: int | None = self._process.exitcode
        self._process.kill()
        # A process whose GPU hangs may be long in ending, or never end.
        self._process.join(PATIENCE)
        self._pipe.close()
        self._process = self._pipe = None
        return code


def _answer(pipe: Any) -> None:
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, function(*arguments)
        except Exception:
            answer = False, "\n".join(traceback.format_exc().strip().splitlines()[-TRACEBACK_LINES:])
        pipe.send(answer)
