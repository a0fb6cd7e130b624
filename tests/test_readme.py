"""What the README shows works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import skimage.data
from PIL import Image
from typer.testing import CliRunner

from patchattn.cli.app import app

pytestmark = pytest.mark.usefixtures("one_thread")

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith(f"$ {program} ")]


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small photographs, masks and folders of them, named as in the README, in which the test runs."""
    left, right, _ = skimage.data.stereo_motorcycle()
    Image.fromarray(left[200:260, 300:380]).save(tmp_path / "target.png")
    Image.fromarray(right[200:260, 270:360]).save(tmp_path / "reference.png")
    gray = Image.fromarray(left[200:260, 300:380]).convert("L")
    gray.save(tmp_path / "gray.png")
    for folder, names in (("frames", ["0.png"]), ("sequences/scene", ["0.png", "1.png"])):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            gray.save(tmp_path / folder / name)
    photograph, mask = Image.fromarray(left[200:260, 300:380]), Image.new("L", (80, 60))
    mask.paste(255, (30, 20, 44, 30))
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("photo.jpg", "photo.png", "photos/a.png"):
        photograph.save(tmp_path / name)
    for name in ("mask.png", "masks/a.png"):
        mask.save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_two_commands_come_first() -> None:
    assert [command[1] for command in commands("make")] == ["demo", "test"]
    assert README.read_text(encoding="utf-8").index("make demo") < README.read_text(encoding="utf-8").index("import ")


@pytest.mark.needs("cpu")  # the reference would take a quarter of an hour
def test_python(images: Path) -> None:
    found = blocks("python")
    assert found
    names: dict[str, object] = {}
    for block in found:
        exec(compile(block, str(README), "exec"), names)  # later blocks may build on earlier ones
    assert {"rebuilt.png", "completed.png"} <= {path.name for path in images.iterdir()}


@pytest.mark.needs("cpu")
def test_command_line(images: Path) -> None:
    found = commands("patchattn")
    assert {command[1] for command in found} == {
        "reconstruct",
        "colorize",
        "inpaint",
        "upscale",
        "match",
        "train",
        "info",
    }
    for command in found:
        # The paper's setting takes days.
        less = ["--steps", "2", "--size", "16", "--accelerator", "cpu"] if command[1] == "train" else []
        result = CliRunner().invoke(app, [*command[1:], *less])
        assert result.exit_code == 0, f"{shlex.join(command)}: {result.output}"
    assert (images / "colored" / "0.png").is_file()
    assert (images / "completed" / "a.png").is_file()
    assert (images / "enlarged" / "a.png").is_file()
    assert (images / "run" / "network.safetensors").is_file()
    assert {"rebuilt.png", "field.png", "field.npz", "colored.png", "completed.png"} <= {
        path.name for path in images.iterdir()
    }
