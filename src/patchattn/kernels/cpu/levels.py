"""CPU levels: the processors that machine code is compiled for before they are known."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Level", "levels_of", "supported"]


class Level(NamedTuple):
    """Processors that have some instructions in common."""

    name: str
    cpu: str
    """LLVM's name for them, which implies their instructions."""
    features: frozenset[str]
    """Instructions that code for this level may use, by LLVM's names."""


X86_64_V2 = frozenset({"cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"})
X86_64_V3 = X86_64_V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"}
X86_64_V4 = X86_64_V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
X86_64 = (
    Level("x86-64-v4", "x86-64-v4", X86_64_V4),
    Level("x86-64-v3", "x86-64-v3", X86_64_V3),
    Level("x86-64-v2", "x86-64-v2", X86_64_V2),
)
ARM_64 = (Level("armv8-a", "generic", frozenset({"fp-armv8", "neon"})),)
LEVELS = {"x86_64": X86_64, "aarch64": ARM_64, "arm64": ARM_64}
"""The levels of an architecture, which is the first part of LLVM's triple; the highest first."""


def levels_of(triple: str) -> tuple[Level, ...]:
    """The levels of a machine, the highest first; none where nothing is compiled ahead."""
    return LEVELS.get(triple.split("-")[0], ())


def supported(level: Level, cpu: str, features: str) -> bool:
    """Whether code of a level runs where Numba compiles for this processor with these features (`+avx2,-avx512f`)."""
    named = set(features.split(","))
    implied = level.features if cpu == level.cpu else frozenset()
    present = implied | {feature[1:] for feature in named if feature.startswith("+")}
    return level.features <= present - {feature[1:] for feature in named if feature.startswith("-")}
