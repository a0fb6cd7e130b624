"""`similarity_at`: similarities at matches, for the weights of other operators than the softmax."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn import MatchField, attend, match, scram_attention, similarity_at
from tests.attention.dense import patches, similarities
from tests.cases import SIMILARITIES, TOLERANCE, gradcheck, normals, strided

pytestmark = pytest.mark.usefixtures("one_thread")

HEADS = 2


def images(*size: int) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (normals(2, 4, *size, seed=seed) for seed in range(3))
    return query, key, value


def everything(size: tuple[int, int]) -> MatchField:
    keys = size[0] * size[1]
    index = torch.arange(keys, dtype=torch.int32).view(1, 1, keys, 1, 1).expand(2, HEADS, keys, *size).contiguous()
    return MatchField(index, torch.zeros(index.shape), size)


@pytest.mark.parametrize("similarity", ["l2", "dot", "scaled_dot", "cosine"])
def test_they_are_those_of_all_pairs(backend: str, similarity: Any) -> None:
    query, key, _ = images(3, 5)
    q, k = (patches(x, (3, 1), "replicate", HEADS) for x in (query, key))
    found = similarity_at(
        strided(query), key, everything((3, 5)), patch_size=(3, 1), similarity=similarity, padding_mode="replicate",
        backend=backend,
    )  # fmt: skip
    torch.testing.assert_close(found.flatten(3).transpose(2, 3), similarities(q, k, similarity))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_they_are_those_of_the_search_and_have_gradients(backend: str, similarity: str) -> None:
    query, key, _ = (x.requires_grad_() for x in images(2, 3))
    kind: Any = SIMILARITIES[similarity]
    options: dict[str, Any] = {"similarity": kind, "backend": backend, "patch_size": (1, 3)}
    field = match(query, key, k=2, num_heads=HEADS, max_offset=0, **options)  # one place is empty
    found = similarity_at(query, key, field, **options)
    torch.testing.assert_close(found, field.similarity, **TOLERANCE[torch.float64])
    assert gradcheck(backend, lambda q, k: similarity_at(q, k, field, **options)[:, :, 0], (query, key))


def test_dot_products_over_their_number(backend: str) -> None:
    """Non-local networks' third form: the sum of (q . k) v over N, and its gradient."""
    query, key, value = (x.requires_grad_() for x in images(3, 4))
    scores = similarity_at(query, key, everything((3, 4)), similarity="dot", backend=backend)
    found = attend(everything((3, 4)), scores / 12, value, backend=backend)
    q, k, v = (x.unflatten(1, (HEADS, 2)).flatten(3).transpose(2, 3) for x in (query, key, value))
    expected = (q @ k.transpose(2, 3) / 12 @ v).transpose(2, 3).reshape(value.shape)
    torch.testing.assert_close(found, expected, **TOLERANCE[torch.float64])
    for ours, theirs in zip(
        *(torch.autograd.grad(x.square().sum(), (query, key, value)) for x in (found, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_rectified_means_of_the_best_are_those_of_scram(backend: str) -> None:
    query, key, value = images(4, 5)
    options: dict[str, Any] = {"similarity": "dot", "backend": backend}
    field = match(query, key, k=5, num_heads=HEADS, **options)
    found = attend(field, similarity_at(query, key, field, **options).relu(), value, normalize=True, backend=backend)
    same = scram_attention(query, key, value, field=field, num_heads=HEADS, weighting=torch.relu, **options)
    torch.testing.assert_close(found, same, **TOLERANCE[torch.float64])


def test_bad_input() -> None:
    query, key, _ = images(3, 4)
    with pytest.raises(ValueError, match="field: expected a MatchField, got Tensor"):
        similarity_at(query, key, torch.zeros(1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"field: its key_shape is \(3, 5\), but key has size \(3, 4\)"):
        similarity_at(query, key, everything((3, 5)))
    with pytest.raises(ValueError, match="patch_size: expected odd numbers"):
        similarity_at(query, key, everything((3, 4)), patch_size=2)
