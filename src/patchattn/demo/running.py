"""One piece of work, as the page's events see it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from patchattn.demo import words
from patchattn.demo.lane import Failed, Stopped

__all__ = ["Step", "steps"]


@dataclass(frozen=True)
class Step:
    """What is to be shown now."""

    status: str
    """HTML."""
    working: bool = False
    result: dict[str, Any] | None = None


async def steps(work: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[Step]:
    """Do work of the house; yield what is to be shown of it. Whatever happens, the last step is not `working`."""
    stage = "starting"
    yield Step(words.progress({}, stage), working=True)
    try:
        async with contextlib.aclosing(work) as reports:
            async for report in reports:
                if "result" in report:
                    result = report["result"]
                    yield Step(words.done(" ".join([result.get("told", ""), *report["notes"]])), result=result)
                    return
                stage = report.get("stage", stage)
                yield Step(words.progress(report, stage), working=True)
    except Failed as why:
        yield Step(words.failed(str(why)))
    except Stopped:
        yield Step(words.done("Stopped."))
