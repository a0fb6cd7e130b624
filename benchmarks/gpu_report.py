"""Everything that a GPU can tell in minutes: parity of every kernel with the reference, times, memory, the roofline.

First parity, in several processes, for compiling is most of it: the cases of the tests, and every operator at the
sizes of layers. Then all kernels are compiled that are timed, again side by side; then one process times search and
attention, and PyTorch's fused attention beside them, the most informative sizes first. What is left of the time goes to
what is left of parity. Every row runs in a process that may fail, die or hang; what becomes of it is written before the
next begins. Where the time ends, the page names what was left out, and `--resume` goes on from there.

Nothing is installed and no network is asked: PyTorch with Triton, NumPy, jaxtyping and pytest must be there
(benchmarks/gpu_wheels.py collects what is missing).

    PYTHONPATH=src python benchmarks/gpu_report.py [--minutes 8] [--results FOLDER] [--resume] [--dry-run]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from gpu_counts import Rates
from gpu_report_page import page
from gpu_report_parity import kernels_of_the_backend, parity_rows, tests_left_out
from gpu_report_plan import compile_rows, compiled_cells, dry_cells, forecast, planned_cells, timing_rows
from gpu_report_plot import draw
from gpu_report_rows import DIFFERS, DONE, FAILED, Book, Row, run_rows
from gpu_report_timing import device_facts
from process import Forks

from patchattn.tasks.files import atomic_writer

ROOT = Path(__file__).parents[1]
RATES = ROOT / "docs/results/gpu_roofline.json"
NAME = "gpu_report"
PARITY_SHARE, COMPILE_SHARE = 0.35, 0.5
"""Of the time: when parity makes way for the compiler, and that for what is timed."""
RESERVE = 15.0
"""Seconds of the time for imports before, and for the page and its plots behind."""
MOST_PROCESSES = 12
DRY_PARITY = (
    "weighted_sum: p 3", "weighted_sum_backward: p 7, C 16, k 3, bfloat16", "similarity_at: p 1",
    "test_parity.test_attend_and_its_gradient_in_lower_precision", "test_sampling_parity.test_empty_batch",
)  # fmt: skip
DRY_SIZE = (9, 8)


def environment(dry_run: bool) -> dict[str, str]:
    """The variables of the workers, which are what decides whether kernels are compiled."""
    paths = [str(ROOT / "benchmarks"), str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        "TRITON_INTERPRET": "1" if dry_run else "0",
        # What asks whether there is a GPU must not start CUDA in the process that the workers are copies of.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        # Workers may have no processes of their own, in which PyTorch's compiler would compile.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        # Without it PyTorch warns that products may not be repeatable.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


class Report:
    """A report that is being made."""

    def __init__(self, folder: Path, minutes: float, resume: bool, dry_run: bool, processes: int) -> None:
        self.start, self.seconds = time.monotonic(), 60 * minutes
        self.folder, self.dry_run, self.processes = folder, dry_run, processes
        self.device = "cpu" if dry_run else "cuda"
        self.book = self._opened(resume)
        self.forks = Forks(["gpu_report_parity", "gpu_report_timing"], environment(dry_run))

    def _opened(self, resume: bool) -> Book:
        path = self.folder / f"{NAME}.json"
        if path.exists() and not resume:
            sys.exit(f"--results: {path} is there; go on from it with --resume, or give another folder.")
        self.folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return Book(path, {"dry_run": self.dry_run, "device": {}})
        book = Book.resumed(path)
        if book.facts["dry_run"] != self.dry_run:
            sys.exit(f"--dry-run: {path} was begun {'with' if book.facts['dry_run'] else 'without'} it; do the same.")
        return book

    def until(self, share: float) -> float:
        """When so much of the time is over."""
        return self.start + max(0.0, self.seconds - RESERVE) * share

    def find_device(self) -> None:
        """Ask what the device is, or end the program where there is none."""
        worker = self.forks.worker()
        try:
            found = worker.call(device_facts, self.device, timeout=120)
        except (RuntimeError, TimeoutError) as error:
            sys.exit(f"There is no GPU that answers (--dry-run needs none):\n{error}")
        finally:
            worker.close()
        before = self.book.facts["device"].get("device", found["device"])
        if before != found["device"]:
            sys.exit(f"--resume: the report was begun on {before}, and this is {found['device']}; give another folder.")
        self.book.facts["device"] = found
        self.book.write()

    def run(self) -> None:
        """All stages. Those rows of parity that its share of the time is too short for come again at the end."""
        parity = parity_rows(self.device, DRY_SIZE) if self.dry_run else parity_rows(self.device)
        cells, compiled = planned_cells(), compiled_cells()
        if self.dry_run:
            parity = [row for row in parity if row.name.startswith(DRY_PARITY)]
            cells, compiled = dry_cells(), dry_cells()[:1]
        memory = self.book.facts["device"].get("memory", float("inf"))
        stages = (
            (parity, self.processes, PARITY_SHARE, None),
            (compile_rows(compiled, self.device), self.processes, COMPILE_SHARE, None),
            (timing_rows(cells, self.device), 1, 1.0, lambda row: forecast(row, self.book, memory)),
            (parity, self.processes, 1.0, None),
        )
        for rows, workers, share, expected in stages:
            self._stage(rows, workers, self.until(share), expected)

    def _stage(self, rows: list[Row], workers: int, until: float, expected: Any) -> None:
        more = {} if expected is None else {"forecast": expected}
        run_rows(rows, self.book, self.forks, workers, until, **more)
        outcomes = [self.book.outcome(row) for row in rows]
        counted = ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes))
        print(f"[{time.monotonic() - self.start:4.0f} s] {rows[0].stage}: {counted}", flush=True)
        self.write([])

    def write(self, plots: list[Path]) -> None:
        """Write the page of what is known by now."""
        rates = Rates(**json.loads(RATES.read_text())["rates"])
        unreached = [*sorted(kernels_of_the_backend()), *tests_left_out()]
        text = page(self.book.facts, self.book.rows, rates, unreached, plots)
        with atomic_writer(self.folder / f"{NAME}.md") as file:
            file.write(text.encode())

    def finish(self) -> int:
        """Draw, write, and say what is wrong; the exit code."""
        self.write(draw(self.folder, [row for row in self.book.of_stage("timing") if row["outcome"] == DONE]))
        faults = [row for row in self.book.rows if row["outcome"] in (DIFFERS, FAILED)]
        for row in faults:
            print(f"{row['outcome']}: {row['stage']}, {row['name']}: {row['reason'].splitlines()[-1]}")
        print(f"wrote {self.folder / NAME}.md and .json after {time.monotonic() - self.start:.0f} s")
        return 1 if faults else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="after which it ends (8)")
    parser.add_argument("--results", type=Path, default=Path("out/gpu_report"), help="the folder of the report")
    parser.add_argument("--resume", action="store_true", help="go on with the report in that folder")
    parser.add_argument("--dry-run", action="store_true", help="a few tiny rows in Triton's interpreter; needs no GPU")
    parser.add_argument(
        "--processes", type=int, default=max(1, min(MOST_PROCESSES, (os.cpu_count() or 1) - 1)),
        help="that compare and compile side by side; one times",
    )  # fmt: skip
    given = parser.parse_args()
    report = Report(given.results, given.minutes, given.resume, given.dry_run, given.processes)
    report.find_device()
    report.run()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
