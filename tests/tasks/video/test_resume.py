"""Work on long videos: whole or not at all, and gone on with after an interruption to the same bytes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from patchattn.tasks import files
from patchattn.tasks.images import Image
from patchattn.tasks.video import VideoReport, encoding, map_video, resume_folder, transcoder
from patchattn.tasks.video.resume_folder import resume_folder_path
from tests.tasks.video.making import frames_of, make_video

FRAMES, SEGMENT = 20, 8
"""Two whole segments and a part."""


class Trail:
    """Leaves something of all frames before in each: what is carried on matters."""

    def __init__(self, stop_at: int | None = None, error: BaseException | None = None) -> None:
        self.mean = torch.zeros(())
        self.calls = 0
        self._stop_at, self._error = stop_at, error

    def __call__(self, image: Image) -> Image:
        if self._error is not None and self.calls == self._stop_at:
            raise self._error
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * image.color.mean() * (self.calls % 7)
        return Image((image.color + self.mean).clamp(0, 1), bit_depth=image.bit_depth)

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "calls": torch.tensor(self.calls)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.mean, self.calls = state["mean"], int(state["calls"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("source") / "a.mp4", frames=FRAMES, size=(32, 32), audio="aac")


@pytest.fixture(scope="module", autouse=True)
def short_segments() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (encoding, transcoder, resume_folder):
            patch.setattr(module, "FRAMES_IN_SEGMENT", SEGMENT)
        yield


@pytest.fixture(scope="module")
def expected(source: Path, short_segments: None) -> bytes:
    """What an uninterrupted run writes."""
    trail = Trail()
    map_video(source, source.with_name("whole.mkv"), trail, state=trail)
    assert len(frames_of(source.with_name("whole.mkv"))) == FRAMES
    return source.with_name("whole.mkv").read_bytes()


@pytest.fixture(autouse=True)
def saved_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every few frames, as where each takes its time."""
    now = [0.0]

    def clock() -> float:
        now[0] += 0.9
        return now[0]

    monkeypatch.setattr(transcoder, "time", SimpleNamespace(monotonic=clock))


def run(source: Path, output: Path, trail: Trail, *, settings: str = "") -> tuple[VideoReport, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = map_video(source, output, trail, state=trail, resume=True, settings=settings)
    return report, [str(one.message) for one in caught]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_is_as_another(source: Path, expected: bytes, tmp_path: Path) -> None:
    report, messages = run(source, tmp_path / "out.mkv", Trail())
    assert (report.frames, report.finished_before, messages) == (FRAMES, 0, [])
    assert (tmp_path / "out.mkv").read_bytes() == expected
    assert names(tmp_path) == ["out.mkv"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no")])
@pytest.mark.parametrize("stop_at", [0, 5, 18])
def test_without_resume_nothing_is_left(source: Path, tmp_path: Path, stop_at: int, error: BaseException) -> None:
    (tmp_path / "out.mkv").write_bytes(b"before")
    trail = Trail(stop_at, error)
    with pytest.raises(type(error)):
        map_video(source, tmp_path / "out.mkv", trail, state=trail)
    assert (tmp_path / "out.mkv").read_bytes() == b"before"
    assert names(tmp_path) == ["out.mkv"]


@pytest.mark.parametrize("stops", [(1,), (2, 3, 5), (7,), (8,), (12, 17), (19,)])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    source: Path, expected: bytes, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    output = tmp_path / "out.mkv"
    for stop in stops:
        trail = Trail(stop, KeyboardInterrupt())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(KeyboardInterrupt):
                map_video(source, output, trail, state=trail, resume=True, resume_argument="--resume")
        assert not output.exists()
        if resume_folder_path(output).exists():
            kept = f"frames are kept in {resume_folder_path(output)}; go on with --resume"
            assert f" of {FRAMES} {kept}" in str(caught[-1].message)
        else:
            assert stop < 4  # there was nothing worth keeping
    trail = Trail()
    report, messages = run(source, output, trail)
    assert stops[-1] - 4 <= report.finished_before <= stops[-1]
    assert trail.calls == FRAMES
    assert messages == []
    assert output.read_bytes() == expected
    assert names(tmp_path) == ["out.mkv"]


def interrupted(source: Path, output: Path, stop_at: int = 14) -> Path:
    trail = Trail(stop_at, KeyboardInterrupt())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyboardInterrupt):
            map_video(source, output, trail, state=trail, resume=True)
    return resume_folder_path(output)


def other_settings(source: Path, folder: Path) -> tuple[Path, str]:
    return source, "other"


def other_video(source: Path, folder: Path) -> tuple[Path, str]:
    return make_video(source.with_name("other.mp4"), frames=FRAMES, size=(32, 32), options={"crf": "30"}), ""


@pytest.mark.parametrize("change", [other_settings, other_video])
def test_other_work_is_not_taken(
    source: Path, tmp_path: Path, change: Callable[[Path, Path], tuple[Path, str]]
) -> None:
    folder = interrupted(source, tmp_path / "out.mkv")
    given, settings = change(source, folder)
    report, messages = run(given, tmp_path / "out.mkv", Trail(), settings=settings)
    assert report.finished_before == 0
    assert "frames of an interrupted run are thrown away: of another video or other settings" in messages[0]
    run(given, tmp_path / "whole.mkv", Trail())
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()


def test_without_resume_it_begins_again_and_says_so(source: Path, expected: bytes, tmp_path: Path) -> None:
    interrupted(source, tmp_path / "out.mkv")
    trail = Trail()
    with pytest.warns(UserWarning, match=r"\d+ finished frames of an interrupted run are thrown away: without resume"):
        report = map_video(source, tmp_path / "out.mkv", trail, state=trail)
    assert report.finished_before == 0
    assert (tmp_path / "out.mkv").read_bytes() == expected


@pytest.mark.parametrize("cut", [0, 200])
@pytest.mark.parametrize("kind", ["frames", "state", "segment", "fingerprint"])
def test_work_that_is_not_whole_is_done_again(
    source: Path, expected: bytes, tmp_path: Path, kind: str, cut: int
) -> None:
    """As after a power cut."""
    folder = interrupted(source, tmp_path / "out.mkv")
    for path in [path for path in folder.iterdir() if path.name.startswith(kind)]:
        path.write_bytes(path.read_bytes()[:cut])
    (folder / ".segment-000001.abcd.part").write_bytes(b"half")
    run(source, tmp_path / "out.mkv", Trail())
    assert (tmp_path / "out.mkv").read_bytes() == expected
    assert names(tmp_path) == ["out.mkv"]


def test_two_runs_do_not_write_one_file(source: Path, tmp_path: Path) -> None:
    messages = []

    def second(image: Image) -> Image:
        if not messages:
            with pytest.raises(ValueError, match="-o: another run is writing this file") as error:
                map_video(source, tmp_path / "out.mkv", lambda image: image, output_argument="-o")
            messages.append(str(error.value))
        return image

    assert map_video(source, tmp_path / "out.mkv", second).frames == FRAMES
    assert messages


@pytest.mark.parametrize(
    ("room", "suffix"), [(0, ".mkv"), (2_000, ".mp4"), (5_000, ".mkv"), (12_000, ".mkv"), (12_000, ".mp4")]
)
def test_a_full_disk(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, suffix: str) -> None:
    """In the work or when all is joined: one sentence, and the old file stays."""
    left = [room]
    write = files.CheckedFile.write

    def limited(file: files.CheckedFile, data: bytes) -> int:
        left[0] -= len(memoryview(data).cast("B"))
        if left[0] < 0:
            file._error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise file._error
        return write(file, data)

    monkeypatch.setattr(files.CheckedFile, "write", limited)
    (tmp_path / f"out{suffix}").write_bytes(b"before")
    with pytest.raises(ValueError, match=r"--output: cannot write .*: No space left on device") as error:
        map_video(source, tmp_path / f"out{suffix}", lambda image: image, output_argument="--output")
    assert "\n" not in str(error.value)
    assert (tmp_path / f"out{suffix}").read_bytes() == b"before"
    assert names(tmp_path) == [f"out{suffix}"]


def test_a_folder_that_cannot_be_made(source: Path, tmp_path: Path) -> None:
    resume_folder_path(tmp_path / "out.mkv").write_text("in the way", encoding="ascii")
    with pytest.raises(ValueError, match=r"-o: cannot write in .*: File exists"):
        map_video(source, tmp_path / "out.mkv", lambda image: image, output_argument="-o")


def test_long_names(source: Path, tmp_path: Path) -> None:
    output = tmp_path / ("ä" * 120 + ".mkv")
    assert map_video(source, output, lambda image: image).frames == FRAMES
    assert names(tmp_path) == [output.name]


def test_another_size_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"change: frame 0 became \(16, 16\); expected \(32, 32\)"):
        map_video(source, tmp_path / "out.mkv", lambda image: Image(image.color[:, :, ::2, ::2]))
    assert names(tmp_path) == []


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from patchattn.tasks.video import encoding, map_video, resume_folder, transcoder
from tests.tasks.video.test_resume import SEGMENT, Trail

transcoder.SAVE_INTERVAL = 0
encoding.FRAMES_IN_SEGMENT = transcoder.FRAMES_IN_SEGMENT = resume_folder.FRAMES_IN_SEGMENT = SEGMENT
trail = Trail()

def slowly(image):
    time.sleep(0.05)
    return trail(image)

map_video(sys.argv[1], sys.argv[2], slowly, state=trail, resume=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal on this system")
def test_a_killed_process_is_gone_on_with(source: Path, expected: bytes, tmp_path: Path) -> None:
    output = tmp_path / "out.mkv"
    root = Path(__file__).parents[3]
    for batches in (1, 3):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(source), str(output), str(root)])
        folder = resume_folder_path(output)
        while process.poll() is None and len(list(folder.glob("frames-*"))) < batches:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not output.exists()
    report, _ = run(source, output, Trail())
    assert report.finished_before > 0
    assert output.read_bytes() == expected
    assert names(tmp_path) == ["out.mkv"]
