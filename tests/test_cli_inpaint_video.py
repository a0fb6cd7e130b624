"""`patchattn inpaint` on a video, and on a folder of frames as one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data
from typer.testing import CliRunner, Result

from patchattn.cli.app import app
from tests.tasks.video.making import frames_of, make_video, packets_of, samples, times_of

pytest.importorskip("cv2", reason="needs the extra video")
pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, FRAMES = (64, 96), 6
PHOTOGRAPH = skimage.data.coffee()[100:164, 200:360]


def truth(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.ascontiguousarray(PHOTOGRAPH[: size[0], 5 * number : 5 * number + size[1]])


def covered(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The camera moves, and a red square stays in the middle of the frame."""
    shown = truth(number, size)
    shown[24:40, 40:56] = (255, 0, 0)
    return shown


def mask_of(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros((*size, 3), np.uint8)
    mask[24:40, 40:56] = 255
    return mask


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    PIL.Image.fromarray(mask_of(0)).save("mask.png")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["inpaint", *arguments, "--quality", "fast"])


def write_frames(name: str, shows: object = covered) -> None:
    Path(name).mkdir()
    for number in range(FRAMES):
        PIL.Image.fromarray(shows(number)).save(f"{name}/{number}.png")  # type: ignore[operator]


def error_in_hole(shown: list[np.ndarray]) -> float:
    """Mean difference from the truth where the square was."""
    return float(np.mean([np.abs(one.astype(int) - truth(n))[24:40, 40:56].mean() for n, one in enumerate(shown)]))


def video(**options: object) -> Path:
    return make_video(Path("in.mp4"), frames=FRAMES, size=SIZE, shows=covered, **options)  # type: ignore[arg-type]


def test_mask_image_and_sound() -> None:
    video(audio="aac")
    result = run("in.mp4", "--mask", "mask.png", "-o", "out.mp4", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["frames"], report["height"], report["width"], report["sounds"]) == (FRAMES, *SIZE, 1)
    shown = frames_of(Path("out.mp4"))
    assert error_in_hole([samples(frame) for frame in shown]) < 8
    assert times_of(Path("out.mp4")) == times_of(Path("in.mp4"))
    assert [packet[0] for packet in packets_of(Path("out.mp4"))] == [packet[0] for packet in packets_of(Path("in.mp4"))]
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("masks", ["video", "folder"])
def test_a_mask_for_each_frame(masks: str) -> None:
    video()
    if masks == "video":
        make_video(Path("masks.mp4"), frames=FRAMES, size=SIZE, shows=mask_of)
    else:
        write_frames("masks", lambda number: mask_of(number) * (number != 2))
    name = "masks.mp4" if masks == "video" else "masks"
    result = run("in.mp4", "--mask", name, "-o", "out.mp4")
    assert result.exit_code == 0, result.output
    shown = [samples(frame) for frame in frames_of(Path("out.mp4"))]
    if masks == "folder":
        assert np.abs(shown[2] - covered(2))[28:36, 44:52].mean() < 8
        shown[2] = truth(2)
    assert error_in_hole(shown) < 8


def test_folder_of_frames_as_one_video_goes_on() -> None:
    write_frames("frames")
    result = run("frames", "--video", "--mask", "mask.png", "-o", "out", "--json")
    assert result.exit_code == 0, result.output
    names = [f"{number}.png" for number in range(FRAMES)]
    assert json.loads(result.stdout)["done"] == names
    whole = {name: Path("out", name).read_bytes() for name in names}
    assert error_in_hole([np.asarray(PIL.Image.open(f"out/{name}")) for name in names]) < 8
    # Beyond the two pixels of --grow all stays as it is.
    shown = np.asarray(PIL.Image.open("out/3.png")).copy()
    shown[22:42, 38:58] = covered(3)[22:42, 38:58]
    assert np.array_equal(shown, covered(3))
    Path("out/4.png").unlink()
    again = run("frames", "--video", "--mask", "mask.png", "-o", "out", "--resume", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["done"] == ["4.png"]
    assert {name: Path("out", name).read_bytes() for name in names} == whole


def test_alpha_of_the_frames() -> None:
    Path("frames").mkdir()
    for number in range(FRAMES):
        alpha = 255 - mask_of(number)[..., :1]
        PIL.Image.fromarray(np.concatenate([covered(number), alpha], 2)).save(f"frames/{number}.png")
    result = run("frames", "--video", "-o", "out")
    assert result.exit_code == 0, result.output
    shown = [PIL.Image.open(f"out/{number}.png") for number in range(FRAMES)]
    assert {image.mode for image in shown} == {"RGB"}
    assert error_in_hole([np.asarray(image) for image in shown]) < 8


def test_killed_and_resumed_gives_the_same_bytes() -> None:
    make_video(Path("in.mp4"), frames=12, size=SIZE, shows=lambda number, size: covered(number % 6, size))
    arguments = ["in.mp4", "--mask", "mask.png", "--quality", "fast", "--resume"]
    assert run(*arguments[:3], "-o", "whole.mp4").exit_code == 0
    program = (
        "import os, signal, sys, patchattn.tasks.video.transcoder as t; t.SAVE_INTERVAL = 0.0\n"
        "from patchattn.tasks.video_inpainting.inpainter import VideoInpainter as V\n"
        "call = V.__call__\n"
        "V.__call__ = lambda self, n: os.kill(os.getpid(), signal.SIGKILL) if n == 7 else call(self, n)\n"
        "from patchattn.cli.app import app; app(['inpaint', *sys.argv[1:]])"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, *arguments, "-o", "out.mp4"], env=dict(os.environ), check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not Path("out.mp4").exists()
    result = run(*arguments, "-o", "out.mp4", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["finished_before"] == 7
    assert Path("out.mp4").read_bytes() == Path("whole.mp4").read_bytes()


def test_a_cut_file_is_completed_as_far_as_it_goes() -> None:
    content = video(options={"g": "1"}, container={"movflags": "frag_keyframe+empty_moov"}).read_bytes()
    Path("cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    result = run("cut.mp4", "--mask", "mask.png", "-o", "out.mp4", "--json")
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    assert report["missing"]
    assert 0 < report["frames"] < FRAMES


def test_errors() -> None:
    video()
    for arguments, message in {
        ("in.mp4", "-o", "out.mp4"): "--mask: none is given, and in.mp4 has no transparent pixels",
        ("in.mp4", "--mask", "small.png", "-o", "out.mp4"): "--mask: small.png has 10 x 8 pixels, in.mp4 has 96 x 64",
        ("in.mp4", "--mask", "short", "-o", "out.mp4"): "--mask: short has 1 frames, in.mp4 has 6; expected a mask for",
        ("in.mp4", "--mask", "mask.png", "--video", "-o", "out.mp4"): "--video: it is for a folder of frames",
        ("in.mp4", "--mask", "mask.png", "--keep-out", "mask.png", "-o", "out.mp4"): "--keep-out: it is for images",
        ("in.mp4", "--mask", "mask.png", "--device", "meta", "-o", "out.mp4"): "a video is completed on the CPU",
        ("in.mp4", "--mask", "mask.png", "-o", "out.png"): "allowed for a video are .mp4, .mkv and .mov",
        ("mixed", "--video", "--mask", "mask.png", "-o", "out"): "expected one size for all frames",
    }.items():
        Path("short").mkdir(exist_ok=True)
        Path("mixed").mkdir(exist_ok=True)
        PIL.Image.fromarray(mask_of(0)).save("short/0.png")
        PIL.Image.fromarray(covered(0)).save("mixed/0.png")
        PIL.Image.fromarray(covered(0)[:40]).save("mixed/1.png")
        PIL.Image.fromarray(mask_of(0)[:8, :10]).save("small.png")
        result = run(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert message in " ".join(result.stderr.split()), (arguments, result.stderr)
    assert not Path("out.mp4").exists()
