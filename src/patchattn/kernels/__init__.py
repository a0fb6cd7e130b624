"""Backends: the same functions, as loops over arrays, for different machines."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["BACKENDS", "backend_status", "cache_states", "default_backend", "interprets", "load_backend"]

BACKENDS = ("reference", "cpu", "gpu")

COMPILED = {"cpu": "cpu", "cuda": "gpu", "xpu": "gpu"}
"""The backend compiled for a type of device. PyTorch calls AMD's (ROCm) `cuda` too."""

_REMEDY = {
    "reference": "it needs nothing but PyTorch, so this installation is broken: reinstall patchattn",
    "cpu": 'install Numba (pip install "numba>=0.60"), or pass backend="reference"',
    "gpu": 'install Triton (pip install "triton>=3.4"), or pass backend="reference"',
}


def default_backend(device_type: str) -> str:
    """The backend for tensors of a type of device: the one compiled for it, else plain PyTorch, which runs anywhere."""
    return COMPILED.get(device_type, "reference")


def load_backend(name: str) -> ModuleType:
    """Import a backend; `RuntimeError` with the remedy if it does not load."""
    if name not in BACKENDS:
        raise ValueError(f"backend: got {name!r}; allowed are {', '.join(map(repr, BACKENDS))} and None (by device).")
    try:
        return importlib.import_module(f"patchattn.kernels.{name}")
    except ImportError as error:
        raise RuntimeError(f"backend {name!r} does not load ({error}): {_REMEDY[name]}.") from error


def interprets() -> bool:
    """Whether the GPU backend's kernels run in Triton's interpreter here, which takes tensors on the CPU."""
    load_backend("gpu")
    return bool(importlib.import_module("patchattn.kernels.gpu.launch").INTERPRETED)


def backend_status() -> dict[str, str | None]:
    """For each backend None if it loads, else the reason why not."""
    return {name: _refusal(name) for name in BACKENDS}


def cache_states() -> dict[str, dict[str, str | None]]:
    """For each compiled backend that loads: the `folder` with its machine code, and the `problem` if there is none."""
    loading = [name for name in ("cpu", "gpu") if _refusal(name) is None]
    return {name: importlib.import_module(f"patchattn.kernels.{name}.cache").cache_state() for name in loading}


def _refusal(name: str) -> str | None:
    try:
        load_backend(name)
    except RuntimeError as error:
        return str(error)
    return None
