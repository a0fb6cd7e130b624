"""Operator `patchattn::search`: find the field. It has no gradient: matches are positions."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.checks import on_host
from patchattn.kernels import load_backend
from patchattn.ops.methods import resolve_method
from patchattn.ops.register import fake, operator
from patchattn.problem import Problem

__all__ = ["search"]


@operator("search", shared=("key", "query_mask", "key_mask"))
def search(query: Tensor, key: Tensor, init: Tensor | None, problem: Problem) -> tuple[Tensor, Tensor]:
    """Return index (int32) and similarity, both `(B, heads, k, *query)`. "auto" is decided here, by the sizes."""
    kernels, constraints = load_backend(problem.backend), problem.constraints
    # On a device this is not asked: the answer would have to be waited for, and the kernels cope with empty masks.
    masks = (constraints.query_mask, constraints.key_mask)
    if any(mask is not None and on_host(mask) and not mask.any() for mask in masks):
        index, found = _empty_field(query, problem)
        return index.fill_(-1), found.fill_(-torch.inf)
    method, count = resolve_method(problem, tuple(query.shape[2:]), tuple(key.shape[2:]))
    find = method.function(problem.backend, kernels)
    more = () if method.iterations is None else (count, problem.strategy.seed, init)
    index, found = find(query, key, problem.k, problem.geometry, constraints, *more)
    _check_result(method.name, index, found, query, problem)
    return index, found


@fake("search")
def _search_fake(query: Tensor, key: Tensor, init: Tensor | None, problem: Problem) -> tuple[Tensor, Tensor]:
    return _empty_field(query, problem)


def _check_result(method: str, index: Tensor, found: Tensor, query: Tensor, problem: Problem) -> None:
    """Refuse what is no field, which a method from outside may return."""
    shape, dtype = _field_like(query, problem)
    if (index.dtype, found.dtype, index.shape, found.shape) != (torch.int32, dtype, shape, shape):
        raise ValueError(
            f"method: {method!r} must return an index (int32) and a similarity ({dtype}) of shape {shape}, got "
            f"{index.dtype} {tuple(index.shape)} and {found.dtype} {tuple(found.shape)}."
        )


def _empty_field(query: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    shape, dtype = _field_like(query, problem)
    return query.new_empty(shape, dtype=torch.int32), query.new_empty(shape, dtype=dtype)


def _field_like(query: Tensor, problem: Problem) -> tuple[tuple[int, ...], torch.dtype]:
    shape = (query.shape[0], problem.geometry.num_heads, problem.k, *query.shape[2:])
    return shape, torch.float64 if query.dtype == torch.float64 else torch.float32
