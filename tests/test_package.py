"""The package as a whole: what importing it brings in, and what is said when a backend is absent."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import patchattn
from patchattn.kernels import backend_status, default_backend, load_backend

ROOT = Path(__file__).parents[1]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_public_names_exist() -> None:
    for name in patchattn.__all__:
        assert getattr(patchattn, name).__doc__, f"{name} has no docstring"


def test_the_version_is_the_same_everywhere() -> None:
    citation, changelog = ((ROOT / name).read_text(encoding="utf-8") for name in ("CITATION.cff", "CHANGELOG.md"))
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [patchattn.__version__]
    released = re.findall(r"^## \[(.+)\]", changelog, re.MULTILINE)
    assert released[0] == "Unreleased"
    assert patchattn.__version__ in released


def test_the_changelog_is_made_of_the_known_sections() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for release in changelog.split("\n## ")[1:]:
        sections = re.findall(r"^### (.+)$", release, re.MULTILINE)
        assert sections
        order = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
        assert sections == [name for name in order if name in sections]


def test_warnings_are_seen_without_a_handler_and_go_to_one_where_there_is() -> None:
    code = """
import logging, sys, patchattn
log = logging.getLogger("patchattn.part")
log.info("unseen")
log.warning("plain")
logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
log.warning("seen")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "plain\npatchattn.part: seen\n"


def test_importing_brings_in_nothing_heavy() -> None:
    heavy = ("numba", "triton", "PIL", "typer", "rich", "torch._dynamo")
    heavy += tuple(f"patchattn.{name}" for name in ("tasks", "arrays", "compat"))
    assert run(f"import sys, patchattn; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_importing_reads_no_environment() -> None:
    code = """
import os, torch, jaxtyping
import torch.fx.experimental.symbolic_shapes  # by the first operator in PyTorch 2.6
read, get = [], type(os.environ).__getitem__
type(os.environ).__getitem__ = lambda self, name: (read.append(name), get(self, name))[1]
assert os.environ.get("PATH") and read == ["PATH"]
import patchattn, patchattn.kernels
print(read)
"""
    assert run(code) == "['PATH']"


@pytest.mark.needs("cpu", "gpu")
def test_every_backend_loads() -> None:
    assert backend_status() == dict.fromkeys(("cpu", "gpu", "reference"))


@pytest.mark.needs("cpu", "gpu")
def test_devices_have_the_backend_compiled_for_them() -> None:
    served = {device: default_backend(device) for device in ("cpu", "cuda", "xpu", "mps", "meta")}
    assert served == {"cpu": "cpu", "cuda": "gpu", "xpu": "gpu", "mps": "reference", "meta": "reference"}


def test_absent_triton_names_the_remedy() -> None:
    code = """
import sys
sys.modules["triton"] = None
import torch, patchattn
from patchattn.kernels import load_backend
image = torch.rand(1, 2, 8, 8)
for attempt in (lambda: load_backend("gpu"), lambda: patchattn.match(image, image, backend="gpu")):
    try:
        attempt()
    except RuntimeError as error:
        print(error)
"""
    for line in run(code).splitlines():
        assert "backend 'gpu' does not load" in line
        assert 'install Triton (pip install "triton>=3.4"), or pass backend="reference"' in line


@pytest.mark.needs("cpu")
def test_an_old_numba_names_the_remedy() -> None:
    code = """
import llvmlite.binding, numba
llvmlite.binding.llvm_version_info = (15, 0, 7)
numba.__version__ = "0.61.0"
from patchattn.kernels import backend_status
print(backend_status()["cpu"])
"""
    refusal = run(code)
    assert "backend 'cpu' does not load (Numba 0.61.0 is too old; 0.62 or newer is needed)" in refusal
    assert 'install Numba (pip install "numba>=0.62"), or pass backend="reference"' in refusal


@pytest.mark.needs("gpu")
def test_an_old_triton_names_the_remedy() -> None:
    code = """
import triton
del triton.knobs  # as before 3.4
triton.__version__ = "3.2.0"
from patchattn.kernels import backend_status
print(backend_status()["gpu"])
"""
    refusal = run(code)
    assert (
        "backend 'gpu' does not load (Triton 3.2.0 is too old; 3.4 or newer is needed, which comes with Py" in refusal
    )
    assert 'install Triton (pip install "triton>=3.4"), or pass backend="reference"' in refusal


@pytest.mark.needs("gpu")
def test_the_gpu_backend_refuses_the_cpu_without_the_interpreter() -> None:
    code = """
import os
del os.environ["TRITON_INTERPRET"]
import torch, patchattn
image = torch.rand(1, 2, 8, 8)
for call in (lambda: patchattn.match(image, image, backend="gpu"),
             lambda: patchattn.scram_attention(image, image, image, backend="gpu"),
             lambda: patchattn.match(image.to("meta"), image.to("meta"), backend="gpu")):
    try:
        call()
    except ValueError as error:
        print(error)
"""
    first, second, third = run(code).splitlines()
    assert first == second
    assert "backend: 'gpu' needs tensors on a GPU, got cpu; use None or 'cpu', or set TRITON_INTERPRET=1" in first
    assert "backend: 'gpu' needs tensors on cuda or xpu, got meta; use None or 'reference'" in third


def test_an_absent_backend_names_the_remedy() -> None:
    code = """
import sys
sys.modules["numba"] = None
import torch, patchattn
from patchattn.kernels import backend_status
image = torch.rand(1, 2, 8, 8)
try:
    patchattn.match(image, image, backend="cpu")
except RuntimeError as error:
    print(error)
print(patchattn.match(image, image, backend="reference").index.shape)
print(backend_status()["cpu"])
"""
    first, second, third = run(code).splitlines()
    assert first == third
    assert "backend 'cpu' does not load" in first
    assert "install Numba" in first
    assert 'backend="reference"' in first
    assert second == "torch.Size([1, 1, 1, 8, 8])"


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="backend: got 'cuda'; allowed are 'reference', 'cpu', 'gpu' and None"):
        load_backend("cuda")
