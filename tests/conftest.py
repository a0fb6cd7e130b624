"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from patchattn.kernels import load_backend
from tests.cases import BACKENDS


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend in turn; one that does not load fails the run."""
    load_backend(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def poisoned_memory() -> Iterator[None]:
    """Fill what `torch.empty` and `numpy.empty` return with NaN (whole numbers: the largest), so that an output that
    was never written is seen."""
    empty = np.empty

    def poisoned(shape: Any, dtype: Any = float, *arguments: Any, **settings: Any) -> Any:
        array = empty(shape, dtype, *arguments, **settings)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        elif array.dtype.kind in "iu":
            array.fill(np.iinfo(array.dtype).max)
        return array

    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "empty", poisoned)
        patch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
        torch.use_deterministic_algorithms(True)
        yield
        torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For many tiny tensors: threads gain nothing there, and on a busy machine they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
