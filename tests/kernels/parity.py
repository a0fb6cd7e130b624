"""Call a function of a compiled backend and of the reference, and compare what they return."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patchattn.kernels import load_backend
from tests.cases import TOLERANCE


def both(compiled: str, function: str, *arguments: Any) -> tuple[Any, Any]:
    return tuple(getattr(load_backend(name), function)(*arguments) for name in (compiled, "reference"))  # type: ignore[return-value]


def assert_same_bits(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert found[0].dtype == expected[0].dtype == torch.int32
    assert found[1].dtype == expected[1].dtype
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def assert_close(found: Any, expected: Any, dtype: torch.dtype) -> None:
    torch.testing.assert_close(found, expected, **TOLERANCE[dtype], equal_nan=False)
