"""Exact search of small images finds, to the last bit, what that of larger ones finds."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn import MatchField, match
from patchattn.problem import Constraints, PatchGeometry
from patchattn.similarity import Similarity
from tests.cases import mask, normals

exact = importlib.import_module("patchattn.kernels.cpu.exact")
pytestmark = pytest.mark.usefixtures("one_thread")

LIMITS: dict[str, dict[str, Any]] = {
    "none": {},
    "causal": {"is_causal": True},
    "strict": {"is_causal": "strict"},
    "masks": {"query_mask": mask(2, 11, 9, share=0.8, seed=3), "key_mask": mask(2, 11, 9, share=0.7, seed=4)},
}


@pytest.mark.parametrize("similarity", ["l2", "dot", "scaled_dot", "cosine"])
@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "zeros", "valid"])
@pytest.mark.parametrize("limits", LIMITS)
def test_same_as_larger(similarity: Any, padding_mode: Any, limits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key = (normals(2, 6, 11, 9, seed=seed, dtype=torch.float32) for seed in (1, 2))
    key[:, :, :6, :4] = 0.25  # many patches that are the same

    def found(query: Tensor, key: Tensor) -> MatchField:
        return match(
            query, key, k=2, patch_size=3, num_heads=2, similarity=similarity, method="exact",
            padding_mode=padding_mode, **LIMITS[limits],
        )  # fmt: skip

    pairs = [(query, key), (key, key), (1e3 + query, 1e3 + key), (query.round(), key.round())]
    small = [found(*pair) for pair in pairs]
    assert exact.is_small(query, key, *_geometry(similarity)), "nothing is tested"
    monkeypatch.setattr(exact, "is_small", lambda *arguments: False)
    for pair, field in zip(pairs, small, strict=True):
        other = found(*pair)
        assert torch.equal(field.index, other.index)
        assert torch.equal(field.similarity.view(torch.int32), other.similarity.view(torch.int32))


def _geometry(similarity: str) -> tuple[Any, Any]:
    return PatchGeometry((3, 3), "zeros", 2, Similarity(similarity)), Constraints()
