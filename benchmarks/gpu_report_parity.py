"""Parity on a GPU: the tests' own cases against the reference, and every operator at the sizes that layers have.

The first are those that the tests run in Triton's interpreter, with their tolerances (tests/kernels/parity.py): bit for
bit where that is promised. They are small, with patches of three and few channels; so each operator of gpu_problems.py
is also compared with patches of seven and 64 channels, for which a program's block and its warps are others.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product, zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from gpu_interpreter import speed_up_if_interpreted  # first: it says where the tests are
from gpu_problems import PROBLEMS, Case, running
from gpu_report_rows import Row
from gpu_traffic import kernel_name
from torch import Tensor

from tests.cases import TOLERANCE
from tests.kernels.parity import DEVICES, both
from tests.poison import poisoned
from tests.selection import covering

__all__ = ["compare_problem", "compare_test", "kernels_of_the_backend", "parity_rows", "tests_left_out"]

MODULES = (
    "tests.kernels.test_parity", "tests.kernels.test_guided_parity", "tests.kernels.test_sampling_parity",
    "tests.ops.test_majority", "tests.ops.test_derivatives",
)  # fmt: skip
BACKEND = "gpu"
TIMEOUT = 90.0
"""Seconds for one case, in which some kernels are compiled."""
ALIKE = 0.999
"""Share of the samples of a chain that must be the same: whether a step is taken hangs on an exponential, which is not
rounded alike everywhere."""
SIZE = (29, 23)
"""It fills no whole blocks, and is no larger than the reference compares in seconds, every query with every key."""
PROBLEM_CASES = (
    Case(7, 16, 3), Case(1, 64, 16), Case(3, 64, 3), Case(7, 3, 3), Case(7, 16, 3, dtype=torch.bfloat16),
)  # fmt: skip
SAME_BITS = ("search_patchmatch", "search_repeated", "search_exact", "expand", "majority")
"""Operators whose results are the same bits where features are whole numbers."""


@dataclass(frozen=True, eq=False)
class TestCase:
    """One call of a test. The names of its parts are those of pytest's items, for the selection that the tests have."""

    nodeid: str
    function: Callable[..., None]
    callspec: Any


def _parameters(test: Callable[..., None]) -> list[dict[str, Any]] | None:
    """The arguments of all calls of a test beside the backend; None if it is not called with a compiled backend, or
    needs what only pytest has.
    """
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    choices = []
    for mark in marks:
        names = mark.args[0]
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        single = isinstance(mark.args[0], str) and len(names) == 1
        choices.append([dict(zip(names, (value,) if single else value, strict=True)) for value in mark.args[1]])
    calls = [dict(pair for part in chosen for pair in part.items()) for chosen in product(*choices)]
    calls = [call for call in calls if call.pop("compiled", BACKEND) == BACKEND]
    wanted = set(inspect.signature(test).parameters)
    return calls if "compiled" in wanted and calls and wanted == {"compiled", *calls[0]} else None


def _tests(module: str) -> dict[str, Callable[..., None]]:
    return {name: test for name, test in vars(importlib.import_module(module)).items() if name.startswith("test_")}


@cache
def cases_of(module: str, test: str) -> list[TestCase]:
    """The calls of a test that the tests themselves choose for this backend, in the order of what they add."""
    function = _tests(module)[test]
    found = []
    for call in _parameters(function) or []:
        label = "-".join(getattr(value, "__name__", str(value)) for value in call.values())
        callspec = SimpleNamespace(params={**call, "compiled": BACKEND})
        found.append(TestCase(f"{module.rsplit('.', 1)[-1]}.{test}[{label}]", function, callspec))
    return covering(found)  # type: ignore[arg-type]


def tests_left_out() -> list[str]:
    """Tests with a compiled backend that only pytest can run."""
    return [
        f"{module.rsplit('.', 1)[-1]}.{name}"
        for module in MODULES
        for name, test in _tests(module).items()
        if "compiled" in inspect.signature(test).parameters and _parameters(test) is None
    ]


def parity_rows(device: str, size: tuple[int, ...] = SIZE) -> list[Row]:
    """One case of every test and every operator, then the second of each, and so on; operators on images of `size`."""

    def of_operator(operator: str) -> list[Row]:
        numbered = enumerate(PROBLEM_CASES)
        return [
            _row(_name(operator, case), operator, compare_problem, operator, n, size, device) for n, case in numbered
        ]

    def of_test(module: str, test: str) -> list[Row]:
        numbered, short = enumerate(cases_of(module, test)), f"{module.rsplit('.', 1)[-1]}.{test}"
        return [_row(case.nodeid, short, compare_test, module, test, n, device) for n, case in numbered]

    columns = [of_operator(operator) for operator in PROBLEMS]
    columns += [of_test(module, test) for module in MODULES for test in _tests(module)]
    return [row for turn in zip_longest(*columns) for row in turn if row is not None]


def _row(name: str, test: str, function: Callable[..., dict[str, Any]], *arguments: Any) -> Row:
    return Row("parity", name, function, arguments, TIMEOUT, {"test": test})


def _name(operator: str, case: Case) -> str:
    precision = str(case.dtype).removeprefix("torch.")
    return f"{operator}: p {case.p}, C {case.channels}, k {case.k}, {precision}"


def compare_test(module: str, test: str, number: int, device: str) -> dict[str, Any]:
    """Run one case of a test on the device."""
    case = cases_of(module, test)[number]
    return _compared(lambda: case.function(**case.callspec.params), device)


def compare_problem(operator: str, number: int, size: tuple[int, ...], device: str) -> dict[str, Any]:
    """Run an operator on whole numbers, on the device and as the reference."""
    case = replace(PROBLEM_CASES[number], size=size, device="cpu", whole=True)

    def run() -> None:
        if operator == "search_guided":
            _compare_guided(case)
            return
        PROBLEMS[operator](case, lambda *arguments: _compare(operator, case, *both(BACKEND, operator, *arguments)))

    return _compared(run, device)


def _compare(operator: str, case: Case, found: Any, expected: Any) -> None:
    """All results of an operator: indices, and numbers by the norm of what they differ by."""
    results = ((found, expected),) if isinstance(found, Tensor) else tuple(zip(found, expected, strict=True))
    for number, (one, other) in enumerate(results):
        assert one.dtype == other.dtype, f"result {number}: {one.dtype}, not {other.dtype}"
        if operator in SAME_BITS or (operator == "sample_mixture" and not one.is_floating_point()):
            differs = int((one != other).sum())
            assert differs == 0, f"result {number}: {differs} of {one.numel()} numbers are not the same bits"
        elif not one.is_floating_point():
            alike = float((one == other).double().mean())
            assert alike >= ALIKE, f"result {number}: {alike:.2%} are the same"
        else:
            assert torch.equal(one.isfinite(), other.isfinite()), f"result {number}: not finite where it should be"
            one, other = (torch.where(other.isfinite(), x, 0).double() for x in (one, other))
            error = float((one - other).norm() / other.norm().clamp(min=1e-30))
            most = TOLERANCE[torch.float32 if operator == "sample_chains" else case.dtype]["rtol"]
            most = max(most, 1 - ALIKE) if operator == "sample_chains" else most
            assert error <= most, f"result {number}: relative error {error:.2g}, at most {most:.2g} is allowed"


def _compare_guided(case: Case) -> None:
    """Smooth features, whose patches a projection describes: rounded sums decide its order, so that it is as good."""
    from tests.kernels.test_guided_parity import smooth

    features = (smooth(1, case.channels, *case.size, seed=seed).to(case.dtype) for seed in (0, 5))
    settings = (case.k, case.geometry, case.limits, case.iterations, 3, None)
    found, expected = both(BACKEND, "search_guided", *features, *settings)
    means = [float(similarity.double().mean()) for _, similarity in (found, expected)]
    ratio = means[0] / means[1]
    assert abs(ratio - 1) <= 0.01, f"mean similarity {means[0]:.6g}, the reference's {means[1]:.6g}"


def _compared(run: Callable[[], None], device: str) -> dict[str, Any]:
    """Whether it passes; the kernels that were launched, and what PyTorch warned of."""
    launch = importlib.import_module("patchattn.kernels.gpu.launch")
    speed_up_if_interpreted()
    torch.set_num_threads(1)
    DEVICES[BACKEND] = torch.device(device)
    kernels: set[str] = set()

    def note(kernel: Any, *arguments: Any) -> None:
        kernels.add(kernel_name(kernel))
        launch.run(kernel, *arguments)

    answer: dict[str, Any] = {"agrees": True}
    with warnings.catch_warnings(record=True) as warned, poisoned(warn_only=True), running(note):
        warnings.simplefilter("always")
        try:
            run()
        except ModuleNotFoundError as error:
            return {"impossible": f"{error.name} is not installed"}
        except AssertionError as error:
            answer = {"agrees": False, "reason": str(error).strip() or _place_of(error)}
    texts = {str(one.message).splitlines()[0] for one in warned if issubclass(one.category, UserWarning)}
    return {**answer, "kernels": sorted(kernels), "warnings": sorted(texts)}


def _place_of(error: AssertionError) -> str:
    """Where a bare assertion stands: outside pytest it says no more."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an assertion failed"
    code = trace.tb_frame.f_code
    line = Path(code.co_filename).read_text().splitlines()[trace.tb_lineno - 1].strip()
    return f"{Path(code.co_filename).name}, line {trace.tb_lineno}: {line}"


def kernels_of_the_backend() -> set[str]:
    """The names of all kernels that there are to be launched."""
    import patchattn.kernels.gpu as package

    found = set()
    for path in Path(package.__file__).parent.glob("*.py"):
        if path.stem == "__init__":
            continue
        for name, thing in vars(importlib.import_module(f"{package.__name__}.{path.stem}")).items():
            if name.endswith("_kernel") and hasattr(thing, "fn"):
                found.add(kernel_name(thing))
    return found
