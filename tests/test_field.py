"""Fields as PyTorch handles them: moved, copied, and as trees of tensors."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from patchattn import MatchField, ScramDiagnostics, match, patch_attention, scram_attention
from tests.cases import normals


@pytest.fixture
def field() -> MatchField:
    image = normals(1, 3, 6, 7, dtype=torch.float32)
    return match(image, image.roll(2, 3), k=2)


def same(one: MatchField, other: MatchField) -> bool:
    tensors = torch.equal(one.index, other.index) and torch.equal(one.similarity, other.similarity)
    return tensors and one.key_shape == other.key_shape


def test_moved(field: MatchField) -> None:
    double = field.to(torch.float64)
    assert double.index.dtype == torch.int32
    assert double.similarity.dtype == torch.float64
    assert field.to("meta").index.is_meta
    assert field.to(device="cpu", dtype=torch.float32, non_blocking=True).key_shape == (6, 7)
    assert same(field.cpu().detach(), field)
    assert not field.is_pinned()
    with pytest.raises(ValueError, match="dtype: expected that of similarities"):
        field.to(dtype=torch.int64)  # PyTorch's own function would take complex numbers


def test_copied(field: MatchField) -> None:
    file = io.BytesIO()
    torch.save(field, file)
    file.seek(0)
    for other in (copy.deepcopy(field), pickle.loads(pickle.dumps(field)), torch.load(file, weights_only=False)):
        assert same(other, field)


def test_iterating_gives_the_coordinates_of_the_best_first(field: MatchField) -> None:
    best, second = field
    assert best.shape == (1, 1, 2, 6, 7)
    assert torch.equal(best, field.coordinates()[:, :, 0])
    assert torch.equal(second, field.coordinates()[:, :, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_saved_and_loaded(field: MatchField, tmp_path: Path, dtype: torch.dtype) -> None:
    index, similarity = field.index.clone(), field.similarity.clone()
    index[0, 0, 1, 2, 3], similarity[0, 0, 1, 2, 3] = -1, -torch.inf
    saved = MatchField(index, similarity.to(dtype).requires_grad_(), field.key_shape)
    saved.save(tmp_path / "field.npz")
    loaded = MatchField.load(tmp_path / "field.npz")
    assert same(loaded, saved)
    assert loaded.similarity.dtype == dtype
    assert not loaded.similarity.requires_grad
    loaded.similarity.zero_()  # it can be written to
    assert [path.name for path in tmp_path.iterdir()] == ["field.npz"]


@pytest.mark.parametrize("shape", [(1, 2, 20), (2, 2, 4, 5, 6)])
def test_fields_of_any_dimension_are_saved(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = normals(*shape, dtype=torch.float32)
    saved = match(images, images.flip(2), k=2, num_heads=2)
    saved.save(str(tmp_path / "field.npz"))
    assert same(MatchField.load(str(tmp_path / "field.npz")), saved)


def test_a_write_that_fails_leaves_what_was_there(
    field: MatchField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "field.npz"
    field.save(path)
    before = path.read_bytes()

    def full(file: io.BufferedWriter, **_: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left on device"):
        field.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["field.npz"]


def test_damaged_files_are_refused(field: MatchField, tmp_path: Path) -> None:
    path = tmp_path / "field.npz"
    field.save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(field.similarity.numpy().tobytes()) + 100] ^= 0x10
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    for damaged in (b"", b"no field", single.getvalue(), whole[: len(whole) // 2], whole[:-10], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"^path: .*field\.npz is no whole field \(.+\); expected a file that MatchFi"
        ):
            MatchField.load(path)
    with pytest.raises(FileNotFoundError):
        MatchField.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"index": None}, "index is not a file in the archive"),
        ({"key_shape": np.array([6.0, 7.0])}, r"key_shape is \[6\.0, 7\.0\]"),
        ({"key_shape": np.array([0, 7])}, r"key_shape is \[0, 7\]"),
        ({"key_shape": np.array([5, 7])}, "index holds 0 to 41, the key 35 positions"),
        ({"index": np.zeros((1, 1, 2, 6, 7), np.int64)}, r"index is int64 of shape \(1, 1, 2, 6, 7\)"),
        ({"index": np.zeros((2, 6), np.int32)}, r"index is int32 of shape \(2, 6\)"),
        (
            {"similarity": np.zeros((1, 1, 1, 6, 7))},
            r"similarity is float64 of shape \(1, 1, 1, 6, 7\), index of shape",
        ),
        ({"dtype": np.array("int64")}, "dtype is 'int64'"),
        ({"index": np.array([object()])}, "allow_pickle=False"),
    ],
)
def test_what_is_no_field_is_refused(
    field: MatchField, tmp_path: Path, changed: dict[str, object], reason: str
) -> None:
    path = tmp_path / "field.npz"
    field.save(path)
    with np.load(path) as archive:
        arrays = {**archive, **changed}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=rf"is no whole field \(.*{reason}"):
        MatchField.load(path)


def test_a_tree_of_tensors(field: MatchField) -> None:
    leaves, form = pytree.tree_flatten(field)
    assert len(leaves) == 2
    assert same(pytree.tree_unflatten(leaves, pytree.treespec_loads(pytree.treespec_dumps(form))), field)
    assert same(pytree.tree_map(lambda tensor: tensor.clone(), {"a": [field]})["a"][0], field)


def test_diagnostics_are_a_tree() -> None:
    image = normals(1, 3, 6, 7, dtype=torch.float32)
    _, diagnostics = scram_attention(image, image, image, estimator="mh", samples=4, return_diagnostics=True)
    moved = pytree.tree_map(lambda tensor: tensor.to("meta"), diagnostics)
    assert isinstance(moved, ScramDiagnostics)
    assert moved.r_hat is not None
    assert moved.r_hat.is_meta
    assert moved.variance is None


class Matched(nn.Module):
    def forward(self, query: Tensor, key: Tensor) -> MatchField:
        return match(query, key, k=2, patch_size=3)


def test_an_exported_program_returns_fields_of_any_size() -> None:
    height, width = (torch.export.Dim(axis, min=8, max=512) for axis in ("height", "width"))
    image = normals(1, 3, 12, 12, dtype=torch.float32)
    shapes = {name: {2: height, 3: width} for name in ("query", "key")}
    file = io.BytesIO()
    torch.export.save(torch.export.export(Matched(), (image, image.clone()), dynamic_shapes=shapes), file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    other = normals(1, 3, 9, 14, dtype=torch.float32)
    assert same(loaded(other, other.roll(1, 2)), match(other, other.roll(1, 2), k=2, patch_size=3))


@pytest.mark.parametrize("radius", [0, 1])
def test_without_the_query_itself(radius: int) -> None:
    image = normals(2, 4, 6, 7, dtype=torch.float32)
    near = (2 * radius + 1) ** 2
    field = match(image, image, k=3 + near, num_heads=2, method="exact")
    others = field.without_self(radius)
    for item, head, y, x in ((0, 0, 0, 0), (1, 1, 3, 4), (1, 0, 5, 6)):
        rows, columns = field.coordinates()[item, head, :, :, y, x].T
        kept = [m for m in range(3 + near) if max(abs(rows[m] - y), abs(columns[m] - x)) > radius]
        rest = 3 + near - len(kept)
        assert rest >= 1
        expected = [*field.index[item, head, kept, y, x].tolist(), *[-1] * rest]
        assert others.index[item, head, :, y, x].tolist() == expected
        expected = [*field.similarity[item, head, kept, y, x].tolist(), *[-torch.inf] * rest]
        assert others.similarity[item, head, :, y, x].tolist() == expected


def test_without_the_query_itself_needs_one_size(field: MatchField) -> None:
    with pytest.raises(ValueError, match=r"queries of size \(6, 7\) in keys of size \(7, 6\)"):
        MatchField(field.index, field.similarity, (7, 6)).without_self()
    with pytest.raises(ValueError, match="radius: expected an integer of at least 0, got -1"):
        field.without_self(-1)


def test_best_keeps_the_highest_scores_and_drops_what_has_none() -> None:
    field = MatchField(torch.tensor([[[[7], [3], [-1], [5]]]], dtype=torch.int32), torch.zeros(1, 1, 4, 1), (9,))
    score = torch.tensor([[[[1.0], [torch.nan], [9.0], [2.0]]]])
    best = field.best(3, score)
    assert best.index.flatten().tolist() == [5, 7, -1]
    assert best.similarity.flatten().tolist() == [0, 0, -torch.inf]
    assert field.best(9, score).k == 4
    by_similarity = MatchField(field.index, score, (9,)).best(1)
    assert by_similarity.index.item() == 5
    assert by_similarity.similarity.item() == 2
    with pytest.raises(ValueError, match=r"score: expected the index's shape \(1, 1, 4, 1\), got \(1, 1, 4\)"):
        field.best(1, score[..., 0])
    with pytest.raises(ValueError, match="k: expected an integer of at least 1"):
        field.best(0)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2)), min_size=1, max_size=3))
def test_windows_about_positions(sizes: list[tuple[int, int, int]]) -> None:
    query, key, radius = zip(*sizes, strict=True)
    dims = len(sizes)
    home = torch.randint(-2, 7, (2, 1, dims, *query), generator=torch.Generator().manual_seed(0))
    field = MatchField.around(home, radius, key)
    everywhere = torch.cartesian_prod(*map(torch.arange, key)).view(-1, dims)
    at = home.movedim(2, -1).flatten(2, -2).unsqueeze(3)  # (2, 1, n, 1, dims)
    expected = ((everywhere - at).abs() <= torch.tensor(radius)).all(-1)
    found = torch.zeros_like(expected, dtype=torch.int64)
    index = field.index.flatten(3).transpose(2, 3).long()
    found = found.scatter_add(3, index.clamp(min=0), (index >= 0).long())
    assert torch.equal(found, expected.long())  # each once
    assert torch.equal(field.similarity == -torch.inf, field.index < 0)


def test_windows_about_positions_that_are_none() -> None:
    with pytest.raises(ValueError, match=r"home: expected int32 or int64 \(B, heads, 2, \*query\)"):
        MatchField.around(torch.zeros(1, 1, 2, 3, 3), 1, (3, 3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="radius: expected an integer of at least 0"):
        MatchField.around(torch.zeros(1, 1, 2, 3, 3, dtype=torch.int64), -1, (3, 3))


def test_a_stack_of_fields_attends_to_all_keys_in_one_softmax() -> None:
    query, frames = normals(1, 4, 5, 6), normals(3, 1, 4, 5, 6, seed=1)
    options: dict[str, Any] = {"similarity": "scaled_dot", "num_heads": 2}
    fields = [match(query, frame, k=30, **options) for frame in frames]
    stacked = MatchField.stack(fields)
    assert stacked.index.shape == (1, 2, 90, 1, 5, 6)
    key = torch.stack(tuple(frames), 2)
    found = patch_attention(query.unsqueeze(2), key, key, field=stacked, patch_size=1, **options)
    q, k = query.view(1, 2, 2, 30).transpose(2, 3), key.view(1, 2, 2, 90).transpose(2, 3)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, k).transpose(2, 3).reshape(1, 4, 1, 5, 6)
    torch.testing.assert_close(found, expected)
    two = MatchField.stack([field.best(2) for field in fields])
    for number, (field, part) in enumerate(zip(fields, two.index.unflatten(2, (3, 2)).unbind(2), strict=True)):
        assert torch.equal(part[:, :, :, 0], field.index[:, :, :2] + 30 * number)
    missing = MatchField(torch.full_like(fields[0].index, -1), fields[0].similarity, (5, 6))
    assert (MatchField.stack([fields[0], missing]).index[:, :, 30:] == -1).all()


def test_fields_that_do_not_stack() -> None:
    field = MatchField(torch.zeros(1, 1, 2, 3, dtype=torch.int32), torch.zeros(1, 1, 2, 3), (4,))
    other = MatchField(field.index, field.similarity, (5,))
    with pytest.raises(ValueError, match=r"fields: .* got \(1, 1, 2, 3\) in \(4,\), .* in \(5,\)"):
        MatchField.stack([field, other])
    with pytest.raises(ValueError, match="got none"):
        MatchField.stack([])
