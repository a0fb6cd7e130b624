"""The package as a whole: what importing it brings in, and what is said when a backend is absent."""

from __future__ import annotations

import subprocess
import sys

import pytest

import patchattn
from patchattn.kernels import BACKENDS, backend_status, load_backend


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_public_names_exist() -> None:
    for name in patchattn.__all__:
        assert getattr(patchattn, name).__doc__, f"{name} has no docstring"


def test_importing_brings_in_nothing_heavy() -> None:
    heavy = ("numba", "triton", "PIL", "typer", "rich", "torchmetrics", "torch._dynamo")
    assert run(f"import sys, patchattn; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_every_backend_loads() -> None:
    assert backend_status() == dict.fromkeys(BACKENDS)


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
    with pytest.raises(ValueError, match="backend: got 'cuda'; allowed are 'reference', 'cpu'"):
        load_backend("cuda")
