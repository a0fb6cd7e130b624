"""The disk cache of compiled kernels: used where it can be, done without where not, never trusted when damaged."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchattn.kernels import cache_states

pytestmark = pytest.mark.needs("cpu")


def double(values: Any) -> None:
    for n in range(values.size):
        values[n] *= 2


class Vanished:
    """A class that a later version of the package does not have."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings that machine code is not kept, as if there had been none before."""
    monkeypatch.setattr("patchattn.kernels.cpu.cache._warned", False)
    caplog.set_level(logging.WARNING, "patchattn")
    return lambda: [text for text in caplog.messages if "cannot be kept" in text]


def doubled(dtype: Any = np.float64) -> Any:
    """Run the kernel as a new process would, and return its dispatcher."""
    from patchattn.kernels.cpu.compiler import kernel

    values, compiled = np.ones(2, dtype), kernel()(double)
    compiled(values)
    assert values.tolist() == [2, 2]
    return compiled


def was_read(compiled: Any) -> bool:
    return bool(compiled.stats.cache_hits)


def test_a_kernel_is_compiled_once(folder: Path) -> None:
    assert not was_read(doubled())
    assert was_read(doubled())
    assert not was_read(doubled(np.float32))
    assert was_read(doubled(np.float32))
    assert len(list(folder.rglob("*.nbc"))) == 2


def test_a_cache_of_another_version_is_written_anew(folder: Path) -> None:
    doubled()
    (index,) = folder.rglob("*.nbi")
    version = pickle.dumps(pickle.loads(index.read_bytes()))  # the first of two pickles; the second is the table
    table = pickle.dumps(("stamp", {"key": Vanished})).replace(b"Vanished", b"Departed")
    index.write_bytes(version + table)
    doubled()
    assert b"Departed" not in index.read_bytes()
    assert was_read(doubled())


def zeros_at_the_end(content: bytes) -> bytes:
    return content[:-200] + bytes(200)


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("kind", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: content[: len(content) // 2], zeros_at_the_end, flipped]
)
def test_damaged_files_are_written_anew(folder: Path, kind: str, damage: Callable[[bytes], bytes]) -> None:
    doubled()
    (file,) = folder.rglob(kind)
    file.write_bytes(damage(file.read_bytes()))
    doubled()
    assert was_read(doubled())


def test_code_of_another_processor_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.codegen import JITCPUCodegen

    doubled()
    with monkeypatch.context() as patch:
        patch.setattr(JITCPUCodegen, "magic_tuple", lambda self: ("x86_64-unknown-linux-gnu", "another", "+nothing"))
        assert not was_read(doubled())
        assert was_read(doubled())
    assert was_read(doubled())


def test_processes_at_once_do_not_read_each_others_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two find the index empty, and write it one after the other."""
    from numba.core.caching import IndexDataCacheFile

    with monkeypatch.context() as patch:
        patch.setattr(IndexDataCacheFile, "_load_index", lambda self: {})
        doubled(np.float32)
        doubled(np.float64)
    assert was_read(doubled(np.float64))
    assert not was_read(doubled(np.float32))  # forgotten, not mistaken
    assert was_read(doubled(np.float32))


def refuse(*arguments: Any, **settings: Any) -> Any:
    raise OSError(errno.EROFS, "Read-only file system")


def test_without_any_place_kernels_are_compiled_all_the_same(
    monkeypatch: pytest.MonkeyPatch, warned: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", "")
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # with which Numba tries folders
    doubled()
    doubled(np.float32)
    (sentence,) = warned()
    assert "set the environment variable NUMBA_CACHE_DIR to a folder that can be written" in sentence
    assert cache_states()["cpu"] == {"folder": None, "problem": sentence}


@pytest.mark.parametrize("step", ["open", "replace"])
def test_a_disk_that_fills_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch, warned: Callable[[], list[str]], step: str
) -> None:
    def full(*arguments: Any, **settings: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if step == "replace":
            patch.setattr(os, "replace", full)
        else:
            patch.setattr("numba.core.caching.open", full, raising=False)
        doubled()
        doubled(np.float32)
    assert len(warned()) == 1
    assert "No space left on device" in warned()[0]
    assert not [file for file in folder.rglob("*") if file.is_file()]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "file"))
    state = cache_states()["cpu"]
    assert state["folder"] is not None
    assert not state["folder"].startswith(str(tmp_path))  # the next place that Numba knows


def test_a_process_with_neither_cache_nor_jit(tmp_path: Path) -> None:
    """All at once, in a process that starts so: read-only folders (for root too), no home, NUMBA_DISABLE_JIT."""
    script = """
import tempfile
def refuse(*arguments, **settings):
    raise PermissionError("read-only")
tempfile.TemporaryFile = refuse
import numpy, torch, patchattn, json
from patchattn.kernels import cache_states
value = torch.arange(6.0).view(1, 1, 6)
index = torch.arange(5, -1, -1, dtype=torch.int32).view(1, 1, 1, 6)
output = torch.ops.patchattn.weighted_sum(torch.ones(1, 1, 1, 6), index, value, "cpu")
print(json.dumps([output.flatten().tolist(), cache_states()]))
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    environment |= {"NUMBA_DISABLE_JIT": "1", "NUMBA_CACHE_DIR": str(tmp_path / "file" / "below")}
    environment["NUMBA_CPU_NAME"] = "generic"  # for which no machine code comes with the package
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    reversed_, states = json.loads(done.stdout)
    assert reversed_ == [5, 4, 3, 2, 1, 0]
    assert states["cpu"]["folder"] is None
    assert done.stderr.count("NUMBA_CACHE_DIR") == 1


@pytest.mark.needs("gpu")
def test_triton_gets_a_folder_where_its_own_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import triton

    from patchattn.kernels.gpu.cache import ensure_cache

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path / "file" / "below"))
    state = cache_states()["gpu"]
    assert state["folder"] is None
    ensure_cache.cache_clear()
    with caplog.at_level(logging.WARNING, "patchattn"):
        ensure_cache()
        ensure_cache()
    assert caplog.messages == [state["problem"]]
    assert "set the environment variable TRITON_CACHE_DIR to a folder that can be written" in caplog.messages[0]
    assert cache_states()["gpu"]["folder"] == triton.knobs.cache.dir
    ensure_cache.cache_clear()
