"""`patchattn demo`: its options, and the parts of the page that need no browser."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

from patchattn import match, patch_attention
from patchattn.cli.app import app
from patchattn.demo.house import House
from patchattn.demo.lane import Failed, Lane, Stopped
from patchattn.demo.limits import Limits, check_size
from patchattn.demo.look import look, marks
from patchattn.demo.process import WorkerProcess
from patchattn.demo.storage import Owner
from patchattn.tasks.images import Image, write_image

SETTINGS = {"k": 3, "patch_size": 3, "similarity": "l2", "method": "exact", "temperature": 0.5}


def in_a_lane(work: Callable[[Lane], Awaitable[None]]) -> None:
    """Do something with a lane in which one may wait."""

    async def ended() -> None:
        lane = Lane(waiting=1, visitor_waiting=1)
        try:
            await work(lane)
        finally:
            await lane.end()

    asyncio.run(ended())


async def told_of(lane: Lane, owner: str, job: dict[str, Any]) -> list[dict[str, Any]]:
    return [told async for told in lane.run(owner, owner, job)]


def test_without_gradio_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = [signal.getsignal(number) for number in numbers]
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 2
    assert 'gradio is not installed; install it with: pip install "patchattn[demo]"' in result.stderr
    assert [signal.getsignal(number) for number in numbers] == before


def test_help() -> None:
    result = CliRunner().invoke(app, ["demo", "--help"])
    assert result.exit_code == 0
    for option in ("host", "port", "password", "allow-host", "max-megapixels", "max-megabytes"):
        assert f"--{option} " in result.stdout
    for limit in ("visitor", "total"):
        assert f"--{limit}-megabytes" in result.stdout
    assert "PATCHATTN_DEMO_PASSWORD" in result.stdout


@pytest.mark.parametrize("password", ["", "a", "secret", "1234567"])
def test_a_password_is_not_short(password: str) -> None:
    for options, variable in ((["--password", password], {}), ([], {"PATCHATTN_DEMO_PASSWORD": password})):
        if not options and not password:
            continue  # a variable that is empty is none
        result = CliRunner().invoke(app, ["demo", *options], env=variable)
        assert result.exit_code == 2
        assert f"--password: expected at least 8 characters, got {len(password)}." in result.stderr


def test_sizes_are_checked_before_decoding(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif"):
        write_image(tmp_path / name, Image(torch.zeros(1, 3, 30, 40), bit_depth=16))
        check_size(tmp_path / name, 0.0012, "The file")
        with pytest.raises(ValueError, match=r"The file: 40 x 30 .* this page takes up to 0\.0011\."):
            check_size(tmp_path / name, 0.0011, "The file")


@pytest.mark.parametrize("kind", ["EPS", "PCX", "TGA", "SGI", "IM", "ICO"])
def test_kinds_are_checked_by_content_before_decoding(tmp_path: Path, kind: str) -> None:
    PIL.Image.new("RGB", (30, 40)).save(tmp_path / "a.png", kind)
    with pytest.raises(
        ValueError, match=rf"^The file: .*a\.png is a file of the kind {kind}, and this page takes AVIF"
    ):
        check_size(tmp_path / "a.png", 1, "The file")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM"])
def test_pictures_are_taken_by_any_name(tmp_path: Path, kind: str) -> None:
    PIL.Image.new("RGB", (30, 40)).save(tmp_path / "a.png", kind)
    check_size(tmp_path / "a.png", 1, "The file")
    with pytest.raises(ValueError, match=r"30 x 40 are 0\.0 megapixels"):
        check_size(tmp_path / "a.png", 0.001, "The file")


def test_marks_are_what_the_layer_attends_to(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (Image(torch.rand(1, 3, 10, 12, generator=generator)) for _ in range(2))
    found = look((one, other), tmp_path, SETTINGS, lambda stage: None)
    assert {path.name for path in tmp_path.iterdir()} == {"field.pt", "query.png", "key.png", "flow.png"}
    field = match(one.color, other.color, k=3, patch_size=3, method="exact")
    shared = {"patch_size": 3, "temperature": 0.5}
    output = patch_attention(one.color, other.color, other.color, field=field, aggregate=True, **shared)
    for row, column in ((4, 5), (0, 0), (9, 11)):
        told = marks(Path(found["field"]), row, column)
        weights = (field.similarity[0, 0, :, row, column] / 0.5).softmax(0)
        everything = field_of_all(one, other)[0, 0, :, row, column] / 0.5
        assert [weight for *_, weight in told["matches"]] == pytest.approx(weights.tolist(), abs=1e-4)
        assert told["mass"] == pytest.approx(float(everything.softmax(0)[:3].sum()), abs=1e-4)
        voted = sum(weight * other.color[0, :, int(y), int(x)] for y, x, weight in told["votes"])
        torch.testing.assert_close(voted, output[0, :, row, column], atol=0.02, rtol=0)


def field_of_all(one: Image, other: Image) -> torch.Tensor:
    """The similarities of every pixel to all 120, best first."""
    return match(one.color, other.color, k=120, patch_size=3, method="exact").similarity


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
        write_image(tmp_path / "a.png", Image(torch.rand(1, 1, 30, 40)))
        told = await told_of(lane, "one", job)
        assert told[0] == {"stage": "reading"}
        assert told[-1]["result"]["size"] == [30, 40]
        with pytest.raises(Failed, match=r"This should not have happened \(KeyError\)"):
            await told_of(lane, "one", {"job": "open"})

    in_a_lane(ask)


def test_stopped_work_ends_at_once_and_the_next_begins(tmp_path: Path) -> None:
    async def ask(lane: Lane) -> None:
        # All pixels with all pixels, which takes many minutes.
        write_image(tmp_path / "a.png", Image(torch.rand(1, 3, 640, 640)))
        job = {"folder": str(tmp_path), "megapixels": 1, "path": str(tmp_path / "a.png"), "name": "a.png"}
        job |= {"photo": job["path"], "reference": job["path"], "settings": SETTINGS | {"patch_size": 15}}
        long, short = job | {"job": "look"}, job | {"job": "open"}
        working = asyncio.create_task(told_of(lane, "one", long))
        waiting = asyncio.create_task(told_of(lane, "two", short))
        await asyncio.sleep(0.5)
        with pytest.raises(Failed, match="1 pieces of work are waiting already"):
            await told_of(lane, "three", short)
        process = lane._workers[0].process
        assert process is not None
        lane.stop("one")
        with pytest.raises(Stopped):
            await asyncio.wait_for(working, timeout=60)
        assert process.returncode == -signal.SIGKILL
        told = await waiting
        assert told[0] == {"waiting": 1}
        assert "result" in told[-1]

    in_a_lane(ask)


def test_work_ends_with_its_server_however_that_ends(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", Image(torch.rand(1, 3, 640, 640)))
    picture = str(tmp_path / "a.png")
    settings = SETTINGS | {"patch_size": 15}
    job = {"job": "look", "folder": str(tmp_path), "megapixels": 1, "photo": picture, "reference": picture}
    with subprocess.Popen(
        [sys.executable, "-m", "patchattn.demo.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(json.dumps(job | {"settings": settings}) + "\n")
        worker.stdin.flush()
        told = ""
        while "matching" not in told:  # which takes many minutes
            told = worker.stdout.readline()
        worker.stdin.close()
        assert worker.wait(timeout=30) == 0


def test_a_file_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    async def ask() -> None:
        lane = Lane(1, 1, start=lambda: WorkerProcess(seconds=0.001))
        with pytest.raises(Failed, match=r"^This took longer than 0\.001 s; try a smaller picture\.$"):
            await told_of(lane, "one", {"job": "open"})
        assert lane._workers[0].process is None

    asyncio.run(ask())


def test_what_fails_or_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    async def ask() -> None:
        house = House.build(tmp_path, Limits(visitor_files=2))
        ann, bob = Owner("ann", "1"), Owner("bob", "1")

        async def results(owner: Owner, reads: list[str], **job: Any) -> list[dict[str, Any]]:
            reports = house.work(house.desk, owner, {"job": "sample", "sample": "small-cat"} | job, reads)
            return [report["result"] async for report in reports if "result" in report]

        try:
            with pytest.raises(Failed, match="There is no sample dog"):
                await results(ann, [], sample="dog")
            assert list(tmp_path.iterdir()) == []
            (first,) = await results(ann, [])
            with pytest.raises(Failed, match="no longer kept here"):
                await results(bob, [first["id"]])
            (second,) = await results(ann, [first["id"]])
            with pytest.raises(Failed, match="You have 2 files here"):
                await results(ann, [])
            assert {path.name for path in tmp_path.iterdir()} == {first["id"], second["id"]}
            assert house.storage.used("ann") == sum(path.stat().st_size for path in tmp_path.rglob("*.png"))
            house.release(bob, [first["id"]])
            house.release(ann, [first["id"], second["id"]])
            assert list(tmp_path.iterdir()) == []
        finally:
            await house.end()

    asyncio.run(ask())
