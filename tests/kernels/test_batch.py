"""A batch of several heads gives each item what it gets alone, bit for bit, on any number of threads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn.problem import Constraints, PatchGeometry
from patchattn.progress import watch_progress
from patchattn.similarity import resolve_similarity

pytestmark = pytest.mark.needs("cpu")

BATCH, HEADS, SIZE = 3, 2, (9, 11)


def outputs(shared: bool, similarity: str, items: slice) -> list[Tensor]:
    """What every operator makes of some of the batch items; gradients of what they share are left out."""
    from patchattn.kernels import cpu

    generator = torch.Generator().manual_seed(1)
    normals: Callable[..., Tensor] = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    held = 1 if shared else BATCH
    query, key, value = normals(BATCH, 8, *SIZE), normals(held, 8, *SIZE), normals(held, 6, *SIZE)
    index = torch.randint(-1, 99, (BATCH, HEADS, 3, *SIZE), generator=generator, dtype=torch.int32)
    grad, masks = normals(*index.shape), torch.rand(2, BATCH, *SIZE, generator=generator) > 0.3
    query, index, grad, masks = query[items], index[items], grad[items], masks[:, items]
    key, value = (tensor if shared else tensor[items] for tensor in (key, value))
    geometry = PatchGeometry((3, 5), "reflect", HEADS, resolve_similarity(similarity))
    constraints = Constraints(masks[0], masks[1])
    found = cpu.similarity_at(query, key, index, geometry)
    output, normalizer = cpu.attend(found / 20, index, value, (3, 3), 1.0)
    summed = cpu.weighted_sum(grad, index, value)
    backward = (
        cpu.similarity_at_backward(grad, query, key, index, geometry),
        cpu.attend_backward(output, found / 20, index, value, output, normalizer, (3, 3), 1.0),
        cpu.weighted_sum_backward(summed, grad, index, value),
    )
    results = [found, output, normalizer, summed, *(pair[0] for pair in backward)]
    results += [] if shared else [pair[1] for pair in backward]
    results.append(cpu.expand(index, SIZE, (1, 1), constraints))
    results += cpu.sample_mixture(index, SIZE, constraints, (1.5, 1.5), 0.5, 5, 3, torch.float32)
    results += cpu.sample_chains(query, key, index, geometry, constraints, (1.5, 1.5), 1.0, 1, 4, 3)
    settings: tuple[Any, ...] = (3, geometry, constraints, 2, 0, index)
    for search in (cpu.search_guided, cpu.search_patchmatch, cpu.search_repeated):
        results += search(query, key, *settings)
    return results


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("similarity", ["l2", "cosine"])
def test_an_item_does_not_see_the_others(shared: bool, similarity: str) -> None:
    together = outputs(shared, similarity, slice(None))
    for b in range(BATCH):
        for whole, alone in zip(together, outputs(shared, similarity, slice(b, b + 1)), strict=True):
            assert torch.equal(whole[b : b + 1], alone)


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_groups_and_threads_change_nothing(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = outputs(shared, "l2", slice(None))
    threads = torch.get_num_threads()
    monkeypatch.setattr("patchattn.kernels.cpu.batch.GROUP", 2 * 99)
    try:
        for number in (1, 3, 5):
            torch.set_num_threads(number)
            assert all(map(torch.equal, expected, outputs(shared, "l2", slice(None))))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_exact_search_of_many_items_is_shared_out_by_groups_or_by_rows(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty items are four groups: more than enough for one thread and two, too few for three."""
    from patchattn.kernels import cpu

    monkeypatch.setattr("patchattn.kernels.cpu.exact.is_small", lambda *_: False)
    query, key = torch.randn(2, 40, 2, 15, 16, generator=torch.Generator().manual_seed(2))
    geometry, before = PatchGeometry((5, 5), "reflect", 1, resolve_similarity("l2")), torch.get_num_threads()
    steps: list[tuple[int, int]] = []
    try:
        torch.set_num_threads(threads)
        with watch_progress(lambda done, total: steps.append((done, total))):
            index, similarity = cpu.search_exact(query, key, 2, geometry, Constraints())
    finally:
        torch.set_num_threads(before)
    assert steps[-1] == (40, 40)
    assert steps == sorted(steps)
    for b in (0, 7, 8, 39):
        alone = cpu.search_exact(query[b : b + 1], key[b : b + 1], 2, geometry, Constraints())
        assert torch.equal(index[b], alone[0][0])
        assert torch.equal(similarity[b], alone[1][0])


def test_items_that_share_a_key_add_to_its_gradient_in_order() -> None:
    from patchattn.kernels import cpu

    geometry = PatchGeometry((3,), "zeros", 1, resolve_similarity("l2"))
    query, key = torch.randint(0, 9, (2, 4, 2, 30)).double()
    index = torch.randint(0, 30, (4, 1, 2, 30), dtype=torch.int32)
    grad = torch.ones(index.shape, dtype=torch.float64)
    whole = cpu.similarity_at_backward(grad, query, key[:1], index, geometry)[1]
    parts = (
        cpu.similarity_at_backward(grad[b : b + 1], query[b : b + 1], key[:1], index[b : b + 1], geometry)[1]
        for b in range(4)
    )
    assert torch.equal(whole, sum(parts, torch.zeros_like(whole)))


def test_lists_that_are_expanded() -> None:
    """One list for all heads and batch items is a tensor without memory for each, as are gradients of sums."""
    from patchattn.kernels import cpu

    geometry = PatchGeometry((3, 5), "reflect", HEADS, resolve_similarity("l2"))
    query, key = torch.rand(2, BATCH, 8, *SIZE)
    index = torch.arange(99, dtype=torch.int32).view(1, 1, 1, *SIZE).expand(BATCH, HEADS, 1, *SIZE)
    grad = torch.ones(()).expand(index.shape)
    for index_given, grad_given in ((index, grad.contiguous()), (index.contiguous(), grad), (index, grad)):
        copies = (index_given.contiguous(), grad_given.contiguous())
        found, expected = (
            (
                cpu.similarity_at(query, key, i, geometry),
                *cpu.similarity_at_backward(g, query, key, i, geometry),
                *cpu.attend(g, i, key, (3, 3), 1.0),
                cpu.weighted_sum(g, i, key),
                *cpu.weighted_sum_backward(query, g, i, key),
                cpu.expand(i, SIZE, (1, 1), Constraints()),
            )
            for i, g in ((index_given, grad_given), copies)
        )
        assert all(map(torch.equal, found, expected))


USES = """
import torch, patchattn as pa
a, b, c = (torch.rand(2, 4, 10, 11, requires_grad=True) for _ in range(3))
pa.patch_attention(a, b, c, patch_size=3, aggregate=True, similarity="cosine").sum().backward()
pa.scram_attention(a, b, c, expand=1, normalization="count").sum().backward()
for estimator in ("snis", "mh"):
    pa.scram_attention(a, b, c, estimator=estimator, samples=4)
for method in ("exact", "guided", "patchmatch"):
    pa.match(a, b, method=method, patch_size=3)
"""


def test_the_next_process_compiles_nothing() -> None:
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", USES], capture_output=True, text=True, check=True)
    assert "compiling" not in done.stderr
