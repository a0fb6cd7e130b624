"""The reports of a job, turned into what the page shows."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from patchattn.demo import html_helpers
from patchattn.demo.job_queue import JobError, JobStoppedError
from patchattn.demo.process import JobReport

__all__ = ["JobUpdate", "job_updates"]


@dataclass(frozen=True)
class JobUpdate:
    """A change of the page while a job runs, and the last one, when it has ended."""

    status: str
    """HTML."""
    running: bool = False
    result: dict[str, Any] | None = None


async def job_updates(reports: AsyncGenerator[JobReport]) -> AsyncGenerator[JobUpdate]:
    """Run a job of the app state; yield what to show. Whatever happens, the last update is not `running`."""
    stage = "starting"
    yield JobUpdate(html_helpers.progress_html({}, stage), running=True)
    try:
        async with contextlib.aclosing(reports):
            async for report in reports:
                if "result" in report:
                    result = report["result"]
                    message = " ".join([result.get("message", ""), *report["notes"]])
                    yield JobUpdate(html_helpers.done_html(message), result=result)
                    return
                stage = report.get("stage", stage)
                yield JobUpdate(html_helpers.progress_html(report, stage), running=True)
    except JobError as error:
        yield JobUpdate(html_helpers.error_html(str(error)))
    except JobStoppedError:
        yield JobUpdate(html_helpers.done_html("Stopped."))
