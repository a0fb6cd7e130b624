"""Time and memory of one operation on a GPU: what a worker of the report measures."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from gpu_interpreter import speed_up_if_interpreted
from gpu_report_exact import fused_attention, masked_attention
from layer_cost import attend, smooth_features
from process import peak_beyond
from torch import Tensor

from patchattn import match, patch_attention

__all__ = ["OPERATIONS", "Cell", "K", "Operation", "device_facts", "measure", "prepare"]

K = 3
SECONDS, MOST_RUNS, LEAST_RUNS, LONG = 0.3, 20, 3, 1.0
"""A cell is repeated for about so long and so often; one that takes LONG, once."""


@dataclass(frozen=True)
class Operation:
    """Something that is timed at all sizes."""

    name: str
    make: Callable[..., Callable[..., Any]]
    """Of a cell: what is called with query, key and value."""
    operators: tuple[str, ...] = ()
    """Ours: the operators that it consists of, by the names that gpu_least.py has for them."""
    backward: bool = False
    power: float = 1.0
    """Of the number of pixels, that the time grows with."""
    recompiled: bool = False
    """By PyTorch's compiler, for each size anew."""


@dataclass(frozen=True)
class Cell:
    """One operation at one size. All images are `side` squared, of one item and one head."""

    operation: str
    side: int
    p: int
    channels: int
    dtype: str

    @property
    def label(self) -> str:
        return f"{self.operation}, {self.side}², p {self.p}, C {self.channels}, {self.dtype}"


def _search(method: str, cell: Cell) -> Callable[..., Any]:
    def search(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        field = match(query, key, k=K, patch_size=cell.p, method=method, backend="gpu")
        return field.index, field.similarity

    return search


def _attention(cell: Cell, aggregate: bool = False) -> Callable[..., Tensor]:
    return partial(patch_attention, k=K, patch_size=cell.p, aggregate=aggregate, method="guided", backend="gpu")


def _fused(cell: Cell) -> Callable[..., Tensor]:
    return partial(fused_attention, patch_size=cell.p)


def _masked(cell: Cell) -> Callable[..., Tensor]:
    ready: list[Callable[[], Tensor]] = []

    def attend_to_matches(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if not ready:
            # Found once: a field and its list of blocks are what it is given.
            index, _ = _search("guided", cell)(query, key, value)
            ready.append(masked_attention(query, key, value, index))
        return ready[0]()

    return attend_to_matches


_TRAINED = ("search_guided", "similarity_at", "similarity_at_backward")
OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("search, guided", partial(_search, "guided"), ("search_guided",)),
        Operation("search, PatchMatch", partial(_search, "patchmatch"), ("search_patchmatch",)),
        Operation("search, exact", partial(_search, "exact"), ("search_exact",), power=2),
        Operation("attention", _attention, ("search_guided", "attend")),
        Operation("attention, backward", _attention, (*_TRAINED, "attend", "attend_backward"), backward=True),
        Operation("attention with votes", partial(_attention, aggregate=True), ("search_guided", "attend, votes")),
        Operation(
            "attention with votes, backward", partial(_attention, aggregate=True),
            (*_TRAINED, "attend, votes", "attend_backward, votes"), backward=True,
        ),
        Operation("SDPA", _fused, power=2),
        Operation("SDPA, backward", _fused, backward=True, power=2),
        Operation("FlexAttention", _masked, power=2, recompiled=True),
    )
}  # fmt: skip


def _call_of(cell: Cell, device: str) -> Callable[[], list[Tensor]]:
    """The operation on features of its own: what it returns, or the gradients with backward."""
    operation, dtype = OPERATIONS[cell.operation], getattr(torch, cell.dtype)
    torch.manual_seed(0)
    with torch.device(device):
        images = smooth_features(cell.side, cell.channels)
    inputs = [image.to(dtype).requires_grad_(operation.backward) for image in images]
    function = operation.make(cell)

    def call() -> list[Tensor]:
        if not operation.backward:
            found = function(*inputs)
            return [found] if isinstance(found, Tensor) else list(found)
        for tensor in inputs:
            tensor.grad = None
        attend(function, inputs)
        return [tensor.grad for tensor in inputs if tensor.grad is not None]

    return call


class Clock:
    """Times calls on a device: by CUDA events, on the CPU by the host's clock."""

    def __init__(self, device: str) -> None:
        self.on_gpu = torch.device(device).type == "cuda"

    def begin(self) -> None:
        """Give back what earlier cells have left: pieces of it are no place for a large image."""
        if self.on_gpu:
            torch.cuda.empty_cache()

    def times(self, call: Callable[[], Any], runs: int = 1) -> list[float]:
        """Seconds of each of so many calls, which are enqueued one behind the other."""
        if not self.on_gpu:
            found = []
            for _ in range(runs):
                start = time.perf_counter()
                call()
                found.append(time.perf_counter() - start)
            return found
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(runs)]
        torch.cuda.synchronize()
        for begin, end in events:
            begin.record()
            call()
            end.record()
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) / 1e3 for begin, end in events]

    def peak(self, call: Callable[[], Any]) -> tuple[int, Any]:
        """Bytes beyond what is held before the call, the result among them, as PyTorch counts them; and the result."""
        if not self.on_gpu:
            return peak_beyond(call)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before, result


@contextmanager
def _compilations() -> Iterator[list[float]]:
    """Seconds of each kernel that Triton compiles meanwhile, those that it finds on disk left out."""
    import triton

    found: list[float] = []

    def listen(*, times: Any, cache_hit: bool, **_: Any) -> None:
        if not cache_hit:
            found.append(times.total / 1e6)

    before = triton.knobs.compilation.listener
    triton.knobs.compilation.listener = listen
    try:
        yield found
    finally:
        triton.knobs.compilation.listener = before


def prepare(cell: Cell, device: str) -> dict[str, Any]:
    """Call an operation once, so that its kernels are compiled and on disk."""
    speed_up_if_interpreted()
    with _compilations() as compiled:
        (seconds,) = Clock(device).times(_call_of(cell, device))
    return {"first": seconds, "compiled": len(compiled), "compile_seconds": sum(compiled)}


def measure(cell: Cell, device: str) -> dict[str, Any]:
    """Time and memory of an operation: a first call, in which kernels may be compiled; one for the peak of memory, of
    whose result it is noted whether it has the bits of the first; and some that are timed.
    """
    speed_up_if_interpreted()
    clock = Clock(device)
    clock.begin()
    call = _call_of(cell, device)
    results: list[list[Tensor]] = []
    with _compilations() as compiled:
        (first,) = clock.times(lambda: results.append(call()))
    peak, again = clock.peak(call)
    same = all(torch.equal(one, other) for one, other in zip(results.pop(), again, strict=True))
    finite = all(bool(x.isfinite().all()) for x in again if x.is_floating_point())
    del again
    times = clock.times(call)
    if times[0] < LONG:
        times = clock.times(call, min(MOST_RUNS, max(LEAST_RUNS, int(SECONDS / max(times[0], 1e-6)))))
    return {
        "seconds": {"median": median(times), "min": min(times), "max": max(times)},
        "runs": len(times),
        "first": first,
        "compiled": len(compiled),
        "compile_seconds": sum(compiled),
        "peak": peak,
        "same_bits": same,
        "finite": finite,
        **asdict(cell),
    }


COPIED, MULTIPLIED = 2**31, 8192
"""Bytes of the copy, and side of the product, by which the peaks of a GPU are measured."""


def device_facts(device: str) -> dict[str, Any]:
    """What the device is, and what it reaches: bytes a second in a copy, operations in a product of bfloat16."""
    import triton

    clock, on_gpu = Clock(device), torch.device(device).type == "cuda"
    count, side = (COPIED // 4, MULTIPLIED) if on_gpu else (2**20, 128)
    source = torch.rand(count, device=device)
    target = torch.empty_like(source)
    factors = [torch.randn(side, side, device=device).bfloat16() for _ in range(2)]
    copy, product = (lambda: target.copy_(source)), (lambda: factors[0] @ factors[1])
    seconds = []
    for call in (copy, product):
        clock.times(call, 3)
        seconds.append(median(clock.times(call, 10)))
    facts: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "copy_bytes": 2 * source.nbytes / seconds[0],
        "product_operations": 2 * side**3 / seconds[1],
    }
    if on_gpu:
        properties = torch.cuda.get_device_properties(device)
        known = triton.runtime.driver.active.utils.get_device_properties(torch.cuda.current_device())
        facts |= {
            "device": properties.name,
            "memory": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "clock": known["sm_clock_rate"] * 1e3,
            "driver": _driver(),
        }
    return facts


def _driver() -> str:
    """The driver's version, as NVIDIA's tool says it; PyTorch does not."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.splitlines()[0]
    except (OSError, subprocess.TimeoutExpired, IndexError):
        return "not known"
