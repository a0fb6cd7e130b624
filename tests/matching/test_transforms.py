"""Matches that are rotated, scaled and mirrored: the canvas of copies, the search on it, and the field."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from patchattn import MatchField, majority_vote, match, prepare, scram_attention
from patchattn.canvas import CanvasLayout, Transform
from patchattn.matching.warp import draw
from tests.cases import normals

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

QUARTERS = (0, 90, 180, 270)


def waves(y: Tensor, x: Tensor) -> Tensor:
    return torch.sin(y / 6) + torch.cos(x / 5)


def image_of_waves(height: int, width: int) -> Tensor:
    return waves(*torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij"))[
        None, None
    ]


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("quarter", range(4))
def test_quarter_turns_and_mirrors_are_found_exactly(quarter: int, mirror: bool, backend: str) -> None:
    image = normals(1, 2, 6, 7)
    seen = image.flip(3) if mirror else image
    key = seen.rot90(quarter, (2, 3))  # counterclockwise
    field = match(image, key, patch_size=3, rotations=QUARTERS, mirror=True, method="exact", backend=backend)
    assert field.transform is not None
    inner = (0, 0, 0, slice(1, -1), slice(1, -1))  # at the border reflection makes patches that look alike turned
    assert (field.similarity == 0).all()
    assert (field.transform.angle[inner] == 90 * quarter).all()
    assert (field.transform.mirror[inner] == mirror).all()
    positions = torch.arange(42).view(1, 1, 6, 7)
    moved = (positions.flip(3) if mirror else positions).rot90(quarter, (2, 3)).flatten()
    assert (moved[field.index[inner].long()] == positions[inner[1:]]).all()
    assert torch.equal(field.transform.coordinates()[inner], field.coordinates()[inner].double())


def test_translations_alone_are_an_ordinary_search(backend: str) -> None:
    query, key = normals(2, 4, 5, 6), normals(1, 4, 6, 5, seed=1)
    settings = {"k": 3, "patch_size": 3, "num_heads": 2, "method": "exact", "backend": backend}
    for padding in ("reflect", "replicate", "zeros", "valid"):
        plain = match(query, key, padding_mode=padding, **settings)
        field = match(query, key, padding_mode=padding, rotations=(0,), **settings)
        assert torch.equal(field.index, plain.index)
        torch.testing.assert_close(field.similarity, plain.similarity)


@pytest.mark.parametrize(
    "transform", [Transform(30, 1), Transform(-45, 1.4, True), Transform(10, 0.7), Transform(0, 2)]
)
def test_copies_show_the_key_where_the_layout_says(transform: Transform) -> None:
    layout = CanvasLayout((24, 31), (Transform(), transform), (2, 2))
    canvas = draw(image_of_waves(24, 31), layout, "reflect", "cpu")
    y, x = layout.positions(torch.arange(canvas.numel()).view(canvas.shape[2:]))
    seen = layout.whole_patches((5, 5))
    assert seen.sum() > 24 * 31 // 8
    assert (canvas[0, 0] - waves(y, x))[seen].abs().max() < 0.03
    nearest = layout.nearest()
    assert torch.equal(nearest[seen], ((y + 0.5).floor() * 31 + (x + 0.5).floor())[seen].int())
    # A step on the canvas is a step of the matrix in the key.
    matrix, number = torch.tensor(transform.matrix).double(), layout.number()
    for axis, at in enumerate((y, x)):
        step = (at[1:] - at[:-1])[(number[1:] == 1) & (number[:-1] == 1)]
        assert (step - matrix[axis, 0]).abs().max() <= 2 / 256


def test_values_at_twice_the_size_lie_upon_the_key() -> None:
    layout = CanvasLayout((16, 18), (Transform(20, 1.2),), (1, 1))
    fine = torch.nn.functional.interpolate(image_of_waves(16, 18), scale_factor=2, mode="bicubic")
    coarse = torch.nn.functional.avg_pool2d(draw(fine, layout, "replicate", "cpu", ratio=2), 2)
    seen = layout.whole_patches((3, 3))
    assert (coarse - draw(image_of_waves(16, 18), layout, "replicate", "cpu"))[0, 0][seen].abs().max() < 0.03


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
def test_drawing_is_differentiable(padding: str) -> None:
    layout = CanvasLayout((4, 5), (Transform(30, 1.5), Transform(90, 1), Transform(10, 0.7, True)), (1, 1))
    image = normals(1, 1, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: draw(x, layout, padding, "cpu"), image, fast_mode=True)
    nan = image.detach().clone()
    nan[0, 0, 0, 0] = torch.nan
    assert 0 < draw(nan, layout, padding, "cpu").isnan().float().mean() < 0.7, "NaN stays where it is"


@pytest.mark.parametrize("backend", ["cpu", "reference"])  # not gpu: the search of a canvas is that of an image
def test_every_method_and_similarity_finds_transformed_copies(backend: str) -> None:
    key = normals(1, 3, 40, 40, dtype=torch.float32)
    query = key.rot90(-1, (2, 3))[..., 8:24, 6:30]
    for similarity in ("l2", "l1", "cosine"):
        field = match(
            query, key, patch_size=5, similarity=similarity, rotations=(0, 90), method="exact", backend=backend
        )
        assert (field.transform.angle == 90)[..., 2:-2, 2:-2].all()
    for method in ("guided", "patchmatch"):
        field = match(query, key, patch_size=5, rotations=(0, 90), method=method, iterations=8, backend=backend)
        assert (field.transform.angle == 90)[..., 2:-2, 2:-2].double().mean() > 0.5


def test_backends_agree(backend: str) -> None:
    query, key = normals(2, 2, 5, 6), normals(1, 2, 6, 5, seed=1)
    mask = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(0)) < 0.6
    settings = {"k": 2, "patch_size": 3, "rotations": (0, 40), "scales": (0.8, 1.3), "method": "exact"}
    found, expected = (match(query, key, key_mask=mask, backend=b, **settings) for b in (backend, "reference"))
    torch.testing.assert_close(found.similarity, expected.similarity)
    # At the border, reflection makes patches that are equal but for rounding.
    assert (found.transform.place == expected.transform.place).double().mean() > 0.9
    chosen = mask[:, None, None].flatten(3).expand(2, 1, 2, 30).gather(3, found.index.flatten(3).long())
    assert chosen.all(), "masked keys are not matched"


@pytest.fixture
def field() -> MatchField:
    image = normals(1, 2, 8, 9, dtype=torch.float32)
    return match(image, image.rot90(1, (2, 3)), k=3, patch_size=3, rotations=(0, 45, 90), scales=(1, 0.8), mirror=True)


def test_fields_are_saved_moved_and_sorted(field: MatchField, tmp_path: Path) -> None:
    field.save(tmp_path / "field.npz")
    loaded = MatchField.load(tmp_path / "field.npz")
    assert loaded.transform.layout == field.transform.layout
    assert torch.equal(loaded.transform.place, field.transform.place)
    assert torch.equal(field.to(torch.float64).detach().cpu().transform.place, field.transform.place)
    leaves, form = torch.utils._pytree.tree_flatten(field)
    assert len(leaves) == 3
    assert torch.utils._pytree.tree_unflatten(leaves, form).transform.layout == field.transform.layout
    square = normals(1, 2, 8, 8, dtype=torch.float32)
    others = match(square, square, k=4, patch_size=3, rotations=(0, 90)).without_self()
    assert ((others.index >= 0) == (others.transform.place >= 0)).all()
    assert not ((others.offsets() == 0).all(3) & (others.index >= 0)).any()
    assert (others.transform.number[others.index < 0] == -1).all()


def test_damaged_transforms_are_refused(field: MatchField, tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "field.npz"
    field.save(path)
    with np.load(path) as arrays:
        whole = dict(arrays)
    for name, wrong in (
        ("place", whole["place"][..., :2]),
        ("transforms", whole["transforms"][:0]),
        ("transforms", np.zeros((2, 3))),
        ("margin", np.array([-1, 1])),
    ):
        np.savez(path, **{**whole, name: wrong})
        with pytest.raises(ValueError, match=rf"no whole field \({name} "):
            MatchField.load(path)


def test_a_search_goes_on_from_a_field(field: MatchField) -> None:
    image = normals(1, 2, 8, 9, dtype=torch.float32)
    settings = {"k": 3, "patch_size": 3, "method": "patchmatch", "iterations": 0}
    again = match(
        image, image.rot90(1, (2, 3)), init=field, rotations=(0, 45, 90), scales=(1, 0.8), mirror=True, **settings
    )
    assert (again.similarity >= field.similarity - 1e-5).all()
    plain = match(image, image, **settings)
    assert (match(image, image, init=plain, rotations=(90, 0), **settings).similarity >= plain.similarity - 1e-5).all()
    with pytest.raises(ValueError, match=r"^init: its matches are translations, which are not among"):
        match(image, image, init=plain, rotations=(90,), **settings)
    with pytest.raises(ValueError, match=r"^init: it was found with other rotations"):
        match(image, image.rot90(1, (2, 3)), init=field, rotations=(0, 90), **settings)
    with pytest.raises(ValueError, match=r"^init: its matches are rotated, scaled or mirrored"):
        match(image, image.rot90(1, (2, 3)), init=field, **settings)


def test_what_knows_translations_only_says_so(field: MatchField) -> None:
    with pytest.raises(ValueError, match=r"^field: its matches are rotated, scaled or mirrored, which is not known"):
        majority_vote(field, 3)
    query, key = normals(1, 2, 8, 9, dtype=torch.float32), normals(1, 2, 9, 8, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"^field: its matches are rotated"):
        scram_attention(query, key, key, field=field)
    with pytest.raises(ValueError, match=r"^key: it was prepared without rotations, scales and mirror; give the key"):
        match(query, prepare(key, patch_size=3), rotations=(0, 90))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotations": ()}, r"^rotations: expected a sequence of at least one number, got \(\)"),
        ({"rotations": 90}, r"^rotations: expected a sequence of at least one number, got 90"),
        ({"scales": (0.01,)}, r"^scales: expected numbers from 0\.1 to 10"),
        ({"scales": (float("nan"),)}, r"^scales: expected"),
        ({"mirror": 1}, r"^mirror: expected True or False, got 1"),
        ({"mirror": True, "max_offset": 3}, r"^max_offset: not with rotations, scales or mirror"),
        ({"mirror": True, "is_causal": True}, r"^is_causal: not with"),
        ({"mirror": True, "k": 2, "min_separation": 3}, r"^min_separation: not with"),
    ],
)
def test_wrong_transforms_are_refused(settings: dict[str, object], message: str) -> None:
    image = normals(1, 2, 6, 6)
    with pytest.raises(ValueError, match=message):
        match(image, image, **settings)


def test_only_images_are_transformed() -> None:
    line = normals(1, 2, 12)
    with pytest.raises(ValueError, match=r"^rotations, scales, mirror: only images can be transformed"):
        match(line, line, mirror=True)


def test_nothing_in_the_batch() -> None:
    key = normals(1, 2, 6, 6)
    assert match(normals(0, 2, 5, 5), key, patch_size=3, rotations=(0, 30)).index.shape == (0, 1, 1, 5, 5)
    assert match(normals(2, 2, 0, 5), key, patch_size=3, rotations=(0, 30)).transform.angle.shape == (2, 1, 1, 0, 5)
