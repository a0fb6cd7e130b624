"""Folders of images on the command line: failures are skipped and named, finished work is done once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image
from typer.testing import CliRunner, Result

from patchattn.cli.app import app
from patchattn.tasks import images
from patchattn.tasks import upscale as upscale_task
from patchattn.tasks.folders import list_images
from patchattn.tasks.journal import JOURNAL, Journal

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three photographs, in which the test runs."""
    photograph = skimage.data.coffee()
    (tmp_path / "photos").mkdir()
    for number, name in enumerate("abc"):
        Image.fromarray(photograph[100 + number : 116 + number, 200:220]).save(tmp_path / "photos" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["upscale", "photos", "-o", "large", *arguments])


def report(*arguments: str, code: int = 0) -> dict[str, Any]:
    result = run("--json", *arguments)
    assert result.exit_code == code, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def written() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("large").iterdir() if path.name != JOURNAL}


# ---------------------------------------------------------------------------------------------------- whatever fails


def failing(error: BaseException, function: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    def instead(*arguments: Any, **settings: Any) -> Any:
        if when(*arguments, **settings):
            raise error
        return function(*arguments, **settings)

    return instead


ERRORS = [
    ValueError("picture: it is odd"),
    RuntimeError("a kernel failed"),
    OSError(28, "No space left on device"),
    MemoryError("Unable to allocate 7.45 GiB for an array"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000000000 bytes."),
    IndexError("list index out of range"),
    ZeroDivisionError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["reading", "working", "writing"])
def test_whatever_fails_in_one_image_is_skipped(monkeypatch: pytest.MonkeyPatch, place: str, error: Exception) -> None:
    calls = iter(range(100))
    name = {"reading": "read_image", "writing": "write_image"}.get(place, "upscale")
    module = upscale_task if place == "working" else images
    with monkeypatch.context() as patch:
        patch.setattr(module, name, failing(error, getattr(module, name), lambda *_, **__: next(calls) == 1))
        told = report("--on-error", "skip", code=1)
    assert (told["done"], list(told["skipped"])) == (["a.png", "c.png"], ["b.png"])
    assert "photos/b.png" in told["skipped"]["b.png"] or "large/b.png" in told["skipped"]["b.png"]
    assert "Traceback" not in told["skipped"]["b.png"]
    assert sorted(written()) == ["a.png", "c.png"]
    told = report("--resume")
    assert (told["done"], told["finished_before"]) == (["b.png"], ["a.png", "c.png"])


def test_out_of_memory_says_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    error = MemoryError("Unable to allocate 7.45 GiB for an array")
    monkeypatch.setattr(upscale_task, "upscale", failing(error, upscale_task.upscale, lambda *_, **__: True))
    result = CliRunner().invoke(app, ["upscale", "photos/a.png", "-o", "a.png"])
    assert result.exit_code == 2
    assert "not enough memory: another 7.5 GiB were needed beside the " in result.stderr
    assert "use a smaller image or a smaller --k." in result.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.png", b""),
        ("b.png", b"no image"),
        ("b.jpg", b"\xff\xd8\xff\xe0" + bytes(20)),
        ("b.tif", b"II*\0" + bytes(30)),
        ("b.gif", b"GIF89a" + bytes(10)),
        ("b.webp", b"RIFF\x10\0\0\0WEBPVP8 " + bytes(8)),
    ],
)
def test_damaged_files_are_skipped(folder: Path, name: str, content: bytes) -> None:
    (folder / "photos" / "b.png").unlink()
    (folder / "photos" / name).write_bytes(content)
    told = report("--on-error", "skip", code=1)
    assert (told["done"], list(told["skipped"])) == (["a.png", "c.png"], [name])
    assert f"photos/{name}" in told["skipped"][name]


def test_stop_names_the_image_and_keeps_what_is_done(folder: Path) -> None:
    (folder / "photos" / "b.png").write_bytes(b"no image")
    result = run()
    assert result.exit_code == 2
    assert "PHOTO: cannot read photos/b.png" in result.stderr
    assert sorted(written()) == ["a.png"]


def test_resuming_never_stops_for_ever_at_the_same_image(folder: Path) -> None:
    (folder / "photos" / "a.png").write_bytes(b"no image")
    assert run().exit_code == 2
    assert run("--resume").exit_code == 2
    assert sorted(written()) == ["b.png", "c.png"]


def test_an_image_that_ends_the_process_comes_last_and_is_skipped_in_the_end(folder: Path) -> None:
    (folder / "large").mkdir()
    journal = Journal(folder / "large")
    for _ in range(2):
        journal.begin("a.png")  # and then the process was killed
    told = report("--resume", "--on-error", "skip", code=1)
    assert told["done"] == ["b.png", "c.png"]
    assert "the process ended 2 times in the middle of it" in told["skipped"]["a.png"]
    assert report("--resume")["done"] == ["a.png"]


# ---------------------------------------------------------------------------------------------------------- resuming


def test_finished_images_are_left_alone() -> None:
    first = report()
    before = {path: path.stat().st_mtime_ns for path in Path("large").glob("*.png")}
    told = report("--resume")
    assert (told["done"], told["finished_before"]) == ([], first["done"])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert report()["done"] == first["done"]


def change_source(folder: Path) -> tuple[str, ...]:
    Image.open(folder / "photos/c.png").save(folder / "photos/b.png")
    return ()


def cut_result(folder: Path) -> tuple[str, ...]:
    (folder / "large/b.png").write_bytes((folder / "large/b.png").read_bytes()[:-20])
    return ()


def empty_result(folder: Path) -> tuple[str, ...]:
    (folder / "large/b.png").write_bytes(b"")
    return ()


def remove_result(folder: Path) -> tuple[str, ...]:
    (folder / "large/b.png").unlink()
    return ()


def foreign_result(folder: Path) -> tuple[str, ...]:
    Image.new("RGB", (40, 32)).save(folder / "large/b.png")
    return ()


@pytest.mark.parametrize("change", [change_source, cut_result, empty_result, remove_result, foreign_result])
def test_what_is_not_the_result_is_made_again(folder: Path, change: Callable[[Path], tuple[str, ...]]) -> None:
    report()
    expected = written()
    change(folder)
    told = report("--resume")
    assert (told["done"], told["finished_before"]) == (["b.png"], ["a.png", "c.png"])
    if change is not change_source:
        assert written() == expected


@pytest.mark.parametrize(
    "settings", [("--scale", "3"), ("--k", "2"), ("--seed", "1"), ("--patch-size", "3"), ("--temperature", "0.05")]
)
def test_results_of_other_settings_are_made_again(settings: tuple[str, ...]) -> None:
    report()
    assert report("--resume", *settings)["done"] == ["a.png", "b.png", "c.png"]
    assert report("--resume", *settings)["done"] == []


def test_results_of_another_command_are_made_again() -> None:
    report()
    reference = ["--patch-size", "3", "--resume", "--json"]
    result = CliRunner().invoke(app, ["colorize", "photos", "photos/a.png", "-o", "large", *reference])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["done"] == ["a.png", "b.png", "c.png"]


def test_masks_count_too(folder: Path) -> None:
    (folder / "masks").mkdir()
    for name in "abc":
        mask = np.zeros((16, 20), np.uint8)
        mask[6:9, 8:12] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    command = ["inpaint", "photos", "--mask", "masks", "-o", "filled", "--patch-size", "3", "--quality", "fast"]
    assert CliRunner().invoke(app, command).exit_code == 0
    mask[3:5] = 255
    Image.fromarray(mask).save(folder / "masks" / "b.png")
    told = json.loads(CliRunner().invoke(app, [*command, "--resume", "--json"]).stdout)
    assert (told["done"], told["finished_before"]) == (["b.png"], ["a.png", "c.png"])


def test_an_interrupted_run_goes_on_to_the_same_bytes(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    report()
    expected = written()
    for path in Path("large").iterdir():
        path.unlink()
    calls = iter(range(100))
    interrupted = failing(KeyboardInterrupt(), upscale_task.upscale, lambda *_, **__: next(calls) == 1)
    with monkeypatch.context() as patch:
        patch.setattr(upscale_task, "upscale", interrupted)
        assert run().exit_code == 130
    assert sorted(written()) == ["a.png"]
    report("--resume")
    assert written() == expected


# -------------------------------------------------------------------------------------------------- what is in a folder


def test_what_is_passed_over_is_counted(folder: Path) -> None:
    photos = folder / "photos"
    for name in ("a.txt", "b.TXT", "notes", "clip.mp4", ".hidden.png", "Thumbs.db"):
        (photos / name).write_bytes(b"")
    (photos / "deeper").mkdir()
    Image.open(photos / "a.png").save(photos / "deeper" / "d.png")
    told = report()
    expected = {".txt": 2, ".mp4": 1, ".db": 1, "without extension": 1, "hidden": 1, "subfolders": 1}
    assert told["passed_over"] == expected
    line = "1 .db, 1 .mp4, 2 .txt, 1 hidden, 1 subfolders, 1 without extension (--recursive looks into subfolders)"
    assert line in run().stdout


def test_subfolders(folder: Path) -> None:
    photos = folder / "photos"
    (photos / "deep" / "er").mkdir(parents=True)
    for path in ("deep/a.png", "deep/er/a.png"):
        Image.open(photos / "a.png").save(photos / path)
    (photos / "loop").symlink_to(photos)
    told = report("--recursive")
    assert told["done"] == ["a.png", "b.png", "c.png", "deep/a.png", "deep/er/a.png"]
    assert told["passed_over"] == {"subfolders": 1}
    assert Path("large/deep/er/a.png").read_bytes() == Path("large/a.png").read_bytes()
    assert report("--recursive", "--resume")["finished_before"] == told["done"]


def test_results_inside_the_folder_are_no_images_of_it(folder: Path) -> None:
    arguments = ["upscale", "photos", "-o", "photos/large", "--recursive", "--json"]
    for _ in range(2):
        result = CliRunner().invoke(app, arguments)
        assert json.loads(result.stdout)["done"] == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize(
    ("names", "results"),
    [
        (("a.jpg", "a.png"), ("a.jpg", "a.png")),
        (("a.jpg", "b.png"), ("a", "b")),
        (("A.jpg", "a.png"), ("A.jpg", "a.png")),
        (("a.jpg", "a.png", "a.jpg.tif"), ("a.jpg", "a.jpg.tif", "a.png")),
        (("a.b.jpg", "a.c.jpg"), ("a.b", "a.c")),
        (("x/a.jpg", "y/a.jpg"), ("x/a", "y/a")),
    ],
)
def test_names_of_results(tmp_path: Path, names: tuple[str, ...], results: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    found = {source.name: source.result for source in list_images(tmp_path / "in", recursive=True).images}
    assert found == dict(zip(sorted(names), results, strict=True))


@pytest.mark.parametrize(
    "names",
    [
        ("frame2.png", "frame10.png", "frame100.png"),
        ("1.png", "2.png", "10.png"),
        ("a1b2.png", "a1b10.png", "a2b1.png"),
        ("007.png", "08.png", "9.png"),
        ("IMG_9.jpg", "img_10.jpg", "IMG_11.jpg"),
        ("a.png", "b.png", "é.png"),
    ],
)
def test_natural_order(tmp_path: Path, names: tuple[str, ...]) -> None:
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).touch()
    assert tuple(source.name for source in list_images(tmp_path / "in").images) == names


def test_a_folder_without_images_says_what_there_is(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").touch()
    result = CliRunner().invoke(app, ["upscale", "empty", "-o", "large"])
    assert result.exit_code == 2
    assert "PHOTO: there is no image in empty; it holds 1 .txt. Looked for .png" in result.stderr


def test_a_result_never_replaces_a_file_that_is_read(folder: Path) -> None:
    (folder / "out").mkdir()
    mask = np.zeros((16, 20), np.uint8)
    mask[6:9, 8:12] = 255
    Image.fromarray(mask).save(folder / "out" / "b.png")
    before = (folder / "out" / "b.png").read_bytes()
    command = ["inpaint", "photos", "--mask", "out/b.png", "-o", "out", "--patch-size", "3", "--on-error", "skip"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 1
    assert "--output: out/b.png is also out/b.png" in json.loads(result.stdout)["skipped"]["b.png"]
    assert (folder / "out" / "b.png").read_bytes() == before
