"""Pipes, streams of other encodings, names that are not UTF-8, and signals, in real processes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from typer.testing import CliRunner, Result

from patchattn.cli.app import app
from tests.processes import heed_signals

SOURCE = Path(__file__).parents[1] / "src"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photograph and a mask, in a folder in which the test runs."""
    photograph = skimage.data.coffee()[100:120, 200:226]
    mask = np.zeros(photograph.shape[:2], np.uint8)
    mask[8:12, 10:16] = 255
    Image.fromarray(photograph).save(tmp_path / "photo.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(
    *arguments: str | bytes, stdin: bytes = b"", encoding: str = "utf-8", code: int = 0
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "patchattn.cli", *arguments]
    result = subprocess.run(command, input=stdin, capture_output=True, env=environment, timeout=300, check=False)
    assert result.returncode == code, result.stderr.decode(errors="replace")
    assert b"Traceback" not in result.stderr
    return result


def test_from_standard_input_to_standard_output(folder: Path) -> None:
    photo = (folder / "photo.png").read_bytes()
    piped = run("upscale", "-", "-o", "-", stdin=photo)
    assert piped.stderr.startswith(b"wrote   - (52 x 40, 8 bit)")
    assert in_process("upscale", "photo.png", "-o", "large.png").exit_code == 0
    assert piped.stdout == (folder / "large.png").read_bytes()


def in_process(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


def test_a_mask_from_standard_input(folder: Path) -> None:
    command = ("inpaint", "photo.png", "--mask", "-", "-o", "-", "--patch-size", "3", "--format", "tif", "--json")
    result = in_process(*command, stdin=(folder / "mask.png").read_bytes())
    assert result.exit_code == 0, result.stderr
    assert Image.open(io.BytesIO(result.stdout_bytes)).format == "TIFF"
    assert json.loads(result.stderr)["output"] == "-"


@pytest.mark.parametrize("kind", ["png", "tif", "webp", "jpg", "bmp", ".PNG"])
def test_formats_of_standard_output(folder: Path, kind: str) -> None:
    command = ("upscale", "-", "-o", "-", "--format", kind)
    result = in_process(*command, stdin=(folder / "photo.png").read_bytes())
    assert result.exit_code == 0, result.stderr
    assert Image.open(io.BytesIO(result.stdout_bytes)).size == (52, 40)


def test_a_field_to_standard_output(folder: Path) -> None:
    result = in_process("match", "-", "photo.png", "-o", "-", stdin=(folder / "photo.png").read_bytes())
    assert result.exit_code == 0, result.stderr
    with np.load(io.BytesIO(result.stdout_bytes)) as arrays:
        assert arrays["index"].shape == (1, 20, 26)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("upscale", "-", "-o", "o.png"), "PHOTO: cannot read standard input as an image"),
        (("upscale", "-", "-o", "-", "--format", "xyz"), "--format: "),
        (("inpaint", "-", "--mask", "-", "-o", "o.png"), "--mask: - is PHOTO already; expected a file for one of the"),
        (("match", "-", "-", "-o", "o.npz"), "B: - is A already; expected a file for one of the two"),
        (("colorize", "-", "photo.png", "-o", "-", "--show-field", "-"), "--show-field: - is --output already"),
        (("upscale", ".", "-o", "-"), "--output: PHOTO is a folder, whose results cannot go to standard output"),
    ],
)
def test_pipes_that_cannot_be(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    result = in_process(*arguments, stdin=b"no image")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (folder / "o.png").exists()


NAMES = [b"caf\xe9.png", b"\xff\xfe.png", b"a\x80b.png", "日本語.png".encode(), b"new\nline \x1b[31m.png"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_and_streams_of_other_encodings(folder: Path, encoding: str) -> None:
    photos = folder / "photos"
    photos.mkdir()
    for name in NAMES:
        (photos / os.fsdecode(name)).write_bytes((folder / "photo.png").read_bytes())
    (photos / os.fsdecode(b"broken\xe9.png")).write_bytes(b"")
    command = ("upscale", "photos", "-o", b"large\xe9", "--on-error", "skip")
    result = run(*command, encoding=encoding, code=1)
    assert b"large\xe9 (5 images)" in result.stdout
    assert b"broken\xe9.png" in result.stdout
    assert b"large\xe9 (0 images)" in run(*command, "--resume", encoding=encoding, code=1).stdout


def test_standard_output_that_fails_or_has_left(folder: Path) -> None:
    command = f"{sys.executable} -m patchattn.cli upscale photo.png -o"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}

    def shell(line: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["bash", "-c", line], capture_output=True, env=environment, timeout=300, check=False)

    full = shell(f"{command} large.png > /dev/full")
    assert (full.returncode, full.stderr) == (1, b"cannot write to standard output: No space left on device.\n")
    assert (folder / "large.png").is_file()
    lost = shell(f"{command} - > /dev/full")
    assert lost.returncode == 2
    assert lost.stderr == b"--output: cannot write to standard output: No space left on device.\n"
    closed = shell(f"{command} large.png >&- 2>&-")
    assert closed.returncode == 0


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="sees in /proc how far a process has come")
@pytest.mark.parametrize(
    ("number", "loaded"),
    [
        (signal.SIGINT, "libtorch_cpu"),
        (signal.SIGINT, "PIL/_imaging"),
        (signal.SIGINT, None),
        (signal.SIGTERM, None),
        (signal.SIGHUP, "PIL/_imaging"),
    ],
)
def test_signals_end_a_command_quietly(folder: Path, number: signal.Signals, loaded: str | None) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "out.png").write_bytes(b"old")
    before = sorted(folder.iterdir())
    code = "import _patchattn_command; _patchattn_command.main()"
    arguments = ["reconstruct", "noise.png", "noise.png", "-o", "out.png", "--method", "exact"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        preexec_fn=heed_signals,
    ) as running:
        wait_for(running, loaded)
        running.send_signal(number)
        output, errors = running.communicate(timeout=60)
    assert running.returncode in (-number, 128 + number)
    assert (output, errors) == (b"", b"")
    assert sorted(folder.iterdir()) == before
    assert (folder / "out.png").read_bytes() == b"old"


def wait_for(running: subprocess.Popen[bytes], loaded: str | None) -> None:
    """Wait until a process has loaded a library; None: until it has computed for some seconds."""
    while running.poll() is None:
        if loaded is not None:
            done = loaded in Path(f"/proc/{running.pid}/maps").read_text()
        else:
            user, system = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            done = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") > 6
        if done:
            return
        time.sleep(0.01)
