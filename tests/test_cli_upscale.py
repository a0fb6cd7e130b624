"""`patchattn upscale`: what it writes, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import ImageCms
from typer.testing import CliRunner, Result

from patchattn.cli.app import app
from patchattn.networks.architectures import SuperResolutionArchitecture
from patchattn.networks.weights import network_bytes
from patchattn.tasks.images import Image, read_image, write_image
from patchattn.tasks.upscale import upscale

pytestmark = pytest.mark.usefixtures("one_thread")

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photograph, and a folder of two, in which the test runs."""
    photograph = PIL.Image.fromarray(skimage.data.coffee()[100:130, 200:245])
    photograph.save(tmp_path / "photo.png", icc_profile=PROFILE)
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        photograph.save(tmp_path / "photos" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["upscale", *arguments])


def pixels(path: str) -> NDArray[np.uint8]:
    return np.asarray(PIL.Image.open(path))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_image(scale: int) -> None:
    result = run("photo.png", "--scale", str(scale), "-o", "large.png")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"wrote   large.png ({45 * scale} x {30 * scale}, 8 bit)")
    expected = upscale(read_image("photo.png"), scale).image.color[0].movedim(0, 2)
    np.testing.assert_allclose(pixels("large.png"), 255 * expected, atol=0.51)
    with PIL.Image.open("large.png") as large:
        assert large.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_channels_and_bits_stay(mode: str, bit_depth: int) -> None:
    given = read_image("photo.png")
    color = given.color[:, : 1 if mode[0] == "L" else 3]
    alpha = given.color[:, :1] if mode[-1] == "A" else None
    write_image("given.png", Image(color, alpha, bit_depth=16 if bit_depth == 16 else 8))
    result = run("given.png", "-o", "large.png")
    assert result.exit_code == 0, result.output
    large = read_image("large.png")
    assert (large.size, large.bit_depth, large.color.shape[1]) == ((60, 90), bit_depth, color.shape[1])
    assert (large.alpha is None) == (alpha is None)


def test_json() -> None:
    arguments = ("--patch-size", "3", "--k", "2", "--temperature", "0.1", "--seed", "3", "--threads", "1")
    result = run("photo.png", "-o", "large.png", "--json", *arguments)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["output"], told["height"], told["width"], told["bit_depth"]) == ("large.png", 60, 90, 8)
    assert told["seconds"] > 0
    assert told["settings"] == {"scale": 2, "patch_size": 3, "k": 2, "temperature": 0.1, "seed": 3}


def test_folder(folder: Path) -> None:
    (folder / "photos" / "c.png").write_bytes(b"no picture")
    result = run("photos", "-o", "large", "--on-error", "skip", "--json")
    assert result.exit_code == 1, result.output
    told = json.loads(result.stdout)
    assert told["done"] == ["a.png", "b.png"]
    assert list(told["skipped"]) == ["c.png"]
    Path("large/b.png").unlink()
    again = run("photos", "-o", "large", "--resume", "--on-error", "skip", "--json")
    told = json.loads(again.stdout)
    assert (told["done"], told["finished_before"]) == (["b.png"], ["a.png"])
    np.testing.assert_array_equal(pixels("large/a.png"), pixels("large/b.png"))
    assert pixels("large/a.png").shape == (60, 90, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.png", "-o", "out.png"), "PHOTO: there is no file none.png"),
        (("photo.png", "--scale", "5", "-o", "out.png"), "--scale: got 5; allowed are 2, 3, 4"),
        (("photo.png", "--patch-size", "4", "-o", "out.png"), "--patch-size: expected an odd number"),
        (("photo.png", "-o", "out.txt"), "--output: out.txt ends in .txt"),
        (("open.png", "-o", "out.jpg"), "--output: out.jpg cannot hold the image's 8 bits a channel and alpha"),
        (
            ("long.png", "-o", "out.webp"),
            "--output: out.webp cannot hold 16400 x 2 pixels; its format ends at 16383 a side",
        ),
        (("photo.png", "-o", "out.png", "--device", "abacus"), "--device: cannot compute on abacus"),
        (
            ("photo.png", "-o", "out.png", "--resume"),
            "--resume, --on-error and --recursive are for a folder, which photo.png is not",
        ),
        (("photo.png", "-o", "./photo.png"), "--output: photo.png is also PHOTO; expected two different files"),
        (("photos", "-o", "photos"), "--output: photos is also PHOTO; expected two different folders"),
        (("photos", "--scale", "5", "-o", "out"), "--scale: got 5; allowed are 2, 3, 4"),
    ],
)
def test_wrong_arguments_are_named(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    PIL.Image.new("LA", (5, 4)).save("open.png")
    PIL.Image.new("L", (8200, 1)).save("long.png")
    before = sorted(folder.iterdir())
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_network_enlarges_instead(folder: Path, scale: int) -> None:
    arguments = ("photo.png", "--scale", str(scale), "--model", "default")
    result = run(*arguments, "-o", "large.png", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["height"], told["width"], told["model"]) == (30 * scale, 45 * scale, "default")
    full = run(*arguments, "--attention", "full", "-o", "full.png")
    assert full.exit_code == 0, full.output
    patches = run("photo.png", "--scale", str(scale), "-o", "patches.png")
    assert patches.exit_code == 0, patches.output
    ours, exact, without = (pixels(f"{name}.png").astype(float) for name in ("large", "full", "patches"))
    # The same weights see nearly the same with the best matches alone; no weights see something else.
    assert 0 < np.abs(ours - exact).mean() < 5
    assert np.abs(ours - without).mean() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--attention", "full"), "--attention: it is the network's; expected --model too"),
        (("--model", "none.safetensors"), "model: there is no file none.safetensors"),
        (("--model", "default", "--attention", "local"), "--attention: got 'local'; allowed are 'psal', 'full'"),
    ],
)
def test_wrong_arguments_of_a_network_are_named(arguments: tuple[str, ...], message: str) -> None:
    result = run("photo.png", "-o", "out.png", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not Path("out.png").exists()


def test_a_network_is_for_one_scale() -> None:
    architecture = SuperResolutionArchitecture(3, channels=2, depth=1)
    Path("three.safetensors").write_bytes(network_bytes(architecture.build(), architecture))
    result = run("photo.png", "-o", "out.png", "--model", "three.safetensors")
    assert result.exit_code == 2, result.output
    assert "scale: got 2, and the network enlarges 3 times; expected the same" in result.stderr
