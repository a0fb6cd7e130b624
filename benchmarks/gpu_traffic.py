"""What kernels load and store, counted in Triton's interpreter (TRITON_INTERPRET=1 before Triton is imported).

Every load and store passes through two functions of the interpreter, which see the addresses and which lanes are
masked. Counted are the bytes of active lanes alone, by kernel and by the argument that the address lies in.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gpu_problems import running
from torch import Tensor

__all__ = ["Launched", "Traffic", "counting", "kernel_name"]


@dataclass
class Launched:
    """One launch: kernel, arguments by name, grid; bytes by argument."""

    kernel: str
    arguments: dict[str, Any]
    grid: tuple[int, ...]
    loads: Counter[str] = field(default_factory=Counter)
    stores: Counter[str] = field(default_factory=Counter)


@dataclass
class Traffic:
    """All launches of an operator."""

    launches: list[Launched] = field(default_factory=list)

    def of(self, kernel: str) -> list[Launched]:
        return [launch for launch in self.launches if launch.kernel == kernel]


def kernel_name(kernel: Any) -> str:
    """`patchmatch.propagate` for `_propagate_kernel` of kernels/gpu/patchmatch.py."""
    function = getattr(kernel, "fn", kernel)
    return f"{function.__module__.rsplit('.', 1)[-1]}.{re.sub(r'^_|_kernel$', '', function.__name__)}"


@contextmanager
def counting() -> Iterator[Traffic]:
    """Count what is loaded and stored meanwhile."""
    from triton.runtime.interpreter import interpreter_builder as builder

    from patchattn.kernels.gpu.launch import run

    traffic = Traffic()
    load, store = builder.create_masked_load, builder.create_masked_store
    starts: list[int] = []
    names: list[str] = []
    ends: list[int] = []

    def note(counts: Counter[str], pointers: Any, mask: Any) -> None:
        active = np.broadcast_to(mask.data, pointers.data.shape)
        lanes = int(np.count_nonzero(active))
        if not lanes:
            return
        first = int(pointers.data[active].flat[0])
        at = bisect_right(starts, first) - 1
        inside = at >= 0 and first < ends[at]
        bits = pointers.get_element_ty().primitive_bitwidth
        counts[names[at] if inside else "?"] += lanes * max(1, bits // 8)

    def counted_load(pointers: Any, mask: Any, *others: Any) -> Any:
        note(traffic.launches[-1].loads, pointers, mask)
        return load(pointers, mask, *others)

    def counted_store(pointers: Any, value: Any, mask: Any, *others: Any) -> Any:
        note(traffic.launches[-1].stores, pointers, mask)
        return store(pointers, value, mask, *others)

    def run_counted(
        kernel: Any, grid: tuple[int, ...], device: torch.device, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        named = dict(zip(kernel.arg_names, arguments, strict=False))
        traffic.launches.append(Launched(kernel_name(kernel), named, grid))
        ranges = sorted({(t.data_ptr(), t.data_ptr() + max(1, t.nbytes), path) for path, t in _tensors("", named)})
        starts[:], ends[:], names[:] = ([entry[n] for entry in ranges] for n in range(3))
        run(kernel, grid, device, arguments, options)

    builder.create_masked_load, builder.create_masked_store = counted_load, counted_store
    try:
        with running(run_counted):
            yield traffic
    finally:
        # They are methods: what was set on the object goes.
        del builder.create_masked_load, builder.create_masked_store


def _tensors(path: str, thing: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors of (nested) arguments, with the names that lead to them."""
    if isinstance(thing, Tensor):
        yield path, thing
        return
    if isinstance(thing, tuple) and hasattr(thing, "_asdict"):
        thing = thing._asdict()
    if isinstance(thing, dict):
        for name, part in thing.items():
            yield from _tensors(f"{path}.{name}" if path else name, part)
