"""Contextual attention as its paper defines it, number by number, and patch attention in its place."""

from __future__ import annotations

from math import exp, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from patchattn import (
    ContextualAttention,
    MaskedPatchAttention,
    contextual_attention,
    masked_patch_attention,
    patch_attention,
)
from patchattn.attention.contextual import contextual_memory
from patchattn.attention.memory import free_memory
from tests.cases import TOLERANCE, fewer, normals

pytestmark = pytest.mark.usefixtures("one_thread")


def pixel(image: np.ndarray, row: int, column: int) -> np.ndarray:
    """All channels at a place; 0 outside."""
    inside = 0 <= row < image.shape[1] and 0 <= column < image.shape[2]
    return image[:, row, column] if inside else np.zeros(image.shape[0])


def patch(image: np.ndarray, place: tuple[int, int], size: int) -> np.ndarray:
    radius = size // 2
    steps = range(-radius, radius + 1)
    return np.concatenate([pixel(image, place[0] + y, place[1] + x) for y in steps for x in steps])


def fused(scores: np.ndarray) -> np.ndarray:
    """Every entry of a matrix plus those before and after it on its diagonal."""
    rows, columns = scores.shape
    result = scores.copy()
    for i in range(rows):
        for j in range(columns):
            for d in (-1, 1):
                if 0 <= i + d < rows and 0 <= j + d < columns:
                    result[i, j] += scores[i + d, j + d]
    return result


def defined(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, known: np.ndarray | None, *, patch_size: int = 3,
    rate: int = 2, scale: float = 10.0, fuse: bool = True, norm: str = "floor",
) -> np.ndarray:  # fmt: skip
    """One item, (channels, height, width): the published layer, loop by loop."""
    small_query, small_key = query[:, ::rate, ::rate], key[:, ::rate, ::rate]
    queries = [(y, x) for y in range(small_query.shape[1]) for x in range(small_query.shape[2])]
    keys = [(y, x) for y in range(small_key.shape[1]) for x in range(small_key.shape[2])]
    scores = np.zeros((len(keys), len(queries)))
    for j, at in enumerate(keys):
        k = patch(small_key, at, patch_size)
        length = max(sqrt((k**2).sum()), 1e-4) if norm == "floor" else sqrt((k**2 + 1e-4).sum())
        for i, place in enumerate(queries):
            scores[j, i] = patch(small_query, place, patch_size) @ k / length
    if fuse:
        scores = fused(scores)
        by_column = [sorted(range(len(places)), key=lambda n: places[n][::-1]) for places in (keys, queries)]
        turned = fused(scores[np.ix_(*by_column)])
        scores[np.ix_(*by_column)] = turned
    free = np.ones(len(keys))
    if known is not None:
        hole = ~known[None, ::rate, ::rate]
        free = np.array([0.0 if patch(hole.astype(float), at, patch_size).any() else 1.0 for at in keys])
    output = np.zeros((value.shape[0], *query.shape[1:]))
    first = rate // 2
    for i, (row, column) in enumerate(queries):
        powers = np.array([exp(scale * scores[j, i] * free[j]) for j in range(len(keys))])
        weights = powers / powers.sum() * free
        for y in range(2 * rate):
            for x in range(2 * rate):
                target = row * rate - first + y, column * rate - first + x
                if not (0 <= target[0] < query.shape[1] and 0 <= target[1] < query.shape[2]):
                    continue
                for weight, at in zip(weights, keys, strict=True):
                    source = pixel(value, at[0] * rate - first + y, at[1] * rate - first + x)
                    output[:, target[0], target[1]] += weight * source / 4
    return output


SIZES = [((8, 8), (8, 8)), ((7, 9), (7, 9)), ((6, 8), (9, 5)), ((1, 5), (4, 1))]


@pytest.mark.parametrize(("query_size", "key_size"), SIZES)
@pytest.mark.parametrize(
    "settings", [{}, {"fuse": False}, {"rate": 1, "norm": "added"}, {"rate": 3, "patch_size": 1, "scale": 2.5}], ids=str
)
def test_it_is_as_defined(query_size: tuple[int, int], key_size: tuple[int, int], settings: dict[str, Any]) -> None:
    query = normals(2, 3, *query_size, seed=1) * 0.2
    key, value = (normals(2, channels, *key_size, seed=2) * 0.2 for channels in (3, 2))
    known = torch.ones(2, *key_size, dtype=torch.bool)
    known[0, : key_size[0] // 2, : key_size[1] // 2] = False
    for mask in (None, known):
        found = ContextualAttention(**settings)(query, key, value, key_mask=mask)
        expected = [
            defined(*(x[b].numpy() for x in (query, key, value)), None if mask is None else mask[b].numpy(), **settings)
            for b in range(2)
        ]
        torch.testing.assert_close(found, torch.from_numpy(np.stack(expected)), **TOLERANCE[torch.float64])


def test_an_image_without_a_hole_is_copied() -> None:
    """Every patch is most like itself; at a large scale nothing else has any weight."""
    image = normals(1, 16, 12, 14, seed=3)
    output = contextual_attention(image, image, image, scale=100.0, fuse=False)
    # At the border fewer than four patches overlap.
    torch.testing.assert_close(output[..., 1:-1, 1:-1], image[..., 1:-1, 1:-1])


def test_nothing_is_copied_from_what_touches_the_hole() -> None:
    image = normals(1, 4, 16, 16, seed=4)
    value = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    value[..., 5:11, 5:11] = torch.nan  # rows 3 to 12 are in the patches of pixels 2 to 5, which touch 3 and 4
    known = torch.ones(1, 16, 16, dtype=torch.bool)
    known[:, 6:10, 6:10] = False
    assert contextual_attention(image, image, value, key_mask=known).isfinite().all()
    assert not contextual_attention(image, image, value).isfinite().all()
    assert not contextual_attention(image, image, image, key_mask=torch.zeros_like(known)).any()


def test_gradients() -> None:
    query, key, value = (normals(1, 2, 5, 6, seed=n).requires_grad_() for n in range(3))
    known = torch.ones(1, 5, 6, dtype=torch.bool)
    known[:, :2, :2] = False
    assert torch.autograd.gradcheck(lambda *x: contextual_attention(*x, key_mask=known), (query, key, value))
    # A key of zeros has no direction, and none of the roots a gradient at 0.
    zeros = torch.zeros(1, 2, 4, 4, requires_grad=True)
    contextual_attention(zeros, zeros, zeros).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


def test_one_key_and_one_mask_serve_all_items() -> None:
    query, key = normals(3, 2, 6, 6, seed=1), normals(1, 2, 8, 6, seed=2)
    known = torch.rand(1, 8, 6) > 0.1
    output = contextual_attention(query, key, key, key_mask=known)
    expected = contextual_attention(query, *(key.expand(3, -1, -1, -1),) * 2, key_mask=known.expand(3, -1, -1))
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    image = (normals(1, 4, 10, 10, seed=1) * 0.1).to(dtype)
    expected = contextual_attention(*(image.double(),) * 3).to(dtype)
    assert contextual_attention(image, image, image).dtype == dtype
    torch.testing.assert_close(contextual_attention(image, image, image), expected, **TOLERANCE[dtype])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        single = contextual_attention(image.float(), image, image)
    torch.testing.assert_close(single, contextual_attention(*(image.float(),) * 3))


def test_what_does_not_fit_is_refused_before_it_is_computed() -> None:
    query = torch.empty(1, 1, 1, 1).expand(1, 128, 675, 825)
    with pytest.raises(RuntimeError, match=r"scores of 1 item\(s\) need 233,837,818,032 bytes; the limit is 16,000,0"):
        contextual_attention(query, query, query, memory_limit=16_000_000_000)
    with pytest.raises(RuntimeError, match=r"at rate 1, .* need 3,721,317,187,500 bytes; .* Use smaller images or"):
        contextual_attention(query, query, query, rate=1, memory_limit=16_000_000_000)
    # Four times the size: far more than any machine has.
    query = query[..., :1, :1].expand(1, 128, 2700, 3300)
    if free_memory(query.device) is not None:
        with pytest.raises(RuntimeError, match="need 59,"):
            contextual_attention(query, query, query)
    assert contextual_memory((10, 7), (4, 4), batch=2, dtype=torch.float64) == 3 * 2 * (5 * 4) * (2 * 2) * 8


def image(*shape: int) -> Tensor:
    return torch.rand(shape or (2, 4, 9, 8))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query": image(2, 4, 9), "key": image(2, 4, 9), "value": image(2, 4, 9)}, "query: expected two spatial dim"),
        ({"value": image(2, 4, 8, 8)}, r"value: expected the key's spatial size \(9, 8\), got \(8, 8\)"),
        ({"key": image(2, 5, 9, 8)}, "key: expected 4 channels as query has, got 5"),
        ({"patch_size": 4}, "patch_size: expected odd numbers"),
        ({"patch_size": (3, 3)}, r"patch_size: expected an integer of at least 1 .*, got \(3, 3\)"),
        ({"rate": 0}, "rate: expected an integer of at least 1"),
        ({"scale": -1.0}, "scale: expected a number above 0, got -1.0"),
        ({"norm": "l2"}, "norm: got 'l2'; allowed are 'floor', 'added'"),
        ({"memory_limit": 0}, "memory_limit: expected an integer of at least 1"),
        ({"key_mask": torch.ones(2, 8, 8, dtype=torch.bool)}, r"key_mask: expected shape \(2 or 1, 9, 8\)"),
        ({"key_mask": torch.ones(2, 9, 8)}, "key_mask: expected a bool tensor"),
    ],
)
def test_wrong_arguments_are_named(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"query": image(), "key": image(), "value": image(), **changed}
    with pytest.raises(ValueError, match=message):
        contextual_attention(**arguments)


def holes(*size: int) -> Tensor:
    known = torch.ones(size, dtype=torch.bool)
    known[0, 3:7, 2:8] = False
    return known


def test_a_hole_attends_to_what_is_around_it(backend: str) -> None:
    features, value = normals(2, 4, 11, 10, seed=5), normals(2, 3, 11, 10, seed=6)
    known = holes(2, 11, 10)
    settings: dict[str, Any] = {"patch_size": 3, "seed": 2, "backend": backend, "iterations": fewer(backend, 5, 1)}
    output = MaskedPatchAttention(**settings)(features, features, value, key_mask=known)
    attended, field = patch_attention(
        features, features, value, k=3, method="patchmatch", key_mask=known, query_mask=~known, return_field=True,
        **settings,
    )  # fmt: skip
    assert torch.equal(output, torch.where(known[:, None], value, attended))
    hole = field.index[0, 0][:, ~known[0]].long()
    assert hole.min() >= 0
    assert known[0].flatten()[hole].all()
    assert torch.equal(output[1], value[1])  # no hole


def test_without_a_mask_or_with_nothing_else() -> None:
    features = normals(1, 2, 8, 8, seed=1)
    assert torch.equal(masked_patch_attention(features, features, features), features)
    nothing = torch.zeros(1, 8, 8, dtype=torch.bool)
    assert not masked_patch_attention(features, features, features, key_mask=nothing).any()


def test_gradients_go_through_the_hole_and_around_it() -> None:
    features = normals(1, 2, 8, 9, seed=1).requires_grad_()
    known = holes(1, 8, 9)

    def attend(x: Tensor) -> Tensor:
        return masked_patch_attention(x, x, x, patch_size=3, method="exact", iterations=None, key_mask=known)

    assert torch.autograd.gradcheck(attend, (features,))


@pytest.mark.parametrize("name", ["key", "value"])
def test_a_hole_has_one_size_in_all(name: str) -> None:
    images = {"query": image(), "key": image(), "value": image(), name: image(2, 4, 9, 9)}
    with pytest.raises(ValueError, match=r"query, key and value: expected one spatial size, .*\(9, 9\)"):
        masked_patch_attention(**images)
