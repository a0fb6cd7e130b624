"""The server's folder, and what servers leave behind that are killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from patchattn.demo.workspace import LOCK, PREFIX, remove_leftovers, workspace

SERVER = """
import sys, time
from patchattn.demo.workspace import workspace
with workspace() as folder:
    (folder / "photo.png").write_bytes(b"abc")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders are made here."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def server() -> tuple[subprocess.Popen[str], Path]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str], number: int | None = None) -> None:
    with process:
        if number is not None:
            process.send_signal(number)


def dead(base: Path, name: str) -> Path:
    """A folder such as a server leaves behind that was killed."""
    folder = base / f"{PREFIX}{name}"
    folder.mkdir(mode=0o700)
    (folder / LOCK).touch()
    (folder / "photo.png").write_bytes(b"abc")
    return folder


def test_the_folder_is_for_this_user_alone_and_goes_with_the_server(temporary: Path) -> None:
    with workspace() as folder:
        assert folder.parent == temporary
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "photo.png").write_bytes(b"abc")
    with pytest.raises(KeyboardInterrupt), workspace():
        raise KeyboardInterrupt
    assert list(temporary.iterdir()) == []


def test_what_a_killed_server_left_is_cleared_at_the_next_start(temporary: Path) -> None:
    killed, left = server()
    end(killed, signal.SIGKILL)
    assert (left / "photo.png").exists()
    living, kept = server()
    assert not left.exists()
    assert remove_leftovers(temporary) == []
    assert (kept / "photo.png").exists()
    with workspace() as folder:
        assert set(temporary.iterdir()) == {folder, kept}
    end(living)
    assert list(temporary.iterdir()) == []


def test_only_folders_of_dead_servers_are_removed(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / LOCK).touch()
    (elsewhere / "photo.png").write_bytes(b"abc")
    link = temporary / f"{PREFIX}link"
    link.symlink_to(elsewhere)
    unlocked = temporary / f"{PREFIX}without-a-lock"
    unlocked.mkdir()
    (unlocked / "photo.png").touch()
    linked_lock = temporary / f"{PREFIX}linked-lock"
    linked_lock.mkdir()
    (linked_lock / LOCK).symlink_to(elsewhere / LOCK)
    folder_as_lock = temporary / f"{PREFIX}folder-as-lock"
    (folder_as_lock / LOCK).mkdir(parents=True)
    pipe_as_lock = temporary / f"{PREFIX}pipe-as-lock"
    pipe_as_lock.mkdir()
    os.mkfifo(pipe_as_lock / LOCK)
    file = temporary / f"{PREFIX}file"
    file.touch()
    other = dead(temporary, "x").rename(temporary / "patchattn-x")
    before = sorted(temporary.rglob("*"))
    gone = [dead(temporary, "1"), dead(temporary, "2")]
    # What a link in it leads to stays.
    (gone[0] / "out").symlink_to(elsewhere)
    assert remove_leftovers(temporary) == gone
    assert sorted(temporary.rglob("*")) == before
    assert other.exists()


def test_what_another_user_owns_is_left_alone(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = dead(temporary, "1")
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert remove_leftovers(temporary) == []
    assert folder.exists()
