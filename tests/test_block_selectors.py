"""The measurement of block selectors: what it says of selectors that are known."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from patchattn import MatchField
from tests.benchmark_modules import benchmark_modules
from tests.cases import normals


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("sklearn")
    with benchmark_modules("block_selectors") as modules:
        return modules["block_selectors"]


def test_recalled_mass(script: ModuleType) -> None:
    query, key = normals(256, 8, dtype=torch.float32), normals(256, 8, seed=1, dtype=torch.float32)
    scores = script.Scores(query, key, "distance").with_breadth(20)
    entropy = torch.special.entr(scores.attention).sum(1).mean()
    assert entropy.exp() == pytest.approx(20, rel=0.2)  # of a part of the queries
    mass = script.blocks_of(scores.attention)
    assert mass.shape == (2, 4)
    whole = scores.attention[:128, 64:128].sum()
    torch.testing.assert_close(mass[0, 1], whole)
    for ranking in (mass, -mass):
        best = ranking.argmax(1)
        expected = sum(float(mass[row, column]) for row, column in enumerate(best)) / 256
        assert script.recalled(scores, ranking, 0.25) == pytest.approx(expected)
    assert script.recalled(scores, -mass, 1.0) == pytest.approx(1)


def test_all_keys_as_matches_are_the_mass_itself(script: ModuleType) -> None:
    query, key = normals(256, 8, dtype=torch.float32), normals(256, 8, seed=1, dtype=torch.float32)
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    scores = script.Scores(query, key, "product", 0.5)
    index = torch.arange(256, dtype=torch.int32).view(1, 1, 256, 1).expand(1, 1, 256, 256)
    field = MatchField(index, (query @ key.T).T.view(1, 1, 256, 256), (256,))
    ordered = scores.ordered(order)
    found = script.by_matches(ordered, field, order)
    torch.testing.assert_close(found, script.blocks_of(ordered.attention), rtol=1e-4, atol=1e-4)


def test_clusters_of_all_keys_recall_all(script: ModuleType) -> None:
    query, key = normals(256, 8, dtype=torch.float32), normals(256, 8, seed=1, dtype=torch.float32)
    clusters = [script.KMeans(4, n_init=1, random_state=0).fit(x.numpy()) for x in (query, key)]
    scores = script.Scores(query, key, "distance")
    masses = [script.recalled_by_clusters(scores, density, clusters) for density in (0.25, 0.5, 1.0)]
    assert masses == sorted(masses)
    assert masses[-1] == pytest.approx(1)
