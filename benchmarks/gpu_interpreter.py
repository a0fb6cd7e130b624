"""Triton's interpreter as the tests have it, many times faster; shared by the tools that look at the GPU's kernels."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

# The tests are no package that is installed: they lie beside this folder.
sys.path.append(str(Path(__file__).parents[1]))
from tests.interpreter import speed_up

__all__ = ["speed_up_if_interpreted"]


@cache
def speed_up_if_interpreted() -> None:
    """Once in a process, and only where kernels are not compiled."""
    from patchattn.kernels.gpu.launch import INTERPRETED

    if INTERPRETED:
        speed_up()
