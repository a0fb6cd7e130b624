"""`patchattn train`: what it writes, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import skimage.data
from PIL import Image
from typer.testing import CliRunner, Result

from patchattn.cli.app import app

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `data` with two sequences of two frames, in which the test runs."""
    photograph = skimage.data.astronaut()
    for name, top in (("left", 0), ("right", 200)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for n in range(2):
            Image.fromarray(photograph[top + 20 * n : top + 20 * n + 100, :120]).save(
                tmp_path / "data" / name / f"{n}.png"
            )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*options: str) -> Result:
    small = ("--data", "data", "-o", "run", "--size", "16", "--patch-size", "3", "--steps", "2", "--accelerator", "cpu")
    return CliRunner().invoke(app, ["train", "colorization", *small, *options])


def test_a_run_tells_what_it_wrote() -> None:
    setting = ("--hold-out", "1", "--recolor", "--start", "aligned", "--explore", "1")
    result = run(*setting)
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["wrote"] == "run/network.safetensors"
    assert float(lines["loss"].split()[0]) > 0
    assert lines["held_out"].endswith("(right)")
    more = run(*setting, "--resume", "--steps", "3", "--json")
    assert more.exit_code == 0, more.output
    told = json.loads(more.stdout)
    assert (told["network"], told["steps"]) == ("run/network.safetensors", 3)
    assert 0 < told["held_out_error"] < 1


def test_a_file_that_cannot_be_read_is_left_out_if_asked(folder: Path) -> None:
    (folder / "data" / "left" / "2.png").write_bytes(b"no picture")
    stopped = run()
    assert stopped.exit_code == 2
    assert "data/left/2.png" in stopped.stderr
    assert not (folder / "run").exists()
    skipped = run("--on-error", "skip")
    assert skipped.exit_code == 0, skipped.output
    assert "left out: data: cannot read data/left/2.png" in skipped.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--attention", "flash"), "--attention: got 'flash'; allowed are 'psal'"),
        (("--attention", "linear", "--k", "3"), "--attention: 'linear' has no setting 'k'; it has --patch-size"),
        (("--hold-out", "2"), "--hold-out: got 2; data has 2 sequences, one must be left"),
        (("--crop", "17"), "--crop: got 17; expected 8 to the size of the frames, 16"),
        (("--start", "zero"), "--start: got 'zero'; allowed are 'random', 'aligned'"),
        (
            ("--attention", "linear", "--explore", "3"),
            "--explore: LinearAttention has no similarity of patches to learn",
        ),
        (("--data", "none"), "--data: there is no folder none"),
        (("--precision", "12-bit"), "accelerator, devices or precision: "),
        (("--learning-rate", "-1"), "--learning-rate: "),
    ],
)
def test_wrong_arguments_are_named(options: tuple[str, ...], message: str) -> None:
    result = run(*options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not Path("run", "network.safetensors").exists()


def run_inpainting(*options: str) -> Result:
    small = ("--data", "data", "-o", "run", "--size", "72", "--hole-size", "32", "--channels", "2", "--critic-channels",
             "2", "--batch-size", "1", "--steps", "1", "--accelerator", "cpu")  # fmt: skip
    return CliRunner().invoke(app, ["train", "inpainting", *small, *options])


@pytest.mark.parametrize("options", [("--k", "2", "--iterations", "1"), ("--attention", "contextual", "--rate", "1")])
def test_an_inpainting_run_tells_what_it_wrote(options: tuple[str, ...]) -> None:
    result = run_inpainting(*options)
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["wrote"] == "run/network.safetensors"
    assert float(lines["loss"].split()[0]) > 0
    more = run_inpainting(*options, "--resume", "--steps", "2", "--json")
    assert more.exit_code == 0, more.output
    told = json.loads(more.stdout)
    assert (told["network"], told["steps"]) == ("run/network.safetensors", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--attention", "full"), "--attention: got 'full'; allowed are 'psal', 'contextual'"),
        (("--rate", "2"), "--attention: 'psal' has no setting 'rate'; it has k, --patch-size"),
        (("--hole-size", "73"), "--hole-size: got 73; expected at most the size of the images, 72"),
        (("--channels", "3"), "channels: got 3; expected an even number"),
        (("--padding-mode", "same"), "--padding-mode: got 'same'; allowed are 'reflect', 'zeros'"),
        (("--data", "none"), "--data: there is no folder none"),
        (("--precision", "12-bit"), "accelerator, devices or precision: "),
    ],
)
def test_wrong_inpainting_arguments_are_named(options: tuple[str, ...], message: str) -> None:
    result = run_inpainting(*options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not Path("run", "network.safetensors").exists()


def run_superresolution(*options: str) -> Result:
    small = ("--data", "data", "-o", "run", "--size", "16", "--channels", "2", "--depth", "1", "--batch-size", "1",
             "--steps", "1", "--cooldown", "0", "--accelerator", "cpu")  # fmt: skip
    return CliRunner().invoke(app, ["train", "superresolution", *small, *options])


@pytest.mark.parametrize(
    "options",
    [
        ("--scale", "3", "--window", "4", "--k", "2"),
        ("--cross-scale", "psal", "--k", "2", "--in-scale", "full", "--no-alternate"),
    ],
)
def test_a_superresolution_run_tells_what_it_wrote(options: tuple[str, ...]) -> None:
    result = run_superresolution(*options)
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["wrote"] == "run/network.safetensors"
    assert float(lines["loss"].split()[0]) > 0
    more = run_superresolution(*options, "--resume", "--steps", "2", "--json")
    assert more.exit_code == 0, more.output
    told = json.loads(more.stdout)
    assert (told["network"], told["steps"]) == ("run/network.safetensors", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scale", "5"), "scale: got 5; allowed are 2, 3, 4"),
        (("--cross-scale", "local"), "--cross-scale: got 'local'; allowed are 'full', 'psal'"),
        (("--in-scale", "psal"), "--in-scale: got 'psal'; allowed are 'full', 'local'"),
        (
            ("--k", "3", "--no-alternate"),
            "--cross-scale: 'full' has no setting 'k'; it has patch_size, scale, divisor",
        ),
        (("--in-scale", "full", "--window", "4"), "--in-scale: 'full' has no setting 'window'"),
        (("--channels", "3"), "channels: got 3; expected an even number"),
        (("--data", "none"), "--data: there is no folder none"),
        (("--precision", "12-bit"), "accelerator, devices or precision: "),
    ],
)
def test_wrong_superresolution_arguments_are_named(options: tuple[str, ...], message: str) -> None:
    result = run_superresolution(*options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not Path("run", "network.safetensors").exists()
