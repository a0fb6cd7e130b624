"""What all visitors share: two lanes of work, their files, and limits."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from patchattn.demo.http import Refused
from patchattn.demo.lane import Failed, Lane
from patchattn.demo.limits import Limits
from patchattn.demo.process import WorkerProcess
from patchattn.demo.storage import Gone, Owner, Storage

__all__ = ["House", "owner_of", "with_request"]

DESK_SECONDS = 60.0
"""What the desk does takes a moment, or something is wrong with the file."""

Job = dict[str, Any]
Event = TypeVar("Event", bound=Callable[..., Any])


@dataclass(frozen=True)
class House:
    """Small things are done at the desk, what takes long at the bench, so that none waits for a moment's work.

    At the desk are two processes, of which no visitor has both: whoever opens a thousand pictures waits for them alone.
    """

    storage: Storage
    limits: Limits
    desk: Lane
    bench: Lane

    @classmethod
    def build(cls, folder: Path, limits: Limits) -> House:
        """One whose visitors' files are in this folder."""
        queue = limits.waiting, limits.visitor_waiting
        desk = Lane(*queue, workers=2, start=lambda: WorkerProcess(DESK_SECONDS), ready=True)
        return cls(Storage(folder, limits), limits, desk, Lane(*queue))

    async def work(self, lane: Lane, owner: Owner, job: Job, reads: Collection[str]) -> AsyncGenerator[Job]:
        """Do a job which reads these entries of the storage and writes a new one; yield what is reported of it.

        The last report is `{"result": ...}`, with the new entry's `id` in the result. Without one nothing is kept.

        Raises:
            Failed: a limit is reached, an entry is gone, or as `Lane.run` does.
            Stopped: as `Lane.run` does.
        """
        lane.check_queue(owner.visitor)  # before a folder is made
        with _as_failures():
            entry = self.storage.add(owner)
        job = job | {"folder": str(entry.folder), "megapixels": self.limits.megapixels}
        done = False
        try:
            async with contextlib.aclosing(self.ask(lane, owner, job, [*reads, entry.id])) as reports:
                async for report in reports:
                    if "result" in report:
                        with _as_failures():
                            self.storage.weigh(entry)
                        report["result"]["id"] = entry.id
                        done = True
                    yield report
        finally:
            if not done:
                self.release(owner, [entry.id])

    async def ask(self, lane: Lane, owner: Owner, job: Job, reads: Collection[str]) -> AsyncGenerator[Job]:
        """The same for a job that writes nothing."""
        try:
            with self.storage.using(reads, owner.visitor):
                async with contextlib.aclosing(lane.run(owner.visitor, _key(owner, job["job"]), job)) as reports:
                    async for report in reports:
                        yield report
        except Gone as why:
            raise Failed(str(why)) from None

    def stop(self, lane: Lane, owner: Owner, job: str) -> None:
        """Stop the jobs of this name that a page has asked for."""
        lane.stop(_key(owner, job))

    def release(self, owner: Owner, entries: Collection[str]) -> None:
        """Forget entries that a page does not show any more."""
        self.storage.release(entries, owner.visitor)

    async def end(self) -> None:
        """End all processes."""
        await self.desk.end()
        await self.bench.end()


@contextlib.contextmanager
def _as_failures() -> Iterator[None]:
    """What the storage refuses is why work fails."""
    try:
        yield
    except Refused as why:
        raise Failed(str(why)) from None


def _key(owner: Owner, job: str) -> str:
    return f"{owner.visitor} {owner.session} {job}"


def owner_of(request: Any) -> Owner:
    """The page that an event of Gradio's comes from; the visitor is as `Guard` found it."""
    return Owner(request.request.scope["patchattn.visitor"], str(request.session_hash))


def with_request(event: Event) -> Event:
    """Have Gradio give the request to the parameter `request` of an event.

    It does so by the parameter's type, which must be there as a type: as text it could not be found, since Gradio is
    imported in functions alone.
    """
    import gradio as gr

    event.__annotations__["request"] = gr.Request
    return event
