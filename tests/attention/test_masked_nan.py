"""What is masked or unmatched may hold anything: no result and no gradient looks at it, and its own gradient is 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import patchattn as pa
from tests.cases import POINTWISE, mask, normals

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = (5, 6)
BAD = {"nan": torch.nan, "inf": torch.inf, "-inf": -torch.inf}
CASES = [(1, "nan"), (1, "-inf"), (3, "nan"), (3, "inf")]
"""Patch sizes with what stands under the masks."""


def whole_patches(kept: Tensor, patch_size: int) -> Tensor:
    """Where all of a patch is kept."""
    holes = functional.pad((~kept).double().unsqueeze(1), (patch_size // 2,) * 4, "reflect")
    return functional.max_pool2d(holes, patch_size, 1).squeeze(1) == 0


def assert_blind(
    layer: Callable[..., Tensor], patch_size: int, bad: float, *, told: bool = False, values: bool = True,
    shared: bool = False,
) -> None:  # fmt: skip
    """Compare bad numbers under masks with zeros under masks of all patches that hold one.

    Args:
        layer: called with query, key, value and the masks.
        told: mask all patches that hold a bad number; otherwise the layer must leave them out by itself.
        values: put bad numbers into value too.
        shared: key and value have batch size 1.
    """
    batch = 1 if shared else 2
    query_kept, key_kept = mask(2, *SIZE, share=0.9, seed=1), mask(batch, *SIZE, share=0.8, seed=2)
    whole = whole_patches(query_kept, patch_size), whole_patches(key_kept, patch_size)
    features = normals(2, 4, *SIZE), normals(batch, 4, *SIZE, seed=1), normals(batch, 4, *SIZE, seed=2)
    kept = query_kept, key_kept, key_kept if values else torch.ones_like(key_kept)
    seen: list[list[Tensor]] = []
    for number, masks in ((bad, whole if told else (query_kept, key_kept)), (0.0, whole)):
        inputs = [x.masked_fill(~k[:, None], number).requires_grad_() for x, k in zip(features, kept, strict=True)]
        output = layer(*inputs, *masks)
        weights = normals(*output.shape, seed=3)
        seen.append([output, *torch.autograd.grad((output * weights).sum(), inputs, materialize_grads=True)])
    for ours, wanted in zip(*seen, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-11)
    for gradient, k in zip(seen[0][1:], kept, strict=True):
        assert (gradient.masked_select(~k[:, None]) == 0).all()


@pytest.mark.parametrize("similarity", ["l2", "l1", "dot", "scaled_dot", "cosine", "pointwise"])
@pytest.mark.parametrize(("patch_size", "bad"), CASES)
def test_patch_attention(backend: str, similarity: str, patch_size: int, bad: str) -> None:
    def layer(query: Tensor, key: Tensor, value: Tensor, query_mask: Tensor, key_mask: Tensor) -> Tensor:
        return pa.patch_attention(
            query, key, value, query_mask=query_mask, key_mask=key_mask, k=4, patch_size=patch_size, method="exact",
            similarity=POINTWISE if similarity == "pointwise" else similarity, num_heads=2, backend=backend,
        )  # fmt: skip

    # Infinity has a product, and a place among the best.
    told = bad != "nan" and "dot" in similarity
    assert_blind(layer, patch_size, BAD[bad], told=told, shared=bad == "inf")


LAYERS: dict[str, Callable[..., Any]] = {
    "aggregate": lambda *x, **s: pa.patch_attention(*x, k=3, method="exact", aggregate=True, **s),
    "scram": lambda *x, **s: pa.scram_attention(*x, k=2, expand=1, method="exact", **s),
    "scram_weighting": lambda *x, **s: pa.scram_attention(
        *x, k=2, expand=1, method="exact", weighting=torch.exp, normalization="count", **s
    ),
    "snis": lambda *x, **s: pa.scram_attention(*x, k=2, estimator="snis", samples=12, method="exact", **s),
    "mh": lambda *x, **s: pa.scram_attention(*x, k=2, estimator="mh", samples=12, method="exact", **s),
}


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("similarity", ["l2", "cosine", "scaled_dot"])
@pytest.mark.parametrize("patch_size", [1, 3])
def test_layers_on_matches(backend: str, name: str, similarity: str, patch_size: int) -> None:
    def layer(query: Tensor, key: Tensor, value: Tensor, query_mask: Tensor, key_mask: Tensor) -> Tensor:
        return LAYERS[name](
            query, key, value, query_mask=query_mask, key_mask=key_mask, patch_size=patch_size, similarity=similarity,
            backend=backend,
        )  # fmt: skip

    # Samplers draw from what masks allow. Pixels of a matched patch vote where the mask is False.
    assert_blind(layer, patch_size, torch.nan, told=name in ("snis", "mh"), values=name != "aggregate")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(("patch_size", "bad"), CASES)
def test_masked_patch_attention(backend: str, patch_size: int, bad: str) -> None:
    def layer(query: Tensor, key: Tensor, value: Tensor, query_mask: Tensor, key_mask: Tensor) -> Tensor:
        return pa.masked_patch_attention(query, key, value, key_mask=key_mask, patch_size=patch_size, backend=backend)

    features = normals(1, 3, *SIZE)
    known = mask(1, *SIZE, share=0.7)
    query, key, value = (features.clone().requires_grad_() for _ in range(3))
    with torch.no_grad():
        key.masked_fill_(~known[:, None], BAD[bad])
        value.masked_fill_(~known[:, None], BAD[bad])
    output = layer(query, key, value, known, known)
    assert output.isfinite().all()
    output.square().sum().backward()
    for image in (query, key, value):
        assert image.grad is not None
        assert image.grad.isfinite().all()
    for image in (key, value):
        assert (image.grad.masked_select(~known[:, None]) == 0).all()


DENSE: dict[str, Callable[..., Tensor]] = {
    "full": pa.baselines.full_attention,
    "local": lambda *x, **s: pa.baselines.local_attention(*x, window=5, **s),
    "strided": pa.baselines.sparse_attention,
    "fixed": lambda *x, **s: pa.baselines.sparse_attention(*x, pattern="fixed", summary=2, **s),
}


@pytest.mark.every_pair
@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("similarity", ["l2", "cosine", "scaled_dot"])
@pytest.mark.parametrize(("patch_size", "bad"), CASES)
def test_layers_on_all_pairs(name: str, similarity: str, patch_size: int, bad: str) -> None:
    def layer(query: Tensor, key: Tensor, value: Tensor, query_mask: Tensor, key_mask: Tensor) -> Tensor:
        return DENSE[name](
            query, key, value, query_mask=query_mask, key_mask=key_mask, patch_size=patch_size, similarity=similarity
        )

    assert_blind(layer, patch_size, BAD[bad], told=bad != "nan" and "dot" in similarity, shared=bad == "nan")


@pytest.mark.parametrize(("patch_size", "bad"), CASES)
@pytest.mark.parametrize("function", [pa.baselines.linear_attention, pa.baselines.performer_attention])
def test_layers_on_sums(function: Callable[..., Tensor], patch_size: int, bad: str) -> None:
    def layer(query: Tensor, key: Tensor, value: Tensor, query_mask: Tensor, key_mask: Tensor) -> Tensor:
        return function(query, key, value, query_mask=query_mask, key_mask=key_mask, patch_size=patch_size)

    assert_blind(layer, patch_size, BAD[bad], told=True)


@pytest.mark.parametrize("bad", BAD)
def test_contextual_attention(bad: str) -> None:
    known = torch.ones(1, 12, 12, dtype=torch.bool)
    known[:, 4:8, 4:8] = False
    query, key, value = (normals(1, 3, 12, 12, seed=seed).requires_grad_() for seed in range(3))
    with torch.no_grad():
        value.masked_fill_(~known[:, None], BAD[bad])  # those of keys are summed with others before they are masked
    output = pa.contextual_attention(query, key, value, key_mask=known)
    assert output.isfinite().all()
    for gradient in torch.autograd.grad(output.square().sum(), (query, key, value)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("function", [pa.cross_scale_attention, pa.cross_scale_patch_attention])
def test_cross_scale_layers_leave_out_what_is_nan(function: Callable[..., Tensor]) -> None:
    """They have no masks: NaN counts as -inf."""
    query, key, value = normals(1, 3, 8, 8), normals(1, 3, 4, 4, seed=1), normals(1, 3, 8, 8, seed=2)
    key[..., 0, 0] = torch.nan
    query[..., 7, 7] = torch.nan
    inputs = [x.requires_grad_() for x in (query, key, value)]
    output = function(*inputs)
    assert output.isfinite().all()
    by_query, by_key, by_value = torch.autograd.grad(output.square().sum(), inputs)
    assert by_query.isfinite().all()
    assert by_key.isfinite().all()
    assert by_value.isfinite().all()
    assert (by_query[..., 7, 7] == 0).all()
    assert (by_key[..., 0, 0] == 0).all()


@pytest.mark.parametrize("similarity", ["l2", "l1", "dot", "cosine", "pointwise"])
def test_operators(backend: str, similarity: str) -> None:
    """A match that has no weight, or no gradient, brings nothing of its key."""
    name = POINTWISE.name if similarity == "pointwise" else similarity
    query, key, value = normals(1, 2, 5), normals(1, 2, 6, seed=1), normals(1, 2, 6, seed=2)
    key[..., 2], query[..., 4], value[..., 2] = torch.nan, torch.inf, torch.nan
    index = torch.tensor([[0, 1, 2, 3, -1], [2, 4, 5, -1, -1]], dtype=torch.int32).view(1, 1, 2, 5)
    inputs = [x.requires_grad_() for x in (query, key, value)]
    found = torch.ops.patchattn.similarity_at(query, key, index, [1], "reflect", 1, name, backend)
    output, _ = torch.ops.patchattn.attend(found, index, value, [1], 1.0, backend)
    assert output.isfinite().all()
    for image, gradient in zip(inputs, torch.autograd.grad(output.square().sum(), inputs), strict=True):
        assert gradient.isfinite().all()
        assert (gradient.masked_select(~image.isfinite()) == 0).all()
    keys = torch.where(index == 2, -1, index)
    weight = normals(1, 1, 2, 5, seed=3).masked_fill(keys < 0, torch.nan).requires_grad_()
    output = torch.ops.patchattn.weighted_sum(weight, keys, value, backend)
    assert output.isfinite().all()
    by_weight, by_value = torch.autograd.grad(output.square().sum(), (weight, value))
    assert by_value.isfinite().all()
    assert (by_weight.masked_select(keys < 0) == 0).all()
    assert (by_value[..., 2] == 0).all()
