"""The tools that look at the GPU's kernels without a GPU: what they build, count and predict."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.benchmark_modules import BENCHMARKS, benchmark_modules

pytestmark = pytest.mark.needs("gpu")

TOOLS = ("gpu_problems", "gpu_formulas", "gpu_traffic", "gpu_resources", "gpu_counts", "machine")
DATA_DECIDE = "search_guided"
"""Its last leaf may hold fewer keys than the formula has."""


@pytest.fixture(scope="module")
def tools() -> Iterator[dict[str, ModuleType]]:
    """The scripts' modules, which find each other by being side by side."""
    with benchmark_modules(*TOOLS) as modules:
        yield modules


def test_every_operator_has_a_problem(tools: dict[str, ModuleType]) -> None:
    from patchattn.kernels import gpu

    assert set(tools["gpu_problems"].operators()) == set(gpu.__all__)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's: minus infinity less itself
@pytest.mark.parametrize(
    "operator",
    [
        "search_patchmatch", "search_exact", "search_guided", "similarity_at", "similarity_at_backward", "attend",
        "attend_backward", "weighted_sum", "weighted_sum_backward", "expand", "majority", "sample_mixture",
        "sample_chains",
    ],
)  # fmt: skip
def test_kernels_load_and_store_what_the_formulas_say(
    tools: dict[str, ModuleType], operator: str, one_thread: None
) -> None:
    # Of a single pixel guided search keeps all numbers, and no PatchMatch follows.
    p = 1 if operator == DATA_DECIDE else 3
    checks = tools["gpu_counts"].check(operator, p, (12, 10), k=2)
    assert checks
    for one in checks:
        assert one.stores[0] == one.stores[1] > 0, one
        if operator == DATA_DECIDE:
            assert one.loads[1] == pytest.approx(one.loads[0], rel=0.03), one
        else:
            assert one.loads[0] == one.loads[1] > 0, one


@pytest.mark.parametrize(
    ("target", "registers", "shared", "warps", "share"),
    [
        ("sm_90", 32, 0, 4, 1.0),
        ("sm_90", 33, 0, 4, 0.75),
        ("sm_90", 64, 0, 4, 0.5),
        ("sm_90", 128, 0, 4, 0.25),
        ("sm_90", 255, 0, 8, 0.125),
        ("sm_90", 32, 0, 1, 0.5),
        ("sm_80", 32, 80 * 1024, 4, 0.125),
        ("sm_90", 32, 75 * 1024, 4, 0.1875),
        ("gfx942", 64, 0, 4, 1.0),
        ("gfx942", 65, 0, 4, 0.875),
        ("gfx942", 128, 0, 4, 0.5),
        ("gfx942", 64, 32 * 1024, 4, 0.25),
    ],
)
def test_occupancy(
    tools: dict[str, ModuleType], target: str, registers: int, shared: int, warps: int, share: float
) -> None:
    assert tools["gpu_resources"].occupancy(target, registers, shared, warps) == share


def test_a_kernel_is_built_for_two_makers_without_a_gpu() -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu_compile.py"), "--quick", "--operators", "weighted_sum"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [*command, "--targets", "sm_90", "gfx942"], capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kernels" in done.stdout
