"""One piece of work, as the page's events see it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from patchattn.demo import words
from patchattn.demo.lane import Failed, Lane, Stopped

__all__ = ["Step", "steps"]


@dataclass(frozen=True)
class Step:
    """What is to be shown now."""

    status: str
    """HTML."""
    working: bool = False
    result: dict[str, Any] | None = None


async def steps(lane: Lane, owner: str, job: dict[str, Any]) -> AsyncGenerator[Step]:
    """Do a job; yield what is to be shown of it. Whatever happens, the last step is not `working`."""
    stage = "starting"
    yield Step(words.progress({}, stage), working=True)
    try:
        async with contextlib.aclosing(lane.run(owner, job)) as told_by_work:
            async for told in told_by_work:
                if "result" in told:
                    result = told["result"]
                    yield Step(words.done(" ".join([result.get("told", ""), *told["notes"]])), result=result)
                    return
                stage = told.get("stage", stage)
                yield Step(words.progress(told, stage), working=True)
    except Failed as why:
        yield Step(words.failed(str(why)))
    except Stopped:
        yield Step(words.done("Stopped."))
