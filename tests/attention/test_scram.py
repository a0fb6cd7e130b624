"""SCRAM's sparse attention: against full attention, a plain loop over sets of keys, and itself in other forms."""

from __future__ import annotations

import copy
import pickle
import re
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from patchattn import MatchField, ScramAttention, match, patch_attention, pointwise_similarity, scram_attention
from patchattn.baselines import full_attention
from tests.cases import SIMILARITIES, TOLERANCE, fewer, gradcheck, mask, normals, photograph, strided

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

EXACT = TOLERANCE[torch.float64]
SIZES = {"1d": (12,), "2d": (5, 6), "3d": (2, 3, 4)}


def features(*size: int, key_batch: int = 2, channels: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    return (
        normals(2, channels, *size),
        normals(key_batch, channels, *size, seed=1),
        normals(key_batch, 6, *size, seed=2),
    )


def by_hand(
    query: Tensor, key: Tensor, value: Tensor, field: MatchField, radius: tuple[int, ...], allowed: Any, heads: int = 1
) -> Tensor:
    """Equations (8) and (9) over the set of keys around each match; `allowed(i, j)` for flat positions."""
    size = field.key_shape
    q, k, v = (x.flatten(2).unflatten(1, (heads, -1)) for x in (query, key, value))
    output = torch.zeros(q.shape[0], heads, v.shape[2], q.shape[3], dtype=q.dtype)
    positions = list(product(*(range(n) for n in size)))
    for b, h, i in product(range(q.shape[0]), range(heads), range(q.shape[3])):
        keys: set[int] = set()
        for matched in field.index[b, h].flatten(1)[:, i].tolist():
            if matched >= 0:
                center = positions[matched]
                for j, place in enumerate(positions):
                    near = all(abs(a - c) <= r for a, c, r in zip(place, center, radius, strict=True))
                    if near and allowed(i, j):
                        keys.add(j)
        if keys:
            kept = sorted(keys)
            bk, bv = min(b, k.shape[0] - 1), min(b, v.shape[0] - 1)
            weight = (q[b, h, :, i] @ k[bk, h][:, kept] / q.shape[2] ** 0.5).softmax(0)
            output[b, h, :, i] = v[bv, h][:, kept] @ weight
    return output.flatten(1, 2).unflatten(2, query.shape[2:])


@pytest.mark.parametrize("size", SIZES)
def test_all_keys_are_full_attention(size: str, backend: str) -> None:
    query, key, value = features(*SIZES[size])
    keys = query[0, 0].numel()
    found = scram_attention(query, key, value, k=keys, num_heads=2, temperature=0.5, method="exact", backend=backend)
    expected = full_attention(query, key, value, patch_size=1, similarity="scaled_dot", num_heads=2, temperature=0.5)
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("size", SIZES)
def test_an_expansion_over_the_whole_image_is_full_attention(size: str, backend: str) -> None:
    # Every match reaches every key, many times over: the keys are a set.
    query, key, value = features(*SIZES[size], key_batch=1)
    found = scram_attention(query, key, value, k=3, expand=max(SIZES[size]) - 1, backend=backend)
    expected = full_attention(query, key, value, patch_size=1, similarity="scaled_dot")
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("selection", ["max", "mode"])
@pytest.mark.parametrize("radius", [0, 1, (2, 0)])
def test_equations_8_and_9(radius: Any, selection: str, backend: str) -> None:
    query, key, value = features(5, 6)
    key, value = key[..., :4, :], value[..., :4, :]
    output, field = scram_attention(
        query, key, value, k=3, selection=selection, expand=radius, num_heads=2, return_field=True, backend=backend
    )
    both = (radius, radius) if isinstance(radius, int) else radius
    expected = by_hand(query, key, value, field, both, lambda i, j: True, heads=2)
    torch.testing.assert_close(output, expected, **EXACT)


@pytest.mark.parametrize("is_causal", [True, "strict"])
@pytest.mark.parametrize("size", SIZES)
def test_expansion_keeps_masks_and_causality(size: str, is_causal: Any, backend: str) -> None:
    query, key, value = features(*SIZES[size], key_batch=1)
    key_mask = mask(1, *SIZES[size], share=0.6, seed=1)
    output, field = scram_attention(
        query, key, value, k=2, expand=1, key_mask=key_mask, is_causal=is_causal, return_field=True, backend=backend
    )
    lag = int(is_causal == "strict")
    allowed = key_mask.flatten()
    expected = by_hand(
        query, key, value, field, (1,) * len(SIZES[size]), lambda i, j: bool(allowed[j]) and j + lag <= i
    )
    torch.testing.assert_close(output, expected, **EXACT)
    assert (output == 0).all(1).any(), "some query has no key"


def test_expansion_keeps_the_window(backend: str) -> None:
    query, key, value = features(5, 6)
    output, field = scram_attention(
        query, key, value, k=1, expand=3, max_offset=(1, 2), return_field=True, backend=backend
    )
    expected = by_hand(
        query, key, value, field, (3, 3), lambda i, j: abs(i // 6 - j // 6) <= 1 and abs(i % 6 - j % 6) <= 2
    )
    torch.testing.assert_close(output, expected, **EXACT)


def test_one_key_is_the_argmax(backend: str) -> None:
    query, key, value = features(5, 6, key_batch=1)
    found = scram_attention(query, key, value, k=1, method="exact", backend=backend)
    best = torch.einsum("bci,bcj->bij", query.flatten(2), key.expand(2, -1, -1, -1).flatten(2)).argmax(2)
    assert torch.equal(
        found.flatten(2), value.expand(2, -1, -1, -1).flatten(2).gather(2, best[:, None].expand(-1, 6, -1))
    )


def test_without_expansion_it_is_patch_attention_of_single_positions(backend: str) -> None:
    query, key, value = features(5, 6)
    settings: dict[str, Any] = {"k": 4, "num_heads": 2, "similarity": "l2", "temperature": 2.0, "backend": backend}
    found = scram_attention(query, key, value, **settings)
    torch.testing.assert_close(found, patch_attention(query, key, value, patch_size=1, **settings), **EXACT)


@pytest.mark.parametrize("method", ["exact", "guided", "patchmatch", "repeated"])
def test_modes_are_apart(method: str, backend: str) -> None:
    query, key, value = (x[:1] for x in features(fewer(backend, 12, 7), fewer(backend, 13, 8)))
    k, iterations = fewer(backend, 5, 3), fewer(backend, 8, 1)
    _, field = scram_attention(
        query, key, value, k=k, selection="mode", separation=(3, 4), method=method, iterations=iterations,
        return_field=True, backend=backend,
    )  # fmt: skip
    place = field.coordinates()[0, 0].flatten(2)
    for one in range(k):
        for other in range(one):
            far = (place[one] - place[other]).abs() >= torch.tensor([3, 4])[:, None]
            assert (far.any(0) | (field.index[0, 0, one].flatten() < 0)).all()


def test_three_blobs() -> None:
    """The paper's Figure 3: top-mode's keys lie in all three blobs, top-max's on the strongest."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    centers, heights = ((7, 8), (22, 6), (18, 24)), (1.0, 0.8, 0.7)
    blobs = [torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 18) for y, x in centers]
    key = sum(height * blob for height, blob in zip(heights, blobs, strict=True))[None, None]
    query = torch.full((1, 1, 32, 32), 8.0)
    held = {}
    for selection, more in (("max", {}), ("mode", {"separation": 9})):
        _, field = scram_attention(query, key, key, k=3, selection=selection, return_field=True, **more)
        y, x = field.coordinates()[0, 0].flatten(2).unbind(1)
        near = [((y - b) ** 2 + (x - a) ** 2 <= 16).any(0).double().mean() for b, a in centers]
        held[selection] = [float(share) for share in near]
    assert held["mode"] == pytest.approx([1, 1, 1], abs=0.02)
    assert held["max"] == pytest.approx([1, 0, 0], abs=0.02)


@pytest.mark.parametrize("method", ["auto", "patchmatch", "repeated"])
@pytest.mark.parametrize("name", ["camera", "astronaut", "coffee"])
def test_the_argmax_is_kept_on_low_rank_maps(name: str, method: str) -> None:
    """The paper's Figure 2: queries and keys whose products are a picture at rank 4; 98 % of the best keys are kept."""
    picture = photograph(name, slice(100, 228), slice(150, 278)).mean((0, 1))
    u, s, v = torch.linalg.svd(picture)
    query, key = (x[:, :4].mul(s[:4].sqrt()).T[None] for x in (u, v.T))
    best = (query[0].T @ key[0]).argmax(1)
    for selection in ("max", "mode") if method == "auto" else ("max",):
        _, field = scram_attention(query, key, key, k=4, selection=selection, method=method, return_field=True)
        assert (field.index[0, 0] == best).any(0).double().mean() >= 0.98


# Non-local means: any f, any normalization.


def test_classical_non_local_means(backend: str) -> None:
    image = normals(1, 3, 7, 8)
    found = scram_attention(image, image, image, k=56, patch_size=3, similarity="l2", temperature=9.0, backend=backend)
    torch.testing.assert_close(found, full_attention(image, image, image, patch_size=3, temperature=9.0), **EXACT)


@pytest.mark.parametrize("normalization", ["sum", "count", "none", "function"])
def test_equation_4(normalization: str, backend: str) -> None:
    query, key, value = features(5, 6)
    allowed = mask(2, 5, 6, share=0.7)
    constant = {"function": lambda f: f.square().sum(2)}.get(normalization, normalization)
    output, field = scram_attention(
        query, key, value, k=7, weighting=lambda s: torch.relu(s + 0.5), normalization=constant, num_heads=2,
        temperature=2.0, key_mask=allowed, return_field=True, backend=backend,
    )  # fmt: skip
    q, k, v = (x.unflatten(1, (2, -1)).flatten(3) for x in (query, key, value))
    score = torch.einsum("bhci,bhcj->bhij", q, k) / 2**0.5 / 2.0
    chosen = torch.zeros_like(score, dtype=torch.bool)
    chosen.scatter_(3, field.index.flatten(3).transpose(2, 3).long(), True)
    weight = torch.relu(score + 0.5) * chosen
    divisor = {
        "sum": weight.sum(3), "count": chosen.sum(3), "none": torch.ones(2, 2, 30), "function": weight.square().sum(3)
    }[normalization]  # fmt: skip
    expected = torch.einsum("bhij,bhcj->bhci", weight / divisor.unsqueeze(3), v).nan_to_num()
    torch.testing.assert_close(output, expected.flatten(1, 2).unflatten(2, (5, 6)), **EXACT)


def test_the_exponential_as_a_weighting_is_the_softmax(backend: str) -> None:
    query, key, value = features(5, 6)
    settings: dict[str, Any] = {"k": 4, "expand": 1, "is_causal": "strict", "temperature": 0.5, "backend": backend}
    found = scram_attention(query, key, value, weighting=torch.exp, **settings)
    torch.testing.assert_close(found, scram_attention(query, key, value, **settings), **EXACT)
    assert (found[..., 0, 0] == 0).all()


@pytest.mark.parametrize("similarity", ["l1", "cosine", "dot", "pointwise"])
def test_any_similarity(similarity: str, backend: str) -> None:
    query, key, value = features(5, 6)
    settings: dict[str, Any] = {"similarity": SIMILARITIES[similarity], "temperature": 2.0, "backend": backend}
    found = scram_attention(query, key, value, k=30, **settings)
    expected = patch_attention(query, key, value, k=30, patch_size=1, method="exact", **settings)
    torch.testing.assert_close(found, expected, **EXACT)


# Gradients.


@pytest.mark.parametrize(
    "settings",
    [
        {"expand": 1, "num_heads": 2},
        {"selection": "mode", "separation": 2, "expand": (0, 1), "similarity": "l2", "temperature": 4.0},
        {"is_causal": "strict", "expand": 1, "similarity": "cosine"},
        {"weighting": torch.sigmoid, "normalization": "count"},
        {"weighting": lambda s: s.square() + 1, "expand": 1, "key_mask": mask(1, 3, 4, share=0.5)},
        {"k": 1, "weighting": torch.exp, "normalization": "none"},
    ],
)
def test_gradients(settings: dict[str, Any], backend: str) -> None:
    query, key, value = (x[..., :3, :4].requires_grad_() for x in features(3, 4, key_batch=1, channels=2))
    settings = {"k": 2, "backend": backend} | settings
    _, field = scram_attention(query, key, value, return_field=True, **settings)
    settings.pop("k")
    assert gradcheck(
        backend, lambda q, k, v: scram_attention(q, k, v, field=field, **settings), (query, key, value), atol=1e-6
    )


def test_gradients_of_all_keys_are_those_of_full_attention(backend: str) -> None:
    inputs = [x.requires_grad_() for x in features(5, 6, key_batch=1)]
    weight = normals(2, 6, 5, 6, seed=5)
    found = torch.autograd.grad((scram_attention(*inputs, k=30, backend=backend) * weight).sum(), inputs)
    full = full_attention(*inputs, patch_size=1, similarity="scaled_dot")
    expected = torch.autograd.grad((full * weight).sum(), inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


# Forms of input.


@pytest.mark.parametrize("ratio", [2, 3])
def test_value_at_a_multiple_of_the_keys_size(ratio: int, backend: str) -> None:
    query, key, _ = features(5, 6)
    value = normals(2, 4, 5 * ratio, 6 * ratio)
    settings: dict[str, Any] = {"k": 2, "expand": 1, "num_heads": 2, "backend": backend}
    output = scram_attention(query, key, value, **settings)
    assert output.shape == value.shape
    for y, x in product(range(ratio), repeat=2):
        part = scram_attention(query, key, value[..., y::ratio, x::ratio], **settings)
        torch.testing.assert_close(output[..., y::ratio, x::ratio], part, **EXACT)


@pytest.mark.parametrize("estimator", [None, "snis", "mh"])
@pytest.mark.parametrize("size", [(1,), (37,), (1, 7), (3, 2, 5)])
def test_odd_sizes(size: tuple[int, ...], estimator: str | None, backend: str) -> None:
    query, key, value = features(*size)
    expand = 0 if estimator else 1
    output = scram_attention(query, key, value, k=1, estimator=estimator, expand=expand, samples=5, backend=backend)
    assert output.shape == (2, 6, *size)
    assert output.isfinite().all()


@pytest.mark.parametrize("estimator", [None, "snis", "mh"])
def test_strides_do_not_matter(estimator: str | None, backend: str) -> None:
    inputs = features(5, 6)
    settings: dict[str, Any] = {"estimator": estimator, "expand": 0 if estimator else 1, "backend": backend}
    assert torch.equal(scram_attention(*(strided(x) for x in inputs), **settings), scram_attention(*inputs, **settings))


@pytest.mark.parametrize("estimator", [None, "snis", "mh"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype: torch.dtype, estimator: str | None, backend: str) -> None:
    # Similarities of several thousand: their exponentials exceed every precision.
    query, key, value = (60 * x for x in features(8, 9))
    half = [x.to(dtype).requires_grad_() for x in (query, key, value)]
    settings: dict[str, Any] = {"k": 4, "estimator": estimator, "samples": 16, "backend": backend}
    output = scram_attention(*half, **settings)
    assert output.dtype == dtype
    assert output.isfinite().all()
    wide = scram_attention(*(x.detach().float() for x in half), **settings)
    torch.testing.assert_close(output.float(), wide, **TOLERANCE[dtype])
    output.float().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in half)


def test_queries_without_keys_get_zero(backend: str) -> None:
    query, key, value = (x.requires_grad_() for x in features(5, 6))
    none = torch.zeros(1, 5, 6, dtype=torch.bool)
    for estimator, masks in product((None, "snis", "mh"), ({"key_mask": none}, {"query_mask": none})):
        output = scram_attention(query, key, value, estimator=estimator, samples=4, backend=backend, **masks)
        assert (output == 0).all()
        grads = torch.autograd.grad(output.sum(), (query, key, value), allow_unused=True)
        assert all(grad is None or (grad == 0).all() for grad in grads)


def test_nan_counts_as_no_key(backend: str) -> None:
    query, key, value = features(5, 6)
    key[:, :, 2, 3] = torch.nan
    for estimator in (None, "snis", "mh"):
        expand = 0 if estimator else 2
        output = scram_attention(query, key, value, k=2, expand=expand, estimator=estimator, samples=8, backend=backend)
        assert output.isfinite().all()


@pytest.mark.parametrize("estimator", [None, "snis", "mh"])
def test_batch_items_do_not_know_each_other(estimator: str | None, backend: str) -> None:
    query, key, value = features(7, 6)
    settings: dict[str, Any] = {"estimator": estimator, "num_heads": 2, "seed": 5, "backend": backend}
    together = scram_attention(query, key, value, **settings)
    alone = scram_attention(query[1:], key[1:], value[1:], **settings)
    assert torch.equal(together[1:], alone)


@given(
    size=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    k=st.integers(1, 4),
    radius=st.integers(0, 3),
    selection=st.sampled_from(["max", "mode"]),
    causal=st.sampled_from([False, True, "strict"]),
    share=st.sampled_from([0.2, 1.0]),
    seed=st.integers(0, 9),
)
def test_keys_are_a_set_and_weights_sum_to_one(
    size: list[int], k: int, radius: int, selection: str, causal: Any, share: float, seed: int
) -> None:
    query, key, value = (normals(1, 4, *size, seed=seed + n) for n in range(3))
    k = min(k, query[0, 0].numel())
    key_mask = mask(1, *size, share=share, seed=seed)
    _, diagnostics = scram_attention(
        query, key, value, k=k, selection=selection, expand=radius, is_causal=causal, key_mask=key_mask,
        return_diagnostics=True,
    )  # fmt: skip
    keys, weights = diagnostics.samples[0, 0].flatten(1), diagnostics.weights[0, 0].flatten(1)
    for i in range(keys.shape[1]):
        held = keys[:, i][keys[:, i] >= 0].tolist()
        assert len(set(held)) == len(held)
        assert all(key_mask.flatten()[j] for j in held)
        assert not causal or all(j + (causal == "strict") <= i for j in held)
    some = (keys >= 0).any(0)
    torch.testing.assert_close(weights.sum(0), some.double(), **EXACT)


def test_the_layer_is_the_function(backend: str) -> None:
    query, key, value = features(5, 6)
    settings: dict[str, Any] = {
        "k": 2,
        "selection": "mode",
        "separation": 3,
        "expand": 1,
        "num_heads": 2,
        "backend": backend,
    }
    layer = ScramAttention(**settings)
    assert torch.equal(layer(query, key, value), scram_attention(query, key, value, **settings))
    output, field, diagnostics = layer(query, key, value, return_field=True, return_diagnostics=True)
    assert torch.equal(layer(query, key, value, field=field), output)
    assert diagnostics.samples.shape == (2, 2, 18, 5, 6)
    again = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
    assert torch.equal(again(query, key, value), output)
    assert "k=2, selection='mode', expand=1" in repr(layer)
    assert not list(layer.parameters())


@pytest.mark.parametrize("settings", [{}, {"expand": 1}, {"estimator": "snis"}, {"estimator": "mh"}])
def test_a_given_field_is_used_as_far_as_it_is_admitted(settings: dict[str, Any], backend: str) -> None:
    query, key, value = features(5, 6)
    best = match(query, key, k=4, similarity="scaled_dot", backend=backend)
    twice = MatchField(best.index[:, :, [0, 1, 1]], best.similarity[:, :, [0, 1, 1]], best.key_shape)
    _, diagnostics = scram_attention(
        query, key, value, field=twice, is_causal=True, return_diagnostics=True, backend=backend, **settings
    )
    assert (diagnostics.samples <= torch.arange(30).view(5, 6)).all()
    if "estimator" not in settings:
        once = MatchField(best.index[:, :, :2], best.similarity[:, :, :2], best.key_shape)
        outputs = [scram_attention(query, key, value, field=x, backend=backend, **settings) for x in (once, twice)]
        torch.testing.assert_close(*outputs, **EXACT)


def test_a_start_is_used() -> None:
    query, key, value = features(12, 13)
    best = match(query, key, k=3, similarity="scaled_dot", method="exact")
    settings: dict[str, Any] = {"method": "patchmatch", "iterations": 0, "return_field": True}
    _, field = scram_attention(query, key, value, init=best, **settings)
    assert torch.equal(field.index, best.index)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"selection": "best"}, "selection: got 'best'; allowed are None, 'max', 'mode'"),
        ({"separation": 3}, "separation: got 3, which only selection='mode' keeps; got None"),
        ({"selection": "mode", "separation": -1}, "separation: expected an integer of at least 0, or 2 of them"),
        ({"expand": -1}, "expand: expected an integer of at least 0, or 2 of them"),
        ({"expand": (1, 1, 1)}, "2 of them (one for each spatial dimension), got (1, 1, 1)"),
        ({"estimator": "gibbs"}, "estimator: got 'gibbs'; allowed are None, 'snis', 'mh'"),
        ({"estimator": "snis", "expand": 1}, "expand: estimator='snis' draws keys around the modes itself"),
        (
            {"estimator": "mh", "weighting": torch.relu},
            "weighting, normalization: estimator='mh' estimates the softmax",
        ),
        ({"estimator": "mh", "normalization": "count"}, "leave both out, or the estimator"),
        ({"normalization": "max"}, "normalization: got 'max'; allowed are 'sum', 'count', 'none'"),
        ({"samples": 0}, "samples: expected an integer of at least 1"),
        ({"chains": 0}, "chains: expected an integer of at least 1"),
        ({"scale": 0}, "scale: expected a number above 0, or 2 of them (one for each spatial dimension), got 0"),
        ({"scale": (1.0, "wide")}, "scale: expected a number above 0"),
        ({"alpha": 1.5}, "alpha: expected a number from 0 to 1, got 1.5"),
        ({"iterations": -1}, "iterations: expected an integer of at least 0"),
        ({"iterations": None}, "iterations: expected an integer of at least 0"),
        ({"is_causal": "before"}, "is_causal: got 'before'; allowed are True, False and 'strict'"),
        ({"is_causal": True, "method": "guided"}, "method: 'guided' makes its tree of all keys"),
        ({"temperature": 0}, "temperature: expected a number above 0, got 0"),
        ({"num_heads": 3}, "num_heads: got 3, which does not divide the 4 channels of query"),
        ({"method": "fast"}, "method: got 'fast'; allowed are 'auto', 'exact', 'guided', 'patchmatch', 'repeated'"),
        ({"field": 3}, "field: expected a MatchField, got int"),
        ({"backend": "cuda"}, "backend: got 'cuda'; allowed are 'reference', 'cpu', 'gpu' and None"),
        ({"max_offset": -1}, "max_offset: expected an integer of at least 0"),
        ({"seed": -1, "estimator": "snis"}, "seed: expected an integer of at least 0"),
    ],
)
def test_what_is_wrong_is_said(wrong: dict[str, Any], message: str) -> None:
    query = normals(2, 4, 9, 8, dtype=torch.float32)
    with pytest.raises(ValueError, match=re.escape(message)):
        scram_attention(query, query, query, **wrong)


def test_a_pointwise_similarity_without_a_derivative_cannot_train(backend: str) -> None:
    similarity = pointwise_similarity(lambda q, k: -abs(q - k))
    query = normals(1, 2, 5, 5).requires_grad_()
    output = scram_attention(query, query, query, similarity=similarity, expand=1, backend=backend)
    with pytest.raises(RuntimeError, match="has no derivative"):
        output.sum().backward()


@pytest.mark.parametrize("settings", [{}, {"expand": 1}, {"estimator": "snis", "samples": 8}, {"estimator": "mh"}])
def test_more_modes_than_keys(settings: dict[str, Any]) -> None:
    query, key = normals(1, 4, 5, 6, dtype=torch.float32), normals(1, 4, 2, 3, seed=1, dtype=torch.float32)
    output = scram_attention(query, key, key, k=7, **settings)
    assert output.isfinite().all()
    if not settings:
        torch.testing.assert_close(output, scram_attention(query, key, key, k=6))
