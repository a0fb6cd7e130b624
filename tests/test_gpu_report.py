"""The report from a GPU: what becomes of its rows whatever happens, its pages, and a dry run without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from patchattn import MatchField, patch_attention
from tests.benchmark_modules import BENCHMARKS, benchmark_modules
from tests.cases import normals

pytestmark = pytest.mark.needs("gpu")

MODULES = (
    "process", "gpu_report", "gpu_report_rows", "gpu_report_plan", "gpu_report_page", "gpu_report_parity",
    "gpu_report_exact",
)  # fmt: skip


@pytest.fixture(scope="module")
def tools() -> Iterator[dict[str, ModuleType]]:
    with benchmark_modules(*MODULES) as modules:
        yield modules


@pytest.fixture
def book(tools: dict[str, ModuleType], tmp_path: Path) -> Any:
    return tools["gpu_report_rows"].Book(tmp_path / "book.json", {})


Run = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def run(tools: dict[str, ModuleType], book: Any) -> Run:
    """Run rows `(name, function, arguments, timeout)`, and return what the file says of each."""
    rows, forks = tools["gpu_report_rows"], tools["process"].Forks([], {})

    def run_named(*given: tuple[str, Any, tuple[Any, ...], float], seconds: float = 60.0, **more: Any) -> Any:
        made = [rows.Row("tried", name, function, arguments, timeout) for name, function, arguments, timeout in given]
        rows.run_rows(made, book, forks, 1, time.monotonic() + seconds, **more)
        return {row["name"]: row for row in json.loads(book.path.read_text())["rows"]}

    return run_named


def fine(name: str) -> tuple[str, Any, tuple[Any, ...], float]:
    """A row that answers `{"x": 1}`."""
    return name, dict, ([("x", 1)],), 30.0


def test_what_fails_dies_or_hangs_is_noted_and_the_rest_goes_on(run: Run) -> None:
    found = run(
        fine("before"),
        ("fails", int, ("seven",), 30.0),
        fine("between"),
        ("dies", os._exit, (3,), 30.0),
        ("hangs", time.sleep, (60,), 0.5),
        ("differs", dict, ([("agrees", False), ("reason", "1 is not 2")],), 30.0),
        ("cannot be", dict, ([("impossible", "x is not installed")],), 30.0),
        fine("after"),
    )
    outcomes = {name: row["outcome"] for name, row in found.items()}
    assert outcomes == {
        "before": "done", "fails": "failed", "between": "done", "dies": "failed", "hangs": "failed",
        "differs": "differs", "cannot be": "left out", "after": "done",
    }  # fmt: skip
    assert found["after"]["x"] == 1
    assert "ValueError: invalid literal for int() with base 10: 'seven'" in found["fails"]["reason"]
    assert "Traceback" in found["fails"]["reason"]
    assert "exit code 3" in found["dies"]["reason"]
    assert "took too long" in found["hangs"]["reason"]
    assert found["differs"]["reason"] == "1 is not 2"
    assert found["cannot be"]["reason"] == "x is not installed"


def test_what_is_finished_is_not_run_again(run: Run, book: Any, tools: dict[str, ModuleType]) -> None:
    found = run(fine("done"), ("fails", int, ("seven",), 30.0))
    resumed = tools["gpu_report_rows"].Book.resumed(book.path)
    assert resumed.rows == book.rows == list(found.values())
    # Would answer otherwise, were they run.
    again = run(("done", dict, ([("x", 2)],), 30.0), ("fails", dict, (), 30.0), fine("new"))
    assert again["done"]["x"] == 1
    assert again["fails"]["outcome"] == "failed"
    assert again["new"]["outcome"] == "done"


def test_what_there_is_no_time_for_is_named_and_run_when_resumed(run: Run) -> None:
    expected = {"long": 1000.0, "refused": "would not fit"}
    found = run(fine("long"), fine("refused"), fine("short"), forecast=lambda row: expected.get(row.name, 0.0))
    assert [found[name]["outcome"] for name in ("long", "refused", "short")] == ["left out", "left out", "done"]
    assert found["long"]["reason"] == "would take longer than is left"
    assert found["refused"]["reason"] == "would not fit"
    assert run(fine("late"), seconds=0.0)["late"]["reason"] == "no time left"
    begun = run(("begun", time.sleep, (60,), 60.0), seconds=2.5)["begun"]
    assert begun["outcome"] == "left out"
    assert "not finished" in begun["reason"]
    again = run(fine("long"), fine("late"))
    assert [again[name]["outcome"] for name in ("long", "late")] == ["done", "done"]


def timing(tools: dict[str, ModuleType], operation: str, side: int, **more: Any) -> tuple[Any, dict[str, Any]]:
    """A row of a cell, and what the worker would answer."""
    plan = tools["gpu_report_plan"]
    (row,) = plan.timing_rows([plan.Cell(operation, side, 7, 16, "float32")], "cuda")
    seconds = more.pop("seconds", 0.1)
    answer = {
        "seconds": {"median": seconds, "min": seconds, "max": seconds}, "runs": 3, "compiled": 0,
        "compile_seconds": 0.0, "peak": 10**6 * side, "same_bits": True, "finite": True,
    }  # fmt: skip
    return row, answer | more


def test_a_row_is_foreseen_by_the_nearest_size(tools: dict[str, ModuleType], book: Any) -> None:
    plan = tools["gpu_report_plan"]
    measured, answer = timing(tools, "attention", 512)
    next_row, _ = timing(tools, "attention", 1024)
    assert plan.forecast(next_row, book, 1e12) == plan.UNKNOWN
    book.note(measured, "done", **answer)
    # 0.4 s a call: three that are not timed for certain, and as few as are timed.
    assert plan.forecast(next_row, book, 1e12) == pytest.approx(1 + 0.4 * (3 + 3))
    assert "would take some 2 GB of the device's 2, by 512²" in plan.forecast(next_row, book, 2e9)
    assert plan.forecast(timing(tools, "attention, backward", 1024)[0], book, 1e12) == plan.UNKNOWN
    squared, answer = timing(tools, "SDPA", 512, seconds=2.0)
    book.note(squared, "done", **answer)
    assert plan.forecast(timing(tools, "SDPA", 1024)[0], book, 1e12) == "a call would take some 32 s, by 512²"
    compiled, answer = timing(tools, "FlexAttention", 128, seconds=0.001, first=9.0)
    book.note(compiled, "done", **answer)
    assert 10 < plan.forecast(timing(tools, "FlexAttention", 256)[0], book, 1e12) < 11
    book.note(timing(tools, "FlexAttention", 256)[0], "failed", "no kernel")
    assert plan.forecast(timing(tools, "FlexAttention", 512)[0], book, 1e12) == "failed at 256²"


def test_the_plan_begins_with_the_usual_and_has_every_size(tools: dict[str, ModuleType]) -> None:
    plan = tools["gpu_report_plan"]
    cells = plan.planned_cells()
    assert len(set(cells)) == len(cells)
    assert (cells[0].p, cells[0].channels, cells[0].dtype) == (7, 16, "float32")
    for side in (256, 512, 1024, 2048, 4096):
        for operation in ("search, guided", "search, PatchMatch", "search, exact", "attention", "SDPA, backward"):
            own = {(c.p, c.channels, c.dtype) for c in cells if (c.operation, c.side) == (operation, side)}
            assert len(own) == 3 * 3 * 2
    largest = [n for n, cell in enumerate(cells) if cell.side == 4096]
    assert largest[0] > len(cells) / 50


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ({64: 2.0, 128: 3.0, 256: 4.0}, {64: 1.0, 128: 4.0, 256: 16.0}, "from 128²"),
        ({64: 2.0, 128: 9.0, 256: 4.0}, {64: 3.0, 128: 4.0, 256: 16.0}, "from 256²"),
        ({64: 2.0, 1024: 4.0}, {64: 3.0}, "from 64², the smallest measured"),
        ({64: 2.0, 128: 5.0}, {64: 1.0, 128: 4.0}, "not up to 128²"),
        ({64: 2.0}, {128: 4.0}, "not measured at one size"),
    ],
)
def test_from_which_size_on(tools: dict[str, ModuleType], ours: Any, theirs: Any, expected: str) -> None:
    assert tools["gpu_report_page"].overtakes(ours, theirs) == expected


def test_the_page_says_what_was_measured_what_failed_and_what_is_missing(
    tools: dict[str, ModuleType], book: Any
) -> None:
    rows, counts = (
        tools["gpu_report_rows"],
        json.loads((BENCHMARKS.parent / "docs/results/gpu_roofline.json").read_text()),
    )
    rates = tools["gpu_report_page"].Rates(**counts["rates"])
    device = {
        "device": "A GPU", "python": "3", "torch": "2", "triton": "3", "copy_bytes": 2e12, "product_operations": 5e14,
        "memory": 1e11, "capability": "9.0", "multiprocessors": 100, "clock": 1.5e9, "driver": "1",
    }  # fmt: skip
    parity = rows.Row("parity", "test_x[1]", dict, (), 1.0, {"test": "test_x"})
    book.note(parity, "done", kernels=["attend.attend"], warnings=["not deterministic"])
    book.note(replace(parity, name="test_x[2]"), "differs", "3 of 9 differ", kernels=["attend.attend"])
    book.note(replace(parity, name="test_x[3]"), "failed", "illegal memory access")
    for operation, seconds in (("attention", 0.02), ("attention, backward", 0.05), ("SDPA", 0.5)):
        row, answer = timing(tools, operation, 512, seconds=seconds, same_bits=operation != "SDPA")
        book.note(row, "done", **answer)
    book.note(timing(tools, "attention", 4096)[0], "left out", "no time left")
    facts = {"device": device, "dry_run": False}
    page = tools["gpu_report_page"].page(facts, book.rows, rates, ["attend.attend", "exact.exact"], [])
    assert "| test_x | 1 | 1 | 1 | 0 |" in page
    assert "| attend.attend | 2 | 1 |" in page
    assert "No case reached: exact.exact." in page
    assert "- not deterministic" in page
    assert "3 of 9 differ" in page
    assert "illegal memory access" in page
    assert "| attention | float32 | 20.000 (20.000 to 20.000) |" in page
    assert "500.000 (500.000 to 500.000) (bits change)" in page
    assert "| attention against SDPA | 7 | 16 | float32 | from 512², the smallest measured | not up to 512² |" in page
    assert "- timing, no time left: attention, 4096², p 7, C 16, float32." in page
    # The least bytes of a search and of a weighted mean, in 20 ms.
    (line,) = [line for line in page.splitlines() if line.startswith("| attention | 512² | 7 | 16 | float32 |")]
    *_, megabytes, rate, share, least, of_measured = (cell.strip() for cell in line.strip("|").split("|"))
    megabytes = float(megabytes.replace(",", ""))
    assert float(rate.replace(",", "")) == pytest.approx(megabytes / 20, rel=0.01)
    assert float(share.rstrip("%")) == pytest.approx(megabytes / 20 / 2000 * 100, abs=0.1)
    assert float(of_measured.split(" to ")[0].rstrip("%")) == pytest.approx(
        float(least.split(" to ")[0]) / 20 * 100, abs=1
    )


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_attention_that_is_compared_with_computes_the_same(tools: dict[str, ModuleType]) -> None:
    exact = tools["gpu_report_exact"]
    query, key, value = (normals(1, 16, 16, 16, seed=seed, dtype=torch.float32) for seed in range(3))
    settings: dict[str, Any] = {"similarity": "scaled_dot", "backend": "reference"}
    every = patch_attention(query, key, value, k=256, patch_size=3, method="exact", **settings)
    torch.testing.assert_close(exact.fused_attention(query, key, value, 3), every, rtol=1e-4, atol=1e-5)
    index = torch.randint(0, 256, (1, 1, 3, 16, 16), generator=torch.Generator().manual_seed(0)).int()
    index[:, :, 1:] = (index[:, :, :1] + torch.tensor([7, 60]).view(1, 1, 2, 1, 1)) % 256  # no two are the same
    field = MatchField(index, torch.zeros(index.shape), (16, 16))
    some = patch_attention(query, key, value, patch_size=1, field=field, **settings)
    torch.testing.assert_close(exact.masked_attention(query, key, value, index)(), some, rtol=1e-4, atol=1e-5)


def test_every_operator_and_test_of_parity_has_rows(tools: dict[str, ModuleType]) -> None:
    parity = tools["gpu_report_parity"]
    rows = parity.parity_rows("cuda")
    tested = {row.about["test"] for row in rows}
    assert tested >= set(parity.PROBLEMS)
    assert {name.partition(".")[0] for name in tested - set(parity.PROBLEMS)} == {
        module.rsplit(".", 1)[-1] for module in parity.MODULES
    }
    # It replaces a constant of the interpreter's.
    assert parity.tests_left_out() == ["test_guided_parity.test_bit_for_bit_on_a_line_of_more_than_one_band"]
    assert len({row.name for row in rows}) == len(rows)


def test_a_wrong_kernel_is_seen(
    tools: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    from patchattn.kernels import gpu

    parity, right = tools["gpu_report_parity"], gpu.expand
    assert parity.compare_problem("expand", 1, (5, 4), "cpu")["agrees"]
    monkeypatch.setattr(gpu, "expand", lambda *arguments: right(*arguments) + 1)
    found = parity.compare_problem("expand", 1, (5, 4), "cpu")
    assert not found["agrees"]
    assert "are not the same bits" in found["reason"]
    assert found["kernels"] == ["expand.expand"]


def test_dry_run(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu_report.py"), "--dry-run", "--processes", "1", "--results"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "gpu_report.json").read_text())["rows"]
    assert {row["outcome"] for row in rows} == {"done"}
    assert {row["stage"] for row in rows} == {"parity", "compile", "timing"}
    assert {row["dtype"] for row in rows if row["stage"] == "timing"} == {"float32", "bfloat16"}
    assert "A dry run" in (tmp_path / "gpu_report.md").read_text()


def test_another_report_is_neither_overwritten_nor_mixed(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    (tmp_path / "gpu_report.json").write_text(json.dumps({"facts": {"dry_run": False, "device": {}}, "rows": []}))
    with pytest.raises(SystemExit, match="go on from it with --resume"):
        tools["gpu_report"].Report(tmp_path, 8.0, resume=False, dry_run=False, processes=1)
    with pytest.raises(SystemExit, match="was begun without it; do the same"):
        tools["gpu_report"].Report(tmp_path, 8.0, resume=True, dry_run=True, processes=1)
