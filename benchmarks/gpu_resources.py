"""What a compiled kernel takes of a GPU, read from its machine code, and how many of it run at a time."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

__all__ = ["MOST_WARPS", "TARGETS", "Resources", "compiling_for", "occupancy", "resources_of"]

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}

# A multiprocessor of NVIDIA's data-center GPUs (CUDA C++ Programming Guide, technical specifications per compute
# capability): registers of 32 bits, handed out 256 at a time to a warp; warps in steps of four; blocks.
REGISTERS, REGISTER_UNIT, WARP_UNIT, MOST_WARPS, MOST_BLOCKS = 65536, 256, 4, 64, 32
SHARED_BYTES = {"sm_80": 164 * 1024, "sm_90": 228 * 1024, "sm_100": 228 * 1024}
SHARED_RESERVED, SHARED_UNIT = 1024, 128

# A compute unit of CDNA 3 (LLVM's AMDGPU backend): four SIMDs of eight waves, 512 vector registers for each lane in
# steps of 8, 800 scalar registers in steps of 16, 64 KiB of LDS.
SIMDS, MOST_WAVES, VECTOR_REGISTERS, VECTOR_UNIT, SCALAR_REGISTERS, SCALAR_UNIT = 4, 8, 512, 8, 800, 16
LDS_BYTES, LDS_UNIT = 64 * 1024, 512


@dataclass(frozen=True)
class Resources:
    """What one build takes, and the share of all warps (waves) that can be resident."""

    registers: int
    """Of a thread; on AMD vector registers, accumulation registers included."""
    spilled: int
    """Instructions that store to the stack or load from it; on AMD vector registers that went there."""
    moved: int
    """On AMD: scalar registers that had to go to lanes of vector registers; no memory is touched."""
    stack: int
    """Bytes of a thread's stack."""
    shared: int
    """Bytes of a block's shared memory (LDS)."""
    warps: int
    occupancy: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Driver:
    """Stands in for a GPU's driver: enough to compile, not to run."""

    def __init__(self, target: GPUTarget, number: int) -> None:
        self.target, self.number = target, number

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        # Triton keeps what it compiled by device: every target is one.
        return self.number

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, kind: str) -> str:
        return kind


_drivers = {name: _Driver(target, number) for number, (name, target) in enumerate(TARGETS.items())}


def compiling_for(name: str) -> None:
    """From now on Triton compiles for this target."""
    driver.set_active(_drivers[name])


def resources_of(kernel: Any, name: str) -> Resources:
    """Read what a build for a target takes."""
    warps, shared = kernel.metadata.num_warps, kernel.metadata.shared
    if "cubin" in kernel.asm:
        registers, stack, spilled = _of_cubin(kernel.asm["cubin"])
        return Resources(registers, spilled, 0, stack, shared, warps, occupancy(name, registers, shared, warps))
    notes = dict(re.findall(r"^\s*\.(\w+):\s+(\d+)$", kernel.asm["amdgcn"], flags=re.MULTILINE))
    registers, scalar = int(notes["vgpr_count"]), int(notes["sgpr_count"])
    spilled, moved = int(notes["vgpr_spill_count"]), int(notes["sgpr_spill_count"])
    shared, stack = max(shared, int(notes["group_segment_fixed_size"])), int(notes["private_segment_fixed_size"])
    return Resources(registers, spilled, moved, stack, shared, warps, occupancy(name, registers, shared, warps, scalar))


def _of_cubin(cubin: bytes) -> tuple[int, int, int]:
    """Registers and bytes of stack of a thread, and the instructions that use the stack."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()

        def dump(option: str) -> str:
            return subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout

        usage = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", dump("-res-usage"))
        if usage is None:
            raise RuntimeError("cuobjdump -res-usage says nothing about registers.")
        registers, stack, _, local = map(int, usage.groups())
        # The stack also holds what a library function keeps there, which is no spill but costs the same.
        spilled = len(re.findall(r"\b(?:STL|LDL)\b", dump("-sass"))) if stack + local else 0
    return registers, stack + local, spilled


def occupancy(name: str, registers: int, shared: int, warps: int, scalar: int = 0) -> float:
    """The share of a multiprocessor's warps that are resident if nothing but the kernel's own needs limits them."""
    if name in SHARED_BYTES:
        of_warp = _up(max(1, registers) * 32, REGISTER_UNIT)
        by_registers = REGISTERS // of_warp // WARP_UNIT * WARP_UNIT // warps
        by_shared = SHARED_BYTES[name] // (_up(shared, SHARED_UNIT) + SHARED_RESERVED)
        return min(by_registers, by_shared, MOST_WARPS // warps, MOST_BLOCKS) * warps / MOST_WARPS
    waves = min(MOST_WAVES, VECTOR_REGISTERS // _up(max(1, registers), VECTOR_UNIT))
    waves = min(waves, SCALAR_REGISTERS // _up(max(1, scalar), SCALAR_UNIT))
    by_lds = LDS_BYTES // _up(shared, LDS_UNIT) if shared else MOST_WAVES * SIMDS
    return min(waves * SIMDS // warps, by_lds) * warps / (MOST_WAVES * SIMDS)


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
