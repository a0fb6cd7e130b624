"""A prepared key gives the matches of the key, to the bit, and says what it does not serve."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn import MatchField, PatchAttention, match, patch_attention, prepare
from patchattn.kernels import load_backend
from patchattn.matching.prepared_key import PreparedKey
from patchattn.reuse import PreparationsOfOneKey
from tests.cases import COMPILED, fewer, mask, photograph

SEARCH: dict[str, Any] = {"k": 2, "method": "guided"}


@pytest.fixture(params=COMPILED)
def backend(request: pytest.FixtureRequest) -> str:
    """The backends that keep something."""
    load_backend(request.param)
    return str(request.param)


@pytest.fixture(name="key")
def key_(backend: str) -> Tensor:
    rows, columns = fewer(backend, (70, 90), (10, 12))
    return photograph("coffee", slice(60, 60 + rows), slice(100, 100 + columns))


@pytest.fixture
def query(backend: str) -> Tensor:
    rows, columns = fewer(backend, (40, 60), (6, 8))
    return photograph("astronaut", slice(60, 60 + rows), slice(150, 150 + columns))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by the name of whatever is prepared for a prepared key."""
    names: list[Any] = []
    find = PreparationsOfOneKey.find

    def recorded(self: Any, owners: Any, name: Any, make: Any) -> Any:
        def make_and_tell() -> Any:
            names.append(name)
            return make()

        return find(self, owners, name, make_and_tell)

    monkeypatch.setattr(PreparationsOfOneKey, "find", recorded)
    return names


def same(one: MatchField, other: MatchField) -> bool:
    return torch.equal(one.index, other.index) and torch.equal(one.similarity, other.similarity)


@pytest.mark.parametrize(
    ("options", "masked"),
    [
        ({}, False),
        ({"similarity": "dot", "num_heads": 3}, False),
        ({"similarity": "cosine", "padding_mode": "valid"}, True),
        ({"similarity": "l1", "padding_mode": "zeros"}, True),
    ],
)
def test_matches_are_those_of_the_key(
    backend: str, query: Tensor, key: Tensor, options: dict[str, Any], masked: bool
) -> None:
    allowed = mask(1, *key.shape[2:], share=0.7) if masked else None
    options = {"patch_size": 3, "backend": backend, **options}
    prepared = prepare(key, key_mask=allowed, **options)
    for image in fewer(backend, (query, query.flip(3), 100 * query), (query.flip(3),)):
        expected = match(image, key, key_mask=allowed, **options, **SEARCH)
        assert same(match(image, prepared, **SEARCH), expected)


@pytest.mark.parametrize("method", ["exact", "patchmatch", "auto"])
def test_other_methods_take_it_too(backend: str, query: Tensor, key: Tensor, method: Any) -> None:
    prepared = prepare(key, patch_size=3, backend=backend)
    expected = match(query, key, patch_size=3, backend=backend, method=method)
    assert same(match(query, prepared, method=method), expected)


def test_nothing_is_prepared_again(made: list[Any], backend: str, query: Tensor, key: Tensor) -> None:
    prepared = prepare(key, patch_size=3, backend=backend)
    assert len(made) > 0
    match(query, prepared, **SEARCH)  # its patches may be longer than the key's
    before = len(made)
    for rows in (5, 6):
        match(query[:, :, :rows], prepared, **SEARCH)
    assert len(made) == before
    match(1000 * query, prepared, **SEARCH)
    match(1000 * query, prepared, **SEARCH)
    trees = fewer(backend, 0, 1)  # on the CPU they belong to one object, see test_reuse.py
    assert len(made) == before + trees, "a tree of another scale"


def test_memory_is_told(backend: str, key: Tensor) -> None:
    prepared = prepare(key, patch_size=3, backend=backend)
    positions = key.shape[2] * key.shape[3]
    assert 20 * positions < prepared.nbytes < fewer(backend, 200, 2000) * positions
    assert repr(prepared).startswith(f"PreparedKey({tuple(key.shape)}, torch.float32, cpu, similarity='l2', patch_size")
    assert f"nbytes={prepared.nbytes}" in repr(prepared)


def test_a_pickle_holds_what_was_prepared(made: list[Any], backend: str, query: Tensor, key: Tensor) -> None:
    prepared = prepare(key, patch_size=3, backend=backend)
    match(query, prepared, **SEARCH)
    restored: PreparedKey = pickle.loads(pickle.dumps(prepared))
    made.clear()
    assert restored.nbytes == prepared.nbytes
    assert same(match(query, restored, **SEARCH), match(query, key, patch_size=3, backend=backend, **SEARCH))
    assert made == []


@pytest.mark.parametrize("backend", ["cpu"], indirect=True)
def test_threads_share_it(query: Tensor, key: Tensor, backend: str) -> None:
    prepared = prepare(key, patch_size=3, backend=backend)
    images = [query.roll(n, 3) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: match(image, prepared, **SEARCH), images))
    for image, field in zip(images, found, strict=True):
        assert same(field, match(image, key, patch_size=3, backend=backend, **SEARCH))


def test_the_reference_keeps_nothing() -> None:
    query, key = torch.rand(1, 2, 5, 5), torch.rand(1, 2, 6, 6)
    prepared = prepare(key, patch_size=3, backend="reference")
    assert same(match(query, prepared, **SEARCH), match(query, key, patch_size=3, backend="reference", **SEARCH))
    assert prepared.nbytes == 0


def test_moving() -> None:
    prepared = prepare(torch.rand(1, 2, 9, 9), patch_size=3, similarity="dot", key_mask=mask(1, 9, 9, share=0.5))
    assert prepared.to("cpu") is prepared
    moved = prepared.to("meta")
    assert (moved.device.type, moved.patch_size, moved.similarity.name) == ("meta", (3, 3), "dot")
    assert moved.key_mask is not None
    assert moved.key_mask.device.type == "meta"


@pytest.mark.parametrize("batch", [1, 3])
def test_attention_and_its_gradients(backend: str, query: Tensor, key: Tensor, batch: int) -> None:
    value = torch.rand(1, 2, *key.shape[2:])
    prepared = prepare(key, patch_size=3, backend=backend)
    queries = query.expand(batch, -1, -1, -1)
    results = []
    for image in (key, prepared):
        asked = queries.clone().requires_grad_()
        output = patch_attention(asked, image, value, k=2, patch_size=3, backend=backend, method="guided")
        output.square().sum().backward()
        results.append((output.detach(), asked.grad))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_a_layer_takes_it(query: Tensor, key: Tensor) -> None:
    layer = PatchAttention(patch_size=3, k=2, method="guided")
    assert torch.equal(layer(query, prepare(key, patch_size=3), key), layer(query, key, key))


@pytest.mark.parametrize("backend", ["cpu"], indirect=True)
def test_a_key_of_a_batch_of_one_is_prepared_once_for_all_queries(
    made: list[Any], query: Tensor, key: Tensor, backend: str
) -> None:
    queries = torch.cat([query, query.flip(3), query.flip(2)])
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            found = match(queries, key.clone(), patch_size=3, backend=backend, **SEARCH)
    assert 2 <= len(made) < 6
    for n in range(3):
        alone = match(queries[n : n + 1], key, patch_size=3, backend=backend, **SEARCH)
        assert torch.equal(found.index[n], alone.index[0])


@pytest.mark.needs("cpu")
def test_wrong_use() -> None:
    key, allowed = torch.rand(1, 4, 12, 12), torch.ones(1, 12, 12, dtype=torch.bool)
    prepared = prepare(key, patch_size=3, key_mask=allowed)
    for options, message in (
        (
            {"patch_size": 5},
            r"patch_size: got 5, but the key was prepared for \(3, 3\); leave it out, or prepare",
        ),
        ({"similarity": "dot"}, "similarity: got 'dot', but the key was prepared for 'l2'"),
        ({"num_heads": 2}, "num_heads: got 2, but the key was prepared for 1"),
        ({"padding_mode": "zeros"}, "padding_mode: got 'zeros', but the key was prepared for 'reflect'"),
        ({"backend": "reference"}, "backend: got 'reference', but the key was prepared for None"),
        (
            {"key_mask": ~allowed},
            r"key_mask: the key was prepared with another one, or without; give it to prepare",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            match(key, prepared, **options)  # type: ignore[arg-type]
    match(key, prepared, patch_size=[3, 3], similarity="l2", key_mask=allowed, backend=None)
    allowed[:] = False
    with pytest.raises(ValueError, match="or its mask, was changed in place since it was prepared; call prepare"):
        match(key, prepared)
    with pytest.raises(TypeError, match=r"prepare\(\) got an unexpected keyword argument 'patchsize'; is it 'patch_s"):
        prepare(key, patchsize=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="key: expected"):
        prepare(key[0, 0])
    with pytest.raises(ValueError, match="channels as query has, got 4"):
        match(torch.rand(1, 3, 8, 8), prepare(key))


def test_nothing_to_prepare() -> None:
    prepared = prepare(torch.rand(1, 2, 0, 5), patch_size=3)
    assert prepared.nbytes == 0
    assert match(torch.rand(1, 2, 0, 3), prepared).index.shape == (1, 1, 1, 0, 3)
