"""A small problem for each operator of the GPU backend; what gpu_compile.py builds and gpu_roofline.py counts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from patchattn.problem import Constraints, PatchGeometry
from patchattn.similarity import resolve_similarity

__all__ = ["PROBLEMS", "Case", "operators", "running"]

SCALE, ALPHA, TEMPERATURE, SAMPLES, STEPS = 2.0, 0.9, 0.1, 8, 4
"""Of the samplers and the softmax; none decides what is compiled."""


@dataclass(frozen=True)
class Case:
    """Sizes and settings that an operator is run with. On the device `meta` no tensor has data, and nothing is run."""

    p: int = 7
    channels: int = 16
    k: int = 3
    size: tuple[int, ...] = (1024, 1024)
    dtype: torch.dtype = torch.float32
    similarity: Any = "l2"
    padding: str = "reflect"
    batch: int = 1
    heads: int = 1
    constraints: str = ""
    """Labels of `limits`, separated by blanks."""
    init: bool = False
    iterations: int = 2
    device: str = "meta"
    seed: int = 0
    whole: bool = False
    """Features are small whole numbers, whose sums are exact in any order."""
    extra: str = ""
    """What is special about it, in the tables."""

    @property
    def compute(self) -> torch.dtype:
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def geometry(self) -> PatchGeometry:
        patch = (self.p,) * len(self.size)
        return PatchGeometry(patch, self.padding, self.heads, resolve_similarity(self.similarity))

    @property
    def limits(self) -> Constraints:
        """The constraints that the labels name."""
        labels, dims = self.constraints.split(), len(self.size)
        if unknown := set(labels) - {"masks", "causal", "strict", "separation", "offset"}:
            raise ValueError(f"constraints: unknown {sorted(unknown)}")
        masks = [self._mask(n) if "masks" in labels else None for n in range(2)]
        return Constraints(
            query_mask=masks[0],
            key_mask=masks[1],
            is_causal="causal" in labels or "strict" in labels,
            min_separation=(2,) * dims if "separation" in labels else (),
            max_offset=(5,) * dims if "offset" in labels else None,
            strict="strict" in labels,
        )

    def _mask(self, number: int) -> Tensor:
        if self.device == "meta":
            return torch.empty((self.batch, *self.size), dtype=torch.bool, device="meta")
        return torch.rand((self.batch, *self.size), generator=self._generator(100 + number)) < 0.8

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1000 + number)

    def image(self, number: int) -> Tensor:
        """Features `(B, C, *size)`."""
        numbers = self.numbers((self.batch, self.channels * self.heads, *self.size), number)
        return (3 * numbers).round() if self.whole else numbers

    def numbers(self, shape: tuple[int, ...], number: int, dtype: torch.dtype | None = None) -> Tensor:
        if self.device == "meta":
            return torch.empty(shape, dtype=dtype or self.dtype, device="meta")
        return torch.randn(shape, generator=self._generator(number)).to(dtype or self.dtype)

    def matches(self, number: int = 10) -> Tensor:
        """Random keys, int32 `(B, heads, k, *size)`; all there are."""
        shape = (self.batch, self.heads, self.k, *self.size)
        if self.device == "meta":
            return torch.empty(shape, dtype=torch.int32, device="meta")
        return torch.randint(prod(self.size), shape, generator=self._generator(number), dtype=torch.int32)

    def weights(self, number: int) -> Tensor:
        """A number for each of the matches."""
        return self.numbers((self.batch, self.heads, self.k, *self.size), number, self.compute)


def _search(case: Case, search: Callable[..., Any]) -> None:
    init = case.matches() if case.init else None
    search(case.image(0), case.image(1), case.k, case.geometry, case.limits, case.iterations, 3, init)


def _exact(case: Case, search: Callable[..., Any]) -> None:
    search(case.image(0), case.image(1), case.k, case.geometry, case.limits)


def _similarity(case: Case, similarity_at: Callable[..., Any]) -> None:
    similarity_at(case.image(0), case.image(1), case.matches(), case.geometry)


def _similarity_backward(case: Case, backward: Callable[..., Any]) -> None:
    backward(case.weights(2), case.image(0), case.image(1), case.matches(), case.geometry)


def _tangent(case: Case, tangent: Callable[..., Any]) -> None:
    tangent(*(case.image(n) for n in (0, 1)), case.matches(), *(case.image(n) for n in (4, 5)), case.geometry)


def _windows(case: Case) -> list[tuple[int, ...]]:
    """Without the votes of the neighbors, and with them."""
    own = (1,) * len(case.size)
    return list(dict.fromkeys([own, case.geometry.patch_size]))


def _attend(case: Case, attend: Callable[..., Any]) -> None:
    for window in _windows(case):
        attend(case.weights(2), case.matches(), case.image(3), window, TEMPERATURE)


def _attend_backward(case: Case, backward: Callable[..., Any]) -> None:
    normalizer = case.numbers((case.batch, case.heads, *case.size), 6, case.compute)
    images = [case.image(n) for n in (4, 3, 5)]
    for window in _windows(case):
        backward(images[0], case.weights(2), case.matches(), *images[1:], normalizer, window, TEMPERATURE)


def _expand(case: Case, expand: Callable[..., Any]) -> None:
    expand(case.matches(), case.size, tuple(side // 2 for side in case.geometry.patch_size), case.limits)


def _majority(case: Case, majority: Callable[..., Any]) -> None:
    majority(case.matches(), case.size, case.geometry.patch_size, case.limits)


def _mixture(case: Case, sample: Callable[..., Any]) -> None:
    scale = (SCALE,) * len(case.size)
    sample(case.matches(), case.size, case.limits, scale, ALPHA, SAMPLES, 3, case.compute)


def _chains(case: Case, sample: Callable[..., Any]) -> None:
    images, scale = (case.image(0), case.image(1)), (SCALE,) * len(case.size)
    sample(*images, case.matches(), case.geometry, case.limits, scale, TEMPERATURE, 2, STEPS, 3)


def _weighted_sum(case: Case, weighted_sum: Callable[..., Any]) -> None:
    weighted_sum(case.weights(2), case.matches(), case.image(3))


def _weighted_sum_backward(case: Case, backward: Callable[..., Any]) -> None:
    backward(case.image(4), case.weights(2), case.matches(), case.image(3))


PROBLEMS: dict[str, Callable[[Case, Callable[..., Any]], None]] = {
    "search_patchmatch": _search,
    "search_repeated": _search,
    "search_guided": _search,
    "search_exact": _exact,
    "similarity_at": _similarity,
    "similarity_at_backward": _similarity_backward,
    "similarity_tangent": _tangent,
    "attend": _attend,
    "attend_backward": _attend_backward,
    "weighted_sum": _weighted_sum,
    "weighted_sum_backward": _weighted_sum_backward,
    "expand": _expand,
    "majority": _majority,
    "sample_mixture": _mixture,
    "sample_chains": _chains,
}


def operators() -> dict[str, Callable[[Case], None]]:
    """What runs each operator that the GPU backend exports; one without a problem is an error."""
    from patchattn.kernels import gpu

    if missing := set(gpu.__all__) - set(PROBLEMS):
        raise RuntimeError(f"gpu_problems.PROBLEMS has no entry for {', '.join(sorted(missing))}.")

    def bound(name: str) -> Callable[[Case], None]:
        return lambda case: PROBLEMS[name](case, getattr(gpu, name))

    return {name: bound(name) for name in PROBLEMS if name in gpu.__all__}


@contextmanager
def running(runner: Callable[..., None]) -> Any:
    """Let `runner(kernel, grid, device, arguments, options)` have what would be launched."""
    from patchattn.kernels.gpu import launch

    launch.runner, before = runner, launch.runner
    try:
        yield
    finally:
        launch.runner = before
