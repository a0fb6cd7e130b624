"""Machine code that comes with the package: run where it holds, passed over where it does not."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import patchattn
from patchattn.cli.tools import TOOLS
from patchattn.kernels import shipped_state
from patchattn.registry import METHODS

pytestmark = pytest.mark.needs("cpu")

ROOT = Path(__file__).parents[2]
TOOLS_FOLDER = ROOT / "tools"


def double(values: Any) -> None:
    for n in range(values.size):
        values[n] *= 2


def doubled(dtype: Any = np.float64) -> Any:
    """Run the kernel as a new process would, and return its dispatcher."""
    from patchattn.kernels.cpu.compiler import kernel

    values, compiled = np.ones(2, dtype), kernel()(double)
    compiled(values)
    assert values.tolist() == [2, 2]
    return compiled


def packed(dtype: Any = np.float64) -> tuple[str, bytes]:
    """The kernel's code for an array of that type, and its name."""
    from patchattn.kernels.cpu.shipped import object_name, pack_compiled

    ((types, compiled),) = doubled(dtype).overloads.items()
    return object_name(double, types), pack_compiled(compiled)


def target() -> tuple[str, str, str]:
    from numba.core.registry import cpu_target

    found: tuple[str, str, str] = cpu_target.target_context.codegen().magic_tuple()
    return found


def level_here() -> Any:
    from patchattn.kernels.cpu.levels import levels_of, supported

    here = target()
    found = [level for level in levels_of(here[0]) if supported(level, *here[1:])]
    if not found:
        pytest.skip("no level is of this processor")
    return found[0]


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has an entry for every kernel that is compiled."""
    found: list[str] = []
    monkeypatch.setattr("patchattn.kernels.cpu.cache._announce", lambda: found.append("compiling"))
    return found


@pytest.fixture
def ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a file as the package's, with these objects, and no other; and forget what was compiled here."""
    from patchattn.kernels.cpu import shipped
    from patchattn.kernels.cpu.object_file import write_objects

    level, triple = level_here(), target()[0]
    shipped._chosen.cache_clear()
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "objects")
    (tmp_path / "objects").mkdir()
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "first"))

    def write(*objects: tuple[str, bytes], **stamp: str) -> Path:
        path = shipped.path_of(level)
        write_objects(path, shipped.stamp_of(level, triple) | stamp, dict(objects))
        shipped._chosen.cache_clear()
        monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "second"))
        return path

    yield write
    shipped._chosen.cache_clear()


def test_shipped_code_is_run_and_nothing_is_compiled(
    ship: Callable[..., Path], tmp_path: Path, announced: list[str]
) -> None:
    ship(packed())
    announced.clear()
    assert doubled().stats.cache_hits
    assert not announced
    assert not [file for file in (tmp_path / "second").rglob("*") if file.is_file()]
    assert shipped_state() == {"level": level_here().name, "problem": None}
    doubled(np.float32)  # which was not shipped
    assert announced


def test_what_is_shipped_comes_before_what_was_compiled_here(ship: Callable[..., Path], announced: list[str]) -> None:
    code = packed()
    ship()
    doubled()
    ship(code)
    announced.clear()
    compiled = doubled()
    ((_, found),) = compiled.overloads.items()
    assert found.type_annotation == ""  # which is left out of what is shipped
    assert not announced


def test_a_function_that_calls_a_shipped_kernel_is_linked_to_it(ship: Callable[..., Path]) -> None:
    """No kernel calls another today; none is inlined from what is shipped."""
    import numba

    ship(packed())
    kernel = doubled()

    @numba.njit
    def quadruple(values: Any) -> None:
        kernel(values)
        kernel(values)

    values = np.ones(3)
    quadruple(values)
    assert values.tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("stamp", "problem"),
    [
        ({"numba": "0.1"}, "numba 0.1, not "),
        ({"llvmlite": "0.1"}, "llvmlite 0.1, not "),
        ({"python": "cpython-27"}, "python cpython-27, not "),
        ({"triple": "vax"}, "triple vax, not "),
        ({"sources": "0"}, "other sources"),
    ],
)
def test_code_for_something_else_is_not_run(
    ship: Callable[..., Path], announced: list[str], stamp: dict[str, str], problem: str
) -> None:
    ship(packed(), **stamp)
    announced.clear()
    doubled()
    assert announced
    state = shipped_state()
    assert state["level"] is None
    assert state["problem"] is not None
    assert problem in state["problem"]


@pytest.mark.parametrize("target", [("another", "+sse3,+avx2"), ("another", "-avx512f"), ("generic", "")])
def test_code_for_a_better_processor_is_not_run(
    ship: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, announced: list[str], target: tuple[str, str]
) -> None:
    """As on a home that machines share, or with NUMBA_CPU_NAME and NUMBA_CPU_FEATURES."""
    from numba.core.codegen import JITCPUCodegen

    ship(packed())
    announced.clear()
    monkeypatch.setattr(JITCPUCodegen, "magic_tuple", lambda self: ("x86_64-unknown-linux-gnu", *target))
    doubled()
    assert announced
    assert shipped_state()["level"] is None


def flipped(content: bytes, at: float) -> bytes:
    place = int(len(content) * at)
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"[]\n",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        *(lambda content, at=at: flipped(content, at / 40) for at in range(0, 40, 3)),
    ],
)
def test_damaged_code_is_not_run(
    ship: Callable[..., Path], announced: list[str], damage: Callable[[bytes], bytes]
) -> None:
    from patchattn.kernels.cpu import shipped

    path = ship(packed())
    path.write_bytes(damage(path.read_bytes()))
    shipped._chosen.cache_clear()
    announced.clear()
    doubled()
    assert announced


def test_what_cannot_be_unpickled_or_is_for_other_types_is_not_run(
    ship: Callable[..., Path], announced: list[str]
) -> None:
    name, _ = packed()
    _, other = packed(np.float32)
    for content in (b"no pickle", pickle.dumps(None), other):
        ship((name, content))
        announced.clear()
        doubled()
        assert announced
        shutil.rmtree(Path(doubled().stats.cache_path))


def test_shipped_code_needs_no_place_to_write(
    ship: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    announced: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*arguments: Any, **settings: Any) -> Any:
        raise PermissionError("read-only")

    ship(packed())
    announced.clear()
    monkeypatch.setattr("numba.core.config.CACHE_DIR", "")
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # with which Numba tries folders
    doubled()
    assert not announced
    assert not caplog.messages


@pytest.mark.parametrize(
    ("cpu", "features", "names"),
    [
        ("icelake-server", "+avx512bw,+avx512cd,+avx512dq,+avx512f,+avx512vl,", "x86-64-v4 x86-64-v3 x86-64-v2"),
        ("icelake-server", "-avx512bw,+avx512cd,+avx512dq,+avx512f,+avx512vl,", "x86-64-v3 x86-64-v2"),
        ("x86-64-v3", "", "x86-64-v3"),
        ("x86-64-v3", "-fma", ""),
        ("generic", "", ""),
    ],
)
def test_levels_of_a_processor(cpu: str, features: str, names: str) -> None:
    from patchattn.kernels.cpu.levels import X86_64_V3, levels_of, supported

    if cpu == "icelake-server":
        features += ",".join(f"+{feature}" for feature in sorted(X86_64_V3))
    levels = levels_of("x86_64-pc-windows-msvc")
    assert [level.name for level in levels if supported(level, cpu, features)] == names.split()
    assert levels_of("riscv64-unknown-linux-gnu") == ()


def test_the_default_calls_have_all_methods_and_image_tools() -> None:
    text = (TOOLS_FOLDER / "default_calls.py").read_text(encoding="utf-8")
    assert "METHODS.names()" in text or all(f'"{name}"' in text for name in METHODS.names())
    without_kernels = {"info", "demo", "train"}
    assert all(f'"{name}", "' in text for name in set(TOOLS.names()) - without_kernels)


USUAL_CALLS = """
import sys
from patchattn import *
from tests.shared_compilation import share_compilation
import kernel_worker, torch

share_compilation()

def compiled():
    return {(place, types) for place, kernel in kernel_worker.kernels().items() for types in kernel.overloads}

class Nowhere:
    def write(self, content): pass
    def flush(self): pass

kernel_worker.record(Nowhere())
recorded = compiled()
axis = torch.linspace(0, 5, 45)
image = torch.sin(axis[:40, None] * axis + torch.arange(5).view(-1, 1, 1))[None]
mask = torch.arange(40 * 45).view(1, 40, 45) % 7 > 0
for options in (
    {}, {"aggregate": True}, {"key_mask": mask, "query_mask": mask}, {"is_causal": True}, {"max_offset": 9},
    {"min_separation": 3}, {"similarity": "dot"}, {"similarity": "l1"}, {"patch_size": 3, "padding_mode": "zeros"},
    {"method": "patchmatch", "iterations": 2}, {"num_heads": 5},
):
    leaves = [image.clone().requires_grad_() for _ in range(3)]
    patch_attention(*leaves, **options).sum().backward()
for query in (image.half(), image.bfloat16(), image.repeat(2, 1, 1, 1), image.transpose(2, 3)):
    leaves = [query.clone().requires_grad_() for _ in range(3)]
    patch_attention(*leaves).sum().backward()
majority_vote(match(image, image, patch_size=5), 5)
match(image[..., None].expand(-1, -1, -1, -1, 4), image[..., None].expand(-1, -1, -1, -1, 4), patch_size=(3, 3, 1))
lacking = sorted(f"{place} {types}" for place, types in compiled() - recorded)
sys.exit("tools/default_calls.py lacks a call of: " + "; ".join(lacking) if lacking else 0)
"""


def test_usual_calls_need_no_other_kernels_than_the_default_calls(tmp_path: Path) -> None:
    source = Path(patchattn.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (source, ROOT, TOOLS_FOLDER)))}
    command = [sys.executable, "-c", USUAL_CALLS]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


CALL = """
import torch, patchattn
from patchattn.kernels import load_backend
from patchattn.problem import Constraints
index = torch.tensor([1, 5], dtype=torch.int32).view(1, 1, 1, 2)
result = load_backend("cpu").expand(index, (6,), (1,), Constraints()).flatten().tolist()
"""
WRITE_SIGNATURES = """
import kernel_worker, pickle, sys
for place, kernel in kernel_worker.kernels().items():
    for types in kernel.overloads:
        sys.stdout.buffer.write(pickle.dumps((*place, types)))
"""
NO_PLACE = """
import tempfile
def refuse(*arguments, **settings):
    raise PermissionError("read-only")
tempfile.TemporaryFile = refuse
"""


def test_a_package_with_machine_code_in_a_process_that_can_neither_compile_nor_write(tmp_path: Path) -> None:
    """Compiled for a level without running it, as `build_kernels.py` does; then no home, read-only folders, no JIT."""
    level = level_here()
    ignored = shutil.ignore_patterns("__pycache__", "objects")
    shutil.copytree(Path(patchattn.__file__).parent, tmp_path / "patchattn", ignore=ignored)
    (tmp_path / "file").write_text("")
    bare = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    bare |= {"PYTHONPATH": f"{tmp_path}{os.pathsep}{TOOLS_FOLDER}", "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    bare |= {"NUMBA_CPU_NAME": level.cpu, "NUMBA_CPU_FEATURES": ""}
    nowhere = bare | {"NUMBA_DISABLE_JIT": "1", "NUMBA_CACHE_DIR": str(tmp_path / "file" / "below")}
    here = os.environ | {"PYTHONPATH": f"{Path(patchattn.__file__).parents[1]}{os.pathsep}{TOOLS_FOLDER}"}

    def run(environment: dict[str, str], *arguments: str, given: bytes = b"") -> tuple[bytes, bytes]:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, input=given, env=environment, cwd=tmp_path, capture_output=True, check=True)
        return done.stdout, done.stderr

    signatures, _ = run(here, "-c", CALL + WRITE_SIGNATURES)
    run(bare, str(TOOLS_FOLDER / "kernel_worker.py"), "compile", level.name, given=signatures)
    assert run(nowhere, "-c", NO_PLACE + CALL + "print(result)") == (b"[0, 4, 1, 5, 2, -1]\n", b"")
