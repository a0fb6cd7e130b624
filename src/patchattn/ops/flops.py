"""Floating-point operations of the operators, for PyTorch's `FlopCounterMode`; a product and a sum are two.

PyTorch's counter takes a fifth of a second to import (and Triton with it), so that it is told when it is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from math import ceil, prod
from types import ModuleType
from typing import Any

import torch

# The operators must be there when a counter that was imported before is told of them.
from patchattn.names import PACKAGE
from patchattn.ops import attend, search, similarity_operators, weighted_sum  # noqa: F401
from patchattn.ops.methods import resolve_method
from patchattn.ops.register import schema_of
from patchattn.problem import PatchGeometry, Problem
from patchattn.similarity import Similarity

__all__ = ["counted"]

COUNTER = "torch.utils.flop_counter"
LEAF, NUMBERS = 8, 32
"""Keys of a leaf of the guided search's tree, and the numbers that patches are projected to, at most."""

Shape = Sequence[int]
_formulas: dict[str, Callable[..., int]] = {}


def counted(name: str, formula: Callable[..., int]) -> None:
    """Have the operations of `patchattn::name` counted: `formula(*shapes and settings, out_shape=...)`."""
    _formulas[name] = formula
    if COUNTER in sys.modules:
        _register(name)


def counted_as_called(name: str, formula: Callable[..., int]) -> None:
    """The same, for a formula of the operator's own arguments, shapes in the place of tensors."""
    schema = schema_of(name)

    def flat(*arguments: Any, out_shape: Any = None, **_: Any) -> int:
        return formula(*schema.rebuild(arguments, Similarity))

    counted(name, flat)


def _register(name: str) -> None:
    sys.modules[COUNTER].register_flop_formula(getattr(getattr(torch.ops, PACKAGE), name))(_formulas[name])


class _WhenImported(MetaPathFinder):
    """Registers all formulas as soon as PyTorch's counter is there."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != COUNTER:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module: ModuleType) -> None:
                load(module)
                for formula in _formulas:
                    _register(formula)

            spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


if COUNTER not in sys.modules:
    sys.meta_path.insert(0, _WhenImported())


def _search(query: Shape, key: Shape, init: Any, problem: Problem) -> int:
    """All pairs that are compared; of the guided search, as the data decide, the most that can be: the projection, the
    leaves of all scans and a list's whole patches.
    """
    k, geometry, dims = problem.k, problem.geometry, len(problem.geometry.patch_size)
    sizes, num_heads = (tuple(query[2:]), tuple(key[2:])), geometry.num_heads
    queries, keys, elements = prod(sizes[0]), prod(sizes[1]), query[1] * prod(geometry.patch_size)
    chosen, count = resolve_method(problem, *sizes)
    if chosen.name == "guided":
        length = ceil((k + max(4, k // 2)) / LEAF) * LEAF
        numbers = min(NUMBERS, elements // num_heads)
        in_leaves = queries * num_heads * LEAF * (1 + count * length * dims) * numbers
        return 2 * query[0] * ((queries + keys) * elements * numbers + in_leaves + queries * length * elements)
    if chosen.compared is None:
        raise ValueError(f"method: {chosen.name!r} was registered without compared=, which its operations are told by.")
    return 2 * query[0] * queries * chosen.compared(problem, *sizes, count) * elements


def _similarity_at(query: Shape, key: Shape, index: Shape, geometry: PatchGeometry, backend: str) -> int:
    return 2 * prod(index) * query[1] // index[1] * prod(geometry.patch_size)


def _similarity_at_backward(grad: Shape, *arguments: Any) -> int:
    return 2 * _similarity_at(*arguments)


def _similarity_tangent(query: Shape, key: Shape, index: Shape, by_query: Shape, by_key: Shape, *settings: Any) -> int:
    return 2 * _similarity_at(query, key, index, *settings)


def _attend(similarity: Shape, index: Shape, value: Shape, window: Shape, *_: Any) -> int:
    return 2 * prod(index) * prod(window) * value[1] // index[1]


def _attend_backward(
    grad: Shape, similarity: Shape, index: Shape, value: Shape, output: Shape, normalizer: Shape, window: Shape,
    *_: Any,
) -> int:  # fmt: skip
    return 2 * _attend(similarity, index, value, window)


def _weighted_sum(weight: Shape, index: Shape, value: Shape, backend: str) -> int:
    return 2 * prod(index) * value[1] // index[1]


def _weighted_sum_backward(grad: Shape, *arguments: Any) -> int:
    return 2 * _weighted_sum(*arguments)


for _formula in (
    _search, _similarity_at, _similarity_at_backward, _similarity_tangent, _attend, _attend_backward, _weighted_sum,
    _weighted_sum_backward,
):  # fmt: skip
    counted_as_called(_formula.__name__[1:], _formula)
