"""What is refused, and that the message names the argument, what came and what is allowed; what must not hang."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn import MatchField, match, patch_attention, pointwise_similarity
from patchattn.baselines import full_attention
from tests.cases import fewer, mask, normals

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")


def image(*shape: int) -> Tensor:
    return normals(*(shape or (2, 4, 9, 8)), dtype=torch.float32)


def field(index: Tensor, key_shape: tuple[int, ...] = (9, 8)) -> MatchField:
    return MatchField(index, torch.zeros(index.shape), key_shape)


INDEX = torch.zeros(2, 1, 3, 9, 8, dtype=torch.int32)

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"patch_size": 4}, "patch_size: expected odd numbers (a patch has a center), got 4"),
    ({"patch_size": (3, 2)}, "patch_size: expected odd numbers (a patch has a center), got (3, 2)"),
    ({"patch_size": -3}, "patch_size: expected an integer of at least 1, or 2 of them"),
    ({"patch_size": 0}, "got 0"),
    ({"patch_size": 2.5}, "patch_size: expected an integer of at least 1"),
    ({"patch_size": None}, "got None"),
    ({"patch_size": (3, 3, 3)}, "2 of them (one for each spatial dimension), got (3, 3, 3)"),
    ({"patch_size": 17}, "patch_size: got 17; padding_mode='reflect' needs query of more than 8 in each dimension"),
    ({"patch_size": 9, "padding_mode": "valid"}, "padding_mode='valid' no patch fits into query of size (9, 8)"),
    ({"key": image(2, 4, 3, 3)}, "needs key of more than 3 in each dimension, got (3, 3)"),
    ({"k": 0}, "k: expected an integer of at least 1 (and below 2^63), got 0"),
    ({"k": True}, "k: expected an integer of at least 1 (and below 2^63), got True"),
    ({"k": 1.5}, "got 1.5"),
    ({"num_heads": 3}, "num_heads: got 3, which does not divide the 4 channels of query"),
    ({"num_heads": 0}, "num_heads: expected an integer of at least 1"),
    ({"query": image(4, 9, 8)[0]}, "query: expected (B, C, *spatial) with one to three spatial dimensions"),
    ({"query": None}, "query: expected a tensor (B, C, *spatial), got NoneType"),
    ({"query": torch.ones(2, 4, 9, 8, dtype=torch.int64)}, "query: expected float16, bfloat16, float32 or float64"),
    (
        {"key": torch.ones(2, 4, 0, 8)},
        "key: expected at least one channel and one position in every dimension, got shape (2, 4, 0, 8)",
    ),
    ({"key": torch.ones(2, 4, 9)}, "key: expected 2 spatial dimensions as query has, got shape (2, 4, 9)"),
    ({"key": image().double()}, "key: expected torch.float32 as query has, got torch.float64"),
    ({"key": image().to("meta")}, "key: expected device cpu as query has, got meta"),
    ({"key": image(3, 4, 9, 8)}, "key: expected batch size 2 as query has, or 1 (shared by all), got 3"),
    ({"key": image(2, 5, 9, 8)}, "key: expected 4 channels as query has, got 5"),
    ({"similarity": "euclid"}, "similarity: got 'euclid'; allowed are 'l2', 'dot', 'scaled_dot', 'cosine', 'l1'"),
    ({"similarity": ["l2"]}, "similarity: got ['l2']; allowed are"),
    ({"method": "fast"}, "method: got 'fast'; allowed are 'auto', 'exact', 'guided', 'patchmatch', 'repeated'"),
    ({"is_causal": "late"}, "is_causal: got 'late'; allowed are True, False and 'strict'"),
    ({"iterations": -1}, "iterations: expected an integer of at least 0"),
    ({"seed": -1}, "seed: expected an integer of at least 0"),
    ({"seed": 2**63}, "seed: expected an integer of at least 0 (and below 2^63)"),
    ({"padding_mode": "wrap"}, "padding_mode: got 'wrap'; allowed are 'reflect', 'replicate', 'zeros', 'valid'"),
    ({"backend": "cuda"}, "backend: got 'cuda'; allowed are 'reference', 'cpu', 'gpu' and None"),
    ({"min_separation": -1}, "min_separation: expected an integer of at least 0, or 2 of them"),
    ({"max_offset": (1, -1)}, "max_offset: expected an integer of at least 0, or 2 of them"),
    ({"is_causal": True, "key": image(2, 4, 9, 9)}, "is_causal: query and key must have one spatial size"),
    ({"query_mask": mask(2, 9, 9, share=0.5)}, "query_mask: expected shape (2 or 1, 9, 8) for query"),
    ({"key_mask": mask(3, 9, 8, share=0.5)}, "key_mask: expected shape (2 or 1, 9, 8) for key"),
    ({"key_mask": torch.ones(1, 9, 8)}, "key_mask: expected a bool tensor (True = may take part), got torch.float32"),
    ({"key_mask": "all"}, "key_mask: expected a bool tensor (True = may take part), got str"),
    ({"init": INDEX}, "init: expected a MatchField, got Tensor"),
    ({"init": field(INDEX, (9, 9))}, "init: its key_shape is (9, 9), but key has size (9, 8)"),
    ({"init": field(INDEX[..., :7])}, "init: expected an int32 index of shape (B, heads, k, *query)"),
    ({"init": field(INDEX.long())}, "got torch.int64"),
    ({"init": field(INDEX + 72)}, "init: its index holds 72, but key has only 72 positions"),
]


@pytest.mark.parametrize(("wrong", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_match_and_attention_say_what_is_wrong(wrong: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"query": image(), "key": image(), "k": 3, "patch_size": 7, **wrong}
    query, key = arguments.pop("query"), arguments.pop("key")
    with pytest.raises(ValueError, match=re.escape(message)):
        match(query, key, **arguments)
    value = torch.ones(1, 2, *key.shape[2:]) if isinstance(key, Tensor) else key
    with pytest.raises(ValueError, match=re.escape(message)):
        patch_attention(query, key, value, **arguments)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0}, "temperature: expected a number above 0, got 0"),
        ({"temperature": float("nan")}, "temperature: expected a number above 0, got nan"),
        ({"temperature": "hot"}, "got 'hot'"),
        ({"value": image(2, 3, 9, 9)}, "value: expected the key's spatial size (9, 8) or a whole multiple of it"),
        ({"value": image(2, 3, 18, 8)}, "(the same in every dimension), got (18, 8)"),
        (
            {"value": image(2, 3, 9, 8), "num_heads": 2},
            "num_heads: got 2, which does not divide the 3 channels of value",
        ),
        ({"value": image(3, 3, 9, 8)}, "value: expected batch size 2 as query has, or 1"),
        ({"value": image(2, 3, 9, 8).half()}, "value: expected torch.float32 as query has, got torch.float16"),
        ({"field": field(INDEX), "key": image(2, 6, 9, 8)}, "key: expected 4 channels as query has, got 6"),
        ({"field": field(INDEX), "num_heads": 2}, "field: expected an int32 index of shape (B, heads, k, *query)"),
        ({"field": "best"}, "field: expected a MatchField, got str"),
    ],
)
def test_attention_says_what_is_wrong(wrong: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"query": image(), "key": image(), "value": image(), "patch_size": 3, **wrong}
    with pytest.raises(ValueError, match=re.escape(message)):
        patch_attention(**arguments)


def test_functions_that_are_none() -> None:
    with pytest.raises(ValueError, match="function: expected a function of two scalars, got str"):
        pointwise_similarity("l2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="derivative: expected a function of two scalars or None, got int"):
        pointwise_similarity(lambda q, k: q * k, 3)  # type: ignore[arg-type]


def test_a_similarity_without_derivative_says_so(backend: str) -> None:
    product = pointwise_similarity(lambda q, k: q * k)
    query = image().requires_grad_()
    output = patch_attention(query, image(), image(), patch_size=3, similarity=product, backend=backend)
    with pytest.raises(RuntimeError, match="has no derivative; give one to pointwise_similarity"):
        output.sum().backward()


@pytest.mark.parametrize("method", ["exact", "guided", "patchmatch"])
def test_all_keys_masked(method: str, backend: str) -> None:
    nothing = torch.zeros(1, 9, 8, dtype=torch.bool)
    found = match(image(), image(), k=3, patch_size=3, method=method, key_mask=nothing, backend=backend)
    assert (found.index == -1).all()
    assert (found.similarity == -torch.inf).all()
    query = image().requires_grad_()
    settings = {"patch_size": 3, "method": method, "key_mask": nothing, "backend": backend}
    output = patch_attention(query, image(), image(), aggregate=True, **settings)
    assert (output == 0).all()
    output.sum().backward()
    assert query.grad is not None
    assert (query.grad == 0).all()
    assert (full_attention(image(), image(), image(), patch_size=3, key_mask=nothing) == 0).all()


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("similarity", ["l2", "l1", "dot", "cosine"])
@pytest.mark.parametrize("method", ["exact", "guided", "patchmatch"])
def test_features_that_are_not_finite(method: str, similarity: str, poison: float, backend: str) -> None:
    query, key = image(1, 2, 12, 9), image(1, 2, 12, 9).flip(2)
    settings = {
        "k": 3,
        "patch_size": 3,
        "similarity": similarity,
        "method": method,
        "iterations": fewer(backend, 2, 1),
        "backend": backend,
    }
    clean = match(query, key, **settings)
    bad_query, bad_key = query.clone(), key.clone()
    bad_query[..., 2, 3] = poison
    bad_key[..., 6, 6] = poison
    for found in (match(bad_query, key, **settings), match(query, bad_key, **settings)):
        assert (found.index >= -1).all()
        assert (found.index < 108).all()
        assert not found.similarity.isnan().any()
    if method == "exact":
        # Queries whose patch does not hold the bad pixel are untouched by it.
        found = match(bad_query, key, **settings)
        assert torch.equal(found.index[..., 5:, :], clean.index[..., 5:, :])


def test_everything_is_nan(backend: str) -> None:
    nan = torch.full((1, 2, 9, 8), torch.nan)
    for method in ("exact", "guided", "patchmatch"):
        output, found = patch_attention(
            nan, nan, nan, patch_size=3, method=method, aggregate=True, return_field=True, backend=backend
        )
        assert (found.index == -1).all()
        assert (output == 0).all()
