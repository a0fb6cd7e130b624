"""Jobs and their entries in the storage."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from patchattn.demo.app_state import AppState
from patchattn.demo.job_queue import JobError
from patchattn.demo.storage import Owner
from patchattn.demo.visitor_limits import VisitorLimits


def test_what_fails_or_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    async def ask() -> None:
        state = AppState.build(tmp_path, VisitorLimits(visitor_files=2))
        ann, bob = Owner("ann", "1"), Owner("bob", "1")

        async def results(owner: Owner, reads: list[str], **job: Any) -> list[dict[str, Any]]:
            reports = state.run_job(state.quick_queue, owner, {"job": "sample", "sample": "small-cat"} | job, reads)
            return [report["result"] async for report in reports if "result" in report]

        try:
            with pytest.raises(JobError, match="There is no sample dog"):
                await results(ann, [], sample="dog")
            assert list(tmp_path.iterdir()) == []
            (first,) = await results(ann, [])
            with pytest.raises(JobError, match="no longer kept here"):
                await results(bob, [first["id"]])
            (second,) = await results(ann, [first["id"]])
            with pytest.raises(JobError, match="You have 2 files here"):
                await results(ann, [])
            assert {path.name for path in tmp_path.iterdir()} == {first["id"], second["id"]}
            assert state.storage.used("ann") == sum(path.stat().st_size for path in tmp_path.rglob("*.png"))
            state.release(bob, [first["id"]])
            state.release(ann, [first["id"], second["id"]])
            assert list(tmp_path.iterdir()) == []
        finally:
            await state.close()

    asyncio.run(ask())
