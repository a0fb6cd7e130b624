"""Writing: whole or not at all, whatever the system does."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from patchattn.networks.architectures import ColorizationArchitecture
from patchattn.tasks.files import CheckedFile, atomic_writer
from patchattn.tasks.images import Image, write_image
from patchattn.training.checkpoints import write_checkpoint

FORMATS = (".png", ".tif", ".webp", ".jpg", ".bmp")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as on a disk that is full: writes end early, then fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, usual)


def noise(size: int = 64) -> Image:
    return Image(torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)))


def write_npz(path: Path) -> None:
    with atomic_writer(path) as file:
        np.savez(file, a=np.random.default_rng(0).random(3000))


def write_network(path: Path) -> None:
    architecture = ColorizationArchitecture("psal", {"k": 1})
    write_checkpoint(path, architecture.build(), {}, step=1, description={}, precision={})


def write_text(path: Path) -> None:
    with atomic_writer(path) as file:
        file.write(b"{" + b" " * 20000 + b"}")


WRITERS: dict[str, Callable[[Path], None]] = {
    **{name: lambda path: write_image(path, noise()) for name in FORMATS},
    ".npz": write_npz,
    ".safetensors": write_network,
    ".json": write_text,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("room", [0, 1, 100, 2000])
def test_full_disk(tmp_path: Path, name: str, room: int) -> None:
    path = tmp_path / f"file{name}"
    path.write_bytes(b"old")
    with largest_file(room), pytest.raises(ValueError, match=r"cannot write .*file.*: File too large"):
        WRITERS[name](path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    WRITERS[name](path)
    assert path.stat().st_size > 2000


class Raw(io.RawIOBase):
    """A file that fails in the way that it is told."""

    def __init__(self, take: Callable[[int], int | None]) -> None:
        self.data, self.take = b"", take

    def write(self, data: Any) -> int | None:
        taken = self.take(len(data))
        self.data += bytes(data[:taken]) if taken else b""
        return taken

    def tell(self) -> int:
        return len(self.data)


def fail(code: int) -> Callable[[int], int]:
    def take(size: int) -> int:
        raise OSError(code, os.strerror(code))

    return take


def test_short_writes_go_on() -> None:
    raw = Raw(lambda size: min(size, 3))
    assert CheckedFile(raw).write(b"0123456789") == 10  # type: ignore[arg-type]
    assert raw.data == b"0123456789"


@pytest.mark.parametrize(
    ("take", "message"),
    [
        (fail(errno.ENOSPC), "No space left on device"),
        (fail(errno.EDQUOT), "quota"),
        (fail(errno.EIO), "Input/output error"),
        (fail(errno.EFBIG), "File too large"),
        (lambda size: 0, "took no more bytes"),
        (lambda size: None, "took no more bytes"),
    ],
)
def test_a_failed_write_is_remembered(take: Callable[[int], int | None], message: str) -> None:
    file = CheckedFile(Raw(take))  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(OSError, match=message):
            file.write(b"data")
    with pytest.raises(OSError, match=message):
        file.check()


def test_a_writer_that_swallows_errors_fails_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"

    def write() -> None:
        with atomic_writer(path) as file:
            try:
                file.write(bytes(5000))
            except OSError:
                file.seek(0)

    with largest_file(1000), pytest.raises(ValueError, match=r"path: cannot write .*a\.bin: File too large"):
        write()
    assert not list(tmp_path.iterdir())


def test_an_interruption_that_ffmpeg_swallows_is_none_that_counts_as_success(tmp_path: Path) -> None:
    """FFmpeg cannot pass on what a signal raises while it calls Python to write."""
    av = pytest.importorskip("av")
    path = tmp_path / "a.mkv"
    path.write_bytes(b"old")
    calls = iter(range(1000))

    def write(number: int) -> int:
        with atomic_writer(path) as file:
            usual = file.write

            def interrupted(data: bytes) -> int:
                count = next(calls)
                if count == number:
                    raise KeyboardInterrupt
                return usual(data)

            file.write = interrupted  # type: ignore[method-assign]
            with av.open(file, "w", format="matroska") as video:
                stream = video.add_stream("mpeg4", rate=10)
                stream.width, stream.height = 32, 32
                video.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
                video.mux(stream.encode())
        return next(calls)

    count = write(-1)
    assert count >= 3
    for number in range(count):
        path.write_bytes(b"old")
        calls = iter(range(1000))
        with pytest.raises(KeyboardInterrupt):
            write(number)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace", "fstat"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    path = tmp_path / "a.png"
    write_image(path, noise(4))
    before = path.read_bytes()

    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(os, call, failing)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ValueError
    with pytest.raises(expected):
        write_image(path, noise())
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_holds_less_than_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.truncate(descriptor, 3))

    def write() -> None:
        with atomic_writer(path) as file:
            file.write(b"0123456789")

    with pytest.raises(ValueError, match=r"3 of 10 bytes are on the disk"):
        write()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        b"\xff\xfe.png",
        b"caf\xe9.jpg",
        b"\x80.bmp",
        b"new\nline.tif",
        ("x" * 250).encode() + b".png",
        "é".encode() * 120,
    ],
    ids=repr,
)
def test_any_name_that_the_system_takes(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    with atomic_writer(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_pillow_writes_through_the_checked_file(tmp_path: Path) -> None:
    with atomic_writer(tmp_path / "a.bin") as file, pytest.raises(io.UnsupportedOperation):
        file.fileno()
    write_image(tmp_path / "a.jpg", noise())
    with PIL.Image.open(tmp_path / "a.jpg") as image:
        image.load()
