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
    run("upscale", "photo.png", "-o", "large.png")
    piped = run("upscale", "-", "-o", "-", stdin=photo)
    assert piped.stdout == (folder / "large.png").read_bytes()
    assert piped.stderr.startswith(b"wrote   - (52 x 40, 8 bit)")
    as_json = run("inpaint", "photo.png", "--mask", "-", "-o", "-", "--patch-size", "3", "--format", "tif", "--json",
                  stdin=(folder / "mask.png").read_bytes())  # fmt: skip
    assert Image.open(io.BytesIO(as_json.stdout)).format == "TIFF"
    assert json.loads(as_json.stderr)["output"] == "-"
    field = run("match", "-", "photo.png", "-o", "-", stdin=photo).stdout
    with np.load(io.BytesIO(field)) as arrays:
        assert arrays["index"].shape == (1, 20, 26)


NAMES = [b"caf\xe9.png", b"\xff\xfe.png", b"a\x80b.png", "日本語.png".encode(), b"new\nline \x1b[31m.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "cp1252"])
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
    content = json.loads(run(*command, "--resume", "--json", encoding=encoding, code=1).stdout)
    assert sorted(content["finished_before"]) == sorted(map(os.fsdecode, NAMES))
    missing = run("upscale", b"none\xe9.png", "-o", "o.png", encoding=encoding, code=2)
    assert b"there is no file none\xe9.png" in missing.stderr


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
    left = shell(f"{command} large.png | true; exit ${{PIPESTATUS[0]}}")
    assert left.returncode in (0, 1)
    assert left.stderr == b""
    closed = shell(f"{command} large.png >&- 2>&-")
    assert closed.returncode == 0


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="sees in /proc how far a process has come")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("loaded", ["libtorch_cpu", "PIL/_imaging", None])
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
        # Where the tests run in the background or under nohup, they ignore signals, and what they start would too.
        preexec_fn=listen,
    ) as running:
        wait_for(running, loaded)
        running.send_signal(number)
        output, errors = running.communicate(timeout=60)
    assert running.returncode in (-number, 128 + number)
    assert (output, errors) == (b"", b"")
    assert sorted(folder.iterdir()) == before
    assert (folder / "out.png").read_bytes() == b"old"


def listen() -> None:
    """Let a process do with signals what is usual."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


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
