"""What the reference adds to a search (windows, samples, chains, sums, repeated runs) against loops in plain Python."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from patchattn.kernels import reference
from patchattn.kernels.gaussian import CHAIN_STREAM, MIXTURE_STREAM, gaussian_weights
from patchattn.kernels.reference.gaussian import Gaussian
from patchattn.kernels.reference.mixture import Mixture
from patchattn.problem import Constraints
from tests.kernels.naive import (
    NaivePatchMatch,
    geometry_of,
    integers,
    mask_of,
    naive_admissible,
    naive_candidates,
    naive_conflict,
    naive_dense,
    naive_reach,
    naive_uniform,
    naive_word,
    normals,
    place_of,
    position_of,
    random_index,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SURPRISE = 5.0
"""Standard deviations that a sum of squares may lie above what is expected: one in millions."""


def case(query: tuple[int, ...], key: tuple[int, ...] | None = None, **constraints: Any) -> tuple[Any, ...]:
    return query, query if key is None else key, Constraints(**constraints)


CASES = {
    "1d": case((5,), (7,)),
    "2d": case((3, 4), (4, 3)),
    "3d": case((2, 3, 2), (3, 2, 3)),
    "masks": case((4, 4), query_mask=mask_of(2, 4, 4), key_mask=mask_of(2, 4, 4, seed=8)),
    "shared masks": case((9,), query_mask=mask_of(1, 9, share=0.8), key_mask=mask_of(1, 9, seed=8)),
    "no key": case((4,), key_mask=torch.stack([mask_of(4), torch.zeros(4) > 0])),
    "window": case((4, 5), max_offset=(1, 2)),
    "window, sizes differ": case((2, 3), (6, 5), max_offset=(2, 1)),
    "window, masks": case((4, 4), max_offset=(2, 1), key_mask=mask_of(2, 4, 4)),
    "causal 1d": case((7,), is_causal=True),
    "causal": case((4, 4), is_causal=True),
    "causal, masks": case((4, 4), is_causal=True, key_mask=mask_of(2, 4, 4)),
    "strict 1d": case((7,), is_causal=True, strict=True),
    "strict": case((4, 4), is_causal=True, strict=True),
    "strict, window": case((5, 4), is_causal=True, strict=True, max_offset=(2, 1)),
    "causal 3d, window, masks": case((3, 2, 3), is_causal=True, max_offset=(1, 1, 1), key_mask=mask_of(2, 3, 2, 3)),
}


def modes_of(name: str, k: int = 3, batch: int = 2, heads: int = 2) -> torch.Tensor:
    """Matches that the constraints allow, and -1 in any slot."""
    query_shape, key_shape, constraints = CASES[name]
    modes = random_index(math.prod(key_shape), batch, heads, k, math.prod(query_shape), seed=4)
    for b, h, m, i in np.ndindex(*modes.shape):
        if not naive_admissible(b, i, int(modes[b, h, m, i]), query_shape, key_shape, constraints):
            modes[b, h, m, i] = -1
    assert (modes[:, :, 0] < 0).any()
    assert (modes >= 0).any()
    return modes.unflatten(3, query_shape)


# ---- windows about matches ----


@pytest.mark.parametrize("radius", [0, 1, (2, 0, 1)])
@pytest.mark.parametrize("name", CASES)
def test_expand_equals_loops(name: str, radius: Any) -> None:
    query_shape, key_shape, constraints = CASES[name]
    # Matches that are not allowed have windows all the same.
    index = random_index(math.prod(key_shape), 2, 2, 3, *query_shape, seed=4)
    extents = (radius,) * len(query_shape) if isinstance(radius, int) else radius[: len(query_shape)]
    found = reference.expand(index, key_shape, extents, constraints)
    window = list(itertools.product(*(range(-r, r + 1) for r in extents)))
    assert found.dtype == torch.int32
    assert found.shape == (2, 2, 3 * len(window), *query_shape)
    for (b, h, i), matches in naive_matches(index):
        reached: set[int] = set()
        expected = []
        for match in matches:
            keys = [naive_moved(match, offset, key_shape) for offset in window]
            allowed = [naive_admissible(b, i, key, query_shape, key_shape, constraints) for key in keys]
            expected += [key if ok and key not in reached else -1 for key, ok in zip(keys, allowed, strict=True)]
            reached |= set(keys)
        assert found[b, h].flatten(1)[:, i].tolist() == expected


def naive_matches(index: torch.Tensor) -> Any:
    flat = index.flatten(3)
    for b, h, i in np.ndindex(*flat.shape[:2], flat.shape[3]):
        yield (b, h, i), flat[b, h, :, i].tolist()


def naive_moved(key: int, offset: tuple[int, ...], shape: tuple[int, ...]) -> int:
    if key < 0:
        return -1
    place = [x + o for x, o in zip(place_of(key, shape), offset, strict=True)]
    return position_of(place, shape) if all(0 <= x < n for x, n in zip(place, shape, strict=True)) else -1


def test_expand_known_answer() -> None:
    index = torch.tensor([[4, 1, -1], [5, 3, -1]]).int().view(1, 1, 2, 3)
    found = reference.expand(index, (6,), (1,), Constraints())
    assert found[0, 0].T.tolist() == [[3, 4, 5, -1, -1, -1], [0, 1, 2, -1, 3, 4], [-1] * 6]


# ---- the Gaussian in whole numbers ----


@pytest.mark.parametrize("scale", [0.3, 0.8])
def test_every_number_is_drawn_as_often_as_its_weight(scale: float) -> None:
    gaussian, weights = Gaussian(scale, torch.device("cpu")), gaussian_weights(scale)
    radius = len(weights) // 2
    for low, high in ((-99, 99), (-radius, radius), (0, 1), (-1, -1), (1 - radius, 99), (-99, -1)):
        kept = {x: int(weights[x + radius]) for x in range(max(low, -radius), min(high, radius) + 1)}
        bounds = torch.tensor([10]), torch.tensor([low + 10]), torch.tensor([high + 10])
        total = int(gaussian.total(*bounds))
        assert total == sum(kept.values())
        # The smallest word for each number below the total.
        words = (torch.arange(total) * 2**32 + total - 1) // total
        drawn, times = torch.unique(gaussian.draw(words, *bounds) - 10, return_counts=True)
        assert dict(zip(drawn.tolist(), times.tolist(), strict=True)) == kept
        offsets = torch.arange(-radius - 3, radius + 4)
        assert gaussian.weight(offsets).tolist() == [0] * 3 + weights.tolist() + [0] * 3


def test_offsets_are_as_likely_to_either_side() -> None:
    gaussian, weights = Gaussian(0.5, torch.device("cpu")), gaussian_weights(0.5)
    total = int(weights.sum())
    words = (torch.arange(total) * 2**32 + total - 1) // total
    drawn, times = torch.unique(gaussian.draw_offset(words), return_counts=True)
    assert drawn.tolist() == [-2, -1, 0, 1, 2]
    assert times.tolist() == weights.tolist() == weights[::-1].tolist()


def test_nothing_beyond_the_radius_can_be_drawn() -> None:
    gaussian = Gaussian(1.0, torch.device("cpu"))
    center, low, high = torch.tensor([20, 20, 20, -9]), torch.tensor([0, 0, 24, 0]), torch.tensor([9, 15, 30, 30])
    assert gaussian.total(center, low, high).tolist() == [0, 0, int(gaussian_weights(1.0)[-1]), 0]


# ---- the mixture ----


class NaiveMixture:
    """The mixture of one query."""

    def __init__(self, b: int, i: int, modes: list[int], options: Any, scale: tuple[float, ...], alpha: float) -> None:
        self.query_shape, self.key_shape, self.constraints = options
        self.b, self.i, self.threshold = b, i, round(alpha * 2**32)
        self.modes = [place_of(mode, self.key_shape) for mode in modes if mode >= 0]
        self.reach = naive_reach(i, *options)
        self.keys = naive_candidates(b, i, *options)
        self.tables = [gaussian_weights(length).tolist() for length in scale]

    def local(self, d: int, mode: tuple[int, ...]) -> dict[int, int]:
        """The weights of the coordinates in dimension d, ascending."""
        table, (low, high) = self.tables[d], self.reach[d]
        radius = len(table) // 2
        return {x: table[x - mode[d] + radius] for x in range(low, high + 1) if abs(x - mode[d]) <= radius}

    def density(self) -> np.ndarray:
        """Of all keys."""
        share = self.threshold / 2**32 if self.modes else 0.0
        result = np.zeros(math.prod(self.key_shape))
        for j in self.keys:
            result[j] += (1 - share) / len(self.keys)
        for mode in self.modes:
            tables = [self.local(d, mode) for d in range(len(mode))]
            for place in itertools.product(*tables):
                parts = [table[x] / sum(table.values()) for table, x in zip(tables, place, strict=True)]
                result[position_of(place, self.key_shape)] += share / len(self.modes) * math.prod(parts)
        return result

    def sample(self, t: int, seed: int, head: int) -> int:
        words = 2 + len(self.key_shape)
        which, choice, *rest = (naive_word(seed, MIXTURE_STREAM, head, self.i, t * words + n) for n in range(words))
        if which < self.threshold and self.modes:
            mode = self.modes[naive_uniform(choice, 0, len(self.modes) - 1)]
            place = []
            for d, word in enumerate(rest):
                table = self.local(d, mode)
                left = naive_uniform(word, 0, sum(table.values()) - 1)
                place.append(first_above(left, table))
            return position_of(place, self.key_shape)
        return self.keys[naive_uniform(choice, 0, len(self.keys) - 1)] if self.keys else -1

    def allowed(self, j: int) -> bool:
        return naive_admissible(self.b, self.i, j, self.query_shape, self.key_shape, self.constraints)


def first_above(number: int, table: dict[int, int]) -> int:
    """The first entry up to which the weights sum to more than a number."""
    upto = itertools.accumulate(table.values())
    return next(x for x, total in zip(table, upto, strict=True) if total > number)


SETTINGS = {"narrow": ((0.4, 0.6, 0.5), 0.7), "wide": ((3.0, 2.0, 2.5), 0.5), "near": ((1.0,) * 3, 1.0)}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", CASES)
def test_mixture_equals_loops(name: str, settings: str) -> None:
    query_shape, key_shape, constraints = CASES[name]
    scale, alpha = SETTINGS[settings][0][: len(key_shape)], SETTINGS[settings][1]
    modes, samples, seed = modes_of(name), 6, 2**35 + 1
    found = reference.sample_mixture(modes, key_shape, constraints, scale, alpha, samples, seed, torch.float64)
    assert found[0].dtype == torch.int32
    assert found[1].dtype == torch.float64
    assert found[0].shape == found[1].shape == (2, 2, samples, *query_shape)
    index, log_density = (part.flatten(3) for part in found)
    for (b, h, i), own in naive_matches(modes):
        naive = NaiveMixture(b, i, own, CASES[name], scale, alpha)
        density = naive.density()
        keys = [naive.sample(t, seed, h) for t in range(samples)]
        expected = [key if naive.allowed(key) else -1 for key in keys]
        assert index[b, h, :, i].tolist() == expected
        logs = [math.log(density[key]) if key >= 0 else 0.0 for key in expected]
        np.testing.assert_allclose(log_density[b, h, :, i], logs, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", CASES)
def test_mixture_density_sums_to_one(name: str, settings: str) -> None:
    query_shape, key_shape, constraints = CASES[name]
    scale, alpha = SETTINGS[settings][0][: len(key_shape)], SETTINGS[settings][1]
    modes = modes_of(name)
    mixture = Mixture(modes, key_shape, constraints, scale, alpha)
    shape = 2, 2, math.prod(query_shape)
    found = np.stack([mixture.density(torch.full(shape, j)).numpy() for j in range(math.prod(key_shape))], -1)
    for (b, h, i), own in naive_matches(modes):
        naive = NaiveMixture(b, i, own, CASES[name], scale, alpha)
        density = naive.density()
        if naive.keys:
            np.testing.assert_allclose(density.sum(), 1, rtol=1e-13)
        allowed = [naive.allowed(j) for j in range(len(density))]
        np.testing.assert_allclose(found[b, h, i][allowed], density[allowed], rtol=1e-13)
    if constraints == Constraints():
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-13)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", ["1d", "2d", "3d", "masks", "window, masks", "causal", "strict, window"])
def test_samples_follow_the_mixture(name: str, settings: str) -> None:
    _, key_shape, constraints = CASES[name]
    scale, alpha = SETTINGS[settings][0][: len(key_shape)], SETTINGS[settings][1]
    modes, samples = modes_of(name), 1000
    index, _ = reference.sample_mixture(modes, key_shape, constraints, scale, alpha, samples, 3, torch.float32)
    seen, expected = [], []
    for (b, h, i), own in naive_matches(modes):
        naive = NaiveMixture(b, i, own, CASES[name], scale, alpha)
        density = naive.density()
        # A batch has one set of random numbers.
        if b > 0 or not naive.keys:
            continue
        allowed = np.array([naive.allowed(j) for j in range(len(density))])
        seen.append(np.bincount(index[b, h].flatten(1)[:, i] + 1, minlength=len(density) + 1))
        expected.append(samples * np.append(density[~allowed].sum(), np.where(allowed, density, 0)))
    assert surprise(np.array(seen), np.array(expected)) < SURPRISE


def surprise(seen: np.ndarray, expected: np.ndarray) -> float:
    """By how many standard deviations Pearson's sum of squares exceeds what is expected, all rows together.

    What is expected less than 5 times counts as one class with the largest of its row; what never can be, must not be.
    """
    assert (seen[expected < 1e-9] == 0).all()
    total, freedom = 0.0, 0
    for row, mean in zip(seen.astype(float), expected.astype(float), strict=True):
        rare = mean < 5
        rare[mean.argmax()] = True
        classes = [(row[rare].sum(), mean[rare].sum()), *zip(row[~rare], mean[~rare], strict=True)]
        total += sum((count - most) ** 2 / most for count, most in classes)
        freedom += len(classes) - 1
    return (total - freedom) / math.sqrt(2 * freedom) if freedom else 0.0


def test_surprise_tells_a_wrong_density_from_the_right_one() -> None:
    density = NaiveMixture(0, 2, [1, 6], CASES["1d"], (1.0,), 0.5).density()
    wrong = NaiveMixture(0, 2, [1, 6], CASES["1d"], (1.0,), 0.45).density()
    seen = np.random.default_rng(0).multinomial(20_000, density)[None]
    assert surprise(seen, 20_000 * density[None]) < SURPRISE
    assert surprise(seen, 20_000 * wrong[None]) > SURPRISE


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_without_a_mode_all_keys_are_equally_likely(alpha: float) -> None:
    modes = torch.full((1, 1, 2, 3), -1, dtype=torch.int32)
    index, log_density = reference.sample_mixture(modes, (5,), Constraints(), (1.0,), alpha, 50, 0, torch.float32)
    assert index.unique().tolist() == list(range(5))
    assert log_density.dtype == torch.float32
    np.testing.assert_allclose(log_density, -math.log(5), rtol=1e-6)


def test_a_mode_whose_window_holds_nothing_gives_nothing() -> None:
    # Key 9 lies far behind the first queries, which no search would match with it.
    modes, causal = torch.full((1, 1, 1, 12), 9, dtype=torch.int32), Constraints(is_causal=True)
    index, log_density = reference.sample_mixture(modes, (12,), causal, (0.5,), 1.0, 20, 0, torch.float64)
    assert (index[..., :7] == -1).all()
    assert (log_density[..., :7] == 0).all()
    assert (index[..., 9:] >= 7).all()


def test_samples_do_not_depend_on_the_batch_nor_on_how_many_follow() -> None:
    modes, options = modes_of("2d"), ((4, 3), Constraints(), (1.0, 1.0), 0.5)
    index, _ = reference.sample_mixture(modes, *options, 9, 7, torch.float64)
    assert torch.equal(index[1:, :, :4], reference.sample_mixture(modes[1:], *options, 4, 7, torch.float64)[0])
    assert not torch.equal(index, reference.sample_mixture(modes, *options, 9, 8, torch.float64)[0])


# ---- chains ----


def naive_chains(
    dense: np.ndarray, modes: torch.Tensor, options: Any, scale: Any, temperature: float, chains: int, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    query_shape, key_shape, constraints = options
    index = np.full((*dense.shape[:2], modes.shape[2] * chains * steps, dense.shape[2]), -1)
    acceptance = np.zeros(dense.shape[:3], np.float32)
    weights = [gaussian_weights(length).tolist() for length in scale]
    tables = [{n - len(row) // 2: weight for n, weight in enumerate(row)} for row in weights]
    dims, query_mask = len(key_shape), constraints.query_mask
    for (b, h, i), own in naive_matches(modes):
        if query_mask is not None and not query_mask[b % len(query_mask)].flatten()[i]:
            continue
        rates = []
        for (m, mode), r in itertools.product(enumerate(own), range(chains)):
            if mode < 0:
                continue
            state, accepted, c = mode, 0, m * chains + r
            for s in range(steps):
                *moves, last = (
                    naive_word(5, CHAIN_STREAM, h, i, (c * steps + s) * (dims + 1) + n) for n in range(dims + 1)
                )
                offset = []
                for word, table in zip(moves, tables, strict=True):
                    offset.append(first_above(naive_uniform(word, 0, sum(table.values()) - 1), table))
                proposal = naive_moved(state, tuple(offset), key_shape)
                if naive_admissible(b, i, proposal, query_shape, key_shape, constraints):
                    new, old = float(dense[b, h, i, proposal]), float(dense[b, h, i, state])
                    if new > -math.inf and (last + 0.5) / 2**32 < math.exp(min(0.0, (new - old) / temperature)):
                        state, accepted = proposal, accepted + 1
                index[b, h, c * steps + s, i] = state
            rates.append(accepted / steps)
        acceptance[b, h, i] = np.mean(rates) if rates else 0
    return index, acceptance


@pytest.mark.parametrize("chains", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_chains_equal_loops(name: str, chains: int) -> None:
    query_shape, key_shape, constraints = CASES[name]
    geometry = geometry_of((3,) * len(query_shape), heads=2)
    query, key, modes = integers(2, 2, *query_shape), integers(2, 2, *key_shape, seed=1), modes_of(name)
    scale = (0.8, 1.2, 0.5)[: len(key_shape)]
    index, acceptance = reference.sample_chains(
        query, key, modes, geometry, constraints, scale, 30.0, chains, steps := 5, 5
    )
    expected = naive_chains(naive_dense(query, key, geometry), modes, CASES[name], scale, 30.0, chains, steps)
    assert index.dtype == torch.int32
    assert index.shape == (2, 2, 3 * chains * steps, *query_shape)
    assert acceptance.dtype == torch.float32
    assert acceptance.shape == (2, 2, *query_shape)
    np.testing.assert_array_equal(index.flatten(3), expected[0])
    np.testing.assert_allclose(acceptance.flatten(2), expected[1], rtol=1e-6)
    assert acceptance.max() > 0
    assert acceptance.min() < 1


TINY = {
    "line": ((7,), {}),
    "line, masked": ((7,), {"key_mask": torch.tensor([[1, 1, 0, 1, 0, 1, 1]]).bool()}),
    "plane": ((3, 2), {}),
}


@pytest.mark.parametrize("scale", [1.5, 3.0])
@pytest.mark.parametrize("name", TINY)
def test_chains_come_to_visit_keys_as_softmax_says(name: str, scale: float) -> None:
    # Very many queries that are all alike: each step has as many independent states.
    key_shape, masks = TINY[name]
    dims, many, steps, temperature = len(key_shape), 20_000, 150, 3.0
    constraints = Constraints(**masks)
    key = normals(1, 1, *key_shape)
    query = torch.full((1, 1, many, *(1,) * (dims - 1)), 0.3, dtype=torch.float64)
    modes = torch.zeros((1, 1, 1, *query.shape[2:]), dtype=torch.int32)
    geometry = geometry_of((1,) * dims)
    index, acceptance = reference.sample_chains(
        query, key, modes, geometry, constraints, (scale,) * dims, temperature, 1, steps, 9
    )
    states = index.flatten(3)[0, 0].numpy()
    similarity = -((0.3 - key.flatten().numpy()) ** 2)
    allowed = constraints.key_mask.flatten().numpy() if constraints.key_mask is not None else similarity < 1
    transition, proposed = transition_matrix(similarity, allowed, key_shape, scale, temperature)
    softmax = np.where(allowed, np.exp(similarity / temperature), 0)
    softmax /= softmax.sum()
    np.testing.assert_allclose(softmax @ transition, softmax, rtol=1e-12)
    distribution, rates = np.eye(len(softmax))[0], []
    for step in range(steps):
        rates.append(distribution @ proposed)
        distribution = distribution @ transition
        if step in (0, 1, 5, steps - 1):
            seen = np.bincount(states[step], minlength=len(softmax))
            assert surprise(seen[None], many * distribution[None]) < SURPRISE
    np.testing.assert_allclose(distribution, softmax, atol=1e-3)
    assert surprise(seen[None], many * softmax[None]) < SURPRISE
    np.testing.assert_allclose(float(acceptance.double().mean()), np.mean(rates), atol=5 * 0.5 / math.sqrt(many))


def transition_matrix(
    similarity: np.ndarray, allowed: np.ndarray, shape: tuple[int, ...], scale: float, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the step from each key (rows) to each, and of accepting a proposal there."""
    table = gaussian_weights(scale) / gaussian_weights(scale).sum()
    radius, count = len(table) // 2, len(similarity)
    matrix = np.zeros((count, count))
    for a, b in itertools.product(range(count), range(count)):
        steps = [y - x for x, y in zip(place_of(a, shape), place_of(b, shape), strict=True)]
        if allowed[b] and all(abs(step) <= radius for step in steps):
            accept = min(1.0, math.exp((similarity[b] - similarity[a]) / temperature))
            matrix[a, b] = accept * math.prod(table[step + radius] for step in steps)
    accepted = matrix.sum(1)
    return matrix + np.diag(1 - accepted), accepted


def test_chain_never_goes_where_similarity_is_not_a_number() -> None:
    key = torch.tensor([[[0.0, torch.nan, 0.0, 0.0]]])
    modes = torch.zeros((1, 1, 1, 50), dtype=torch.int32)
    index, acceptance = reference.sample_chains(
        torch.zeros(1, 1, 50), key, modes, geometry_of((1,)), Constraints(), (1.0,), 1.0, 2, 20, 0
    )
    assert index.unique().tolist() == [0, 2, 3]
    # From where nothing can be compared, whatever can be is accepted.
    index, _ = reference.sample_chains(
        torch.zeros(1, 1, 50), key, modes + 1, geometry_of((1,)), Constraints(), (1.0,), 1.0, 1, 50, 0
    )
    assert (index[0, 0, -1] != 1).all()
    assert 0 < acceptance.min() < acceptance.max() < 1


# ---- weighted sums ----


def test_weighted_sum_known_answer() -> None:
    weight = torch.tensor([[[2.0, torch.nan], [0.5, torch.inf]], [[1.0, 1.0], [-1.0, 3.0]]])[None]
    index = torch.tensor([[[0, -1], [2, -1]], [[1, 2], [1, -1]]]).int()[None]
    value = torch.tensor([[[1.0, torch.nan, 10.0], [1.0, 2.0, 3.0]]])
    out = reference.weighted_sum(weight, index, value)
    assert out.tolist() == [[[7.0, 0.0], [0.0, 3.0]]]
    grad_output = torch.tensor([[[1.0, torch.nan], [10.0, 100.0]]])
    grad_weight, grad_value = reference.weighted_sum_backward(grad_output, weight, index, value)
    assert grad_weight.tolist() == [[[[1.0, 0.0], [10.0, 0.0]], [[20.0, 300.0], [20.0, 0.0]]]]
    assert grad_value.tolist() == [[[2.0, 0.0, 0.5], [0.0, 0.0, 100.0]]]


class WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, index: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, index, value)
        return reference.weighted_sum(weight, index, value)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> Any:  # type: ignore[override]
        grad_weight, grad_value = reference.weighted_sum_backward(grad_output, *ctx.saved_tensors)
        return grad_weight, None, grad_value


@pytest.mark.parametrize("value_batch", [1, 2])
@pytest.mark.parametrize(("query_shape", "key_shape"), [((5,), (4,)), ((2, 3), (3, 2)), ((2, 1, 2), (1, 3, 2))])
def test_weighted_sum_gradcheck(query_shape: Any, key_shape: Any, value_batch: int) -> None:
    index = random_index(math.prod(key_shape), 2, 2, 3, *query_shape)
    weight, value = normals(*index.shape), normals(value_batch, 4, *key_shape, seed=1)
    inputs = weight.requires_grad_(), index, value.requires_grad_()
    assert torch.autograd.gradcheck(WeightedSum.apply, inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weighted_sum_has_the_dtypes_of_its_arguments(dtype: torch.dtype) -> None:
    index, value = random_index(6, 2, 2, 3, 5), normals(2, 4, 6).to(dtype)
    weight, grad = normals(*index.shape).float(), normals(2, 4, 5).to(dtype)
    out = reference.weighted_sum(weight, index, value)
    assert torch.equal(out, reference.weighted_sum(weight, index, value.float()).to(dtype))
    grad_weight, grad_value = reference.weighted_sum_backward(grad, weight, index, value)
    expected = reference.weighted_sum_backward(grad.float(), weight, index, value.float())
    assert torch.equal(grad_weight, expected[0])
    assert torch.equal(grad_value, expected[1].to(dtype))


# ---- repeated search ----


class NaiveRun(NaivePatchMatch):
    """One run for one match."""

    taken: list[list[int]]
    """For each query, what the runs before found."""
    before: int
    """Iterations of the runs before."""

    def uniform(self, i: int, iteration: int, n: int, low: int, high: int) -> int:
        return super().uniform(i, iteration + self.before, n, low, high)

    def offer(self, i: int, c: int) -> None:
        if not any(naive_conflict(c, e, self.key_shape, self.constraints) for e in self.taken[i] if c >= 0):
            super().offer(i, c)


def naive_repeated(
    dense: np.ndarray, b: int, h: int, k: int, shapes: Any, constraints: Constraints, iterations: int, init: Any
) -> tuple[np.ndarray, np.ndarray]:
    found: list[list[tuple[float, int]]] = [[] for _ in range(dense.shape[2])]
    for r in range(k):
        run = NaiveRun(dense, b, h, 1, shapes, constraints, 5)
        run.starts, run.before = k, r * (iterations + 1)
        run.taken = [[key for _, key in own] for own in found]
        run.run(iterations, init)
        for own, new in zip(found, run.lists, strict=True):
            own.extend(new)
    ordered = [sorted(own, key=lambda entry: -entry[0]) for own in found]
    padded = [own + [(-math.inf, -1)] * (k - len(own)) for own in ordered]
    similarity, index = np.array(padded).transpose(2, 1, 0)
    return index.astype(int), similarity


REPEATED = {
    "1d": (case((30,), (90,)), 2),
    "2d": (case((6, 7), (9, 9)), 3),
    "3d": (case((2, 3, 4), (4, 5, 4)), 3),
    "few keys": (case((5, 5), key_mask=mask_of(2, 5, 5, share=0.1)), 4),
    "masks": (case((9, 9), query_mask=mask_of(2, 9, 9), key_mask=mask_of(1, 9, 9, seed=8)), 3),
    "separation": (case((6, 6), (9, 9), min_separation=(3, 4)), 3),
    "separation, crowded": (case((8,), min_separation=(4,)), 4),
    "separation, masks": (case((6, 6), (10, 9), min_separation=(2, 3), key_mask=mask_of(2, 10, 9)), 4),
    "causal": (case((9, 9), is_causal=True), 3),
    "strict, separation": (case((9, 9), is_causal=True, strict=True, min_separation=(2, 2)), 3),
    "window": (case((8, 8), max_offset=(5, 4), min_separation=(0, 2)), 3),
    "more matches than keys": (case((3, 2)), 8),
    "many matches": (case((4, 4), (9, 9)), 20),
}


@pytest.mark.parametrize("with_init", [False, True])
@pytest.mark.parametrize("name", REPEATED)
def test_repeated_search_equals_loops(name: str, with_init: bool) -> None:
    (query_shape, key_shape, constraints), k = REPEATED[name]
    geometry = geometry_of((1,) * len(query_shape), heads=2)
    query, key = integers(2, 2, *query_shape), integers(2, 2, *key_shape, seed=1)
    init = random_index(math.prod(key_shape), 2, 2, 2, *query_shape) if with_init else None
    found = reference.search_repeated(query, key, k, geometry, constraints, iterations := 2, 5, init)
    dense = naive_dense(query, key, geometry)
    for b, h in np.ndindex(2, 2):
        start = None if init is None else init[b, h].flatten(1).numpy()
        expected = naive_repeated(dense, b, h, k, (query_shape, key_shape), constraints, iterations, start)
        np.testing.assert_array_equal(found[0][b, h].flatten(1), expected[0])
        np.testing.assert_array_equal(found[1][b, h].flatten(1), expected[1])
    assert found[0].dtype == torch.int32
    assert found[1].dtype == torch.float32
    assert torch.equal(found[1], reference.similarity_at(query, key, found[0], geometry))
    for (b, _, i), matches in naive_matches(found[0]):
        kept = [j for j in matches if j >= 0]
        assert matches == kept + [-1] * (k - len(kept))
        assert not any(naive_conflict(*pair, key_shape, constraints) for pair in itertools.combinations(kept, 2))
        assert all(naive_admissible(b, i, j, query_shape, key_shape, constraints) for j in kept)


def test_one_run_is_the_search_for_one_match() -> None:
    query, key, geometry = normals(2, 2, 9, 11), normals(2, 2, 10, 9, seed=1), geometry_of((3, 3))
    options = geometry, replace(Constraints(), min_separation=(3, 3)), 2, 7, None
    repeated, single = (
        reference.search_repeated(query, key, 1, *options),
        reference.search_patchmatch(query, key, 1, *options),
    )
    assert torch.equal(repeated[0], single[0])
    assert torch.equal(repeated[1], single[1])


def test_later_runs_may_find_what_earlier_ones_missed() -> None:
    query, key, geometry = normals(1, 2, 15, 15), normals(1, 2, 20, 20, seed=1), geometry_of((1, 1))
    index, similarity = reference.search_repeated(query, key, 4, geometry, Constraints(), 0, 0, None)
    assert (index >= 0).all()
    assert (similarity[:, :, :-1] >= similarity[:, :, 1:]).all()
