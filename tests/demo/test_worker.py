"""Jobs in worker processes: reports, errors, stopping, time limits."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from patchattn.demo import process
from patchattn.demo.job_queue import JobError, JobQueue, JobStoppedError
from patchattn.demo.process import WorkerProcess
from patchattn.tasks.images import Image, write_image

SETTINGS = {"k": 3, "patch_size": 3, "similarity": "l2", "method": "exact", "temperature": 0.5}


def with_queue(work: Callable[[JobQueue], Awaitable[None]]) -> None:
    """Use a queue in which one job may wait."""

    async def ended() -> None:
        queue = JobQueue(max_waiting=1, max_visitor_waiting=1)
        try:
            await work(queue)
        finally:
            await queue.close()

    asyncio.run(ended())


async def reports_of(queue: JobQueue, owner: str, job: dict[str, Any]) -> list[dict[str, Any]]:
    return [report async for report in queue.run(owner, owner, job)]


def test_jobs_are_reported_and_errors_are_sentences(tmp_path: Path) -> None:
    async def use(queue: JobQueue) -> None:
        job = {
            "job": "open",
            "folder": str(tmp_path),
            "megapixels": 1,
            "path": str(tmp_path / "a.png"),
            "name": "a.png",
        }
        with pytest.raises(JobError, match=r"^The file: there is no file a\.png\.$"):
            await reports_of(queue, "one", job)
        write_image(tmp_path / "a.png", Image(torch.rand(1, 1, 30, 40)))
        reports = await reports_of(queue, "one", job)
        assert reports[0] == {"stage": "reading"}
        assert reports[-1]["result"]["size"] == [30, 40]
        with pytest.raises(JobError, match=r"This should not have happened \(KeyError\)"):
            await reports_of(queue, "one", {"job": "open"})

    with_queue(use)


def test_stopped_work_ends_at_once_and_the_next_begins(tmp_path: Path) -> None:
    async def use(queue: JobQueue) -> None:
        # All pixels with all pixels, which takes many minutes.
        write_image(tmp_path / "a.png", Image(torch.rand(1, 3, 640, 640)))
        job = {"folder": str(tmp_path), "megapixels": 1, "path": str(tmp_path / "a.png"), "name": "a.png"}
        job |= {"query": job["path"], "key": job["path"], "settings": SETTINGS | {"patch_size": 15}}
        long, short = job | {"job": "field"}, job | {"job": "open"}
        working = asyncio.create_task(reports_of(queue, "one", long))
        waiting = asyncio.create_task(reports_of(queue, "two", short))
        await asyncio.sleep(0.5)
        with pytest.raises(JobError, match="1 jobs are waiting already"):
            await reports_of(queue, "three", short)
        worker = queue._workers[0].process
        assert worker is not None
        queue.stop("one")
        with pytest.raises(JobStoppedError):
            await asyncio.wait_for(working, timeout=60)
        assert worker.returncode == -signal.SIGKILL
        reports = await waiting
        assert reports[0] == {"waiting": 1}
        assert "result" in reports[-1]

    with_queue(use)


def test_work_ends_with_its_server_however_that_ends(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", Image(torch.rand(1, 3, 640, 640)))
    image = str(tmp_path / "a.png")
    settings = SETTINGS | {"patch_size": 15}
    job = {"job": "field", "folder": str(tmp_path), "megapixels": 1, "query": image, "key": image}
    with subprocess.Popen(
        [sys.executable, "-m", "patchattn.demo.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(json.dumps(job | {"settings": settings}) + "\n")
        worker.stdin.flush()
        line = ""
        while "matching" not in line:  # which takes many minutes
            line = worker.stdout.readline()
        worker.stdin.close()
        assert worker.wait(timeout=30) == 0


def test_reports_are_repeated_while_a_job_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A visitor who has left is noticed between two reports, however long a stage takes."""
    monkeypatch.setattr(process, "REPEAT_INTERVAL", 0.01)

    async def use(queue: JobQueue) -> None:
        write_image(tmp_path / "a.png", Image(torch.rand(1, 3, 640, 640)))
        image = str(tmp_path / "a.png")
        job = {"job": "field", "folder": str(tmp_path), "megapixels": 1, "query": image, "key": image}
        reports = queue.run("one", "one", job | {"settings": SETTINGS | {"patch_size": 15}})
        stages = [await anext(reports) for _ in range(5)]
        while stages[-1] != {"stage": "matching"} or stages[-1] != stages[-2]:
            stages.append(await anext(reports))
        worker = queue._workers[0].process
        assert worker is not None
        await reports.aclose()
        assert worker.returncode == -signal.SIGKILL

    with_queue(use)


def test_a_file_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    async def ask() -> None:
        queue = JobQueue(1, 1, start=lambda: WorkerProcess(seconds=0.001))
        with pytest.raises(JobError, match=r"^This took longer than 0\.001 s; try a smaller picture\.$"):
            await reports_of(queue, "one", {"job": "open"})
        assert queue._workers[0].process is None

    asyncio.run(ask())
