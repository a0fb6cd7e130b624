"""The result depends on the inputs and the seed alone: the same bytes whoever computes them, and beside whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from patchattn import match, patch_attention
from tests.cases import COMPILED, fewer, photograph

METHODS = ("guided", "patchmatch", "repeated", "exact")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pair() -> tuple[Tensor, Tensor]:
    """Two views of one scene, large enough for many ranges of work."""
    image = photograph("astronaut", slice(0, 72), slice(150, 260))
    return image[..., :90], image[..., 9:99]


def search(method: str) -> list[Tensor]:
    query, key = pair()
    field = match(query, key, k=3, patch_size=5, method=method, seed=11)
    return [field.index, field.similarity]


def train(aggregate: bool) -> list[Tensor]:
    query, key = (tensor.requires_grad_() for tensor in pair())
    value = key.detach().clone().requires_grad_()
    settings = {"patch_size": 5, "aggregate": aggregate, "method": "patchmatch", "iterations": 2}
    output = patch_attention(query, key, value, **settings)
    output.square().sum().backward()
    return [output.detach(), *(tensor.grad for tensor in (query, key, value) if tensor.grad is not None)]


def work() -> list[Tensor]:
    return search("guided") + search("patchmatch") + train(True)


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("job", [*(partial(search, method) for method in METHODS), lambda: train(False), work])
def test_number_of_threads(job: Callable[[], list[Tensor]]) -> None:
    torch.set_num_threads(1)
    expected = job()
    for count in (2, 5):
        torch.set_num_threads(count)
        assert_same(job(), expected)


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("method", METHODS)
def test_alone_and_inside_a_batch(method: str, compiled: str) -> None:
    size = fewer(compiled, 90, 12)
    query, key = (x[..., :size, :size] for x in pair())
    settings: dict[str, Any] = {"k": fewer(compiled, 3, 2), "patch_size": fewer(compiled, 5, 3), "method": method}
    settings |= {"iterations": fewer(compiled, 5, 1), "seed": 11, "backend": compiled}
    queries = torch.cat([query.flip(2), query, query.flip(3)])
    keys = torch.cat([key, key, key.flip(2)])
    together = match(queries, keys, **settings)
    alone = match(query, key, **settings)
    assert torch.equal(together.index[1:2], alone.index)
    assert torch.equal(together.similarity[1:2], alone.similarity)
    shared = match(queries, key, **settings)
    assert torch.equal(shared.index[1:2], alone.index)


def test_earlier_calls_do_not_matter() -> None:
    expected = search("patchmatch")
    torch.manual_seed(99)
    torch.rand(10)
    assert_same(search("patchmatch"), expected)
    other = match(*pair(), k=3, patch_size=5, method="patchmatch", seed=12)
    assert not torch.equal(other.index, expected[0])


class Jobs(Dataset[list[Tensor]]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, item: int) -> list[Tensor]:
        return work()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_in_a_forked_worker() -> None:
    expected = work()  # the parent's threads have run before the fork
    loader = DataLoader(Jobs(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    for found in loader:
        assert_same(found, expected)
    assert_same(work(), expected)


def test_two_python_threads_at_once() -> None:
    expected = work()
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(work) for _ in range(4)]:
            assert_same(future.result(), expected)
