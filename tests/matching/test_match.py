"""The public search: known answers, recall on photographs, and what each argument means."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn import MatchField, match, pointwise_similarity
from patchattn.ops.methods import EXACT_BELOW
from patchattn.progress import watch_progress
from tests.cases import PAIRS, SIMILARITIES, TOLERANCE, fewer, normals, photograph

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

METHODS = ("exact", "guided", "patchmatch")


@pytest.fixture(scope="module")
def photographs() -> dict[str, tuple[Tensor, Tensor]]:
    """Query and key: two views of a scene, two parts of one picture, one picture with itself far away."""
    rows = slice(200, 264)
    return {
        "astronaut": (
            photograph("astronaut", rows, slice(180, 244)),
            photograph("astronaut", slice(190, 260), slice(200, 260)),
        ),
        "coffee": (photograph("coffee", rows, slice(200, 264)), photograph("coffee", rows, slice(280, 344))),
        "camera": (photograph("camera", slice(60, 124), rows), photograph("camera", slice(120, 184), rows)),
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(60,), (12, 15), (8, 7, 9)])
def test_a_moved_image_gives_the_shift(backend: str, size: tuple[int, ...], method: str) -> None:
    size = tuple(fewer(backend, n, n // 2 + 3) for n in size)
    image = normals(1, 3, *(n + 2 for n in size))
    query = image[(..., *(slice(0, n) for n in size))]
    key = image[(..., *(slice(2, n + 2) for n in size))]
    field = match(
        query, key, patch_size=3, method=method, iterations=fewer(backend, 12, 6), padding_mode="valid", backend=backend
    )
    inner = tuple(slice(3, n - 1) for n in size)
    offsets = field.offsets()[(0, 0, 0, slice(None), *inner)]
    similarity = field.similarity[(0, 0, 0, *inner)]
    found = (offsets == -2).all(0)
    assert torch.equal(found, similarity == 0)
    assert found.double().mean() >= (1 if method == "exact" else 0.95)


def test_more_matches_are_the_next_best() -> None:
    query = torch.tensor([[[0.0, 10.0]]])
    key = torch.tensor([[[3.0, 9.0, 1.0, -2.0]]])
    field = match(query, key, k=4)
    assert field.index[0, 0].T.tolist() == [[2, 3, 0, 1], [1, 0, 2, 3]]
    assert field.similarity[0, 0].T.tolist() == [[-1, -4, -9, -81], [-1, -49, -81, -144]]
    assert (field.k, field.query_shape, field.key_shape) == (4, (2,), (4,))


@pytest.mark.parametrize("name", ["astronaut", "coffee", "camera"])
def test_recall_on_photographs(name: str, photographs: dict[str, tuple[Tensor, Tensor]]) -> None:
    query, key = photographs[name]
    exact = match(query, key, k=3, patch_size=7, method="exact")
    fields = [match(query, key, k=3, patch_size=7, method="patchmatch", iterations=n) for n in (1, 5, 20)]
    ratios = [float(field.similarity.mean() / exact.similarity.mean()) for field in fields]
    hits = [float((field.index[:, :, :1] == exact.index).any(2).double().mean()) for field in fields]
    # No match is better than exact's, and a few iterations come close.
    assert all((field.similarity <= exact.similarity + 1e-5).all() for field in fields)
    assert 1 <= ratios[2] <= ratios[1] <= ratios[0]
    assert hits[0] <= hits[1] <= hits[2]
    assert ratios[1] < 1.25
    assert ratios[2] < 1.15
    assert hits[1] > 0.3
    assert hits[2] > 0.45


@pytest.mark.parametrize("name", ["astronaut", "coffee", "camera"])
def test_recall_of_the_guided_search(name: str, photographs: dict[str, tuple[Tensor, Tensor]]) -> None:
    query, key = photographs[name]
    exact = match(query, key, k=3, patch_size=7, method="exact")
    fields = [match(query, key, k=3, patch_size=7, method="guided", iterations=n) for n in (0, 1, 2)]
    ratios = [float(field.similarity.mean() / exact.similarity.mean()) for field in fields]
    hits = [float((field.index[:, :, 0] == exact.index[:, :, 0]).double().mean()) for field in fields]
    assert all((field.similarity <= exact.similarity + 1e-5).all() for field in fields)
    assert 1 <= ratios[2] <= ratios[1] <= ratios[0]
    assert ratios[2] < 1.04
    assert hits[2] > 0.8


@pytest.mark.needs("cpu")
def test_queries_of_a_lattice_hear_from_each_other(photographs: dict[str, tuple[Tensor, Tensor]]) -> None:
    """The neighbors beside are masked out; those next to them say where to look."""
    query, key = photographs["astronaut"]
    rows, columns = torch.meshgrid(*(torch.arange(size) for size in query.shape[2:]), indexing="ij")
    exact = match(query, key, k=3, patch_size=7, method="exact")
    for chosen in ((rows + columns) % 2 == 0, (rows % 2 == 0) & (columns % 2 == 0), rows % 2 == 1):
        found = match(query, key, k=3, patch_size=7, method="guided", query_mask=chosen[None])
        assert torch.equal(found.index[0, 0, 0] >= 0, chosen)
        ratio = found.similarity[..., chosen].mean() / exact.similarity[..., chosen].mean()
        hits = (found.index[:, :, 0] == exact.index[:, :, 0])[..., chosen].double().mean()
        assert 1 <= float(ratio) < 1.1  # 1.5 where no query hears from another
        assert float(hits) > 0.75  # 0.6 there


@pytest.mark.needs("cpu")
def test_the_guided_search_in_slabs(
    photographs: dict[str, tuple[Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large images are searched a slab of rows at a time; seams cost little."""
    query, key = photographs["astronaut"]
    settings: dict[str, Any] = {"k": 3, "patch_size": 7, "method": "guided"}
    whole = match(query, key, **settings)
    monkeypatch.setattr("patchattn.kernels.cpu.guided.SLAB", 1)
    parts = match(query, key, **settings)
    assert not torch.equal(parts.index, whole.index)
    assert (parts.index >= 0).all()
    assert 0.99 < float(parts.similarity.mean() / whole.similarity.mean()) < 1.02


def test_white_noise_is_searched_by_patchmatch() -> None:
    """A few numbers cannot stand for patches that no two numbers of are related."""
    query, key = normals(1, 3, 40, 40, dtype=torch.float32), normals(1, 3, 40, 40, seed=1, dtype=torch.float32)
    found, other = (match(query, key, k=3, patch_size=7, method=method) for method in ("guided", "patchmatch"))
    assert torch.equal(found.index, other.index)
    assert torch.equal(found.similarity, other.similarity)


@pytest.mark.parametrize("similarity", ["l1", "pointwise"])
def test_guided_search_by_what_it_cannot_project(
    similarity: str, photographs: dict[str, tuple[Tensor, Tensor]]
) -> None:
    """Numbers rank by squared distance; what is returned is the best by the similarity asked for."""
    settings: dict[str, Any] = {"k": 3, "patch_size": 7, "similarity": SIMILARITIES[similarity]}
    query, key = (image[..., :40] for image in photographs["astronaut"])
    exact = match(query, key, method="exact", **settings)
    found = match(query, key, method="guided", **settings)
    assert float(found.similarity.mean() / exact.similarity.mean()) < 1.04


@pytest.mark.parametrize("similarity", ["l1", "cosine", "scaled_dot"])
@pytest.mark.parametrize(("method", "iterations"), [("guided", 2), ("patchmatch", 10)])
def test_recall_by_other_similarities(
    similarity: str, method: str, iterations: int, photographs: dict[str, tuple[Tensor, Tensor]]
) -> None:
    query, key = photographs["astronaut"]
    query, key = query - 0.5, key - 0.5
    settings: dict[str, Any] = {"k": 1, "patch_size": 5, "similarity": similarity}
    exact = match(query, key, method="exact", **settings)
    found = match(query, key, method=method, iterations=iterations, **settings)
    by_chance = match(query, key, method="patchmatch", iterations=0, **settings)
    assert (found.similarity <= exact.similarity + 1e-5).all()
    missing = (exact.similarity - found.similarity).mean()
    assert missing < 0.1 * (exact.similarity - by_chance.similarity).mean()


def test_a_warm_start_improves(photographs: dict[str, tuple[Tensor, Tensor]]) -> None:
    query, key = photographs["coffee"]
    settings: dict[str, Any] = {"k": 2, "patch_size": 7, "method": "patchmatch"}
    first = match(query, key, iterations=5, **settings)
    kept = match(query, key, iterations=0, init=first, **settings)
    assert torch.equal(kept.index, first.index)
    assert torch.equal(kept.similarity, first.similarity)
    # The next frame: a little noise.
    frame = (query + 0.01 * torch.randn(query.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    warm = match(frame, key, iterations=1, init=first, **settings)
    cold = match(frame, key, iterations=1, **settings)
    assert warm.similarity.mean() > 0.9 * cold.similarity.mean()  # both negative
    again = match(query, key, iterations=2, init=first, seed=1, **settings)
    assert (again.similarity >= first.similarity).all()
    assert (again.similarity > first.similarity).any()


@pytest.mark.parametrize("k", [1, 5])
def test_a_start_with_another_number_of_matches(k: int) -> None:
    query, key = PAIRS["2d_sizes"].features(normals)
    init = match(query, key, k=3, patch_size=3)
    field = match(query, key, k=k, patch_size=3, method="patchmatch", iterations=0, init=init)
    kept = min(k, 3)
    # The start is exact, so nothing drawn at random comes before it.
    assert torch.equal(field.index[:, :, :kept], init.index[:, :, :kept])
    assert torch.equal(field.similarity[:, :, :kept], init.similarity[:, :, :kept])


def test_heads_search_on_their_own() -> None:
    query, key = normals(2, 6, 7, 8), normals(2, 6, 8, 7, seed=1)
    field = match(query, key, k=2, patch_size=3, num_heads=3, method="exact")
    assert field.index.shape == (2, 3, 2, 7, 8)
    for head in range(3):
        part = slice(2 * head, 2 * head + 2)
        alone = match(query[:, part], key[:, part], k=2, patch_size=3, method="exact")
        assert torch.equal(field.index[:, head : head + 1], alone.index)
        assert torch.equal(field.similarity[:, head : head + 1], alone.similarity)
    assert not torch.equal(field.index[:, 0], field.index[:, 1])


@pytest.mark.parametrize("method", METHODS)
def test_one_key_for_the_whole_batch(method: str) -> None:
    query, key = PAIRS["2d_shared"].features(normals)
    shared = match(query, key, k=2, patch_size=3, method=method)
    repeated = match(query, key.expand(2, -1, -1, -1), k=2, patch_size=3, method=method)
    assert torch.equal(shared.index, repeated.index)
    assert torch.equal(shared.similarity, repeated.similarity)


@pytest.mark.parametrize("method", METHODS)
def test_valid_leaves_out_what_sticks_out(backend: str, method: str) -> None:
    query, key = normals(1, 2, 9, 8), normals(1, 2, 8, 10, seed=1)
    field = match(query, key, k=2, patch_size=(5, 3), method=method, padding_mode="valid", backend=backend)
    inside = torch.zeros(9, 8, dtype=torch.bool)
    inside[2:-2, 1:-1] = True
    assert torch.equal(field.index[0, 0, 0] >= 0, inside)
    y, x = field.coordinates()[0, 0, 0][:, inside]
    assert ((y >= 2) & (y < 6) & (x >= 1) & (x < 9)).all()
    # What the patches hold does not depend on padding.
    patches = [
        x.unfold(2, 5, 1).unfold(3, 3, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2) for x in (query, key)
    ]
    best = -(patches[0][:, None] - patches[1]).square().sum(2).min(1).values
    found = field.similarity[0, 0, 0][inside]
    if method == "exact":
        torch.testing.assert_close(found, best, **TOLERANCE[torch.float64])
    else:
        assert (found <= best + 1e-9).all()


def test_borders_match_too() -> None:
    image = normals(1, 3, 12, 10)
    field = match(image, image, patch_size=5, method="exact")
    assert torch.equal(field.index[0, 0, 0].flatten(), torch.arange(120).int())


def test_auto_is_exact_for_few_keys_and_guided_for_many() -> None:
    query = normals(1, 1, 6, 6, dtype=torch.float32)
    for keys, method in ((EXACT_BELOW, "exact"), (EXACT_BELOW + 1, "guided")):
        key = normals(1, 1, 1, keys, seed=1, dtype=torch.float32)
        chosen, wanted = match(query, key, seed=3), match(query, key, seed=3, method=method)
        assert torch.equal(chosen.index, wanted.index)
    assert not torch.equal(chosen.index, match(query, key, method="exact").index)


def test_the_seed_alone_changes_the_field() -> None:
    query, key = normals(1, 2, 30, 31), normals(1, 2, 31, 30, seed=1)
    settings: dict[str, Any] = {"patch_size": 3, "method": "patchmatch", "iterations": 1}
    first, again = (match(query, key, **settings) for _ in range(2))
    other = match(query, key, seed=1, **settings)
    assert torch.equal(first.index, again.index)
    assert not torch.equal(first.index, other.index)


def test_offsets_and_coordinates() -> None:
    index = torch.tensor([7, -1, 0, 11], dtype=torch.int32).view(1, 1, 1, 2, 2)
    field = MatchField(index, torch.zeros(1, 1, 1, 2, 2), (3, 4))
    coordinates = field.coordinates()
    assert coordinates.dtype == torch.int64
    assert coordinates[0, 0, 0].flatten(1).T.tolist() == [[1, 3], [-1, -1], [0, 0], [2, 3]]
    # Query (0, 0), (0, 1), (1, 0), (1, 1) of 2 x 2 lie at (0, 1), (0, 3), (2, 1), (2, 3) of 3 x 4.
    assert field.offsets()[0, 0, 0].flatten(1).T.tolist() == [[1, 2], [0, 0], [-2, -1], [0, 0]]


@pytest.mark.parametrize("size", [(13,), (4, 7), (2, 3, 5)])
def test_offsets_at_one_size_are_plain_differences(size: tuple[int, ...]) -> None:
    query, key = normals(1, 2, *size), normals(1, 2, *size, seed=1)
    field = match(query, key, k=2)
    home = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"))
    assert torch.equal(field.offsets(), field.coordinates() - home)
    flat = torch.zeros_like(field.index, dtype=torch.int64)
    for d, n in enumerate(size):
        flat = flat * n + field.coordinates().select(3, d)
    assert torch.equal(flat, field.index.long())


@pytest.mark.parametrize("method", METHODS)
def test_a_similarity_of_ones_own(backend: str, method: str) -> None:
    query, key = (x.round() for x in PAIRS["2d_shared"].on(backend).features(normals))
    own = pointwise_similarity(lambda q, k: -((q - k) * (q - k)))
    settings: dict[str, Any] = {"k": 2, "patch_size": 3, "iterations": fewer(backend, 2, 1), "method": method}
    expected = match(query, key, backend=backend, **settings)
    found = match(query, key, similarity=own, backend=backend, **settings)
    if method == "guided":
        # PatchMatch improves on what squared distances have found.
        assert (found.similarity >= expected.similarity).all()
    else:
        assert torch.equal(found.index, expected.index)
        assert torch.equal(found.similarity, expected.similarity)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_in_single(method: str, dtype: torch.dtype) -> None:
    query, key = (x.to(dtype) for x in PAIRS["2d_sizes"].features(normals, channels=32))
    found = match(query, key, k=2, patch_size=5, method=method)
    expected = match(query.float(), key.float(), k=2, patch_size=5, method=method)
    assert found.similarity.dtype == torch.float32
    assert torch.equal(found.index, expected.index)
    assert torch.equal(found.similarity, expected.similarity)


def test_exact_keeps_its_precision_far_from_zero(photographs: dict[str, tuple[Tensor, Tensor]]) -> None:
    query, key = (x[..., ::2, ::2] for x in photographs["astronaut"])
    found = match(100 + query, 100 + key, k=3, patch_size=7, method="exact")
    expected = match((100 + query).double(), (100 + key).double(), k=3, patch_size=7, method="exact")
    torch.testing.assert_close(found.similarity, expected.similarity.float(), rtol=1e-5, atol=1e-6)


def test_no_gradient_and_no_change_of_the_inputs() -> None:
    query, key = (x.requires_grad_() for x in PAIRS["2d"].features(normals))
    before = query.detach().clone(), key.detach().clone()
    field = match(query, key, k=2, patch_size=3)
    assert not field.similarity.requires_grad
    assert torch.equal(query, before[0])
    assert torch.equal(key, before[1])


@pytest.mark.needs("cpu")  # the reference is for short work, and tells nothing
@pytest.mark.parametrize("method", METHODS)
def test_progress_is_told(method: str) -> None:
    query, key = PAIRS["2d"].features(normals)
    steps: list[tuple[int, int]] = []
    with watch_progress(lambda done, total: steps.append((done, total))):
        match(query, key, num_heads=2, method=method)
    match(query, key, method=method)
    shares = [done / total for done, total in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize("masked", ["query_mask", "key_mask"])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_match_is_answered_without_a_search(backend: str, method: str, masked: str) -> None:
    image = normals(1, 2, 40, 41, dtype=torch.float32)
    settings: dict[str, Any] = {"k": 3, "patch_size": 7, "method": method, "num_heads": 2, "backend": backend}
    steps: list[tuple[int, int]] = []
    with watch_progress(lambda done, total: steps.append((done, total))):
        field = match(image, image, **settings, **{masked: torch.zeros(1, 40, 41, dtype=torch.bool)})
    assert not steps
    assert field.index.shape == (1, 2, 3, 40, 41)
    assert (field.index == -1).all()
    assert (field.similarity == -torch.inf).all()
    assert (field.coordinates() == -1).all()
    assert (field.offsets() == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_match_in_one_item_of_a_batch(backend: str, method: str) -> None:
    size = fewer(backend, 9, 7), fewer(backend, 10, 6)
    query, key = normals(2, 2, *size), normals(2, 2, *size, seed=1)
    key_mask = torch.ones(2, *size, dtype=torch.bool)
    key_mask[0] = False
    settings: dict[str, Any] = {"k": 2, "patch_size": 3, "iterations": fewer(backend, 2, 1), "backend": backend}
    field = match(query, key, method=method, key_mask=key_mask, **settings)
    assert (field.index[0] == -1).all()
    alone = match(query[1:], key[1:], method=method, **settings)
    assert torch.equal(field.index[1:], alone.index)


@pytest.mark.parametrize("method", ["guided", "patchmatch"])
def test_one_match_has_nothing_to_be_apart_from(method: str, backend: str) -> None:
    size = fewer(backend, 12, 7), fewer(backend, 11, 6)
    query, key = normals(1, 3, *size), normals(1, 3, *size, seed=1)
    settings: dict[str, Any] = {"method": method, "iterations": fewer(backend, 2, 1), "backend": backend}
    field = match(query, key, min_separation=4, **settings)
    assert torch.equal(field.index, match(query, key, **settings).index)


def test_runs_for_one_match_each_are_apart(backend: str) -> None:
    query, key = normals(2, 3, 12, 11), normals(2, 3, 13, 14, seed=1)
    k, iterations = fewer(backend, 5, 3), fewer(backend, 5, 1)
    for separation in (0, (3, 4)):
        field = match(
            query, key, k=k, method="repeated", iterations=iterations, min_separation=separation, backend=backend
        )
        least = torch.tensor([1, 1] if separation == 0 else separation)[:, None, None]
        place = field.coordinates()
        for one in range(k):
            for other in range(one):
                apart = ((place[:, :, one] - place[:, :, other]).abs() >= least).any(2)
                assert (apart | (field.index[:, :, one] < 0)).all()
        assert (field.similarity[:, :, :-1] >= field.similarity[:, :, 1:]).all()


@pytest.mark.parametrize("method", ["exact", "guided", "patchmatch", "repeated"])
def test_more_matches_than_keys(backend: str, method: str) -> None:
    query, key = normals(2, 4, 5, 6, dtype=torch.float32), normals(2, 4, 2, 3, seed=1, dtype=torch.float32)
    all_, more = (match(query, key, k=k, method=method, num_heads=2, backend=backend) for k in (6, 9))
    assert more.index.shape == more.similarity.shape == (2, 2, 9, 5, 6)
    assert torch.equal(more.index[:, :, :6], all_.index)
    assert torch.equal(more.similarity[:, :, :6], all_.similarity)
    assert (more.index[:, :, 6:] == -1).all()
    assert (more.similarity[:, :, 6:] == -torch.inf).all()
    if method == "exact":
        assert torch.equal(all_.index.sort(2).values[0, 0, :, 0, 0], torch.arange(6).int())
