"""Exact search by box sums finds what measuring pair after pair does, and what the reference finds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchattn import match
from patchattn.kernels import reference
from patchattn.kernels.cpu import exact, exact_boxes
from patchattn.kernels.cpu.constraints import limits_of
from patchattn.kernels.cpu.padded_image import pad_pair
from patchattn.kernels.cpu.patch_similarity import patches_of
from patchattn.problem import Constraints
from tests.cases import geometry, integers, mask, normals

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of queries, of any patches, even where measuring pair after pair would be faster."""
    monkeypatch.setattr(exact_boxes, "CELLS", 120)
    monkeypatch.setattr(exact_boxes, "MIN_SIDE", 3)
    monkeypatch.setattr(exact, "boxes_take_less", lambda *_: True)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    dims = draw(st.integers(1, 3))
    sides = st.lists(st.integers(1, {1: 40, 2: 9, 3: 5}[dims]), min_size=dims, max_size=dims)
    query, is_causal = draw(sides), draw(st.booleans())
    key = query if is_causal else draw(sides)
    patch = draw(st.lists(st.sampled_from([1, 3, 5, 7]), min_size=dims, max_size=dims))
    offset = draw(st.none() | st.lists(st.integers(0, 4), min_size=dims, max_size=dims))
    similarity = draw(st.sampled_from(["l2", "l1", "dot", "scaled_dot"]))
    separation = 2 if offset is None and similarity != "l1" else draw(st.integers(0, 2))
    reflects = all(p // 2 < min(q, k) for p, q, k in zip(patch, query, key, strict=True))
    return {
        "query": query, "key": key, "patch": patch, "similarity": similarity,
        "padding": "reflect" if reflects else "zeros",
        "k": draw(st.integers(1, 6)), "is_causal": is_causal, "max_offset": offset, "min_separation": separation,
        "masks": draw(st.booleans()), "seed": draw(st.integers(0, 99)),
    }  # fmt: skip


@settings(max_examples=40)
@given(problem=problems())
def test_is_the_reference(problem: dict[str, Any]) -> None:
    query = integers(2, 4, *problem["query"], seed=problem["seed"]).float()
    key = integers(1, 4, *problem["key"], seed=problem["seed"] + 1).float()
    similarity = geometry(problem["patch"], problem["padding"], 2, problem["similarity"])
    limits = Constraints(
        query_mask=mask(2, *problem["query"], share=0.7) if problem["masks"] else None,
        key_mask=mask(1, *problem["key"], share=0.7) if problem["masks"] else None,
        is_causal=problem["is_causal"],
        max_offset=None if problem["max_offset"] is None else tuple(problem["max_offset"]),
        min_separation=(problem["min_separation"],) * len(problem["query"]),
    )
    found = exact.search_exact(query, key, problem["k"], similarity, limits)
    expected = reference.search_exact(query, key, problem["k"], similarity, limits)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("sizes", [((11, 12), (11, 12)), ((7, 12), (16, 5))])
@pytest.mark.parametrize("similarity", ["l2", "cosine", "l1"])
def test_is_measuring_one_by_one(
    monkeypatch: pytest.MonkeyPatch, similarity: str, sizes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    query, key = (normals(1, 3, *size, seed=seed) for seed, size in enumerate(sizes))
    more: dict[str, Any] = {"k": 4, "patch_size": (5, 9), "similarity": similarity, "method": "exact", "backend": "cpu"}
    found = match(query, key, max_offset=(4, 3), **more)
    monkeypatch.setattr(exact, "boxes_take_less", lambda *_: False)
    expected = match(query, key, max_offset=(4, 3), **more)
    assert torch.equal(found.index, expected.index)
    torch.testing.assert_close(found.similarity, expected.similarity, rtol=1e-13, atol=1e-13)


def test_large_numbers_and_nan_stay_where_they_are() -> None:
    # A running sum would carry both along, and lose all digits behind the large one.
    image = normals(1, 1, 24, 24).double()
    spoilt = image.clone()
    spoilt[0, 0, 3, 3], spoilt[0, 0, 3, 20] = 1e12, torch.nan
    fields = [match(x, x, k=2, patch_size=5, max_offset=3, method="exact", backend="cpu") for x in (image, spoilt)]
    far = torch.ones(24, 24, dtype=torch.bool)
    far[: 3 + 2 + 2 + 4] = False
    for one, other in zip(*((f.index, f.similarity) for f in fields), strict=True):
        assert torch.equal(one[..., far], other[..., far])
    assert (fields[1].index[0, 0, :, 1:6, 18:23] == -1).all()


def test_equal_patches_are_listed_in_order() -> None:
    tile = normals(1, 1, 4, 4).float()
    image = tile.repeat(1, 1, 4, 4)
    field = match(image, image, k=9, patch_size=3, max_offset=4, method="exact", backend="cpu", padding_mode="zeros")
    inside = field.coordinates()[0, 0, :, :, 5:11, 5:11]
    steps = torch.tensor([-4, 0, 4])
    expected = torch.cartesian_prod(steps, steps)[:, :, None, None]
    offsets = inside - torch.stack(torch.meshgrid(torch.arange(5, 11), torch.arange(5, 11), indexing="ij"))
    assert (offsets == expected).all()


def test_sums_are_chosen_where_they_take_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def are_chosen(patch: int, channels: int, queries: int) -> bool:
        image = torch.zeros(1, channels, 32, 32)
        of = geometry((patch, patch), "reflect", 1, "l2")
        patches = patches_of(*pad_pair(image, image, of, torch.float64), of)
        limits = limits_of(Constraints(max_offset=(5, 5)), 2)
        return exact_boxes.boxes_take_less(exact_boxes.boxes_for(patches, limits), patches, queries, 1024)

    assert are_chosen(7, 3, 1024)
    assert are_chosen(21, 3, 1024 // 4)
    assert not are_chosen(7, 3, 1024 // 25)
    assert not are_chosen(1, 64, 1024)
