"""Backends: the same functions, as loops over arrays, for different machines."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

from patchattn.backends import DEVICES, KernelBackend, find_backend, register_backend
from patchattn.registry import BACKENDS

__all__ = [
    "FUNCTIONS",
    "SHORTCUTS",
    "backend_status",
    "cache_states",
    "default_backend",
    "interprets",
    "load_backend",
    "shipped_state",
]

FUNCTIONS = (
    "attend",
    "attend_backward",
    "expand",
    "majority",
    "sample_chains",
    "sample_mixture",
    "search_exact",
    "search_guided",
    "search_patchmatch",
    "search_repeated",
    "similarity_at",
    "similarity_at_backward",
    "similarity_tangent",
    "weighted_sum",
    "weighted_sum_backward",
)
"""Functions that every backend has."""
SHORTCUTS = ("attend_similar", "attend_similar_backward", "takes_similar")
"""Functions that a backend may have besides, all or none: `similarity_at` and `attend` in one call, to the same bits,
where `takes_similar` says so.
"""

_loaded: dict[str, ModuleType] = {}


def default_backend(device_type: str) -> str:
    """The backend for tensors of a type of device: the one compiled for it, else plain PyTorch, which runs anywhere."""
    return DEVICES.get(device_type, "reference")


def load_backend(name: str) -> ModuleType:
    """Import a backend's functions; `RuntimeError` with the remedy if it does not load."""
    found = _loaded.get(name)
    return _load(find_backend(name)) if found is None else found


def interprets() -> bool:
    """Whether the GPU backend's kernels run in Triton's interpreter here, which takes tensors on the CPU."""
    load_backend("gpu")
    return bool(importlib.import_module(f"{__name__}.gpu.launch").INTERPRETED)


def backend_status() -> dict[str, str | None]:
    """For each backend None if it loads, else the reason why not."""
    return {name: _refusal(name) for name in BACKENDS.names()}


def cache_states() -> dict[str, dict[str, str | None]]:
    """For each compiled backend that loads: the `folder` with its machine code, and the `problem` if there is none."""
    loading = [name for name in ("cpu", "gpu") if _refusal(name) is None]
    return {name: importlib.import_module(f"{__name__}.{name}.cache").cache_state() for name in loading}


def shipped_state() -> dict[str, str | None]:
    """The CPU `level` of the machine code that came with the package and runs here, and the `problem` if none does."""
    reason = _refusal("cpu")
    if reason is not None:
        return {"level": None, "problem": reason}
    state: dict[str, str | None] = importlib.import_module(f"{__name__}.cpu.shipped").shipped_state()
    return state


def _load(backend: KernelBackend) -> ModuleType:
    try:
        found = importlib.import_module(backend.module)
    except ImportError as error:
        raise RuntimeError(f"backend {backend.name!r} does not load ({error}): {backend.remedy}.") from error
    missing = [name for name in FUNCTIONS if not callable(getattr(found, name, None))]
    if missing:
        raise RuntimeError(
            f"backend {backend.name!r} does not load ({backend.module} has no {', '.join(missing)}): take what it does "
            "not define from patchattn.kernels.reference."
        )
    _loaded[backend.name] = found
    return found


def _refusal(name: str) -> str | None:
    try:
        load_backend(name)
    except (RuntimeError, ValueError) as error:
        return str(error)
    return None


def _cpu_refuses(device: torch.device) -> str | None:
    if device.type == "cpu":
        return None
    return f"'cpu' needs tensors on the CPU, got {device}; use None or 'reference'"


def _gpu_refuses(device: torch.device) -> str | None:
    # While a graph is traced nothing is imported; the kernel says the same when it is started.
    if device.type == "cpu" and not torch.compiler.is_compiling() and not interprets():
        return (
            f"'gpu' needs tensors on a GPU, got {device}; use None or 'cpu', or set TRITON_INTERPRET=1 before "
            "Python starts, which runs the kernels on the CPU in Triton's (slow) interpreter"
        )
    if device.type != "cpu" and default_backend(device.type) != "gpu":
        return f"'gpu' needs tensors on cuda or xpu, got {device}; use None or 'reference'"
    return None


register_backend(
    "reference",
    f"{__name__}.reference",
    remedy="it needs nothing but PyTorch, so this installation is broken: reinstall patchattn",
)
register_backend(
    "cpu",
    f"{__name__}.cpu",
    remedy='install Numba (pip install "numba>=0.62"), or pass backend="reference"',
    devices=("cpu",),
    refuses=_cpu_refuses,
)
register_backend(
    "gpu",
    f"{__name__}.gpu",
    remedy='install Triton (pip install "triton>=3.4"), or pass backend="reference"',
    devices=("cuda", "xpu"),  # PyTorch calls AMD's (ROCm) `cuda` too
    refuses=_gpu_refuses,
)
