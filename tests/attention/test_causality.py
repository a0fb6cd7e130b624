"""Autoregressive use (SCRAM, 4.2.1): nothing that comes later has any influence, not on the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn import ScramAttention, match, patch_attention, scram_attention
from tests.cases import fewer, normals

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

LAYERS: dict[str, dict[str, Any]] = {
    "auto": {"k": 3, "expand": 1},
    "patchmatch": {"k": 3, "method": "patchmatch"},
    "repeated": {"k": 2, "selection": "mode", "method": "repeated", "iterations": 2},
    "exact": {"k": 4, "method": "exact", "expand": 1},
    "mode": {"k": 3, "selection": "mode", "expand": 2},
    "window": {"k": 3, "max_offset": 4, "expand": 1},
    "snis": {"k": 2, "estimator": "snis", "samples": 12},
    "mh": {"k": 2, "estimator": "mh", "samples": 12},
    "non-local": {"k": 3, "weighting": torch.relu, "normalization": "count"},
}
SIZES = {"1d": (1100,), "2d": (33, 34), "3d": (10, 10, 11)}
"""More keys than `auto` searches exactly."""


def perturbed(tensor: Tensor, first: int, seed: int) -> Tensor:
    """Other numbers, NaN and infinity among them, at the positions from `first` on."""
    noise = 100 * normals(*tensor.shape, seed=seed).to(tensor.dtype).flatten(2)
    noise[..., first + 1 :: 7] = torch.nan
    noise[..., first + 2 :: 11] = torch.inf
    flat = tensor.flatten(2).clone()
    flat[..., first:] = noise[..., first:]
    return flat.view_as(tensor)


@pytest.mark.every_pair
@pytest.mark.parametrize("is_causal", [True, "strict"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LAYERS)
def test_the_future_does_not_move_the_past_by_one_bit(name: str, size: str, is_causal: Any) -> None:
    inputs = [normals(1, 4, *SIZES[size], seed=seed, dtype=torch.float32) for seed in range(3)]
    layer = ScramAttention(**LAYERS[name], num_heads=2, is_causal=is_causal)
    expected = layer(*inputs).flatten(2)
    for first in (1, 40, 700, expected.shape[2] - 1):
        query, key, value = (perturbed(x, first, seed) for seed, x in enumerate(inputs))
        # A query attends to what came before it, or to itself: strictly causal, only its own query vector is its own.
        if is_causal == "strict":
            query = perturbed(inputs[0], first + 1, 0)
        seen = first + 1 if is_causal == "strict" else first
        found = layer(query, key, value).flatten(2)
        assert torch.equal(found[..., :seen], expected[..., :seen])
        assert torch.equal(found.isnan()[..., :seen], expected.isnan()[..., :seen])


@pytest.mark.parametrize("name", LAYERS)
def test_the_future_does_not_move_the_past_in_any_backend(name: str, backend: str) -> None:
    inputs = [normals(1, 4, 9, 8, seed=seed) for seed in range(3)]
    iterations = {"iterations": fewer(backend, 8, 2)} | LAYERS[name]
    layer = ScramAttention(**iterations, is_causal=True, backend=backend)
    expected = layer(*inputs).flatten(2)
    found = layer(*(perturbed(x, 30, seed) for seed, x in enumerate(inputs))).flatten(2)
    assert torch.equal(found[..., :30], expected[..., :30])


@pytest.mark.parametrize("similarity", ["l2", "cosine", "l1"])
@pytest.mark.parametrize("method", ["exact", "patchmatch", "repeated", "auto"])
def test_matches_know_no_future_either(method: str, similarity: str) -> None:
    query, key = (normals(2, 3, 34, 33, seed=seed, dtype=torch.float32) for seed in range(2))
    settings: dict[str, Any] = {"k": 3, "similarity": similarity, "method": method, "is_causal": True, "iterations": 2}
    expected = match(query, key, **settings)
    found = match(perturbed(query, 500, 0), perturbed(key, 500, 1), **settings)
    for one, other in ((found.index, expected.index), (found.similarity, expected.similarity)):
        assert torch.equal(one.flatten(3)[..., :500], other.flatten(3)[..., :500])


@pytest.mark.parametrize("name", LAYERS)
def test_pixel_by_pixel_gives_what_the_whole_image_gives(name: str) -> None:
    """Generate: each output is the next pixel, from an image whose later pixels are not there yet."""
    size = (4, 5)
    layer = ScramAttention(**LAYERS[name], is_causal="strict")
    generator = normals(1, 3, *size, seed=1, dtype=torch.float32)
    image = torch.full((1, 3, *size), torch.nan)
    for i in range(20):
        y, x = divmod(i, size[1])
        query = generator.clone()
        query.flatten(2)[..., i + 1 :] = torch.nan
        image[..., y, x] = (layer(query, image, image) + generator).tanh()[..., y, x]
    assert image.isfinite().all()
    assert torch.equal((layer(generator, image, image) + generator).tanh(), image)


@pytest.mark.parametrize("estimator", [None, "snis", "mh"])
def test_the_first_query_without_a_key_gets_zero(estimator: str | None, backend: str) -> None:
    query, key, value = (normals(1, 4, 5, 6, seed=seed) for seed in range(3))
    settings: dict[str, Any] = {"estimator": estimator, "samples": 8, "backend": backend}
    strict = scram_attention(query, key, value, is_causal="strict", **settings).flatten(2)
    assert (strict[..., 0] == 0).all()
    torch.testing.assert_close(strict[..., 1], value.flatten(2)[..., 0])
    causal = scram_attention(query, key, value, is_causal=True, **settings).flatten(2)
    torch.testing.assert_close(causal[..., 0], value.flatten(2)[..., 0])


def test_gradients_come_from_the_past_alone(backend: str) -> None:
    query, key, value = (normals(1, 4, 5, 6, seed=seed).requires_grad_() for seed in range(3))
    for settings in ({"expand": 1}, {"estimator": "snis", "samples": 8}, {"estimator": "mh", "samples": 8}):
        output = scram_attention(query, key, value, is_causal=True, backend=backend, **settings).flatten(2)
        for grad in torch.autograd.grad(output[..., :10].sum(), (query, key, value)):
            assert (grad.flatten(2)[..., 10:] == 0).all()
            assert (grad.flatten(2)[..., :10] != 0).any()


def test_strict_in_patch_attention(backend: str) -> None:
    query, key, value = (normals(1, 4, 5, 6, seed=seed) for seed in range(3))
    settings: dict[str, Any] = {"k": 30, "patch_size": 1, "is_causal": "strict", "backend": backend}
    output, field = patch_attention(query, key, value, return_field=True, **settings)
    position = torch.arange(30).view(5, 6)
    assert ((field.index < position) | (field.index == -1)).all()
    assert torch.equal((field.index >= 0).sum(2)[0, 0], position)
    assert (output[..., 0, 0] == 0).all()
