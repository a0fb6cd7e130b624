"""Fixtures for all tests, and which backends they are run with.

`--backends reference` runs everything without Numba and Triton, as on a machine that has neither; `--every-case` runs
all combinations of parameters, not only as many as have every pair of values (for gpu: every value).
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton

import pytest
import torch
from hypothesis import settings

from patchattn import kernels
from patchattn.backends import DEVICES
from patchattn.cli.tools import TOOLS
from patchattn.registry import BACKENDS as REGISTERED_BACKENDS
from patchattn.registry import METHODS, SIMILARITIES
from tests.cases import BACKENDS, COMPILED
from tests.interpreter import speed_up
from tests.poison import poisoned
from tests.selection import backend_of, without_repetition
from tests.shared_compilation import share_compilation

# A test's time is the machine's: it says nothing of what is tested.
settings.register_profile("patchattn", deadline=None)
settings.load_profile("patchattn")

NEEDED = {"cpu": ("numba", "llvmlite"), "gpu": ("triton",)}
"""What a backend is made with."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backends", default=",".join(BACKENDS), help="run the tests with these alone: cpu,gpu,reference")
    parser.addoption("--every-case", action="store_true", help="run every combination of parameters")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(backend): about this backend alone, or what it is compiled with")
    config.addinivalue_line("markers", "every_case: all combinations of the parameters are run")
    config.addinivalue_line("markers", "every_pair: of all combinations, as many as have every pair of values are run")
    chosen = backends_of(config)
    if not chosen or not chosen <= set(BACKENDS):
        raise pytest.UsageError(
            f"--backends: got {config.getoption('--backends')!r}; allowed are {', '.join(BACKENDS)}"
        )
    for name in set(COMPILED) - chosen:
        sys.modules.update(dict.fromkeys(NEEDED[name]))  # None: importing it is an ImportError
        for device in [device for device, backend in DEVICES.items() if backend == name]:
            del DEVICES[device]
    config.pluginmanager.register(Unimportable(set(COMPILED) - chosen))
    if "gpu" in chosen:
        speed_up()
    if "cpu" in chosen:
        share_compilation()


def backends_of(config: pytest.Config) -> set[str]:
    return set(config.getoption("--backends").split(","))


class Unimportable:
    """Keeps the modules of absent backends from being searched for doctests."""

    def __init__(self, absent: set[str]) -> None:
        self.folders = [Path(kernels.__file__).parent / name for name in absent]

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        return True if collection_path in self.folders else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen, every_case = backends_of(config), config.getoption("--every-case")
    wanted = [item for item in items if needed_by(item) <= chosen]
    if not every_case:
        wanted = without_repetition(wanted)
    kept = set(wanted)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = wanted


def needed_by(item: pytest.Item) -> set[str]:
    return {str(name) for marker in item.iter_markers("needs") for name in marker.args} | set(backend_of(item))


@pytest.fixture(autouse=True)
def leaves_no_trace() -> Iterator[None]:
    """What a test changes of its process is put back, lest another fail that happens to come after it."""
    before = state_of_process()
    yield
    assert state_of_process() == before


def state_of_process() -> dict[str, Any]:
    return {
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "folder": os.getcwd(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        # PyTorch and pytest leave notes to themselves there.
        "environment": {
            name: value for name, value in os.environ.items() if not re.search("PYTEST|TORCH|TRITON", name)
        },
    }


@pytest.fixture
def registries() -> Iterator[None]:
    """What a test registers is taken back."""
    tables = [registry._items for registry in (REGISTERED_BACKENDS, METHODS, SIMILARITIES, TOOLS)]
    tables += [DEVICES, kernels._loaded]
    before = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend in turn; one that does not load fails the run."""
    kernels.load_backend(request.param)
    return str(request.param)


@pytest.fixture(params=COMPILED)
def compiled(request: pytest.FixtureRequest) -> str:
    """Every backend but the reference, to compare with it."""
    kernels.load_backend(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def poisoned_memory() -> Iterator[None]:
    """Fill what `torch.empty` and `numpy.empty` return with NaN (whole numbers: the largest), so that an output that
    was never written is seen."""
    with poisoned():
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For many tiny tensors: threads gain nothing there, and on a busy machine they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
