"""Start kernels: on the tensors' own device and its current stream, or in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton

from patchattn.kernels.gpu.cache import ensure_cache

__all__ = ["FEW_REGISTERS", "INTERPRETED", "block_size", "launch", "options_for", "run"]

if not hasattr(triton, "knobs"):
    raise ImportError(f"Triton {triton.__version__} is too old; 3.4 or newer is needed, which comes with PyTorch 2.8")

INTERPRETED = bool(triton.knobs.runtime.interpret)
"""Whether kernels run in Triton's interpreter (TRITON_INTERPRET=1 when they were first imported)."""
LARGEST_INTERPRETED_BLOCK = 1024
FEW_REGISTERS = "--opt-level=1"
"""For searches. LLVM has optimized already; at its usual level 3 ptxas takes more registers for what little is left,
and then moves some to the stack to let one more block run. At level 1 the same kernels have at most 3 % more
instructions, as many loads side by side, and nothing on the stack (docs/gpu.md)."""


def block_size(compiled: int, count: int) -> int:
    """Return the size of a program's block: `compiled`, a power of two; up to all `count` in the interpreter, whose
    time goes by operations, not by numbers. No result depends on it.
    """
    if not INTERPRETED:
        return compiled
    return max(compiled, min(LARGEST_INTERPRETED_BLOCK, triton.next_power_of_2(max(1, count))))


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    device: torch.device,
    *arguments: Any,
    num_warps: int = 4,
    ptx_options: str | None = None,
) -> None:
    """Run `kernel` for each program of the grid, unless there is none; `ptx_options` are for NVIDIA's assembler."""
    if 0 not in grid:
        # A fused multiply-add rounds once instead of twice; sums of whole numbers are exact either way. One stage: no
        # load runs ahead of the stores before it, which the scans of guided search rely on.
        options: dict[str, Any] = {"num_warps": num_warps, "num_stages": 1, "enable_fp_fusion": True}
        if ptx_options is not None:
            options["ptx_options"] = ptx_options
        runner(kernel, grid, device, arguments, options)


def run(
    kernel: Any, grid: tuple[int, ...], device: torch.device, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """Run `kernel` on the device, with Triton's options."""
    if device.type == "cpu" and not INTERPRETED:
        raise RuntimeError(
            'backend "gpu": got tensors on the CPU; move them to a GPU, leave backend=None, or set TRITON_INTERPRET=1 '
            "before Python starts to run the kernels in Triton's (slow) interpreter."
        )
    if not INTERPRETED:
        ensure_cache()
    on_nvidia = device.type == "cuda" and torch.version.hip is None
    with _current(device):
        kernel[grid](*arguments, **options_for(on_nvidia, options))


def options_for(on_nvidia: bool, options: dict[str, Any]) -> dict[str, Any]:
    """Leave out what other makers' compilers would refuse as unknown."""
    return {name: value for name, value in options.items() if on_nvidia or name != "ptx_options"}


runner: Callable[..., None] = run
"""Runner that `launch` calls: replace `run` to see what is launched, as benchmarks/gpu_*.py do."""


def _current(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be the tensors'."""
    return nullcontext() if device.type == "cpu" else torch.get_device_module(device).device(device)
