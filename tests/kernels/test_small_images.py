"""Exact search of small images finds, to the last bit, what that of larger ones finds."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn import MatchField, match
from patchattn.problem import Constraints, PatchGeometry
from patchattn.similarity import Similarity
from tests.cases import mask, normals

small_images = importlib.import_module("patchattn.kernels.cpu.exact_small")
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


CONTENTS = {
    "ties": lambda x: x.round(),
    "constant": lambda x: torch.full_like(x, 0.3),
    "zero": torch.zeros_like,
    "tiny": lambda x: x * 1e-38,
    "huge": lambda x: x * 1e18,
    "infinite": lambda x: x.masked_fill(x > 1, float("inf")),
    "nan": lambda x: x.masked_fill(x > 1, float("nan")),
    "few": lambda x: x.masked_fill(x > -1, float("nan")),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("similarity", ["l2", "dot"])
@pytest.mark.parametrize("content", CONTENTS)
def test_any_content(content: str, similarity: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys below a bound are passed over: with ties at it, and where numbers end."""
    query, key = (CONTENTS[content](normals(1, 2, 9, 13, seed=seed, dtype=dtype)) for seed in (1, 2))

    def found() -> list[MatchField]:
        sizes = itertools.product((1, 3, 7), (1, 5, 14))
        return [
            match(query, key, k=k, patch_size=p, similarity=similarity, padding_mode="zeros", method="exact")
            for p, k in sizes
        ]

    small = found()
    monkeypatch.setattr(exact, "is_small", lambda *arguments: False)
    for field, other in zip(small, found(), strict=True):
        assert torch.equal(field.index, other.index)
        torch.testing.assert_close(field.similarity, other.similarity, rtol=1e-13, atol=0, equal_nan=True)


@pytest.mark.parametrize("size", [(33, 31), (16, 64), (2, 90), (23, 5)])
@pytest.mark.parametrize("patch_size", [(1, 1), (1, 3), (3, 1), (5, 5)])
def test_several_threads_share_an_image(size: Any, patch_size: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key = (normals(1, 2, *size, seed=seed, dtype=torch.float32) for seed in (1, 2))

    def found() -> MatchField:
        return match(query, key, k=3, patch_size=patch_size, padding_mode="replicate", method="exact")

    assert exact.is_small(query, key, PatchGeometry(patch_size, "replicate", 1, Similarity("l2")), Constraints())
    monkeypatch.setattr(small_images, "SHARED", 0)
    before, alone = torch.get_num_threads(), found()
    torch.set_num_threads(3)
    together = found()
    torch.set_num_threads(before)
    monkeypatch.setattr(exact, "is_small", lambda *arguments: False)
    for field in (together, found()):
        assert torch.equal(alone.index, field.index)
        assert torch.equal(alone.similarity, field.similarity)


def _geometry(similarity: str) -> tuple[Any, Any]:
    return PatchGeometry((3, 3), "zeros", 2, Similarity(similarity)), Constraints()
