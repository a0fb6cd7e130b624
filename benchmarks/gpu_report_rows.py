"""Rows of the report from a GPU: run one after the other in processes that may fail, and kept in a file after each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from process import Forks, Worker

from patchattn.tasks.files import atomic_writer

__all__ = ["DIFFERS", "DONE", "FAILED", "LEFT_OUT", "Book", "Row", "run_rows"]

DONE, DIFFERS, FAILED, LEFT_OUT = "done", "differs", "failed", "left out"
"""What may become of a row. One that was left out is run when the report is resumed."""
LEAST = 2.0
"""Seconds without which no row is begun."""


@dataclass(frozen=True)
class Row:
    """A call of a function of a module, whose answer is a dictionary that JSON can hold."""

    stage: str
    name: str
    """No other row of the stage has it."""
    function: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]
    timeout: float
    about: dict[str, Any] = field(default_factory=dict)
    """What the page needs to know of it, whatever becomes of it."""


class Book:
    """What became of each row. It is written after every one, beside the file and renamed: whatever ends the program,
    the file is whole.
    """

    def __init__(self, path: Path, facts: dict[str, Any], rows: Iterable[dict[str, Any]] = ()) -> None:
        self.path, self.facts = path, facts
        self._rows = {(row["stage"], row["name"]): row for row in rows}
        # Made once for each row: to make a thousand of them anew for every row would take longer than many a row.
        self._lines = {name: json.dumps(row) for name, row in self._rows.items()}
        self._lock = Lock()

    @classmethod
    def resumed(cls, path: Path) -> Book:
        """The book of an earlier run."""
        held = json.loads(path.read_text())
        return cls(path, held["facts"], held["rows"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        with self._lock:
            return list(self._rows.values())

    def of_stage(self, stage: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["stage"] == stage]

    def outcome(self, row: Row) -> str | None:
        """What became of a row; None if nothing did."""
        held = self._rows.get((row.stage, row.name))
        return None if held is None else str(held["outcome"])

    def is_finished(self, row: Row) -> bool:
        return self.outcome(row) not in (None, LEFT_OUT)

    def note(self, row: Row, outcome: str, reason: str = "", **answer: Any) -> None:
        """Keep what became of a row, and write."""
        found = {"stage": row.stage, "name": row.name, **row.about, "outcome": outcome, "reason": reason, **answer}
        with self._lock:
            self._rows[row.stage, row.name] = found
            self._lines[row.stage, row.name] = json.dumps(found)
            self._write()

    def write(self) -> None:
        with self._lock:
            self._write()

    def _write(self) -> None:
        lines = ",\n".join(self._lines.values())
        with atomic_writer(self.path) as file:
            file.write(f'{{"facts": {json.dumps(self.facts)},\n"rows": [\n{lines}\n]}}\n'.encode())


Forecast = Callable[[Row], "float | str"]
"""The seconds that a row will take, or why it is not to be run."""


def run_rows(
    rows: Iterable[Row], book: Book, forks: Forks, workers: int, until: float, forecast: Forecast = lambda row: LEAST
) -> None:
    """Run the rows that are not finished, in their order, in so many processes at once, until `time.monotonic()` is
    `until`.

    An answer with `agrees` False is noted as a difference, one with `impossible`, a reason, as left out; a row that
    raises, whose process ends, or that takes too long, as a failure, and the next row has a new process. Those for
    which no time is left are noted as left out.
    """
    waiting, lock = iter([row for row in rows if not book.is_finished(row)]), Lock()

    def take(worker: Worker) -> bool:
        with lock:
            row = next(waiting, None)
        if row is None:
            return False
        expected, left = forecast(row), until - time.monotonic()
        if isinstance(expected, str):
            book.note(row, LEFT_OUT, expected)
        elif left < max(expected, LEAST):
            # The next may be shorter.
            reason = "no time left" if left < LEAST else "would take longer than is left"
            book.note(row, LEFT_OUT, reason)
        else:
            _run(row, book, worker, left)
        return True

    def work() -> None:
        worker = forks.worker()
        try:
            while take(worker):
                pass
        finally:
            worker.close()

    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(work) for _ in range(workers)]:
            done.result()


def _run(row: Row, book: Book, worker: Worker, left: float) -> None:
    start = time.monotonic()
    try:
        answer = worker.call(row.function, *row.arguments, timeout=min(row.timeout, left))
    except TimeoutError as error:
        if left < row.timeout:
            book.note(row, LEFT_OUT, f"begun, and not finished in the {left:.0f} s that were left")
        else:
            book.note(row, FAILED, f"took too long: {error}")
    except RuntimeError as error:
        book.note(row, FAILED, str(error))
    else:
        if "impossible" in answer:
            book.note(row, LEFT_OUT, answer["impossible"])
            return
        wall = time.monotonic() - start
        book.note(row, DONE if answer.get("agrees", True) else DIFFERS, wall=wall, **answer)
