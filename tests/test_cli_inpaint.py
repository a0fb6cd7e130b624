"""`patchattn inpaint`: what it writes, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from patchattn.cli.app import app
from patchattn.networks.architectures import InpaintingArchitecture
from patchattn.networks.weights import load_inpainting_network, network_bytes

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


def test_image() -> None:
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
    expected = {"quality": "fast", "patch_size": 11, "levels": 1, "iterations": 2, "seed": 3}
    assert told["settings"] == expected
    assert pixels("filled.png").shape == (60, 90, 3)
    assert run("open.png", "-o", "filled.jpg").exit_code == 0
    opaque = run("filled.png", "-o", "again.png")
    assert "--mask: none is given, and filled.png has no transparent pixels to fill" in opaque.stderr


def test_a_translucent_photograph_keeps_its_alpha() -> None:
    given = pixels("open.png").copy()
    given[..., 3] = 200
    Image.fromarray(given).save("given.png")
    assert run("given.png", "--mask", "mask.png", "-o", "filled.png").exit_code == 0
    np.testing.assert_array_equal(pixels("filled.png")[..., 3], 200)
    assert "cannot hold" in run("given.png", "--mask", "mask.png", "-o", "filled.jpg").stderr


def test_ways_of_painting_a_mask_give_one_result() -> None:
    """Each is understood, or the message names the option with which it is."""
    white = pixels("mask.png")
    photograph = pixels("photo.png")
    masks = {
        "alpha.png": (np.dstack([np.full_like(white, 255)] * 3 + [white]), ()),
        "red.png": (np.where(white[..., None] > 0, np.uint8([255, 0, 0]), photograph), ()),
        "red.bmp": (np.where(white[..., None] > 0, np.uint8([255, 0, 0]), photograph // 2), ("--mask-color", "red")),
        "ones.png": (white // 255, ()),
        "black.png": (255 - white, ("--invert-mask",)),
        "named.png": (255 - white, ("--mask-color", "black")),
    }
    assert run("photo.png", "--mask", "mask.png", "-o", "expected.png").exit_code == 0
    for name, (mask, options) in masks.items():
        Image.fromarray(mask).save(name)
        if options:
            refused = run("photo.png", "--mask", name, "-o", "filled.png")
            assert refused.exit_code == 2
            assert "--mask: " in refused.stderr
            assert options[0] in refused.stderr
            assert not Path("filled.png").exists()
        result = run("photo.png", "--mask", name, "-o", "filled.png", *options)
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(pixels("filled.png"), pixels("expected.png"))
        Path("filled.png").unlink()


def test_the_hole_grows(folder: Path) -> None:
    wide = np.zeros((60, 90), bool)
    wide[HOLE[0].start - 2 : HOLE[0].stop + 2, HOLE[1].start - 2 : HOLE[1].stop + 2] = True
    Image.open("photo.png").save("photo.jpg", quality=90)
    given = pixels("photo.jpg")
    cases: dict[str, tuple[str, ...]] = {"photo.png": ("--grow", "2"), "photo.jpg": ()}
    for name, options in cases.items():
        given = pixels(name)
        result = run(name, "--mask", "mask.png", "-o", "filled.png", *options)
        assert result.exit_code == 0, result.output
        changed = (pixels("filled.png") != given).any(2)
        assert not changed[~wide].any()
        assert changed[HOLE[0].start - 2].any()
    assert run("photo.jpg", "--mask", "mask.png", "-o", "filled.png", "--grow", "0").exit_code == 0
    assert not (pixels("filled.png") != given).any(2)[pixels("mask.png") == 0].any()


def test_the_mask_of_a_folder_is_found_by_name(folder: Path) -> None:
    masks = folder / "masks"
    (masks / ".a.png").write_bytes(b"hidden")
    (masks / "._a.tif").write_bytes(b"hidden")
    (masks / "a.json").write_text("{}")
    (masks / "a").mkdir()
    result = run("photos", "--mask", "masks", "-o", "filled", "--json")
    assert result.exit_code == 0, result.output
    Image.open(masks / "a.tif").save(masks / "a.bmp")
    result = run("photos", "--mask", "masks", "-o", "filled")
    assert result.exit_code == 2
    assert "--mask: masks has 2 files named a.*, expected one (a.bmp, a.tif): remove or rename" in result.stderr
    Image.open(masks / "a.tif").save(masks / "a.png")  # named as the photograph in full
    assert run("photos", "--mask", "masks", "-o", "filled").exit_code == 0


def test_names_are_one_however_accents_are_stored(folder: Path) -> None:
    (folder / "photos" / "a.png").rename(folder / "photos" / "\u00e9t\u00e9.png")
    (folder / "masks" / "a.tif").rename(folder / "masks" / "e\u0301te\u0301.tif")
    result = run("photos", "--mask", "masks", "-o", "filled")
    assert result.exit_code == 0, result.output


def test_folder_with_a_mask_for_each(folder: Path) -> None:
    (folder / "photos" / "c.png").write_bytes(b"no picture")
    result = run("photos", "--mask", "masks", "-o", "filled", "--on-error", "skip", "--json")
    assert result.exit_code == 1, result.output
    told = json.loads(result.stdout)
    assert told["done"] == ["a.png", "b.png"]
    assert list(told["skipped"]) == ["c.png"]
    Path("filled/b.png").unlink()
    again = run("photos", "--mask", "masks", "-o", "filled", "--resume", "--on-error", "skip", "--json")
    told = json.loads(again.stdout)
    assert (told["done"], told["finished_before"]) == (["b.png"], ["a.png"])
    np.testing.assert_array_equal(pixels("filled/a.png"), pixels("filled/b.png"))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("attention", [(), ("--attention", "contextual")], ids=["as-trained", "contextual"])
def test_network(mode: str, attention: tuple[str, ...]) -> None:
    architecture = InpaintingArchitecture("psal", channels=4)
    network = architecture.build()
    Path("network.safetensors").write_bytes(network_bytes(network, architecture))
    Image.open("photo.png").convert(mode).save("given.png")
    result = run("given.png", "--mask", "mask.png", "-o", "filled.png", "--model", "network.safetensors", *attention)
    assert result.exit_code == 0, result.output
    given, filled = pixels("given.png"), pixels("filled.png")
    known = pixels("mask.png") == 0
    np.testing.assert_array_equal(filled[known], given[known])
    color = torch.from_numpy(given.reshape(60, 90, -1)[..., :3].copy()).movedim(2, 0)[None].expand(-1, 3, -1, -1)
    with torch.no_grad():
        chosen = load_inpainting_network("network.safetensors", attention=attention[1] if attention else None)
        expected = chosen.fill(color / 255, torch.from_numpy(~known)[None]).clamp(0, 1)[0]
    if mode == "L":
        np.testing.assert_allclose(filled[HOLE], 255 * expected.mean(0)[HOLE], atol=0.51)
    else:
        np.testing.assert_allclose(filled[HOLE][..., :3], 255 * expected.movedim(0, 2)[HOLE], atol=0.51)
    assert mode != "RGBA" or (filled[..., 3] == 255).all()


def test_network_over_a_folder(folder: Path) -> None:
    architecture = InpaintingArchitecture("psal", channels=4)
    Path("network.safetensors").write_bytes(network_bytes(architecture.build(), architecture))
    result = run("photos", "--mask", "masks", "-o", "filled", "--model", "network.safetensors", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == "network.safetensors"
    np.testing.assert_array_equal(pixels("filled/a.png"), pixels("filled/b.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("photo.png", "-o", "out.png"), "--mask: none is given, and photo.png has no transparent pixels to fill"),
        (("photo.png", "--mask", "black.png", "-o", "out.png"), "--mask: black.png covers nothing (it holds: black"),
        (("photo.png", "--mask", "white.png", "-o", "out.png"), "--mask: white.png covers the whole image (it holds"),
        (
            ("photo.png", "--mask", "mask.png", "--keep-out", "black.png", "-o", "out.png"),
            "--keep-out: black.png covers nothing (it holds: black 100 %); expected a light shape on black",
        ),
        (
            ("open.png", "--invert-mask", "-o", "out.png"),
            "--invert-mask: it says how the mask is read; expected --mask",
        ),
        (("open.png", "--mask-color", "red", "-o", "out.png"), "--mask-color: it says how the mask is read"),
        (
            ("photo.png", "--mask", "mask.png", "--mask-color", "redd", "-o", "out.png"),
            "--mask-color: got 'redd'; expected a color's name",
        ),
        (("photo.png", "--mask", "none.png", "-o", "out.png"), "--mask: there is no file none.png"),
        (("photo.png", "--mask", "masks", "-o", "out.png"), "masks has 0 files named photo.*, expected one"),
        (("photo.png", "--mask", "mask.png", "-o", "out.txt"), "--output: out.txt ends in .txt"),
        (
            ("photo.png", "--mask", "mask.png", "-o", "out.png", "--device", "abacus"),
            "--device: cannot compute on abacus",
        ),
        (
            ("photo.png", "--mask", "mask.png", "-o", "out.png", "--patch-size", "4"),
            "--patch-size: expected an odd number",
        ),
        (
            ("photo.png", "--mask", "mask.png", "-o", "out.png", "--model", "none.safetensors"),
            "there is no file none.safetensors",
        ),
        (
            ("photo.png", "--mask", "mask.png", "-o", "out.png", "--attention", "psal"),
            "--attention: it is the network's; expected --model too",
        ),
        (
            ("photo.png", "--mask", "mask.png", "-o", "out.png", "--model", "m", "--keep-out", "mask.png"),
            "--keep-out: a network (--model) copies no patches",
        ),
        (
            ("photo.png", "--mask", "mask.png", "-o", "out.png", "--resume"),
            "--resume, --on-error and --recursive are for",
        ),
        (
            ("photo.png", "--mask", "mask.png", "--keep-out", "small.png", "-o", "out.png"),
            "has 5 x 4 pixels, photo.png",
        ),
        (
            ("photo.png", "--mask", "mask.png", "-o", "mask.png"),
            "--output: mask.png is also --mask; expected two different files",
        ),
        (
            ("photos", "--mask", "masks", "-o", "masks"),
            "--output: masks is also --mask; expected two different folders",
        ),
        (
            ("photos", "--mask", "masks", "-o", "photos"),
            "--output: photos is also PHOTO; expected two different folders",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, ...], message: str) -> None:
    Image.new("L", (5, 4)).save("small.png")
    Image.new("L", (90, 60)).save("black.png")
    Image.new("L", (90, 60), 255).save("white.png")
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not Path("out.png").exists()
