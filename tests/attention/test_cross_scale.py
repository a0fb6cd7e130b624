"""Cross-scale attention as its paper defines it, number by number, and patch attention in its place."""

from __future__ import annotations

from math import exp, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchattn import (
    CrossScaleAttention,
    CrossScalePatchAttention,
    cross_scale_attention,
    cross_scale_patch_attention,
)
from tests.cases import TOLERANCE, normals

pytestmark = pytest.mark.usefixtures("one_thread")


def pixel(image: np.ndarray, row: int, column: int) -> np.ndarray:
    """All channels at a place; 0 outside."""
    inside = 0 <= row < image.shape[1] and 0 <= column < image.shape[2]
    return image[:, row, column] if inside else np.zeros(image.shape[0])


def patch(image: np.ndarray, row: int, column: int, size: int) -> np.ndarray:
    steps = range(-(size // 2), size // 2 + 1)
    return np.concatenate([pixel(image, row + y, column + x) for y in steps for x in steps])


def defined(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, *, patch_size: int = 3, scale: float = 10.0,
    divisor: float = 6.0,
) -> np.ndarray:  # fmt: skip
    """One item, (channels, height, width): the published layer, loop by loop."""
    ratio, (height, width) = value.shape[1] // key.shape[1], query.shape[1:]
    keys = [(y, x) for y in range(key.shape[1]) for x in range(key.shape[2])]
    output = np.zeros((len(value), ratio * height, ratio * width))
    reach = ratio * (patch_size // 2)
    for row in range(height):
        for column in range(width):
            q = patch(query, row, column, patch_size)
            scores = []
            for at in keys:
                k = patch(key, *at, patch_size)
                scores.append(scale * (q @ k) / max(sqrt((k**2).sum()), 1e-4))
            powers = np.array([exp(score - max(scores)) for score in scores])
            for weight, at in zip(powers / powers.sum(), keys, strict=True):
                for y in range(-reach, ratio + reach):
                    for x in range(-reach, ratio + reach):
                        target = ratio * row + y, ratio * column + x
                        if 0 <= target[0] < output.shape[1] and 0 <= target[1] < output.shape[2]:
                            source = pixel(value, ratio * at[0] + y, ratio * at[1] + x)
                            output[:, target[0], target[1]] += weight * source / divisor
    return output


def case(
    ratio: int = 2, size: tuple[int, int] = (6, 8), key_size: tuple[int, int] = (3, 4), batch: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value."""
    query, key = normals(batch, 3, *size, seed=1), normals(batch, 3, *key_size, seed=2)
    return query * 0.3, key, normals(batch, 2, *(ratio * n for n in key_size), seed=3)


CASES = [(2, (6, 8), (3, 4)), (3, (6, 3), (2, 1)), (1, (5, 4), (5, 4)), (2, (1, 5), (4, 1)), (4, (3, 3), (2, 3))]


@pytest.mark.parametrize(("ratio", "size", "key_size"), CASES)
@pytest.mark.parametrize("settings", [{}, {"patch_size": 5, "divisor": 9.0}, {"patch_size": 1, "scale": 2.5}], ids=str)
def test_both_are_as_defined(
    ratio: int, size: tuple[int, int], key_size: tuple[int, int], settings: dict[str, Any]
) -> None:
    images = case(ratio, size, key_size)
    expected = torch.from_numpy(np.stack([defined(*(x[b].numpy() for x in images), **settings) for b in range(2)]))
    torch.testing.assert_close(CrossScaleAttention(**settings)(*images), expected, **TOLERANCE[torch.float64])
    # With all keys as matches nothing is left out.
    every = CrossScalePatchAttention(k=key_size[0] * key_size[1], method="exact", **settings)
    torch.testing.assert_close(every(*images), expected, **TOLERANCE[torch.float64])


def test_parts_of_the_keys_and_rows_of_queries_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    images = case(2, (9, 7), (5, 6))
    whole = cross_scale_attention(*images)
    monkeypatch.setattr("patchattn.attention.cross_scale.KEYS", 7)
    monkeypatch.setattr("patchattn.attention.cross_scale.QUERIES", 15)
    torch.testing.assert_close(cross_scale_attention(*images), whole)


def test_the_best_matches_alone(backend: str) -> None:
    """Of a few matches, the weights are the softmax over these; beyond a query's keys there are none."""
    query, key, value = case(2, (5, 6), (3, 4))
    few = cross_scale_patch_attention(query, key, value, k=2, method="exact", scale=3.0, backend=backend)
    many = cross_scale_patch_attention(query, key, value, k=12, method="exact", scale=3.0, backend=backend)
    more = cross_scale_patch_attention(query, key, value, k=15, method="exact", scale=3.0, backend=backend)
    torch.testing.assert_close(more, many)
    assert not torch.allclose(few, many, atol=1e-3)
    # A sharp softmax sees the best match alone, in the full layer as well.
    sharp = cross_scale_attention(query, key, value, scale=1e6)
    one = cross_scale_patch_attention(query, key, value, k=1, method="exact", backend=backend)
    torch.testing.assert_close(one, sharp, rtol=1e-5, atol=1e-5)


def test_what_recurs_at_another_scale_is_enlarged_by_it() -> None:
    """A wave of four positions whose key has the same wave: value says that it is one of eight."""

    def wave(period: int, count: int) -> Tensor:
        at = torch.arange(count, dtype=torch.float64) + 0.5
        return (2 * torch.pi * at / period).sin().expand(1, 1, count, count)

    enlarged = cross_scale_patch_attention(wave(4, 32), wave(4, 16), wave(8, 32), k=1, method="exact", divisor=9.0)
    torch.testing.assert_close(enlarged[..., 8:-8, 8:-8], wave(8, 64)[..., 8:-8, 8:-8])


@pytest.mark.parametrize("layer", [CrossScaleAttention(), CrossScalePatchAttention(k=2, method="exact")], ids=str)
def test_gradients(layer: torch.nn.Module) -> None:
    images = [image.requires_grad_() for image in case(2, (4, 4), (2, 2), batch=1)]
    assert torch.autograd.gradcheck(layer, images)


@pytest.mark.parametrize("layer", [CrossScaleAttention(), CrossScalePatchAttention()], ids=str)
def test_zeros_have_finite_gradients(layer: torch.nn.Module) -> None:
    zeros = [torch.zeros(1, 2, n, n, requires_grad=True) for n in (4, 2, 4)]
    layer(*zeros).sum().backward()
    for image in zeros:
        assert image.grad is not None
        assert image.grad.isfinite().all()


@pytest.mark.parametrize("layer", [CrossScaleAttention(), CrossScalePatchAttention(method="exact")], ids=str)
def test_one_key_serves_all_items(layer: torch.nn.Module) -> None:
    query, key, value = case()
    shared = layer(query, key[:1], value[:1])
    torch.testing.assert_close(shared, layer(query, key[:1].expand(2, -1, -1, -1), value[:1].expand(2, -1, -1, -1)))
    assert shared.shape == (2, 2, 12, 16)


@pytest.mark.parametrize("layer", [CrossScaleAttention(), CrossScalePatchAttention(method="exact")], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(layer: torch.nn.Module, dtype: torch.dtype) -> None:
    images = [image.to(dtype) for image in case()]
    found = layer(*images)
    assert found.dtype == dtype
    torch.testing.assert_close(found, layer(*(image.double() for image in images)).to(dtype), **TOLERANCE[dtype])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(images[0].float(), *images[1:])
    torch.testing.assert_close(mixed, layer(*(image.float() for image in images)))


@pytest.mark.parametrize("layer", [CrossScaleAttention(), CrossScalePatchAttention(method="exact")], ids=str)
def test_strides_do_not_matter(layer: torch.nn.Module) -> None:
    images = case()
    turned = [image.transpose(2, 3).contiguous().transpose(2, 3) for image in images]
    torch.testing.assert_close(layer(*turned), layer(*images))


def test_compiled_equals_eager() -> None:
    layer = CrossScalePatchAttention(method="exact")
    images = [image.float() for image in case()]
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(*images), layer(*images))


def test_the_same_seed_gives_the_same() -> None:
    images = [image.float() for image in case(2, (20, 24), (10, 12))]
    layer = CrossScalePatchAttention(method="patchmatch", seed=3, iterations=1)
    assert torch.equal(layer(*images), layer(*images))
    assert not torch.equal(layer(*images), CrossScalePatchAttention(method="patchmatch", iterations=1)(*images))


@settings(max_examples=30)
@given(st.integers(1, 3), st.tuples(*[st.integers(1, 7)] * 4), st.integers(1, 5), st.sampled_from([1, 3, 5]))
def test_any_sizes(ratio: int, sizes: tuple[int, int, int, int], k: int, patch_size: int) -> None:
    images = case(ratio, sizes[:2], sizes[2:], batch=1)
    found = cross_scale_patch_attention(*images, k=k, patch_size=patch_size)
    assert found.shape == (1, 2, ratio * sizes[0], ratio * sizes[1])
    # Each query's weights sum to 1: nothing is larger than all that overlaps.
    assert found.abs().max() <= patch_size**2 / 6 * images[2].abs().max() + 1e-9


def image(*shape: int) -> Tensor:
    return torch.rand(shape)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query": image(2, 4, 9), "key": image(2, 4, 9), "value": image(2, 4, 9)}, "query: expected two spatial dim"),
        ({"value": image(2, 4, 9, 8)}, r"value: expected the key's spatial size \(4, 4\) or a whole multiple"),
        ({"key": image(2, 5, 4, 4)}, "key: expected 4 channels as query has, got 5"),
        ({"patch_size": 4}, "patch_size: expected odd numbers"),
        ({"scale": -1.0}, "scale: expected a number above 0, got -1.0"),
        ({"divisor": 0}, "divisor: expected a number above 0, got 0"),
    ],
)
@pytest.mark.parametrize("function", [cross_scale_attention, cross_scale_patch_attention])
def test_wrong_arguments_are_named(function: Any, changed: dict[str, Any], message: str) -> None:
    arguments = {"query": image(2, 4, 8, 8), "key": image(2, 4, 4, 4), "value": image(2, 4, 8, 8), **changed}
    with pytest.raises(ValueError, match=message):
        function(**arguments)


def test_wrong_arguments_of_the_search_are_named() -> None:
    with pytest.raises(ValueError, match="k: expected an integer of at least 1"):
        cross_scale_patch_attention(*case(), k=0)
    with pytest.raises(ValueError, match="method: got 'best'"):
        cross_scale_patch_attention(*case(), method="best")
