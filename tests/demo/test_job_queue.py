"""The order of turns: visitors take turns, whatever one of them asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from patchattn.demo.job_queue import JobError, JobQueue, JobStoppedError
from patchattn.demo.process import WorkerProcess


class FakeWorker(WorkerProcess):
    """Does what a job says: nothing, until it is let go on."""

    def __init__(self, begun: list[str], gates: dict[str, asyncio.Event]) -> None:
        super().__init__()
        self.begun, self.gates = begun, gates
        self.closed = False
        self.gate: asyncio.Event | None = None

    async def run(self, job: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        self.begun.append(job["name"])
        self.closed = False
        self.gate = self.gates.setdefault(job["name"], asyncio.Event())
        await self.gate.wait()
        if self.closed:
            raise JobError("it was killed")
        if job.get("fails"):
            raise JobError("it failed")
        yield {"result": job["name"]}

    def kill(self) -> None:
        self.closed = True
        if self.gate is not None:
            self.gate.set()


class Scene:
    """A queue with visitors, in which a test decides when a job ends."""

    def __init__(self, waiting: int = 100, visitor_waiting: int = 100, workers: int = 1) -> None:
        self.begun: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.queue = JobQueue(waiting, visitor_waiting, workers, lambda: FakeWorker(self.begun, self.gates))
        self.tasks: dict[str, asyncio.Task[list[dict[str, Any]]]] = {}

    async def ask(self, *names: str, **job: Any) -> None:
        """Ask for work; the first letter of its name is the visitor."""
        for name in names:
            self.tasks[name] = asyncio.create_task(self._reports(name, job))
            await asyncio.sleep(0)

    async def _reports(self, name: str, job: dict[str, Any]) -> list[dict[str, Any]]:
        return [report async for report in self.queue.run(name[0], name, job | {"name": name})]

    async def finish(self, *names: str) -> None:
        for name in names:
            self.gates.setdefault(name, asyncio.Event()).set()
            await asyncio.wait([self.tasks[name]])
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def finish_all(self) -> None:
        done = 0
        while done < len(self.begun):
            await self.finish(self.begun[done])
            await asyncio.sleep(0.01)
            done += 1


def play(part: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(part(), 30))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "order"),
    [
        ("a1 a2 a3 a4 b1", "a1 b1 a2 a3 a4"),
        ("a1 a2 a3 a4 b1 b2", "a1 b1 a2 b2 a3 a4"),
        ("a1 a2 a3 b1 b2 c1 c2", "a1 b1 c1 a2 b2 c2 a3"),
        ("a1 b1 c1 d1", "a1 b1 c1 d1"),
        ("a1 b1 b2 b3 a2 a3", "a1 b1 a2 b2 a3 b3"),
        ("a1 a2 a3 a4 a5 a6 a7 a8 a9 b1 c1", "a1 b1 c1 a2 a3 a4 a5 a6 a7 a8 a9"),
    ],
)
def test_visitors_take_turns(asked: str, order: str) -> None:
    async def part() -> None:
        scene = Scene()
        await scene.ask(*asked.split())
        await scene.finish_all()
        assert scene.begun == order.split()

    play(part)


def test_whoever_asks_on_and_on_waits_for_others_all_the_same() -> None:
    async def part() -> None:
        scene = Scene()
        await scene.ask("a1", "a2", "b1")
        for number in range(3, 9):
            await scene.finish(scene.begun[-1])
            await scene.ask(f"a{number}", f"b{number}")
        assert [name[0] for name in scene.begun] == list("abababa")
        await scene.finish_all()
        assert len(scene.begun) == 15

    play(part)


def test_of_two_workers_one_is_always_there_for_others() -> None:
    async def part() -> None:
        scene = Scene(workers=2)
        await scene.ask(*(f"a{number}" for number in range(50)))
        assert scene.begun == ["a0"]
        await scene.ask("b1")  # begins at once, before anything of the first visitor is done
        assert scene.begun == ["a0", "b1"]
        await scene.ask("c1", "b2")
        assert scene.begun == ["a0", "b1"]
        await scene.finish("b1")
        assert scene.begun == ["a0", "b1", "c1"]
        await scene.finish("c1")
        assert scene.begun == ["a0", "b1", "c1", "b2"]
        await scene.finish_all()
        assert len(scene.begun) == 53

    play(part)


def test_how_many_are_before_is_told_as_it_will_be() -> None:
    async def part() -> None:
        scene = Scene()
        await scene.ask("a1", "a2", "a3", "b1", "c1")
        assert {ticket.key: scene.queue._count_before(ticket) for ticket in scene.queue._waiting()} == {
            "a2": 3,
            "a3": 4,
            "b1": 1,
            "c1": 2,
        }
        await scene.finish_all()
        assert scene.begun == ["a1", "b1", "c1", "a2", "a3"]
        assert (await scene.tasks["b1"])[0] == {"waiting": 1}

    play(part)


def test_limits_of_each_visitor_and_of_all() -> None:
    async def part() -> None:
        scene = Scene(waiting=4, visitor_waiting=3)
        await scene.ask("a1", "a2", "a3", "a4", "a5", "b1", "c1")
        for name, sentence in (("a5", "3 of your jobs are waiting already"), ("c1", "4 jobs are waiting")):
            with pytest.raises(JobError, match=sentence):
                await scene.tasks.pop(name)
        await scene.finish_all()
        assert scene.begun == ["a1", "b1", "a2", "a3", "a4"]
        assert scene.queue._tickets == []
        assert scene.queue._turns == {}

    play(part)


def test_stopped_work_gives_its_turn_away() -> None:
    async def part() -> None:
        scene = Scene()
        await scene.ask("a1", "b1", "c1")
        scene.queue.stop("b1")
        with pytest.raises(JobStoppedError):
            await scene.tasks["b1"]
        scene.queue.stop("a1")
        with pytest.raises(JobStoppedError):
            await scene.tasks["a1"]
        await asyncio.sleep(0.01)
        assert scene.begun == ["a1", "c1"]
        await scene.finish_all()

    play(part)


def test_failed_work_and_visitors_who_leave_give_their_turns_away() -> None:
    async def part() -> None:
        scene = Scene()
        await scene.ask("a1", fails=True)
        await scene.ask("b1", "c1")
        scene.gates["a1"].set()
        with pytest.raises(JobError, match="it failed"):
            await scene.tasks["a1"]
        await asyncio.sleep(0.01)
        assert scene.begun == ["a1", "b1"]
        scene.tasks["b1"].cancel()
        await asyncio.sleep(0.01)
        assert scene.begun == ["a1", "b1", "c1"]
        await scene.finish_all()
        assert scene.queue._tickets == []

    play(part)


def test_processes_are_ready_before_they_are_needed_and_again_when_one_was_killed() -> None:
    started: list[int] = []

    class Counted(FakeWorker):
        running = False

        async def start(self) -> Any:
            if not self.running:
                self.running = True
                started.append(id(self))

        def kill(self) -> None:
            self.running = False
            super().kill()

    async def part() -> None:
        scene = Scene()
        scene.queue = JobQueue(9, 9, 2, lambda: Counted(scene.begun, scene.gates), keep_running=True)
        await scene.queue.start_workers()
        await scene.queue.start_workers()
        assert len(set(started)) == len(started) == 2
        await scene.ask("a1", "b1")
        scene.queue.stop("a1")
        with pytest.raises(JobStoppedError):
            await scene.tasks["a1"]
        assert len(started) == 3
        await scene.finish("b1")
        assert len(started) == 3

    play(part)
