"""Patch attention: against full attention, a plain loop, and itself in other forms."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from patchattn import MatchField, PatchAttention, match, patch_attention
from patchattn.baselines import full_attention
from tests.cases import COMPILED, PADDINGS, SIMILARITIES, TOLERANCE, gradcheck, mask, normals, strided

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

SIZES = {"1d": ((12,), 3), "2d": ((5, 6), (3, 1)), "3d": ((2, 3, 4), (1, 3, 3))}


def features(*size: int, key_batch: int = 2, channels: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    return (
        normals(2, channels, *size),
        normals(key_batch, channels, *size, seed=1),
        normals(key_batch, 6, *size, seed=2),
    )


@pytest.mark.parametrize("similarity", ["l2", "dot", "scaled_dot", "cosine"])
@pytest.mark.parametrize("size", SIZES)
def test_all_keys_are_full_attention(size: str, similarity: str, backend: str) -> None:
    shape, patch = SIZES[size]
    query, key, value = features(*shape)
    settings = {"patch_size": patch, "similarity": similarity, "num_heads": 2, "temperature": 3.0}
    keys = query[0, 0].numel()
    found = patch_attention(query, key, value, k=keys, method="exact", backend=backend, **settings)
    torch.testing.assert_close(found, full_attention(query, key, value, **settings), **TOLERANCE[torch.float64])


@pytest.mark.parametrize("padding", [*PADDINGS, "valid"])
def test_all_keys_with_masks_and_causality(padding: str, backend: str) -> None:
    query, key, value = features(5, 6, key_batch=1)
    settings = {
        "patch_size": 3,
        "padding_mode": padding,
        "is_causal": True,
        "query_mask": mask(2, 5, 6, share=0.7),
        "key_mask": mask(2, 5, 6, share=0.5, seed=1),
    }
    found = patch_attention(query, key, value, k=30, method="exact", backend=backend, **settings)
    expected = full_attention(query, key, value, **settings)
    torch.testing.assert_close(found, expected, **TOLERANCE[torch.float64])
    assert (found == 0).all(1).any(), "some query has no key"


def test_aggregation_is_equation_10(backend: str) -> None:
    query, key, value = features(5, 6)
    key, value = key[..., :4, :], value[..., :4, :]
    settings = {"patch_size": 3, "temperature": 2.0, "backend": backend}
    output, field = patch_attention(query, key, value, k=2, aggregate=True, return_field=True, **settings)
    expected = torch.zeros_like(output)
    for b in range(2):
        for y in range(5):
            for x in range(6):
                votes: list[tuple[float, Tensor]] = []
                for o_y in (-1, 0, 1):
                    for o_x in (-1, 0, 1):
                        if not (0 <= y + o_y < 5 and 0 <= x + o_x < 6):
                            continue
                        for m in range(2):
                            position = int(field.index[b, 0, m, y + o_y, x + o_x])
                            v_y, v_x = position // 6 - o_y, position % 6 - o_x
                            if 0 <= v_y < 4 and 0 <= v_x < 6:
                                similarity = float(field.similarity[b, 0, m, y + o_y, x + o_x])
                                votes.append((similarity, value[b, :, v_y, v_x]))
                weights = torch.tensor([vote[0] for vote in votes], dtype=torch.float64).div(2.0).softmax(0)
                expected[b, :, y, x] = sum(w * vote[1] for w, vote in zip(weights, votes, strict=True))
    torch.testing.assert_close(output, expected, **TOLERANCE[torch.float64])


@pytest.mark.parametrize("ratio", [2, 3])
@pytest.mark.parametrize("aggregate", [False, True])
def test_value_at_a_multiple_of_the_keys_size(ratio: int, aggregate: bool, backend: str) -> None:
    query, key, _ = features(5, 6)
    value = normals(2, 4, 5 * ratio, 6 * ratio)
    settings = {"patch_size": 3, "num_heads": 2, "aggregate": aggregate, "backend": backend}
    output, field = patch_attention(query, key, value, return_field=True, **settings)
    assert output.shape == (2, 4, 5 * ratio, 6 * ratio)
    for y in range(ratio):
        for x in range(ratio):
            part = patch_attention(query, key, value[..., y::ratio, x::ratio], field=field, **settings)
            torch.testing.assert_close(output[..., y::ratio, x::ratio], part, **TOLERANCE[torch.float64])


def test_a_field_is_used_again(backend: str) -> None:
    query, key, value = features(5, 6)
    settings = {"k": 3, "patch_size": 3, "num_heads": 2, "backend": backend}
    output, field = patch_attention(query, key, value, return_field=True, **settings)
    assert field.index.shape == field.similarity.shape == (2, 2, 3, 5, 6)
    assert torch.equal(patch_attention(query, key, value, field=field, **settings), output)
    # Other features with the same matches: the similarities are taken anew.
    other = patch_attention(2 * query, key, value, field=field, **settings)
    assert not torch.equal(other, output)
    again = MatchField(field.index, torch.zeros_like(field.similarity), field.key_shape)
    assert torch.equal(patch_attention(query, key, value, field=again, **settings), output)


@pytest.mark.parametrize(
    ("backend", "similarity"),
    [(compiled, similarity) for compiled in COMPILED for similarity in SIMILARITIES] + [("reference", "l2")],
)
@pytest.mark.parametrize("aggregate", [False, True])
def test_gradients(similarity: str, aggregate: bool, backend: str) -> None:
    query, key, value = (tensor[..., :3].requires_grad_() for tensor in features(3, 5, key_batch=1, channels=2))
    settings = {
        "patch_size": 3,
        "similarity": SIMILARITIES[similarity],
        "aggregate": aggregate,
        "num_heads": 2,
        "temperature": 4.0,
        "backend": backend,
    }
    search = {name: settings[name] for name in ("patch_size", "similarity", "num_heads", "backend")}
    field = match(query, key, k=2, method="exact", **search)
    inputs = (query, key, value)
    assert gradcheck(backend, lambda q, k, v: patch_attention(q, k, v, field=field, **settings), inputs)


def test_gradients_leave_out_what_has_no_match(backend: str) -> None:
    query, key, value = (tensor.requires_grad_() for tensor in features(4, 5))
    query_mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    query_mask[0, 1, 2] = True
    output = patch_attention(query, key, value, k=2, patch_size=1, query_mask=query_mask, backend=backend)
    output.sum().backward()
    assert (output[:, :, ~query_mask[0]] == 0).all()
    assert query.grad is not None
    assert (query.grad[:, :, ~query_mask[0]] == 0).all()
    assert (query.grad[:, :, query_mask[0]] != 0).any()


def test_one_match_alone_trains_value_only(backend: str) -> None:
    query, key, value = (tensor.requires_grad_() for tensor in features(4, 5))
    patch_attention(query, key, value, k=1, patch_size=3, backend=backend).sum().backward()
    assert query.grad is None
    assert key.grad is None
    assert value.grad is not None
    query.grad = key.grad = value.grad = None
    patch_attention(query, key, value, k=1, patch_size=3, aggregate=True, backend=backend).sum().backward()
    assert query.grad is not None
    assert key.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("aggregate", [False, True])
def test_half_precision_sums_in_single(dtype: torch.dtype, aggregate: bool, backend: str) -> None:
    inputs = [tensor.to(dtype) for tensor in features(6, 7)]
    settings = {"k": 3, "patch_size": 5, "aggregate": aggregate, "temperature": 10.0, "backend": backend}
    output = patch_attention(*inputs, **settings)
    assert output.dtype == dtype
    expected = patch_attention(*(tensor.float() for tensor in inputs), **settings)
    assert torch.equal(output, expected.to(dtype))
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    patch_attention(*leaves, **settings).float().square().sum().backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype
        assert leaf.grad.isfinite().all()


def test_large_half_precision_features_do_not_overflow(backend: str) -> None:
    inputs = [(1000 * tensor).half() for tensor in features(6, 7)]
    assert patch_attention(*inputs, patch_size=5, backend=backend).isfinite().all()


def test_autocast_takes_the_highest_precision(backend: str) -> None:
    query, key, value = (tensor.float() for tensor in features(5, 6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = patch_attention(query.bfloat16(), key, value, patch_size=3, backend=backend)
    assert output.dtype == torch.float32
    expected = patch_attention(query.bfloat16().float(), key, value, patch_size=3, backend=backend)
    assert torch.equal(output, expected)


def test_memory_layout_does_not_matter(backend: str) -> None:
    inputs = features(5, 6)
    expected = patch_attention(*inputs, patch_size=3, aggregate=True, backend=backend)
    leaves = [strided(tensor).requires_grad_() for tensor in inputs]
    output = patch_attention(*leaves, patch_size=3, aggregate=True, backend=backend)
    assert torch.equal(output, expected)
    output.mT.square().sum().backward()
    plain = [tensor.clone().requires_grad_() for tensor in inputs]
    patch_attention(*plain, patch_size=3, aggregate=True, backend=backend).square().sum().backward()
    for leaf, other in zip(leaves, plain, strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, other.grad, **TOLERANCE[torch.float64])


def test_the_module_is_the_function() -> None:
    inputs = features(5, 6)
    settings = {"k": 2, "patch_size": 3, "similarity": "cosine", "temperature": 0.1, "aggregate": True, "num_heads": 2}
    layer = PatchAttention(**settings)
    assert torch.equal(layer(*inputs), patch_attention(*inputs, **settings))
    output, field = layer(*inputs, return_field=True)
    assert torch.equal(layer(*inputs, field=field), output)
    assert not layer.state_dict()
    assert "k=2, patch_size=3, similarity='cosine'" in repr(layer)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(*inputs), output)


def test_a_setting_given_to_a_call_is_named() -> None:
    image = torch.rand(1, 1, 5, 5)
    with pytest.raises(ValueError, match=r"is_causal: a setting of the layer, not of a call; make PatchAttention\("):
        PatchAttention()(image, image, image, is_causal=True)


def test_no_gradient_is_kept_without_need(backend: str) -> None:
    query, key, value = features(5, 6)
    assert not patch_attention(query, key, value, patch_size=3, backend=backend).requires_grad
    with torch.no_grad():
        assert not patch_attention(query.requires_grad_(), key, value, patch_size=3, backend=backend).requires_grad


@pytest.mark.parametrize("aggregate", [False, True])
def test_more_matches_than_keys_are_all_keys(aggregate: bool) -> None:
    query, key = normals(1, 4, 5, 6), normals(1, 4, 2, 3, seed=1)
    outputs = [patch_attention(query, key, key, k=k, patch_size=3, aggregate=aggregate) for k in (6, 7)]
    assert torch.equal(*outputs)
