"""`patchattn inpaint`: what it writes, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from patchattn.cli.app import app

pytestmark = pytest.mark.usefixtures("one_thread")

HOLE = (slice(20, 34), slice(30, 50))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photograph, its mask, and folders of two of each, in which the test runs."""
    photograph = skimage.data.coffee()[100:160, 200:290]
    mask = np.zeros(photograph.shape[:2], np.uint8)
    mask[HOLE] = 255
    Image.fromarray(photograph).save(tmp_path / "photo.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(np.dstack([photograph, 255 - mask])).save(tmp_path / "open.png")
    for name in ("photos", "masks"):
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        Image.fromarray(photograph).save(tmp_path / "photos" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.tif")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["inpaint", *arguments, "--quality", "fast"])


def pixels(path: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def test_picture() -> None:
    result = run("photo.png", "--mask", "mask.png", "-o", "filled.png")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("wrote   filled.png (90 x 60, 8 bit)")
    given, filled = pixels("photo.png"), pixels("filled.png")
    known = pixels("mask.png") == 0
    np.testing.assert_array_equal(filled[known], given[known])
    assert (filled[HOLE] != given[HOLE]).any()


def test_transparent_pixels_are_filled_without_a_mask() -> None:
    result = run("open.png", "-o", "filled.png", "--json", "--seed", "3", "--iterations", "2", "--levels", "1")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["output"], told["height"], told["width"], told["bit_depth"]) == ("filled.png", 60, 90, 8)
    expected = {"quality": "fast", "patch_size": 7, "levels": 1, "iterations": 2, "seed": 3}
    assert told["settings"] == expected
    assert (pixels("filled.png")[..., 3] == 255).all()


def test_folder_with_a_mask_for_each(folder: Path) -> None:
    (folder / "photos" / "c.png").write_bytes(b"no picture")
    result = run("photos", "--mask", "masks", "-o", "filled", "--on-error", "skip", "--json")
    assert result.exit_code == 1, result.output
    told = json.loads(result.stdout)
    assert told["filled"] == ["a.png", "b.png"]
    assert list(told["skipped"]) == ["c.png"]
    Path("filled/b.png").unlink()
    again = run("photos", "--mask", "mask.png", "-o", "filled", "--resume", "--on-error", "skip", "--json")
    told = json.loads(again.stdout)
    assert (told["filled"], told["finished_before"]) == (["b.png"], ["a.png"])
    np.testing.assert_array_equal(pixels("filled/a.png"), pixels("filled/b.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("photo.png", "-o", "out.png"), "--mask: none is given, and photo.png has no transparent pixels to fill"),
        (("photo.png", "--mask", "none.png", "-o", "out.png"), "--mask: there is no file none.png"),
        (("photo.png", "--mask", "masks", "-o", "out.png"), "masks has 0 files named photo.*, expected one"),
        (("photo.png", "--mask", "mask.png", "-o", "out.txt"), "--output: out.txt ends in .txt"),
        (
            ("photo.png", "--mask", "mask.png", "-o", "out.png", "--device", "abacus"),
            "--device: cannot compute on abacus",
        ),
        (
            ("photo.png", "--mask", "mask.png", "-o", "out.png", "--patch-size", "4"),
            "patch_size: expected an odd number",
        ),
        (("photo.png", "--mask", "mask.png", "-o", "out.png", "--resume"), "--resume and --on-error are for a folder"),
        (
            ("photo.png", "--mask", "mask.png", "--keep-out", "small.png", "-o", "out.png"),
            "has 5 x 4 pixels, photo.png",
        ),
        (
            ("photos", "--mask", "masks", "-o", "photos"),
            "--output: photos is also PHOTO; expected two different folders",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, ...], message: str) -> None:
    Image.new("L", (5, 4)).save("small.png")
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not Path("out.png").exists()
