"""A user's own similarities: named by content, kept as they were made, saved and loaded as what they are."""

from __future__ import annotations

import copy
import functools
import gc
import importlib
import io
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from patchattn import PatchAttention, Similarity, pointwise_similarity
from patchattn import similarity as module_of_similarity
from patchattn.similarity import resolve_similarity
from tests.cases import POINTWISE, half_square, half_square_derivative, normals

IMAGE = normals(1, 2, 5, 6)
FACTOR = 2.0


def value_of(similarity: Similarity, q: float = 1.0, k: float = 3.0) -> float:
    assert similarity.function is not None
    return float(similarity.function(q, k))


def attended(similarity: Similarity, backend: str = "reference") -> Tensor:
    return PatchAttention(patch_size=1, k=4, method="exact", similarity=similarity, backend=backend)(*[IMAGE] * 3)


def loaded(similarity: Any) -> Any:
    return pickle.loads(pickle.dumps(similarity))


def documented(q: Any, k: Any) -> Any:
    """Equal to a lambda that has no docstring."""
    return -abs(q - k)


def scaled(q: Any, k: Any) -> Any:
    return FACTOR * q * k


def half_of(q: Any, k: Any) -> Any:
    return 0.5 * scaled(q, k)


def with_default(factor: float) -> Any:
    return lambda q, k, factor=factor: factor * q * k


def with_keyword(factor: float) -> Any:
    return lambda q, k, *, factor=factor: factor * q * k


def with_array(factor: float) -> Any:
    table = np.array([1.0, factor])
    return lambda q, k: table[1] * q * k


def with_tuple(factor: float) -> Any:
    table = (1.0, (factor, True))
    return lambda q, k: table[1][0] * q * k


def with_inner(factor: float) -> Any:
    return lambda q, k: (lambda x: factor * x)(q * k)


def with_partial(factor: float) -> Any:
    return functools.partial(lambda q, k, factor: factor * q * k, factor=factor)


def with_numpy_number(factor: float) -> Any:
    number = np.float32(factor)
    return lambda q, k: number * q * k


def with_helper(factor: float) -> Any:
    def helper(x: Any) -> Any:
        return factor * x

    return lambda q, k: helper(q * k)


CAPTURES = [
    with_default, with_keyword, with_array, with_tuple, with_inner, with_partial, with_numpy_number, with_helper,
]  # fmt: skip


@pytest.mark.parametrize("make", CAPTURES)
def test_captured_values_name_a_similarity(make: Callable[[float], Any]) -> None:
    one, same, other = (pointwise_similarity(make(factor)) for factor in (2.0, 2.0, 3.0))
    assert one == same
    assert one.function is same.function
    assert one.name != other.name
    assert (value_of(one), value_of(other)) == (6, 9)


def test_lambdas_of_a_loop_keep_the_value_they_were_made_with(backend: str) -> None:
    made = [pointwise_similarity(lambda q, k: -factor * abs(q - k)) for factor in (0.25, 4.0)]  # noqa: B023
    assert [value_of(one) for one in made] == [-0.5, -8]
    sharper = PatchAttention(patch_size=1, k=4, method="exact", similarity="l1", temperature=0.25, backend=backend)
    torch.testing.assert_close(attended(made[1], backend), sharper(IMAGE, IMAGE, IMAGE))
    assert not torch.allclose(attended(made[0], backend), attended(made[1], backend))


def test_globals_name_a_similarity_and_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    before, through = pointwise_similarity(scaled), pointwise_similarity(half_of)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 10.0)
    after = pointwise_similarity(scaled)
    assert before.name != after.name
    assert through.name != pointwise_similarity(half_of).name
    assert (value_of(before), value_of(after), value_of(through)) == (6, 30, 3)


def test_what_does_not_change_a_function_does_not_change_its_name() -> None:
    assert pointwise_similarity(documented) == pointwise_similarity(lambda a, b: -abs(a - b))
    assert pointwise_similarity(half_square, half_square_derivative) == POINTWISE


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda q, k: q * k, lambda q, k: q + k),
        (lambda q, k: q * k * 1, lambda q, k: q * k * 1.0),
        (lambda q, k: q * k * 0.0, lambda q, k: q * k * -0.0),
        (lambda q, k: np.sin(q * k), lambda q, k: np.cos(q * k)),
        (lambda q, k: np.exp(q * k), lambda q, k: math.exp(q * k)),
        (lambda q, k: q * k * np.pi, lambda q, k: q * k * np.e),
        (lambda q, k: np.where(q > k, q, k), lambda q, k: np.where(q < k, q, k)),
        (lambda q, k: min(q, k), lambda q, k: max(q, k)),
    ],
)
def test_other_functions_have_other_names(one: Any, other: Any) -> None:
    names = {pointwise_similarity(one).name, pointwise_similarity(other).name, pointwise_similarity(one, other).name}
    assert len(names) == 3


class Settings:
    factor = 2.0


def changing(q: Any, k: Any) -> Any:
    global FACTOR
    FACTOR = 3.0
    return q * k


def test_what_has_no_content_is_known_in_its_process_alone() -> None:
    settings = Settings()
    for function in (lambda q, k: settings.factor * q * k, changing, lambda q, k: eval("q * k")):
        one, other = pointwise_similarity(function), pointwise_similarity(function)
        assert one.name != other.name
        assert resolve_similarity(one.name) is one
        assert copy.deepcopy(PatchAttention(similarity=one)).similarity is one
        with pytest.raises(pickle.PicklingError, match=f"^similarity: {one.name} cannot be saved, for it depends on "):
            pickle.dumps(PatchAttention(similarity=one))


def names() -> set[str]:
    gc.collect()
    return set(module_of_similarity._pointwise)


def test_nothing_is_kept_that_nobody_holds() -> None:
    before, copies = names(), len(module_of_similarity._copies)
    layers = [PatchAttention(similarity=pointwise_similarity(with_default(float(factor)))) for factor in range(100)]
    assert len(names() - before) == 100
    del layers[1:]
    assert names() - before == {layers[0].similarity.name}
    del layers
    assert names() == before
    assert len(module_of_similarity._copies) == copies


def test_a_name_is_known_as_long_as_any_object_of_it_lives() -> None:
    first, second = (pointwise_similarity(with_default(7.5)) for _ in range(2))
    assert first == second
    assert first is not second  # each is pickled by the functions that it was made from
    name = first.name
    del first
    assert name in names()
    assert resolve_similarity(name) == second
    del second
    with pytest.raises(ValueError, match=r"is not known in this process; make it with .* is run, and keep it\.$"):
        resolve_similarity(name)


def test_the_same_functions_are_one_object() -> None:
    function = with_default(8.5)
    assert pointwise_similarity(function) is pointwise_similarity(function)


def test_what_is_compiled_from_a_function_is_found_again() -> None:
    similarity = pointwise_similarity(with_default(9.5))
    compiled = similarity.function  # kernels keep it beside their machine code
    name = similarity.name
    del similarity
    assert name not in names()
    again, trained = pointwise_similarity(with_default(9.5)), pointwise_similarity(with_default(9.5), lambda_free)
    assert again.name == name
    assert again.function is compiled
    assert trained.function is compiled


def test_gradients_hold_the_similarity_they_need(backend: str) -> None:
    query, key = normals(1, 2, 5, 6).requires_grad_(), normals(1, 2, 5, 6)
    found = []
    for similarity in (POINTWISE, None):
        similarity = similarity or pointwise_similarity(with_half_square(0.25), with_half_square_derivative(0.25))
        layer = PatchAttention(patch_size=1, k=4, method="exact", similarity=similarity, backend=backend)
        found.append(layer(query, key, key).square().sum())
        name = similarity.name
        del layer, similarity
    assert name in names()
    gradients = [torch.autograd.grad(loss, query)[0] for loss in found]
    assert not torch.equal(*gradients)
    del found
    assert name not in names()


def with_half_square(factor: float) -> Any:
    return lambda q, k: -factor * (q - k) * (q - k)


def with_half_square_derivative(factor: float) -> Any:
    return lambda q, k: (2 * factor * (k - q), 2 * factor * (q - k))


def test_a_saved_layer_computes_the_same(backend: str) -> None:
    layer = PatchAttention(patch_size=1, k=4, method="exact", similarity=POINTWISE, backend=backend)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for again in (torch.load(file, weights_only=False), loaded(layer), copy.deepcopy(layer), copy.copy(layer)):
        assert again.similarity == POINTWISE
        assert torch.equal(again(IMAGE, IMAGE, IMAGE), layer(IMAGE, IMAGE, IMAGE))
    assert loaded(resolve_similarity("l1")) is resolve_similarity("l1")


class Attended(Dataset[Tensor]):
    """What a worker computes with a layer that was sent to it."""

    def __init__(self) -> None:
        self.layer = PatchAttention(patch_size=1, k=4, method="exact", similarity=POINTWISE, backend="reference")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Tensor:
        pointwise_similarity(lambda q, k: -q * k * 5)
        return self.layer(IMAGE, IMAGE, IMAGE)


def test_a_process_that_starts_anew_computes_the_same() -> None:
    data = Attended()
    (there,) = DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(there, data[0])


def test_lambdas_are_pickled_by_what_can() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    similarity = pointwise_similarity(with_array(3.0), with_tuple(4.0))
    assert pickle.loads(cloudpickle.dumps(similarity)) == similarity
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(similarity)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Write a module anew and import it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text: str) -> ModuleType:
        (tmp_path / "of_a_user.py").write_text(text)
        importlib.invalidate_caches()
        sys.modules.pop("of_a_user", None)
        return importlib.import_module("of_a_user")

    yield write
    sys.modules.pop("of_a_user", None)


PRODUCT = "SCALE = 2\ndef f(q, k):\n    return SCALE * (q * k)\n"


@pytest.mark.parametrize(
    "changed",
    [PRODUCT.replace("= 2", "= 3"), PRODUCT.replace("* k", "+ k"), PRODUCT.replace("return", "SCALE and 1; return")],
)
def test_a_function_that_has_changed_is_refused(module: Any, changed: str) -> None:
    saved = pickle.dumps(PatchAttention(similarity=pointwise_similarity(module(PRODUCT).f)))
    module("\n\n# Moved, and told what it is.\n" + PRODUCT.replace("return", '"""A product."""\n    return'))
    pickle.loads(saved)
    module(changed)
    with pytest.raises(
        pickle.UnpicklingError, match=r"^similarity: of_a_user\.f, its derivative, or a value that they"
    ):
        pickle.loads(saved)


def test_another_python_compares_values(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = pickle.dumps(pointwise_similarity(module(PRODUCT).f, lambda_free))
    monkeypatch.setattr(module_of_similarity, "_python", lambda: ("cpython", "another version", "0"))
    module(PRODUCT.replace("SCALE * (q * k)", "SCALE * q * k"))  # as if another compiler had made it
    assert value_of(pickle.loads(saved)) == 6
    module(PRODUCT.replace("= 2", "= 2.001"))
    with pytest.raises(pickle.UnpicklingError, match="is not what it was when it was saved"):
        pickle.loads(saved)


def lambda_free(q: Any, k: Any) -> Any:
    return k, q


def test_values_in_modules_of_a_user_are_kept(module: Any) -> None:
    constants = module("SCALE = 2\ndef helper(x):\n    return SCALE * x\n")
    own, through = (lambda q, k: constants.SCALE * q * k), (lambda q, k: constants.helper(q * k))
    before = [pointwise_similarity(function) for function in (own, through)]
    constants.SCALE = 5
    after = [pointwise_similarity(function) for function in (own, through)]
    assert [value_of(one) for one in (*before, *after)] == [6, 6, 15, 15]
    assert len({one.name for one in (*before, *after)}) == 4


@pytest.mark.needs("cpu")
def test_functions_compiled_by_numba() -> None:
    import numba

    compiled = numba.njit(documented)
    assert pointwise_similarity(compiled) == pointwise_similarity(documented)
    through = pointwise_similarity(lambda q, k: compiled(q, k) * 1.0)
    torch.testing.assert_close(attended(through, "cpu"), attended(pointwise_similarity(documented)))


def test_an_exported_layer_names_what_it_needs() -> None:
    layer = PatchAttention(patch_size=1, k=4, method="exact", similarity=POINTWISE, backend="reference")
    exported = torch.export.export(layer, (IMAGE, IMAGE, IMAGE))
    assert POINTWISE.name in str(exported.graph)
    assert torch.equal(exported.module()(IMAGE, IMAGE, IMAGE), layer(IMAGE, IMAGE, IMAGE))
    with pytest.raises(
        ValueError, match=r"^similarity: 'pointwise_0' is not known in this process; make it with point"
    ):
        resolve_similarity("pointwise_0")
