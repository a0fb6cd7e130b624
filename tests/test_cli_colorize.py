"""`patchattn colorize`: one picture, a folder, a video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
import skimage.data
import torch
from typer.testing import CliRunner, Result

from patchattn.cli.app import app
from patchattn.networks.architectures import ColorizationArchitecture
from patchattn.networks.weights import network_bytes
from patchattn.tasks import colorize
from patchattn.tasks.colors import to_gray
from patchattn.tasks.images import Image, read_image, write_image
from patchattn.tasks.journal import JOURNAL

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = ("--patch-size", "5", "--k", "2")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gray picture, another view of it in colors, and a folder of three gray pictures; the test runs there."""
    left, right, _ = skimage.data.stereo_motorcycle()
    for number in range(3):
        color = torch.from_numpy(left[200:240, 300 + number : 350 + number].copy()).permute(2, 0, 1)[None] / 255
        path = tmp_path / "frames" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        write_image(path, Image(to_gray(color)))
    (tmp_path / "frames" / "0.png").rename(tmp_path / "gray.png")
    write_image(tmp_path / "frames" / "0.png", read_image(tmp_path / "gray.png"))
    PIL.Image.fromarray(right[196:246, 270:340]).save(tmp_path / "reference.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["colorize", *arguments])


def visible(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith("."))


def colored(path: str) -> bool:
    picture = read_image(path).color
    return picture.shape[1] == 3 and bool((picture.amax(1) - picture.amin(1)).mean() > 0.02)


def test_image() -> None:
    result = run("gray.png", "reference.png", "-o", "out.png", "--show-field", "field.png", *OPTIONS)
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["wrote"] == "out.png (50 x 40, 8 bit)"
    assert lines["field"] == "field.png"
    assert lines["time"].endswith(" s")
    assert colored("out.png")
    assert read_image("field.png").size == (20, 25)
    # Three channels rounded to 8 bits do not have one channel's luminance to the last bit.
    torch.testing.assert_close(to_gray(read_image("out.png").color), read_image("gray.png").color, atol=2 / 255, rtol=0)


def test_json_and_settings() -> None:
    options = ("--no-aggregate", "--scale", "1", "--temperature", "0.5", "--seed", "4", "--method", "exact", "--json")
    result = run("gray.png", "reference.png", "-o", "out.png", *OPTIONS, *options)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["output"], told["height"], told["width"], told["bit_depth"]) == ("out.png", 40, 50, 8)
    assert told["settings"] == {
        "k": 2,
        "patch_size": 5,
        "scale": 1,
        "aggregate": False,
        "temperature": 0.5,
        "method": "exact",
        "iterations": None,
        "seed": 4,
    }


def test_sixteen_bits_and_alpha() -> None:
    gray = read_image("gray.png").color
    write_image("deep.png", Image(gray, alpha=gray, bit_depth=16))
    result = run("deep.png", "reference.png", "-o", "out.png", *OPTIONS)
    assert result.exit_code == 0, result.output
    out = read_image("out.png")
    assert out.bit_depth == 16
    assert out.alpha is not None
    assert torch.equal(out.alpha, read_image("deep.png").alpha)
    torch.testing.assert_close(to_gray(out.color), gray, atol=1e-4, rtol=0)


def test_folder() -> None:
    Path("frames/notes.txt").write_text("no picture", encoding="utf-8")
    result = run("frames", "reference.png", "-o", "out", "--json", *OPTIONS)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["done"] == ["0.png", "1.png", "2.png"]
    assert told["finished_before"] == []
    assert told["skipped"] == {}
    assert visible("out") == ["0.png", "1.png", "2.png"]
    assert [path.name for path in Path("out").iterdir() if path.name.startswith(".")] == [JOURNAL]
    assert told["passed_over"] == {".txt": 1}
    assert all(colored(f"out/{number}.png") for number in range(3))


def test_resume_goes_on_where_an_interruption_stopped() -> None:
    assert run("frames", "reference.png", "-o", "out", *OPTIONS).exit_code == 0
    Path("out/1.png").unlink()
    written = {name: Path("out", name).stat().st_mtime_ns for name in ("0.png", "2.png")}
    result = run("frames", "reference.png", "-o", "out", "--resume", "--json", *OPTIONS)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["done"], told["finished_before"]) == (["1.png"], ["0.png", "2.png"])
    assert {name: Path("out", name).stat().st_mtime_ns for name in written} == written
    assert colored("out/1.png")
    # Without the option all are done again.
    assert len(json.loads(run("frames", "reference.png", "-o", "out", "--json", *OPTIONS).stdout)["done"]) == 3


def test_from_previous_takes_the_colors_of_the_result_before() -> None:
    # Of one color, the reference has nothing else to give, so the second picture's colors tell where they come from.
    assert run("frames", "reference.png", "-o", "one", "--from", "previous", *OPTIONS).exit_code == 0
    assert run("frames", "reference.png", "-o", "all", *OPTIONS).exit_code == 0
    assert Path("one/0.png").read_bytes() == Path("all/0.png").read_bytes()
    assert Path("one/1.png").read_bytes() != Path("all/1.png").read_bytes()
    # A result that is gone is made again from the one before it.
    Path("one/1.png").unlink()
    again = run("frames", "reference.png", "-o", "one", "--from", "previous", "--resume", "--json", *OPTIONS)
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["done"] == ["1.png"]
    assert "the state after the last finished image is not in one any more" in json.loads(again.stdout)["warnings"][0]


def test_unreadable_images_stop_or_are_skipped() -> None:
    Path("frames/1.png").write_bytes(b"damaged")
    stopped = run("frames", "reference.png", "-o", "out", *OPTIONS)
    assert stopped.exit_code == 2
    assert "cannot read frames/1.png" in stopped.stderr
    assert visible("out") == ["0.png"]
    skipped = run("frames", "reference.png", "-o", "out", "--on-error", "skip", "--json", *OPTIONS)
    assert skipped.exit_code == 1
    told = json.loads(skipped.stdout)
    assert told["done"] == ["0.png", "2.png"]
    assert list(told["skipped"]) == ["1.png"]
    assert "cannot read frames/1.png" in told["skipped"]["1.png"]
    assert "1.png" in run("frames", "reference.png", "-o", "out", "--on-error", "skip", *OPTIONS).stdout


def test_images_of_several_sizes() -> None:
    write_image("frames/1.png", Image(read_image("gray.png").color[:, :, :30, :44]))
    assert run("frames", "reference.png", "-o", "out", *OPTIONS).exit_code == 0
    assert [read_image(f"out/{number}.png").size for number in range(3)] == [(40, 50), (30, 44), (40, 50)]


def write_video(path: str, frames: int = 3) -> Path:
    """The folder's gray pictures, again and again, as a video."""
    with av.open(path, "w", container_options={"movflags": "+faststart"} if path.endswith("mp4") else {}) as video:
        stream = video.add_stream("libx264", rate=10, options={"crf": "10", "g": "1"})
        stream.width, stream.height, stream.pix_fmt = 50, 40, "yuv420p"
        for number in range(frames):
            gray = np.asarray(PIL.Image.open(f"frames/{number % 3}.png").convert("RGB"))
            video.mux(stream.encode(av.VideoFrame.from_ndarray(gray, format="rgb24")))
        video.mux(stream.encode())
    return Path(path)


def frames_of(path: str) -> list[np.ndarray]:
    with av.open(path) as video:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video.streams.video[0])]


def test_video() -> None:
    write_video("video.mp4")
    result = run("video.mp4", "reference.png", "-o", "out.mkv", "--json", *OPTIONS)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["frames"], told["height"], told["width"], told["rate"], told["sounds"]) == (3, 40, 50, 10, 0)
    assert (told["missing"], told["finished_before"]) == ([], 0)
    frames = frames_of("out.mkv")
    assert len(frames) == 3
    assert all(np.ptp(frame, 2).mean() > 5 for frame in frames)
    lines = run("video.mp4", "reference.png", "-o", "out.mp4", *OPTIONS).stdout
    assert "out.mp4 (3 frames of 50 x 40, 10 a second)" in lines
    assert "missing" not in lines


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_what_is_missing_from_a_video_is_named(name: str) -> None:
    video = write_video(name, 9)
    video.write_bytes(video.read_bytes()[: -video.stat().st_size // 3])
    result = run(name, "reference.png", "-o", "out.mkv", "--json", *OPTIONS)
    assert result.exit_code == 1, result.output
    told = json.loads(result.stdout)
    assert 0 < told["frames"] < 9
    assert told["frames"] == len(frames_of("out.mkv"))
    assert told["missing"]
    assert all(f"warning: GRAY: {name}: {part}." in result.stderr for part in told["missing"])
    lines = run(name, "reference.png", "-o", "out.mkv", *OPTIONS)
    assert lines.exit_code == 1
    assert told["missing"][0] in lines.stdout


@pytest.mark.parametrize("source", ["reference", "previous"])
def test_an_interrupted_video_is_gone_on_with(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same matches and colors as if nothing had happened."""
    write_video("video.mp4", 5)
    options = ("--from", source, "--method", "patchmatch", *OPTIONS)
    assert run("video.mp4", "reference.png", "-o", "whole.mkv", *options).exit_code == 0
    monkeypatch.setattr("patchattn.tasks.video.transcoder.SAVE_INTERVAL", -1)
    colorized, done = colorize.colorize, []

    def until_the_fourth(*arguments: Any, **settings: Any) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return colorized(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr("patchattn.tasks.frame_colorizer.colorize", until_the_fourth)
        stopped = run("video.mp4", "reference.png", "-o", "out.mkv", "--resume", *options)
    assert stopped.exit_code != 0
    assert "--output: 3 of 5 frames are kept in " in stopped.stderr
    assert "go on with --resume" in stopped.stderr
    result = run("video.mp4", "reference.png", "-o", "out.mkv", "--resume", "--json", *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["finished_before"] == 3
    assert Path("out.mkv").read_bytes() == Path("whole.mkv").read_bytes()
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("changed", [("--k", "1"), ("--from", "previous"), ("--model", "default")])
def test_work_with_other_settings_is_not_gone_on_with(
    changed: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video("video.mp4", 3)
    monkeypatch.setattr("patchattn.tasks.video.transcoder.SAVE_INTERVAL", -1)

    def no_file(*_: Any, **__: Any) -> Any:
        raise ValueError("no")

    with monkeypatch.context() as patch:
        patch.setattr("patchattn.tasks.video.resume_folder.ResumeFolder.save_segment", no_file)
        assert run("video.mp4", "reference.png", "-o", "out.mkv", "--resume", *OPTIONS).exit_code == 2
    result = run("video.mp4", "reference.png", "-o", "out.mkv", "--resume", "--json", *OPTIONS, *changed)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["finished_before"] == 0
    assert "2 finished frames of an interrupted run are thrown away" in result.stderr


def test_a_network_of_the_user_s(folder: Path) -> None:
    """One that makes everything green, as `patchattn train` would have written it."""
    architecture = ColorizationArchitecture("psal", {"k": 1, "patch_size": 3})
    network = architecture.build()
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.copy_(torch.tensor([-1.0, 1.0, -1.0]))
    (folder / "green.safetensors").write_bytes(network_bytes(network, architecture))
    result = run("gray.png", "reference.png", "-o", "out.png", "--model", "green.safetensors", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == "green.safetensors"
    red, green, blue = read_image("out.png").color[0]
    assert (green >= red).all()
    assert (green > blue + 0.1).float().mean() > 0.5


def test_the_network_that_ships() -> None:
    result = run("gray.png", "reference.png", "-o", "out.png", "--model", "default")
    assert result.exit_code == 0, result.output
    plain = run("gray.png", "reference.png", "-o", "plain.png")
    assert plain.exit_code == 0, plain.output
    found, attended = (read_image(name).color for name in ("out.png", "plain.png"))
    assert not torch.equal(found, attended)
    torch.testing.assert_close(to_gray(found), to_gray(attended), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gray.png", "gray.png", "-o", "out.png"), "REFERENCE: gray.png has one channel, gray; expected colors"),
        (("none.png", "reference.png", "-o", "out.png"), "GRAY: there is no file none.png"),
        (("gray.png", "reference.png", "-o", "out.mp4"), "--output: out.mp4 ends in .mp4; allowed are .png"),
        (("none.mp4", "reference.png", "-o", "out.png"), "--output: out.png ends in .png; allowed for a video are"),
        (("none.mp4", "reference.png", "-o", "out.mp4"), "GRAY: there is no file none.mp4"),
        (("frames", "reference.png", "-o", "gray.png"), "--output: gray.png is a file; GRAY is a folder"),
        (("frames", "reference.png", "-o", "frames"), "--output: frames is also GRAY"),
        (("frames", "reference.png", "-o", "none/out"), "--output: there is no folder none to make out in"),
        (("frames", "reference.png", "-o", "out", "--on-error", "cry"), "--on-error: got 'cry'; allowed are 'stop'"),
        (
            ("frames", "reference.png", "-o", "out", "--from", "nowhere"),
            "--from: got 'nowhere'; allowed are 'reference'",
        ),
        (("frames", "reference.png", "-o", "out", "--show-field", "f.png"), "--show-field: it is for one image"),
        (
            ("gray.png", "reference.png", "-o", "out.png", "--resume"),
            "--resume, --on-error and --recursive are for a folder",
        ),
        (
            ("gray.png", "reference.png", "-o", "gray.png"),
            "--output: gray.png is also GRAY; expected two different files",
        ),
        (("none.mp4", "reference.png", "-o", "none.mp4"), "--output: none.mp4 is also GRAY"),
        (("gray.png", "reference.png", "-o", "o.png", "--show-field", "o.png"), "--show-field: o.png is also --output"),
        (
            ("gray.png", "reference.png", "-o", "o.png", "--show-field", "f.png", "--model", "default"),
            "--show-field: a network (--model) finds no matches to show",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("out").exists()
    assert not Path("out.png").exists()


def test_folder_without_images_and_names_that_meet() -> None:
    Path("empty").mkdir()
    assert "GRAY: there is no image in empty" in run("empty", "reference.png", "-o", "out").stderr
    PIL.Image.open("frames/0.png").save("frames/0.bmp")
    assert run("frames", "reference.png", "-o", "out", *OPTIONS).exit_code == 0
    assert visible("out") == ["0.bmp.png", "0.png.png", "1.png", "2.png"]
