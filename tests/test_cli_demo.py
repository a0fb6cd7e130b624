"""`patchattn demo`: its options, and the parts of the page that need no browser."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from patchattn import match, patch_attention
from patchattn.cli.app import app
from patchattn.demo.guard import allowed
from patchattn.demo.house import House, write_painted
from patchattn.demo.lane import Failed, Lane, Stopped
from patchattn.demo.limits import Limits, check_size
from patchattn.demo.look import look, marks
from patchattn.tasks.images import Picture, write_picture

SETTINGS = {"k": 3, "patch_size": 3, "similarity": "l2", "method": "exact", "temperature": 0.5}


def in_a_lane(work: Callable[[Lane], Awaitable[None]]) -> None:
    """Do something with a lane in which one may wait."""

    async def ended() -> None:
        lane = Lane(waiting=1)
        try:
            await work(lane)
        finally:
            await lane.end()

    asyncio.run(ended())


async def told_of(lane: Lane, owner: str, job: dict[str, Any]) -> list[dict[str, Any]]:
    return [told async for told in lane.run(owner, job)]


def test_without_gradio_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    before = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 2
    assert 'gradio is not installed; install it with: pip install "patchattn[demo]"' in result.stderr
    assert signal.getsignal(signal.SIGTERM) == before


def test_help() -> None:
    result = CliRunner().invoke(app, ["demo", "--help"])
    assert result.exit_code == 0
    for option in ("--host", "--port", "--max-megapixels", "--max-megabytes"):
        assert option in result.stdout


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/", True),
        ("/gradio_api/queue/join", True),
        ("/gradio_api/file=/tmp/results/a.png", True),
        ("/gradio_api/file=/tmp/results/a%2Esvg", False),
        ("/gradio_api/file=https://example.invalid/a.png", False),
        ("/file/etc/passwd", False),
        ("/gradio_api/proxy=https://example.invalid/", False),
    ],
)
def test_only_pictures_are_served(path: str, served: bool) -> None:
    assert allowed(path) is served


def test_sizes_are_checked_before_decoding(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif"):
        write_picture(tmp_path / name, Picture(torch.zeros(1, 3, 30, 40), bit_depth=16))
        check_size(tmp_path / name, 0.0012, "The file")
        with pytest.raises(ValueError, match=r"The file: 40 x 30 .* this page takes up to 0\.0011\."):
            check_size(tmp_path / name, 0.0011, "The file")


def test_what_is_painted_is_a_png(tmp_path: Path) -> None:
    path = write_painted("data:image/png;base64,AAAA", tmp_path)
    assert Path(path).read_bytes() == bytes(3)
    for bad in ("/etc/passwd", "data:image/png;base64,?"):
        with pytest.raises(ValueError, match="paint again"):
            write_painted(bad, tmp_path)


def test_folders_are_new_and_old_ones_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path, Limits(), Lane(1), Lane(1))
    first, second = house.job("a"), house.job("a")
    assert first["folder"] != second["folder"]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3 * 3600)
    third = house.job("a")
    assert [str(path) for path in tmp_path.iterdir()] == [third["folder"]]


def test_marks_are_what_the_layer_attends_to(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (Picture(torch.rand(1, 3, 10, 12, generator=generator)) for _ in range(2))
    found = look((one, other), tmp_path, SETTINGS, lambda stage: None)
    assert {path.name for path in tmp_path.iterdir()} == {"field.pt", "query.png", "key.png", "flow.png"}
    field = match(one.colour, other.colour, k=3, patch_size=3, method="exact")
    shared = {"patch_size": 3, "temperature": 0.5}
    output = patch_attention(one.colour, other.colour, other.colour, field=field, aggregate=True, **shared)
    for row, column in ((4, 5), (0, 0), (9, 11)):
        told = marks(Path(found["field"]), row, column)
        weights = (field.similarity[0, 0, :, row, column] / 0.5).softmax(0)
        everything = field_of_all(one, other)[0, 0, :, row, column] / 0.5
        assert [weight for *_, weight in told["matches"]] == pytest.approx(weights.tolist(), abs=1e-4)
        assert told["mass"] == pytest.approx(float(everything.softmax(0)[:3].sum()), abs=1e-4)
        voted = sum(weight * other.colour[0, :, int(y), int(x)] for y, x, weight in told["votes"])
        torch.testing.assert_close(voted, output[0, :, row, column], atol=0.02, rtol=0)


def field_of_all(one: Picture, other: Picture) -> torch.Tensor:
    """The similarities of every pixel to all 120, best first."""
    return match(one.colour, other.colour, k=120, patch_size=3, method="exact").similarity


def test_work_is_told_of_and_errors_are_sentences(tmp_path: Path) -> None:
    async def ask(lane: Lane) -> None:
        job = {
            "job": "open",
            "folder": str(tmp_path),
            "megapixels": 1,
            "path": str(tmp_path / "a.png"),
            "name": "a.png",
        }
        with pytest.raises(Failed, match=r"^The file: there is no file a\.png\.$"):
            await told_of(lane, "one", job)
        write_picture(tmp_path / "a.png", Picture(torch.rand(1, 1, 30, 40)))
        told = await told_of(lane, "one", job)
        assert told[0] == {"stage": "reading"}
        assert told[-1]["result"]["size"] == [30, 40]
        with pytest.raises(Failed, match=r"This should not have happened \(KeyError\)"):
            await told_of(lane, "one", {"job": "open"})

    in_a_lane(ask)


def test_stopped_work_ends_at_once_and_the_next_begins(tmp_path: Path) -> None:
    async def ask(lane: Lane) -> None:
        # All pixels with all pixels, which takes many minutes.
        write_picture(tmp_path / "a.png", Picture(torch.rand(1, 3, 640, 640)))
        job = {"folder": str(tmp_path), "megapixels": 1, "path": str(tmp_path / "a.png"), "name": "a.png"}
        job |= {"photo": job["path"], "reference": job["path"], "settings": SETTINGS | {"patch_size": 15}}
        long, short = job | {"job": "look"}, job | {"job": "open"}
        working = asyncio.create_task(told_of(lane, "one", long))
        waiting = asyncio.create_task(told_of(lane, "two", short))
        await asyncio.sleep(0.5)
        with pytest.raises(Failed, match="1 pieces of work are waiting already"):
            await told_of(lane, "three", short)
        process = lane._process
        assert process is not None
        lane.stop("one")
        with pytest.raises(Stopped):
            await asyncio.wait_for(working, timeout=60)
        assert process.returncode == -signal.SIGKILL
        told = await waiting
        assert told[0] == {"waiting": 1}
        assert "result" in told[-1]

    in_a_lane(ask)
