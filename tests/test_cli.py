"""The command line: what it writes, prints and refuses."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

from patchattn import cli
from patchattn.cli.app import app
from patchattn.cli.stages import stages
from patchattn.kernels import default_backend
from patchattn.tasks import reconstruct as reconstruct_task
from patchattn.tasks.images import Image, read_image, write_image


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two views of one scene, in which the test runs."""
    left, right, _ = skimage.data.stereo_motorcycle()
    PIL.Image.fromarray(left[200:240, 300:350]).save(tmp_path / "target.png")
    PIL.Image.fromarray(right[196:246, 270:340]).save(tmp_path / "reference.jpg", quality=95)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


RECONSTRUCT = ("reconstruct", "target.png", "reference.jpg", "-o", "out.png")


def test_reconstruct_writes_and_tells() -> None:
    result = run(*RECONSTRUCT, "--show-field", "field.png")
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["wrote"] == "out.png (50 x 40, 8 bit)"
    assert lines["field"] == "field.png"
    assert float(lines["MSE"]) < 0.01
    assert lines["PSNR"].endswith(" dB")
    assert lines["time"].endswith(" s")
    assert "MiB" in lines["memory"]
    assert read_image("out.png").size == read_image("field.png").size == (40, 50)
    target = read_image("target.png").color
    # The number is that of the picture, but for rounding to 8 bits.
    assert float((read_image("out.png").color - target).square().mean()) == pytest.approx(float(lines["MSE"]), abs=5e-5)


def test_reconstruct_json_is_all_there_is() -> None:
    options = ("--k", "2", "--patch-size", "5", "--aggregate", "--seed", "3", "--method", "exact", "--json")
    result = run(*RECONSTRUCT, *options)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["output"] == "out.png"
    assert told["show_field"] is None
    assert (told["height"], told["width"], told["bit_depth"]) == (40, 50, 8)
    assert 0 < told["mse"] < 0.01
    assert told["psnr"] == pytest.approx(-10 * np.log10(told["mse"]), abs=1e-3)
    assert told["settings"] == {
        "k": 2,
        "patch_size": 5,
        "aggregate": True,
        "similarity": "l2",
        "temperature": 1.0,
        "method": "exact",
        "iterations": None,
        "seed": 3,
    }


def test_infinite_psnr_is_null_in_json() -> None:
    result = run("reconstruct", "target.png", "target.png", "-o", "out.png", "--k", "1", "--method", "exact", "--json")
    assert json.loads(result.stdout)["psnr"] is None


def test_sixteen_bits_and_alpha() -> None:
    target = read_image("target.png")
    alpha = torch.linspace(0, 1, 40 * 50).view(1, 1, 40, 50)
    write_image("deep.tif", Image(target.color, alpha, 16))
    assert run("reconstruct", "deep.tif", "reference.jpg", "-o", "out.png").exit_code == 0
    result = read_image("out.png")
    assert result.bit_depth == 16
    assert result.alpha is not None
    torch.testing.assert_close(result.alpha, alpha, rtol=0, atol=1e-5)
    refused = run("reconstruct", "deep.tif", "reference.jpg", "-o", "out.jpg")
    assert refused.exit_code == 2
    assert "--output: out.jpg cannot hold the image's 16 bits a channel and alpha" in refused.stderr


def test_same_seed_same_bytes_with_any_threads() -> None:
    before = torch.get_num_threads()
    try:
        written = []
        for threads in ("1", "2", "2"):
            assert run(*RECONSTRUCT, "--method", "patchmatch", "--threads", threads).exit_code == 0
            assert torch.get_num_threads() == int(threads)
            written.append(Path("out.png").read_bytes())
    finally:
        torch.set_num_threads(before)
    assert written[0] == written[1] == written[2]


def test_match_writes_the_field() -> None:
    result = run("match", "target.png", "reference.jpg", "-o", "field.npz", "--k", "2", "--method", "exact", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    with np.load("field.npz") as field:
        assert field["index"].shape == field["similarity"].shape == (2, 40, 50)
        assert field["index"].dtype == np.int32
        assert field["key_shape"].tolist() == told["key_shape"] == [50, 70]
        assert json.loads(str(field["settings"])) == told["settings"]
        assert told["mean_best_similarity"] == pytest.approx(float(field["similarity"][0].mean()), rel=1e-4)
        assert (field["similarity"][0] >= field["similarity"][1]).all()
    assert "wrote" in run("match", "target.png", "reference.jpg", "-o", "field.npz").stdout


def test_info() -> None:
    told = json.loads(run("info", "--json").stdout)
    assert {"patchattn", "torch", "numba", "triton", "numpy", "python"} <= told["versions"].keys()
    assert told["devices"]["cpu"] == default_backend("cpu")
    assert told["backends"]["reference"] is None
    assert told["threads"] == torch.get_num_threads()
    assert told["caches"].keys() <= {"cpu", "gpu"}
    assert all((state["folder"] is None) != (state["problem"] is None) for state in told["caches"].values())
    shipped = told["shipped_machine_code"]
    assert (shipped["level"] is None) != (shipped["problem"] is None)
    lines = run("info").stdout
    assert (shipped["level"] or shipped["problem"]) in lines
    assert all((state["folder"] or state["problem"]) in lines for state in told["caches"].values())
    assert "torch  " in lines
    assert "backend cpu" in lines
    assert f"served by backend {default_backend('cpu')}" in lines
    assert lines.count("Apple's mps, by reference") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("reconstruct", "no.png", "reference.jpg", "-o", "o.png"), "TARGET: there is no file no.png"),
        (("reconstruct", "target.png", "no.png", "-o", "o.png"), "REFERENCE: there is no file no.png"),
        (("reconstruct", "target.png", "text.png", "-o", "o.png"), "REFERENCE: cannot read text.png as an image"),
        (("reconstruct", "target.png", "reference.jpg", "-o", "o.svg"), "--output: o.svg ends in .svg; allowed are"),
        (("reconstruct", "target.png", "reference.jpg", "-o", "no/o.png"), "--output: cannot write no/o.png"),
        ((*RECONSTRUCT, "--show-field", "f.txt"), "--show-field: f.txt ends in .txt"),
        (("reconstruct", "target.png", "reference.jpg", "-o", "reference.jpg"), "--output: reference.jpg is also REF"),
        ((*RECONSTRUCT, "--show-field", "./target.png"), "--show-field: target.png is also TARGET"),
        ((*RECONSTRUCT, "--show-field", "./out.png"), "--show-field: out.png is also --output"),
        ((*RECONSTRUCT, "--patch-size", "4"), "--patch-size: "),
        ((*RECONSTRUCT, "--method", "magic"), "--method: "),
        ((*RECONSTRUCT, "--similarity", "taste"), "--similarity: "),
        ((*RECONSTRUCT, "--k", "100000"), "--k: "),
        (("match", "target.png", "reference.jpg", "-o", "field.npy"), "--output: field.npy ends in .npy; allowed is"),
        (("match", "no.png", "reference.jpg", "-o", "field.npz"), "A: there is no file no.png"),
        (("match", "target.png", "no.png", "-o", "field.npz"), "B: there is no file no.png"),
    ],
)
def test_errors_are_one_sentence(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    (folder / "text.png").write_text("words")
    before = sorted(folder.iterdir())
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("the backend is missing"), KeyboardInterrupt()])
def test_failure_leaves_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(reconstruct_task, "reconstruct", fail)
    before = sorted(folder.iterdir())
    result = run(*RECONSTRUCT)
    assert result.exit_code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert "Traceback" not in result.output
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("command", [(), ("reconstruct",), ("match",), ("info",)])
def test_help(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "--help" in result.stdout


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("patchattn.cli.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit, match=r'typer is not installed; install it with: pip install "patchattn\[tools\]"'):
        cli.main()


# ------------------------------------------------------------------------------------------------- a real process


def process(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "patchattn.cli", *arguments]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_real_process() -> None:
    with process(*RECONSTRUCT, "--json") as running:
        stdout, stderr = running.communicate(timeout=120)
    assert running.returncode == 0, stderr
    assert json.loads(stdout)["mse"] < 0.01
    assert Path("out.png").is_file()


def wait_for_work(running: subprocess.Popen[str], seconds: float) -> None:
    """Wait until a process has computed for so long; on a busy machine the clock says little."""
    stat = Path(f"/proc/{running.pid}/stat")
    if not stat.exists():  # not on Linux
        time.sleep(seconds)
        return
    ticks = os.sysconf("SC_CLK_TCK")
    while running.poll() is None:
        user, system = stat.read_text().rpartition(")")[2].split()[11:13]
        if (int(user) + int(system)) / ticks > seconds:
            return
        time.sleep(0.05)


@pytest.fixture
def keyboard() -> Iterator[None]:
    """Processes listen to Ctrl-C, even where the tests run in the background of a shell, which has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("keyboard")
def test_interruption_of_a_real_process(folder: Path) -> None:
    before = sorted(folder.iterdir())
    rng = np.random.default_rng(0)
    PIL.Image.fromarray(rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)).save("noise.png")
    with process("reconstruct", "noise.png", "noise.png", "-o", "out.png", "--method", "exact") as running:
        wait_for_work(running, 4)  # past the start, in the middle of a minute's work
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert sorted(folder.iterdir()) == sorted([*before, folder / "noise.png"])


# --------------------------------------------------------------------------------------------------- the progress bar


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80)


def test_slow_work_is_shown() -> None:
    console = terminal()
    with stages(quiet=False, delay=0.05, console=console) as stage:
        stage("matching")
        time.sleep(0.4)
        stage.steps(1, 2)
        time.sleep(0.2)
        stage("attending")
        time.sleep(0.2)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "matching" in shown
    assert "attending" in shown


@pytest.mark.parametrize(("quiet", "delay"), [(False, 5.0), (True, 0.0)])
def test_quick_or_quiet_work_is_not_shown(quiet: bool, delay: float) -> None:
    console = terminal()
    with stages(quiet=quiet, delay=delay, console=console) as stage:
        stage("matching")
        time.sleep(0.1)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_nothing_is_shown_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with stages(quiet=False, delay=0.0) as stage:
        stage("matching")
        time.sleep(0.1)
    assert capsys.readouterr().err == ""
