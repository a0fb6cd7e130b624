"""The reference backend against loops over single positions in plain Python and NumPy, written from the definition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from patchattn.kernels import reference
from patchattn.kernels.reference.padded_image import pad, unpad_gradient
from patchattn.kernels.reference.random import Draws, mix, stream, uniform
from patchattn.problem import Constraints
from patchattn.similarity import pointwise_similarity
from tests.kernels.naive import (
    NUMPY_MODE,
    NaivePatchMatch,
    geometry_of,
    integers,
    mask_of,
    naive_admissible,
    naive_conflict,
    naive_dense,
    naive_mix,
    normals,
    place_of,
    random_index,
)

CHARBONNIER = pointwise_similarity(
    lambda q, k: -((0.5 + (q - k) ** 2) ** 0.5),
    lambda q, k: (-(q - k) / (0.5 + (q - k) ** 2) ** 0.5, (q - k) / (0.5 + (q - k) ** 2) ** 0.5),
)
SIMILARITIES = ["l2", "l1", "dot", "scaled_dot", "cosine", pytest.param(CHARBONNIER, id="charbonnier")]


# ---- similarity ----


def at_index(dense: np.ndarray, index: torch.Tensor) -> np.ndarray:
    flat = index.flatten(3).numpy()
    result = np.full(flat.shape, -np.inf, dense.dtype)
    for b, h, m, i in np.ndindex(*flat.shape):
        if flat[b, h, m, i] >= 0:
            result[b, h, m, i] = dense[b, h, i, flat[b, h, m, i]]
    return result.reshape(index.shape)


SHAPES = {
    "1d": ((2, 4, 7), (2, 4, 5), (3,), 2),
    "2d": ((2, 1, 3, 4), (1, 1, 4, 3), (3, 5), 1),
    "3d": ((1, 2, 3, 2, 3), (1, 2, 3, 3, 2), (3, 1, 3), 2),
}


@pytest.mark.every_pair
@pytest.mark.parametrize("mode", ["reflect", "replicate", "zeros"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_similarity_at_equals_loops(similarity: Any, shape: str, mode: str) -> None:
    query_shape, key_shape, patch, heads = SHAPES[shape]
    geometry = geometry_of(patch, mode, heads, similarity)
    query, key = normals(*query_shape), normals(*key_shape, seed=1)
    index = random_index(math.prod(key_shape[2:]), query_shape[0], heads, 3, *query_shape[2:])
    found = reference.similarity_at(query, key, index, geometry)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, at_index(naive_dense(query, key, geometry), index), rtol=1e-12)


@pytest.mark.every_pair
@pytest.mark.parametrize("mode", ["reflect", "replicate", "zeros"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_similarity_gradient_equals_finite_differences(similarity: Any, shape: str, mode: str) -> None:
    query_shape, key_shape, patch, heads = SHAPES[shape]
    geometry = geometry_of(patch, mode, heads, similarity)
    query, key = normals(*query_shape), normals(*key_shape, seed=1)
    index = random_index(math.prod(key_shape[2:]), query_shape[0], heads, 2, *query_shape[2:])
    grad = normals(*index.shape, seed=2)
    grads = reference.similarity_at_backward(grad.where(index >= 0, torch.nan), query, key, index, geometry)

    def loss() -> float:
        return float((grad * reference.similarity_at(query, key, index, geometry))[index >= 0].sum())

    for tensor, analytic in zip((query, key), grads, strict=True):
        np.testing.assert_allclose(analytic, finite_differences(loss, tensor), rtol=1e-6, atol=1e-6)


def finite_differences(loss: Callable[[], float], tensor: torch.Tensor, step: float = 1e-6) -> torch.Tensor:
    result = torch.empty_like(tensor)
    for place in np.ndindex(*tensor.shape):
        middle = tensor[place].item()
        tensor[place] = middle + step
        above = loss()
        tensor[place] = middle - step
        result[place] = (above - loss()) / (2 * step)
        tensor[place] = middle
    return result


def test_similarity_without_derivative_is_refused() -> None:
    similarity = pointwise_similarity(lambda q, k: -np.maximum(q - k, k - q))
    geometry, x, index = geometry_of((1,), similarity=similarity), normals(1, 1, 3), random_index(3, 1, 1, 1, 3)
    assert reference.similarity_at(x.requires_grad_(), x, index.clamp(min=0), geometry).isfinite().all()
    with pytest.raises(RuntimeError, match=f"similarity: {similarity.name} has no derivative; give one to pointwise_"):
        reference.similarity_at_backward(normals(1, 1, 1, 3), x, x, index, geometry)


def test_zero_patch_has_cosine_zero_and_no_gradient() -> None:
    geometry, query, key = geometry_of((1,), similarity="cosine"), torch.zeros(1, 2, 3), normals(1, 2, 3).float()
    index = torch.zeros(1, 1, 1, 3, dtype=torch.int32)
    assert (reference.similarity_at(query, key, index, geometry) == 0).all()
    for grad in reference.similarity_at_backward(torch.ones(1, 1, 1, 3), query, key, index, geometry):
        assert (grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_for_storage_only(dtype: torch.dtype) -> None:
    geometry, index = geometry_of((3, 3), heads=2), random_index(20, 2, 2, 2, 4, 5)
    query, key, grad = (normals(*shape).to(dtype) for shape in ((2, 4, 4, 5), (1, 4, 5, 4), (2, 2, 2, 4, 5)))
    found = reference.similarity_at(query, key, index, geometry)
    assert torch.equal(found, reference.similarity_at(query.float(), key.float(), index, geometry))
    halves = reference.similarity_at_backward(grad.float(), query, key, index, geometry)
    singles = reference.similarity_at_backward(grad.float(), query.float(), key.float(), index, geometry)
    assert all(torch.equal(half, single.to(dtype)) for half, single in zip(halves, singles, strict=True))
    out, normalizer = reference.attend(found, index, key, (3, 3), 2.0)
    single, expected = reference.attend(found, index, key.float(), (3, 3), 2.0)
    assert torch.equal(out, single.to(dtype))
    assert torch.equal(normalizer, expected)
    grads = reference.attend_backward(query, found, index, key, out, normalizer, (3, 3), 2.0)
    assert [g.dtype for g in grads] == [torch.float32, dtype]


def test_strides_do_not_matter() -> None:
    geometry, index = geometry_of((3, 3)), random_index(20, 2, 1, 2, 4, 5)
    query, key, grad = normals(2, 3, 4, 5), normals(2, 3, 5, 4, seed=1), normals(2, 1, 2, 4, 5, seed=2)
    strided = [x.transpose(1, -1).contiguous().transpose(1, -1) for x in (query, key, grad, index)]
    assert not strided[0].is_contiguous()
    for one, other in zip(
        reference.similarity_at_backward(grad, query, key, index, geometry),
        reference.similarity_at_backward(strided[2], strided[0], strided[1], strided[3], geometry),
        strict=True,
    ):
        assert torch.equal(one, other)
    one, other = (reference.attend(x[2], x[3], x[1], (3, 1), 1.0)[0] for x in ((query, key, grad, index), strided))
    assert torch.equal(one, other)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "zeros"])
def test_padding_equals_numpy_even_beyond_the_image(mode: str) -> None:
    image, radius = normals(2, 1, 4, 3), (5, 1, 2)
    padded = pad(image, radius, mode)
    border = [(0, 0)] + [(r, r) for r in radius]
    assert np.array_equal(padded, np.pad(image, border, mode=NUMPY_MODE[mode]))  # type: ignore[call-overload]
    grad = normals(*padded.shape, seed=1)
    np.testing.assert_allclose((padded * grad).sum(), (image * unpad_gradient(grad, radius, mode)).sum())


# ---- constraints and the exact search ----


def naive_exact(dense: np.ndarray, k: int, query_shape: Any, key_shape: Any, constraints: Constraints) -> Any:
    index = np.full((*dense.shape[:2], k, dense.shape[2]), -1)
    similarity = np.full(index.shape, -np.inf, dense.dtype)
    for b, h, i in np.ndindex(*dense.shape[:3]):
        chosen: list[int] = []
        for j in np.lexsort((np.arange(dense.shape[3]), -dense[b, h, i])).tolist():
            if len(chosen) == k:
                break
            good = dense[b, h, i, j] > -np.inf and naive_admissible(b, i, j, query_shape, key_shape, constraints)
            if good and not any(naive_conflict(j, e, key_shape, constraints) for e in chosen):
                chosen.append(j)
        for m, j in enumerate(chosen):
            index[b, h, m, i], similarity[b, h, m, i] = j, dense[b, h, i, j]
    return index.reshape(*index.shape[:3], *query_shape), similarity.reshape(*index.shape[:3], *query_shape)


def case(
    query: tuple[int, ...], key: tuple[int, ...], patch: tuple[int, ...], k: int = 3, **more: Any
) -> dict[str, Any]:
    return {"query": query, "key": key, "patch": patch, "k": k, **more}


CASES: dict[str, dict[str, Any]] = {
    "1d": case((2, 2, 90), (2, 2, 90), (3,), k=2),
    "1d k=1 dot": case((1, 2, 90), (1, 2, 75), (3,), k=1, similarity="dot"),
    "2d heads and batch": case((2, 4, 8, 9), (2, 4, 8, 9), (3, 3), heads=2),
    "2d sizes differ, shared key": case((2, 1, 6, 7), (1, 1, 9, 11), (3, 1), similarity="l1"),
    "2d large query": case((1, 1, 10, 9), (1, 1, 3, 2), (1, 1), k=5),
    "2d k above number of keys": case((1, 1, 4, 4), (1, 1, 2, 2), (1, 1), k=6),
    "3d": case((2, 2, 3, 5, 6), (2, 2, 4, 6, 5), (1, 3, 3), heads=2, mode="zeros"),
    "masks": case(
        (2, 1, 9, 9), (2, 1, 12, 12), (3, 3), query_mask=mask_of(2, 9, 9), key_mask=mask_of(2, 12, 12, seed=8)
    ),
    "shared masks, few keys": case(
        (2, 1, 9, 9), (2, 1, 10, 9), (1, 1), query_mask=mask_of(1, 9, 9), key_mask=mask_of(1, 10, 9, share=0.3)
    ),
    "no key": case((2, 1, 5, 5), (2, 1, 5, 5), (1, 1), key_mask=torch.stack([mask_of(5, 5), torch.zeros(5, 5) > 0])),
    "causal 1d": case((1, 2, 110), (1, 2, 110), (3,), is_causal=True),
    "causal 2d masked": case((2, 1, 10, 11), (2, 1, 10, 11), (1, 1), is_causal=True, key_mask=mask_of(2, 10, 11)),
    "strictly causal": case((1, 1, 9, 9), (1, 1, 9, 9), (1, 1), is_causal=True, strict=True, key_mask=mask_of(1, 9, 9)),
    "strictly causal, max_offset": case(
        (1, 1, 9, 9), (1, 1, 9, 9), (3, 1), is_causal=True, strict=True, max_offset=(5, 5)
    ),
    "causal 3d": case((1, 1, 5, 5, 5), (1, 1, 5, 5, 5), (1, 1, 1), is_causal=True, min_separation=(2, 1, 2)),
    "max_offset, few": case((1, 1, 8, 9), (1, 1, 8, 9), (3, 3), max_offset=(2, 1)),
    "max_offset, many": case((1, 1, 11, 12), (1, 1, 11, 12), (3, 3), max_offset=(4, 5), k=2),
    "max_offset, sizes differ": case((2, 1, 5, 6), (1, 1, 13, 12), (1, 1), max_offset=(5, 4)),
    "max_offset, causal, masked": case(
        (1, 1, 12, 11), (1, 1, 12, 11), (1, 1), max_offset=(5, 5), is_causal=True, key_mask=mask_of(1, 12, 11)
    ),
    "max_offset 0": case((1, 1, 6, 6), (1, 1, 6, 6), (1, 1), max_offset=(0, 1)),
    "separation": case((1, 2, 9, 9), (1, 2, 9, 9), (1, 1), min_separation=(3, 2), k=4),
    "separation, crowded": case((2, 1, 8), (2, 1, 9), (1,), min_separation=(4,), k=4),
    "separation in one dimension": case((1, 1, 7, 7), (1, 1, 7, 8), (3, 3), min_separation=(0, 3), max_offset=(3, 6)),
    "separation of one": case((1, 1, 7, 7), (1, 1, 7, 8), (3, 3), min_separation=(1, 1)),
    "init": case((2, 2, 8, 9), (2, 2, 9, 9), (1, 3), heads=2, init=5),
    "init, separation": case(
        (1, 1, 8, 9), (1, 1, 9, 9), (1, 3), init=9, min_separation=(2, 3), key_mask=mask_of(1, 9, 9)
    ),
    "init only": case((1, 1, 8, 9), (1, 1, 9, 9), (1, 3), k=2, init=3, iterations=0),
    "start only, drawn": case((1, 2, 9, 9), (1, 2, 9, 9), (1, 1), heads=2, iterations=0),
    "start only, listed": case((1, 1, 8, 8), (1, 1, 8, 8), (1, 1), iterations=0),
    "large k": case((1, 1, 6, 6), (1, 1, 10, 8), (1, 1), k=20, iterations=1),
    "large k, drawn": case((1, 1, 6, 6), (1, 1, 10, 9), (1, 1), k=20, iterations=1),
    "large seed": case((1, 1, 9, 9), (1, 1, 9, 9), (1, 1), seed=0x1234_5678_9ABC_DEF0),
    "negative seed": case((1, 1, 9, 9), (1, 1, 9, 9), (1, 1), seed=-3),
    "scaled_dot": case((1, 6, 9, 9), (1, 6, 9, 9), (3, 3), heads=2, similarity="scaled_dot", mode="replicate"),
    "cosine": case((1, 2, 9, 9), (1, 2, 9, 9), (1, 3), similarity="cosine"),
    "NaN": case((1, 1, 9, 9), (1, 1, 9, 9), (3, 3), nan=True),
}


def prepare(options: dict[str, Any]) -> tuple[Any, ...]:
    options = dict(options)
    # Cosines of whole numbers tie, and their order would be that of rounding errors.
    make = normals if options.get("similarity") == "cosine" else integers
    query, key = make(*options.pop("query")).float(), make(*options.pop("key"), seed=1).float()
    if options.pop("nan", False):
        query[..., 2, 3] = key[..., 5, 5] = torch.nan
    k, heads, mode = options.pop("k"), options.pop("heads", 1), options.pop("mode", "reflect")
    geometry = geometry_of(options.pop("patch"), mode, heads, options.pop("similarity", "l2"))
    iterations, seed, init = options.pop("iterations", 2), options.pop("seed", 5), options.pop("init", None)
    if init is not None:
        init = random_index(math.prod(key.shape[2:]), len(query), heads, init, *query.shape[2:])
    return query, key, k, geometry, Constraints(**options), iterations, seed, init


def assert_same_field(found: tuple[torch.Tensor, torch.Tensor], expected: Any, similarity: Any) -> None:
    assert found[0].dtype == torch.int32
    assert found[1].dtype == torch.float32
    np.testing.assert_array_equal(found[0], expected[0])
    # Sums of whole numbers are exact; normalized patches round, each processor's products in their own order.
    rounding = 4e-7 if similarity.name == "cosine" else 0
    np.testing.assert_allclose(found[1], expected[1], rtol=rounding, atol=rounding)


@pytest.mark.parametrize("name", CASES)
def test_exact_search_equals_loops(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, k, geometry, constraints, *_ = prepare(CASES[name])
    monkeypatch.setattr(reference.exact, "BLOCK_ELEMENTS", 50 * math.prod(key.shape[1:]))
    found = reference.search_exact(query, key, k, geometry, constraints)
    # It measures in float64, and rounds once.
    exact = query.double(), key.double()
    shapes = tuple(query.shape[2:]), tuple(key.shape[2:])
    index, similarity = naive_exact(naive_dense(*exact, geometry), k, *shapes, constraints)
    assert_same_field(found, (index, similarity.astype(found[1].numpy().dtype)), geometry.similarity)
    assert torch.equal(found[1], reference.similarity_at(*exact, found[0], geometry).to(found[1].dtype))


# ---- PatchMatch ----


@pytest.mark.parametrize("name", CASES)
def test_patchmatch_equals_scalar_loops(name: str) -> None:
    query, key, k, geometry, constraints, iterations, seed, init = prepare(CASES[name])
    shapes = tuple(query.shape[2:]), tuple(key.shape[2:])
    dense = naive_dense(query, key, geometry)
    fields = []
    for b, h in np.ndindex(*dense.shape[:2]):
        naive = NaivePatchMatch(dense, b, h, k, shapes, constraints, seed)
        fields.append(naive.run(iterations, None if init is None else init[b, h].flatten(1).numpy()))
    full = (*dense.shape[:2], k, *shapes[0])
    found = reference.search_patchmatch(query, key, k, geometry, constraints, iterations, seed, init)
    assert_same_field(found, [np.stack(part).reshape(full) for part in zip(*fields, strict=True)], geometry.similarity)


def test_init_entries_outside_the_key_are_skipped() -> None:
    query, key, k, geometry, constraints, *_ = prepare(CASES["2d heads and batch"])
    init = torch.full((2, 2, 1, 8, 9), 72, dtype=torch.int32)
    with_init = reference.search_patchmatch(query, key, k, geometry, constraints, 1, 0, init)
    without = reference.search_patchmatch(query, key, k, geometry, constraints, 1, 0, None)
    assert all(torch.equal(one, other) for one, other in zip(with_init, without, strict=True))


def test_field_does_not_depend_on_the_batch() -> None:
    query, key, k, geometry, constraints, *_ = prepare(CASES["2d heads and batch"])
    together = reference.search_patchmatch(query, key, k, geometry, constraints, 2, 0, None)
    alone = reference.search_patchmatch(query[1:], key[1:], k, geometry, constraints, 2, 0, None)
    assert torch.equal(together[0][1:], alone[0])


def test_hash_by_hand() -> None:
    # 1 * 0x7feb352d, ^ its top 17 bits 0xffd6: 0x7febcafb; * 0x846ca68b = 0x422bdf5b_6889f849, of which the low word
    # stays; ^ its top 16 bits 0x6889.
    assert mix(1) == 0x688990C0
    assert mix(0) == 0
    words = torch.tensor([0, 1, 0xFFFFFFFF, 0x80000000])
    assert mix(words).tolist() == [naive_mix(word) for word in words.tolist()]
    naive = NaivePatchMatch(np.zeros((1, 3, 4, 4)), 0, 2, 1, ((4,), (4,)), Constraints(), 2**40 + 9)
    draws = Draws(2**40 + 9, 3, 3, torch.arange(4))
    assert uniform(draws(5), 0, 999)[2].tolist() == [naive.uniform(i, 3, 5, 0, 999) for i in range(4)]
    assert stream(-1, 0, 0) == stream(2**64 - 1, 0, 0)


# ---- attention ----


def naive_attend(similarity: Any, index: Any, value: Any, window: Any, temperature: float) -> tuple[Any, Any]:
    batch, heads, k, *query_shape = index.shape
    key_shape, channels = value.shape[2:], value.shape[1] // heads
    out = np.zeros((batch, value.shape[1], *query_shape))
    log_normalizer = np.full((batch, heads, *query_shape), -np.inf)
    for b, h, *i in np.ndindex(batch, heads, *query_shape):
        votes = []
        for o in itertools.product(*(range(-(size // 2), size // 2 + 1) for size in window)):
            neighbor = tuple(x + y for x, y in zip(i, o, strict=True))
            if not all(0 <= x < size for x, size in zip(neighbor, query_shape, strict=True)):
                continue
            for m in range(k):
                j = index[(b, h, m, *neighbor)]
                if j < 0:
                    continue
                place = tuple(x - y for x, y in zip(place_of(j, key_shape), o, strict=True))
                if all(0 <= x < size for x, size in zip(place, key_shape, strict=True)):
                    votes.append((math.exp(similarity[(b, h, m, *neighbor)] / temperature), place))
        total = sum(weight for weight, _ in votes)
        for weight, place in votes:
            group = slice(h * channels, (h + 1) * channels)
            out[(b, group, *i)] += weight / total * value[(b if len(value) > 1 else 0, group, *place)]
        if votes:
            log_normalizer[(b, h, *i)] = math.log(total)
    return out, log_normalizer


ATTEND = {
    "1d": ((2, 2, 2, 6), (2, 4, 5), (1,)),
    "1d votes": ((2, 2, 2, 6), (1, 4, 5), (5,)),
    "2d": ((2, 1, 3, 3, 4), (1, 3, 4, 3), (1, 1)),
    "2d votes": ((2, 2, 2, 3, 4), (2, 4, 4, 3), (3, 3)),
    "3d votes": ((1, 1, 2, 2, 3, 2), (1, 2, 3, 2, 2), (1, 3, 3)),
}


@pytest.mark.parametrize("name", ATTEND)
def test_attend_equals_loops(name: str) -> None:
    field_shape, value_shape, window = ATTEND[name]
    similarity, value = normals(*field_shape), normals(*value_shape, seed=1)
    index = random_index(math.prod(value_shape[2:]), *field_shape, seed=2)
    index[:, :, :, 0] = -1
    out, log_normalizer = reference.attend(similarity, index, value, window, 0.7)
    expected = naive_attend(similarity.numpy(), index.numpy(), value.numpy(), window, 0.7)
    assert (log_normalizer[:, :, 0] == -torch.inf).all() == (window[0] == 1)
    np.testing.assert_allclose(out, expected[0], atol=1e-12)
    np.testing.assert_allclose(log_normalizer, expected[1], atol=1e-12)


@pytest.mark.parametrize("name", ATTEND)
def test_attend_gradient_equals_finite_differences(name: str) -> None:
    field_shape, value_shape, window = ATTEND[name]
    similarity, value = normals(*field_shape), normals(*value_shape, seed=1)
    index = random_index(math.prod(value_shape[2:]), *field_shape, seed=2)
    index[:, :, :, 0] = -1
    similarity[index < 0] = -torch.inf
    out, log_normalizer = reference.attend(similarity, index, value, window, 0.7)
    grad = normals(*out.shape, seed=3)
    found = reference.attend_backward(grad, similarity, index, value, out, log_normalizer, window, 0.7)

    def loss() -> float:
        return float((grad * reference.attend(similarity, index, value, window, 0.7)[0]).sum())

    assert (found[0][index < 0] == 0).all()
    matched = finite_differences(loss, similarity).where(index >= 0, 0)
    np.testing.assert_allclose(found[0], matched, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found[1], finite_differences(loss, value), rtol=1e-6, atol=1e-8)


def test_no_vote_gives_zero_and_keeps_nan_out() -> None:
    similarity, index = torch.full((1, 1, 2, 3), -torch.inf), torch.full((1, 1, 2, 3), -1, dtype=torch.int32)
    value = torch.full((1, 1, 4), torch.nan)
    out, log_normalizer = reference.attend(similarity, index, value, (3,), 1.0)
    assert (out == 0).all()
    assert (log_normalizer == -torch.inf).all()
    grad = torch.full((1, 1, 3), torch.nan)
    for found in reference.attend_backward(grad, similarity, index, value, out, log_normalizer, (3,), 1.0):
        assert (found == 0).all()


@pytest.mark.parametrize("nothing", [torch.nan, -torch.inf])
def test_nan_and_minus_infinity_weigh_nothing(nothing: float) -> None:
    similarity, value = torch.tensor([[1.0, nothing], [nothing, nothing]])[None, None], torch.tensor([[[2.0, 3.0]]])
    index = torch.tensor([[0, 1], [1, 0]]).int()[None, None]
    out, log_normalizer = reference.attend(similarity, index, value, (1,), 1.0)
    assert out.flatten().tolist() == [2.0, 0.0]
    assert log_normalizer.flatten().tolist() == [1.0, -torch.inf]
    grads = reference.attend_backward(torch.ones(1, 1, 2), similarity, index, value, out, log_normalizer, (1,), 1.0)
    assert (grads[0] == 0).all()
    assert grads[1].flatten().tolist() == [1.0, 0.0]


@pytest.mark.parametrize("keys", [0, 1])
def test_empty_batch(keys: int) -> None:
    query, key, geometry, index = (
        torch.zeros(0, 2, 4),
        torch.zeros(keys, 2, 5),
        geometry_of((3,)),
        torch.zeros(0, 1, 2, 4),
    )
    for found in (
        reference.search_exact(query, key, 2, geometry, Constraints()),
        reference.search_patchmatch(query, key, 2, geometry, Constraints(), 1, 0, None),
    ):
        assert [x.shape for x in found] == [index.shape, index.shape]
    grads = reference.similarity_at_backward(index, query, key, index.int(), geometry)
    assert [x.shape for x in grads] == [query.shape, key.shape]
    out, log_normalizer = reference.attend(index, index.int(), key, (3,), 1.0)
    grads = reference.attend_backward(out, index, index.int(), key, out, log_normalizer, (3,), 1.0)
    assert [x.shape for x in grads] == [index.shape, key.shape]


def test_large_similarities_do_not_overflow() -> None:
    similarity, index = torch.tensor([1e30, 1e30]).reshape(1, 1, 2, 1), torch.tensor([0, 1]).int().reshape(1, 1, 2, 1)
    out, _ = reference.attend(similarity, index, torch.tensor([[[2.0, 4.0]]]), (1,), 1.0)
    assert out.item() == 3.0


def test_backward_sums_many_contributions_to_one_key() -> None:
    index, value = torch.zeros(1, 1, 1, 1000, dtype=torch.int32), torch.ones(1, 1, 3)
    similarity, grad = torch.zeros(1, 1, 1, 1000), torch.arange(1000.0).reshape(1, 1, 1000)
    out, log_normalizer = reference.attend(similarity, index, value, (1,), 1.0)
    _, grad_value = reference.attend_backward(grad, similarity, index, value, out, log_normalizer, (1,), 1.0)
    assert grad_value.flatten().tolist() == [499500.0, 0.0, 0.0]
