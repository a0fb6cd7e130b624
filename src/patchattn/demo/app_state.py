"""The state that all visitors share: job queues, file storage, and limits."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from patchattn.demo.http import HTTPError
from patchattn.demo.job_queue import JobError, JobQueue
from patchattn.demo.process import JobReport, JobRequest, WorkerProcess
from patchattn.demo.storage import EntryGoneError, Owner, Storage
from patchattn.demo.visitor_limits import VisitorLimits

__all__ = ["AppState", "owner_of", "with_request"]

QUICK_JOB_SECONDS = 60.0
"""Time limit of a job in the quick queue; one that takes longer has something wrong with its file."""

Event = TypeVar("Event", bound=Callable[..., Any])


@dataclass(frozen=True)
class AppState:
    """Shared state of the page, with one queue for quick jobs and one for long jobs, so that none waits for the other.

    The quick queue has two worker processes, of which no visitor occupies both: whoever opens a thousand images keeps
    nobody else waiting.
    """

    storage: Storage
    limits: VisitorLimits
    quick_queue: JobQueue
    long_queue: JobQueue

    @classmethod
    def build(cls, folder: Path, limits: VisitorLimits) -> AppState:
        """Create the state, with visitors' files in this folder."""
        lengths = limits.waiting, limits.visitor_waiting
        quick_queue = JobQueue(*lengths, workers=2, start=lambda: WorkerProcess(QUICK_JOB_SECONDS), keep_running=True)
        return cls(Storage(folder, limits), limits, quick_queue, JobQueue(*lengths))

    async def run_job(
        self, queue: JobQueue, owner: Owner, job: JobRequest, reads: Collection[str]
    ) -> AsyncGenerator[JobReport]:
        """Run a job that reads these entries of the storage and writes a new one; yield its reports.

        The last report is `{"result": ...}`, with the new entry's `id` in the result. Without one nothing is kept.

        Raises:
            JobError: a limit is reached, an entry is gone, or as `JobQueue.run` does.
            JobStoppedError: as `JobQueue.run` does.
        """
        queue.check_length(owner.visitor)  # before a folder is made
        with _as_job_errors():
            entry = self.storage.add(owner)
        job = job | {"folder": str(entry.folder), "megapixels": self.limits.megapixels}
        done = False
        try:
            async with contextlib.aclosing(self.run_query(queue, owner, job, [*reads, entry.id])) as reports:
                async for report in reports:
                    if "result" in report:
                        with _as_job_errors():
                            self.storage.update_size(entry)
                        report["result"]["id"] = entry.id
                        done = True
                    yield report
        finally:
            if not done:
                self.release(owner, [entry.id])

    async def run_query(
        self, queue: JobQueue, owner: Owner, job: JobRequest, reads: Collection[str]
    ) -> AsyncGenerator[JobReport]:
        """Run a job that reads these entries of the storage and writes nothing; yield its reports."""
        try:
            with self.storage.using(reads, owner.visitor):
                async with contextlib.aclosing(queue.run(owner.visitor, _key(owner, job["job"]), job)) as reports:
                    async for report in reports:
                        yield report
        except EntryGoneError as error:
            raise JobError(str(error)) from None

    def stop(self, queue: JobQueue, owner: Owner, job: str) -> None:
        """Stop the jobs of this name that a page has started."""
        queue.stop(_key(owner, job))

    def release(self, owner: Owner, entries: Collection[str]) -> None:
        """Remove entries that a page does not show any more, as soon as no job uses them."""
        self.storage.release(entries, owner.visitor)

    async def close(self) -> None:
        """End all worker processes."""
        await self.quick_queue.close()
        await self.long_queue.close()


@contextlib.contextmanager
def _as_job_errors() -> Iterator[None]:
    """Turn the storage's `HTTPError` into a `JobError`."""
    try:
        yield
    except HTTPError as error:
        raise JobError(str(error)) from None


def _key(owner: Owner, job: str) -> str:
    return f"{owner.visitor} {owner.session} {job}"


def owner_of(request: Any) -> Owner:
    """The page that a Gradio event comes from; `SecurityMiddleware` has put the visitor into the scope."""
    return Owner(request.request.scope["patchattn.visitor"], str(request.session_hash))


def with_request(event: Event) -> Event:
    """Have Gradio pass the request to the parameter `request` of an event.

    It does so by the parameter's type, which must be there as a type: as text it could not be found, since Gradio is
    imported in functions alone.
    """
    import gradio as gr

    event.__annotations__["request"] = gr.Request
    return event
