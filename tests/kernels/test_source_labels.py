"""Alpha-expansion over sources, and the max-flow below it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from patchattn.kernels.cpu.source_labels import expand_labels

SIZE = 9, 11
OFFSETS = np.array([[3, 0], [-2, 2], [4, -3], [0, 5]], np.int32)


def problem(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Image, target, hole and sources."""
    random = np.random.default_rng(seed)
    hole = np.zeros(SIZE, bool)
    hole[3:5, 3:6] = True
    image, target = random.random((2, *SIZE, 2)).astype(np.float32)
    image[hole] = 0
    return image, target, hole, ~hole & (random.random(SIZE) > 0.05)


def energy(labels: NDArray[np.int32], weight: float, *case: NDArray[np.generic]) -> float:
    """As it is written in the formula."""
    image, target, hole, sources = case

    def at(row: int, column: int, offset: NDArray[np.int32]) -> NDArray[np.float64]:
        y, x = np.clip([row + offset[0], column + offset[1]], 0, np.array(SIZE) - 1)
        return image[y, x].astype(float)

    total = 0.0
    for row, column in np.argwhere(hole):
        own = OFFSETS[labels[row, column]]
        y, x = row + own[0], column + own[1]
        if not (0 <= y < SIZE[0] and 0 <= x < SIZE[1] and sources[y, x]):
            return np.inf
        total += weight * float(((image[y, x].astype(float) - target[row, column]) ** 2).sum())
        for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            y, x = row + down, column + right
            if not hole[y, x]:
                total += float(((image[y, x] - at(y, x, own)) ** 2).sum())
            elif (down, right) in ((0, 1), (1, 0)):
                other = OFFSETS[labels[y, x]]
                total += float(((at(row, column, own) - at(row, column, other)) ** 2).sum())
                total += float(((at(y, x, own) - at(y, x, other)) ** 2).sum())
    return total


def expanded(start: int, weight: float, *case: NDArray[np.generic], rounds: int = 3) -> tuple[NDArray[np.int32], float]:
    image, target, hole, sources = case
    labels = np.full(SIZE, start, np.int32)
    order = np.arange(len(OFFSETS), dtype=np.int32)
    compared = weight**0.5 * image, weight**0.5 * target
    fallen = sum(expand_labels(labels, order, OFFSETS, image, *compared, hole, sources, 0) for _ in range(rounds))
    return labels, fallen


@pytest.mark.parametrize("weight", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_one_move_is_the_best_there_is(seed: int, weight: float) -> None:
    """A move decides which pixels take one label: here brute force can try them all."""
    case = problem(seed)
    hole = case[2]
    start = next(n for n in range(len(OFFSETS)) if energy(np.full(SIZE, n, np.int32), weight, *case) < np.inf)
    for label in range(len(OFFSETS)):
        labels = np.full(SIZE, start, np.int32)
        before = energy(labels, weight, *case)
        image, target, _, sources = case
        order = np.array([label], np.int32)
        compared = weight**0.5 * image, weight**0.5 * target
        fallen = expand_labels(labels, order, OFFSETS, image, *compared, hole, sources, 0)
        least = np.inf
        for takes in product((False, True), repeat=int(hole.sum())):
            tried = np.full(SIZE, start, np.int32)
            tried[hole] = np.where(takes, label, start)
            least = min(least, energy(tried, weight, *case))
        assert energy(labels, weight, *case) == pytest.approx(least)
        assert before - fallen == pytest.approx(least)


@pytest.mark.parametrize("seed", range(4))
def test_moves_end_near_the_least_energy(seed: int) -> None:
    case = problem(seed)
    least = min(
        energy(labels, 1.0, *case)
        for chosen in product(range(len(OFFSETS)), repeat=6)
        for labels in [np.zeros(SIZE, np.int32)]
        if labels.__setitem__(case[2], chosen) is None
    )
    found, _ = expanded(0, 1.0, *case)
    assert energy(found, 1.0, *case) <= 1.05 * least


def test_a_pixel_that_may_take_no_label_keeps_its_own() -> None:
    image, target, hole, _ = problem(0)
    labels, fallen = expanded(0, 1.0, image, target, hole, np.zeros(SIZE, bool))
    assert not labels.any()
    assert fallen == 0


def test_within_reach_seams_move_and_nothing_else() -> None:
    image, target, hole, sources = problem(1)
    labels = np.zeros(SIZE, np.int32)
    labels[hole] = 1
    expand_labels(labels, np.arange(4, dtype=np.int32), OFFSETS, image, image, target, hole, sources, 1)
    assert (labels[hole] == 1).all(), "no other label stands near"
