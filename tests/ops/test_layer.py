"""Operators that are whole layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.library import opcheck

from tests.cases import normals

SETTINGS: dict[str, tuple[Any, ...]] = {
    "full_attention": ("l2", 1.0, [1, 1]),
    "linear_attention": ("l2",),
    "local_attention": ("cosine", 1.0, [3, 3]),
    "sparse_attention": ("dot", 1.0, "fixed", None),
}


def arguments(name: str, *, masked: bool, gradient: bool) -> tuple[Any, ...]:
    images = [normals(2, 4, 5, 6, seed=seed).requires_grad_(gradient) for seed in range(3)]
    mask = torch.rand(1, 5, 6, generator=torch.Generator().manual_seed(0)) > 0.3 if masked else None
    return (*images, None, mask, False, [0, 0], None, False, [3, 3], "reflect", 2, *SETTINGS[name])


@pytest.mark.parametrize("name", SETTINGS)
def test_opcheck(name: str) -> None:
    opcheck(getattr(torch.ops.patchattn, name).default, arguments(name, masked=True, gradient=True))


@pytest.mark.parametrize("name", ["full_attention", "linear_attention"])
def test_opcheck_of_a_gradient(name: str) -> None:
    operator = getattr(torch.ops.patchattn, f"{name}_backward").default
    grad = normals(2, 4, 5, 6, seed=7)
    opcheck(operator, (grad, [True, False, True], *arguments(name, masked=False, gradient=False)))


@pytest.mark.parametrize("name", SETTINGS)
def test_gradcheck(name: str) -> None:
    query, key, value, *others = arguments(name, masked=True, gradient=True)
    operator = getattr(torch.ops.patchattn, name)
    assert torch.autograd.gradcheck(lambda *images: operator(*images, *others), (query, key, value), fast_mode=True)
