"""Call a function of a compiled backend and of the reference, and compare what they return."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from patchattn.kernels import load_backend
from tests.cases import TOLERANCE

DEVICES: dict[str, torch.device] = {}
"""Where a backend's arguments are put, if not on the CPU; benchmarks/gpu_report.py sets it on a machine with a GPU."""


def both(compiled: str, function: str, *arguments: Any) -> tuple[Any, Any]:
    found, expected = (
        placed(getattr(load_backend(name), function)(*placed(arguments, name)), "reference")
        for name in (compiled, "reference")
    )
    return found, expected


def placed(thing: Any, backend: str) -> Any:
    """Tensors, also those of tuples, lists and data classes, on the backend's device, laid out as they were."""
    device = DEVICES.get(backend, torch.device("cpu"))
    if isinstance(thing, Tensor):
        return _moved(thing, device)
    if isinstance(thing, (tuple, list)):
        return type(thing)(placed(part, backend) for part in thing)
    if is_dataclass(thing) and not isinstance(thing, type):
        held = {field.name: getattr(thing, field.name) for field in fields(thing)}
        tensors = {name: value for name, value in held.items() if isinstance(value, Tensor)}
        return replace(thing, **{name: _moved(value, device) for name, value in tensors.items()}) if tensors else thing
    return thing


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.device == device:
        return tensor
    if tensor.is_contiguous() or 0 in tensor.stride():
        return tensor.to(device)
    # PyTorch would make it contiguous where it has gaps, and how a kernel reads those would not be seen.
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device).copy_(tensor)


def assert_same_bits(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert found[0].dtype == expected[0].dtype == torch.int32
    assert found[1].dtype == expected[1].dtype
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def assert_close(found: Any, expected: Any, dtype: torch.dtype) -> None:
    torch.testing.assert_close(found, expected, **TOLERANCE[dtype], equal_nan=False)
