"""benchmarks/completion_measures.py and repeated_copies.py against answers known beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.benchmark_modules import benchmark_modules

SIDE = 96


@pytest.fixture(scope="module")
def completion_measures() -> Iterator[ModuleType]:
    with benchmark_modules("completion_measures") as modules:
        yield modules["completion_measures"]


@pytest.fixture(scope="module")
def repeated_copies() -> Iterator[ModuleType]:
    with benchmark_modules("repeated_copies") as modules:
        yield modules["repeated_copies"]


@pytest.fixture
def truth() -> Any:
    """Noise about middle gray, finer and coarser than a pixel."""
    random = np.random.default_rng(0)
    coarse = random.random((SIDE // 8, SIDE // 8, 3)).repeat(8, 0).repeat(8, 1)
    return 0.25 + 0.25 * random.random((SIDE, SIDE, 3)) + 0.25 * coarse


@pytest.fixture
def hole() -> Any:
    hole = np.zeros((SIDE, SIDE), bool)
    hole[20:60, 30:70] = True
    return hole


def test_the_truth_beside_itself(completion_measures: ModuleType, truth: Any, hole: Any) -> None:
    found = completion_measures.CompletionMeasures(truth, hole)(truth)
    assert found == {"sharp": 1, "abs_log": 0, "texture": 0, "texture2": 0}


def test_half_the_contrast(completion_measures: ModuleType, truth: Any, hole: Any) -> None:
    measures = completion_measures.CompletionMeasures(truth, hole)
    found = measures(0.5 + (truth - 0.5) / 2)
    assert found["sharp"] == pytest.approx(0.5)
    assert found["abs_log"] == pytest.approx(math.log(2))
    # Half of every projected patch: half as far from 0 as all of them are.
    flat = measures(np.full_like(truth, 0.5))
    for key in ("texture", "texture2"):
        assert found[key] == pytest.approx(flat[key] / 2, rel=1e-4)


def test_one_color_is_infinitely_far_from_sharp(completion_measures: ModuleType, truth: Any, hole: Any) -> None:
    found = completion_measures.CompletionMeasures(truth, hole)(np.zeros_like(truth))
    assert found["sharp"] == 0
    assert found["abs_log"] == math.inf


def test_quantiles_and_patches_are_those_of_the_definition(
    completion_measures: ModuleType, truth: Any, hole: Any
) -> None:
    patches = [
        truth[y - 3 : y + 4, x - 3 : x + 4].transpose(2, 0, 1).reshape(3, 49)
        for y in range(23, 57)
        for x in range(33, 67)
    ]
    vectors = np.stack([(patch - patch.mean(1, keepdims=True)).ravel() for patch in patches])
    random = np.random.default_rng(0).normal(size=(256, 147))
    directions = random / np.linalg.norm(random, axis=1, keepdims=True)
    expected = np.quantile(vectors @ directions.T, np.linspace(0, 1, 400), axis=0).T
    np.testing.assert_allclose(completion_measures.texture(truth, hole), expected, atol=1e-6)


def test_a_hole_that_is_too_small_has_no_measures(completion_measures: ModuleType, truth: Any) -> None:
    hole = np.zeros((SIDE, SIDE), bool)
    hole[20:24, 20:24] = True
    found = completion_measures.CompletionMeasures(truth, hole)(truth)
    assert all(math.isnan(value) for value in found.values())


def test_one_copy_repeats_nothing(repeated_copies: ModuleType, truth: Any, hole: Any) -> None:
    once = truth.copy()
    once[20:60, 30:50] = truth[20:60, 76:96]
    once[20:60, 50:70] = truth[20:60, 2:22]
    # Where the two meet are patches of neither.
    assert repeated_copies.repeated_copies(once, truth, hole) < 0.02


@pytest.mark.parametrize("brighter", [0.0, 0.1])
def test_a_stamp_repeats_everything(repeated_copies: ModuleType, truth: Any, hole: Any, brighter: float) -> None:
    stamped = truth.copy()
    stamped[20:60, 30:70] = np.tile(truth[70:80, 70:80], (4, 4, 1)) + brighter
    # Every 10 pixels the same patch, whether it lies in one stamp or holds parts of several.
    assert repeated_copies.repeated_copies(stamped, truth, hole) > 0.9


def test_nothing_outside_of_the_hole_is_refused(repeated_copies: ModuleType, truth: Any) -> None:
    everywhere = np.ones((SIDE, SIDE), bool)
    with pytest.raises(ValueError, match="hole: no patch of 7x7 pixels lies outside"):
        repeated_copies.repeated_copies(truth, truth, everywhere)
