"""Layers made of published packages, against what they approximate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from patchattn.baselines import (
    PerformerAttention,
    ReformerAttention,
    full_attention,
    packages,
    performer,
    performer_attention,
    reformer_attention,
)
from patchattn.baselines.packages import load_baseline_package
from tests.attention import dense
from tests.cases import TOLERANCE, mask, normals

CLOSE = TOLERANCE[torch.float64]
SIZES = {"1d": ((23,), (17,)), "2d": ((6, 9), (8, 5)), "3d": ((3, 5, 4), (3, 4, 6))}


def images(name: str) -> tuple[Tensor, Tensor, Tensor]:
    query, key = SIZES[name]
    return normals(2, 4, *query), normals(1, 4, *key, seed=1), normals(2, 6, *key, seed=2)


def by_features(query: Tensor, key: Tensor, value: Tensor, count: int, temperature: float, allowed: Tensor) -> Tensor:
    """FAVOR+ written out, with all pairs; the package adds 1e-4 to every feature."""
    q, k = (dense.patches(x, (3,) * (x.dim() - 2), "reflect", 2) for x in (query, key))
    package = load_baseline_package("performer_pytorch.performer_pytorch", "performer-pytorch")
    directions = performer._directions(package, count, q.shape[-1], 5).double()
    found = []
    for x, dims in ((q, (-1,)), (k, (-1, -2))):
        x = x / temperature**0.5 * x.shape[-1] ** -0.25
        product = x @ directions.T
        found.append(
            (product - x.square().sum(-1, keepdim=True) / 2 - product.amax(dims, keepdim=True).detach()).exp() + 1e-4
        )
    return dense.weighted(found[0] @ found[1].transpose(2, 3) * allowed, value, tuple(query.shape[2:]))


@pytest.mark.parametrize("name", SIZES)
def test_performer_by_its_definition(name: str) -> None:
    query, key, value = images(name)
    settings: dict[str, Any] = {"features": 50, "patch_size": 3, "temperature": 2.0, "num_heads": 2, "seed": 5}
    found = performer_attention(query, key, value, **settings)
    everything = torch.ones((), dtype=torch.bool)
    torch.testing.assert_close(found, by_features(query, key, value, 50, 2.0, everything), **CLOSE)
    assert torch.equal(PerformerAttention(**settings)(query, key, value), found)


def test_performer_with_many_features_is_near_full_attention() -> None:
    # Short vectors: of long ones the features are small, and the 1e-4 that the package adds to them is not.
    query, key, value = (0.5 * normals(1, 4, 9, 9, seed=n) for n in range(3))
    exact = full_attention(query, key, value, patch_size=1, similarity="scaled_dot")
    found = performer_attention(query, key, value, patch_size=1, features=4096)
    plain_mean = value.mean((2, 3), keepdim=True)
    assert (found - exact).square().mean() < (plain_mean - exact).square().mean() / 4


def test_reformer_with_one_chunk_back_and_no_more_is_full_attention() -> None:
    # Two chunks see each other: every query sees every key, normalized, once.
    query, key, value = normals(2, 4, 6, 7), normals(1, 4, 6, 7, seed=1), normals(2, 6, 6, 7, seed=2)
    settings: dict[str, Any] = {"patch_size": 3, "temperature": 2.0, "num_heads": 2, "bucket_size": 42, "hashes": 1}
    found = reformer_attention(query, key, value, **settings)
    q, k = (dense.patches(x, (3, 3), "reflect", 2) for x in (query, key))
    scores = q @ functional.normalize(k, dim=-1).transpose(2, 3) / q.shape[-1] ** 0.5 / 2
    expected = dense.weighted(scores.exp(), value, (6, 7))
    torch.testing.assert_close(found, expected, **CLOSE)
    assert torch.equal(ReformerAttention(**settings)(query, key, value), found)


def test_reformer_finds_what_is_alike() -> None:
    # Every query is some key, many times over: a hash puts them together.
    key = normals(1, 16, 16, 16)
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    query = key.flatten(2)[..., order].view_as(key)
    found = reformer_attention(50 * query, key, key, patch_size=1, bucket_size=16)
    near = (found - query).flatten(2).norm(dim=1) < 0.1
    assert near.double().mean() > 0.8
    assert torch.equal(reformer_attention(50 * query, key, key, patch_size=1, bucket_size=16), found)
    assert not torch.equal(reformer_attention(50 * query, key, key, patch_size=1, bucket_size=16, seed=1), found)


LAYERS: dict[str, Any] = {
    "performer": PerformerAttention(features=20, patch_size=1),
    "reformer": ReformerAttention(bucket_size=24, hashes=1, patch_size=1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_masks(name: str) -> None:
    query, key, value = normals(2, 3, 4, 5), normals(1, 3, 4, 7, seed=1), normals(1, 2, 4, 7, seed=2)
    key_mask, query_mask = mask(2, 4, 7, share=0.4), mask(1, 4, 5, share=0.7)
    key_mask[1] = False
    found = LAYERS[name](query, key, value, query_mask=query_mask, key_mask=key_mask)
    assert found.isfinite().all()
    assert (found[1] == 0).all()
    assert (found[:, :, ~query_mask[0]] == 0).all()
    other = value.masked_fill(~key_mask[:1], torch.nan)
    # The first image alone, as the second sees nothing.
    seen = LAYERS[name](query[:1], key, other, query_mask=query_mask, key_mask=key_mask[:1])
    torch.testing.assert_close(seen, found[:1], **CLOSE)


def test_gradients_of_reformer() -> None:
    inputs = [normals(1, 2, 3, 4, seed=n).requires_grad_() for n in range(3)]
    assert torch.autograd.gradcheck(LAYERS["reformer"], inputs)


def test_gradients_of_performer() -> None:
    # Not those of finite differences: the package holds the largest product fixed, and adds to the features after that.
    inputs = [x.requires_grad_() for x in images("2d")]
    settings: dict[str, Any] = {"features": 50, "patch_size": 3, "temperature": 2.0, "num_heads": 2, "seed": 5}
    found = torch.autograd.grad(performer_attention(*inputs, **settings).square().sum(), inputs)
    everything = torch.ones((), dtype=torch.bool)
    expected = torch.autograd.grad(by_features(*inputs, 50, 2.0, everything).square().sum(), inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_the_random_state_stays_as_it_was(name: str) -> None:
    performer._directions.cache_clear()
    image = normals(1, 2, 6, 6)
    before = torch.get_rng_state()
    LAYERS[name](image, image, image)
    assert torch.equal(torch.get_rng_state(), before)


def test_values_may_be_longer_than_patches() -> None:
    query, key, value = normals(1, 2, 6, 7), normals(1, 2, 6, 7, seed=1), normals(1, 9, 6, 7, seed=2)
    found = reformer_attention(query, key, value, patch_size=1, bucket_size=42, hashes=1)
    scores = query.flatten(2).transpose(1, 2) @ functional.normalize(key.flatten(2), dim=1) / 2**0.5
    torch.testing.assert_close(found, dense.weighted(scores.exp()[:, None], value, (6, 7)), **CLOSE)


def test_an_absent_package_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"no-such-package: the package does not load .*patchattn\[baselines\]"):
        packages.load_baseline_package("no_such_package", "no-such-package")


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (performer_attention, {"features": 0}, "features: expected an integer of at least 1"),
        (performer_attention, {"temperature": -1}, "temperature: expected a number above 0"),
        (reformer_attention, {"bucket_size": 0}, "bucket_size: expected an integer of at least 1"),
        (reformer_attention, {"hashes": 0}, "hashes: expected an integer of at least 1"),
    ],
)
def test_errors(function: Any, settings: dict[str, Any], message: str) -> None:
    image = normals(1, 2, 8, 8)
    with pytest.raises(ValueError, match=message):
        function(image, image, image, **settings)
