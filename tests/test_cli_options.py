"""Options of the command line: declared once, alike in all tools, shown in full by `--help`, and without PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pytest
import skimage.data
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner, Result

from patchattn.cli.app import app
from patchattn.names import Method, SimilarityName
from patchattn.networks.attention_layers import NAMES
from patchattn.networks.inpainting import ATTENTIONS, PADDING_MODES
from patchattn.networks.superresolution import CROSS_SCALE
from patchattn.options import Option, check_options, declared_options, values_of
from patchattn.tasks.folders import ON_ERROR
from patchattn.tasks.frame_colorizer import SOURCES
from patchattn.tasks.images import read_image
from patchattn.tasks.inpaint import QUALITIES
from patchattn.training.colorization import STARTS

pytestmark = pytest.mark.usefixtures("one_thread")

TOOLS = {
    "reconstruct": ("a.png", "b.png"),
    "colorize": ("gray.png", "b.png"),
    "inpaint": ("a.png", "--mask", "mask.png"),
    "upscale": ("a.png",),
    "match": ("a.png", "b.png"),
}
"""Commands that make files of images, and what they are called with."""
SHARED = ("device", "threads", "as_json", "debug", "resume", "on_error", "recursive")
KEYS = (
    "output",
    "done",
    "finished_before",
    "skipped",
    "passed_over",
    "seconds",
    "peak_memory_bytes",
    "model",
    "settings",
    "warnings",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small images and a folder of them, in which the test runs."""
    photograph = skimage.data.coffee()
    (tmp_path / "photos").mkdir()
    for name, at in (("a", 100), ("b", 130), ("photos/1", 110), ("photos/2", 120)):
        Image.fromarray(photograph[at : at + 24, 200:230]).save(tmp_path / f"{name}.png")
    Image.fromarray(photograph[100:124, 200:230]).convert("L").save(tmp_path / "gray.png")
    mask = Image.new("L", (30, 24))
    mask.paste(255, (10, 8, 16, 12))
    mask.save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def parameters(*words: str) -> dict[str, Any]:
    command: Any = get_command(app)
    for word in words:
        command = command.commands[word]
    return {one.name: one for one in command.params}


# ------------------------------------------------------------------------------------------------ alike in all tools


@pytest.mark.parametrize("name", SHARED)
def test_an_option_is_the_same_in_all_tools(name: str) -> None:
    found = [parameters(tool)[name] for tool in TOOLS]
    first = found[0]
    for one in found:
        assert (one.opts, one.default, one.metavar) == (first.opts, first.default, first.metavar)
        if (name, one.help) != ("resume", parameters("colorize")["resume"].help):  # it says more, of videos
            assert one.help == first.help


@pytest.mark.parametrize("tool", TOOLS)
def test_a_report_has_the_same_keys_in_all_tools(folder: Path, tool: str) -> None:
    output = "out.npz" if tool == "match" else "out.png"
    result = run(tool, *TOOLS[tool], "-o", output, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert set(KEYS) <= report.keys()
    assert report["done"] == [TOOLS[tool][0]]
    assert (report["output"], report["skipped"], report["warnings"]) == (output, {}, [])
    assert report["seconds"] > 0


@pytest.mark.parametrize("tool", TOOLS)
def test_devices_that_are_not_there_are_named(folder: Path, tool: str) -> None:
    output = "out.npz" if tool == "match" else "out.png"
    result = run(tool, *TOOLS[tool], "-o", output, "--device", "nowhere")
    assert result.exit_code == 2
    assert result.stderr.startswith("--device: cannot compute on nowhere (")
    assert not Path(output).exists()


def test_a_folder_rebuilt_from_one_image(folder: Path) -> None:
    (folder / "photos" / "3.png").write_bytes(b"no image")
    options = ("-o", "out", "--json", "--on-error", "skip")
    first = run("reconstruct", "photos", "b.png", *options)
    assert first.exit_code == 1, first.output
    report = json.loads(first.stdout)
    assert report["done"] == ["1.png", "2.png"]
    assert report["skipped"].keys() == {"3.png"}
    assert run("reconstruct", "photos/1.png", "b.png", "-o", "alone.png").exit_code == 0
    assert Path("out/1.png").read_bytes() == Path("alone.png").read_bytes()
    again = json.loads(run("reconstruct", "photos", "b.png", *options, "--resume").stdout)
    assert (again["done"], again["finished_before"]) == ([], ["1.png", "2.png"])
    refused = run("reconstruct", "photos", "b.png", "-o", "out", "--show-field", "field.png")
    assert refused.stderr == "--show-field: it is for one image; every image of a folder has its own.\n"


def test_a_folder_matched_in_one_image(folder: Path) -> None:
    result = run("match", "photos", "b.png", "-o", "out", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["done"] == ["1.png", "2.png"]
    assert run("match", "photos/2.png", "b.png", "-o", "alone.npz").exit_code == 0
    with np.load("out/2.npz") as found, np.load("alone.npz") as expected:
        assert all(np.array_equal(found[name], expected[name]) for name in ("index", "similarity", "settings"))
    again = json.loads(run("match", "photos", "b.png", "-o", "out", "--json", "--resume").stdout)
    assert (again["done"], again["finished_before"]) == ([], ["1.png", "2.png"])
    other = json.loads(run("match", "photos", "b.png", "-o", "out", "--json", "--resume", "--k", "2").stdout)
    assert other["done"] == ["1.png", "2.png"]


def test_an_animation_rebuilt_frame_by_frame(folder: Path) -> None:
    frames = [Image.open(f"photos/{number}.png") for number in (1, 2)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:], duration=100)
    result = run("reconstruct", "moving.gif", "b.png", "-o", "out.gif", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["frames"] == 2
    assert read_image("out.gif", frame=1).size == (24, 30)


# ------------------------------------------------------------------------------------------------------------- errors


def test_debug_shows_the_traceback_that_a_sentence_stands_for(folder: Path) -> None:
    arguments = ("upscale", "a.png", "-o", "out.png", "--patch-size", "4")
    plain, debugged = run(*arguments), run(*arguments, "--debug")
    assert (plain.exit_code, debugged.exit_code) == (2, 2)
    assert plain.stderr.startswith("--patch-size: ")
    assert plain.stderr.count("\n") == 1
    assert debugged.stderr.startswith("Traceback (most recent call last):\n")
    assert "ValueError: patch_size: " in debugged.stderr
    assert debugged.stderr.endswith("\n" + plain.stderr)


def test_a_declaration_is_checked() -> None:
    @dataclass(frozen=True)
    class Sizes:
        width: Annotated[int, Option("Pixels in a row.", min=1, max=9)] = 4
        border: Annotated[Literal["open", "closed"] | None, Option("The border.")] = None
        note: str = ""

    assert [(one.name, one.choices, one.is_optional) for one in declared_options(Sizes)] == [
        ("width", (), False),
        ("border", ("open", "closed"), True),
    ]
    check_options(Sizes())
    check_options(Sizes(9, "open"))
    assert values_of(Sizes(2), Sizes) == {"width": 2, "border": None, "note": ""}
    with pytest.raises(ValueError, match="width: got 0; expected 1 to 9"):
        check_options(Sizes(0))
    with pytest.raises(ValueError, match="border: got 'ajar'; allowed are 'open', 'closed'"):
        check_options(Sizes(border="ajar"))  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- help and choices


CHOICES = [
    (("match",), "method", get_args(Method)),
    (("match",), "similarity", get_args(SimilarityName)),
    (("match",), "on_error", ON_ERROR),
    (("colorize",), "source", SOURCES),
    (("inpaint",), "quality", QUALITIES),
    (("inpaint",), "attention", ATTENTIONS),
    (("upscale",), "attention", CROSS_SCALE),
    (("train", "colorization"), "attention", NAMES),
    (("train", "colorization"), "similarity", get_args(SimilarityName)),
    (("train", "colorization"), "start", STARTS),
    (("train", "inpainting"), "attention", ATTENTIONS),
    (("train", "inpainting"), "padding_mode", PADDING_MODES),
    (("train", "superresolution"), "cross_scale", CROSS_SCALE),
]


@pytest.mark.parametrize(
    ("words", "name", "allowed"), CHOICES, ids=lambda part: part if isinstance(part, str) else None
)
def test_help_lists_what_the_library_allows(words: tuple[str, ...], name: str, allowed: Any) -> None:
    listed = parameters(*words)[name].metavar
    assert listed[0] + listed[-1] == "[]"
    assert set(listed[1:-1].split("|")) == set(allowed)
    assert listed in run(*words, "--help").stdout


def process(*arguments: str, **environment: str) -> str:
    """Run the installed command's first function; it fails if PyTorch was imported."""
    code = (
        "import atexit, os, sys\n"
        "atexit.register(lambda: 'torch' in sys.modules and os._exit(99))\n"
        "from _patchattn_command import main\n"
        f"sys.argv = {['patchattn', *arguments]!r}\n"
        "main()\n"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    finished = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, (finished.returncode, finished.stderr)
    return finished.stdout


def test_help_and_version_do_without_pytorch() -> None:
    assert "reconstruct" in process("--help")
    assert process("--version") == run("--version").stdout
    assert "--mask-color" in process("inpaint", "--help")
    assert "--hole-size" in process("train", "inpainting", "--help")


def test_the_shell_completes_choices() -> None:
    typed = "patchattn match a.png b.png --method p"
    completed = process(_PATCHATTN_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD="5")
    assert completed.split() == ["patchmatch"]


def test_commands_import_the_whole_package_before_their_work() -> None:
    code = (
        "import sys\n"
        "import _patchattn_command as command\n"
        "command._put_off_import()\n"
        "import patchattn.cli.app\n"
        "assert 'torch' not in sys.modules and not hasattr(patchattn, 'match')\n"
        "command.import_package()\n"
        "command.import_package()\n"
        "import patchattn as again\n"
        "assert again is patchattn and patchattn.__version__ and callable(patchattn.match)\n"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True)
