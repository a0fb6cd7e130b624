"""Fields as PyTorch handles them: moved, copied, and as trees of tensors."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from patchattn import MatchField, ScramDiagnostics, match, scram_attention
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
