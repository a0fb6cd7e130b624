"""All layers against their formulas over all pairs (`oracle.py`), on a sample of configurations that is drawn once."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import patchattn as pa
from tests.attention import oracle
from tests.attention.oracle import Array, Compared
from tests.cases import POINTWISE

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {1: [(5,), (9,), (14,)], 2: [(4, 5), (6, 4), (3, 7)], 3: [(3, 3, 4), (3, 4, 3)]}
MATCHED = ("patch", "aggregate", "scram", "masked")
DENSE = ("full", "local", "strided", "fixed", "linear")
PASTED = ("cross_scale", "cross_scale_patch", "contextual")
SAMPLE = 150

Drawn = tuple[dict[str, Any], Callable[..., Array], Callable[..., Tensor], list[Array]]


def draw(seed: int, names: tuple[str, ...], backends: tuple[str, ...]) -> Drawn:
    """A configuration, the formula and the layer with it, and query, key and value."""
    dice = random.Random(seed)
    name, backend = dice.choice(names), dice.choice(backends)
    if name in PASTED:
        return _pasted(name, dice, backend)
    dims = dice.choice((1, 2, 2, 3) if name not in ("strided", "fixed") else (2, 3))
    size = dice.choice(SIZES[dims])
    causal = dice.choice((False, False, True, "strict")) if name not in ("masked", "linear") else False
    together = bool(causal) or name in ("strided", "fixed", "masked")
    keys = size if together else dice.choice(SIZES[dims])
    patch = tuple(dice.choice((1, 3)) for _ in size)
    padding = dice.choice(("reflect", "replicate", "zeros", "valid"))
    shared, heads, batch = dice.random() < 0.3, dice.choice((1, 2)), 2
    products = ("l2", "dot", "scaled_dot", "cosine")
    similarity = dice.choice((*products, "l1", "pointwise") if name in MATCHED and backend != "cpu" else products)
    if name in MATCHED and backend == "cpu" and dice.random() < 0.2:
        similarity = "l1"
    ratio = dice.choice((1, 1, 2)) if name in ("patch", "aggregate", "scram") else 1
    numbers = np.random.default_rng(seed)
    inputs = [
        numbers.standard_normal((batch, 4, *size)),
        numbers.standard_normal((1 if shared else batch, 4, *keys)),
        numbers.standard_normal((1 if shared else batch, 2, *(ratio * n for n in keys))),
    ]
    masks: dict[str, Array | None] = {"query_mask": None, "key_mask": None}
    if dice.random() < 0.5:
        masks["query_mask"] = None if name == "masked" else numbers.random((batch, *size)) < 0.8
    if dice.random() < 0.5 or name == "masked":
        masks["key_mask"] = numbers.random((1 if shared else batch, *keys)) < 0.7
    temperature = 1.0 if name == "linear" else dice.choice((0.5, 1.0, 3.0))
    if name == "masked":
        heads = 1
    offset = (2,) * dims if name in ("patch", "aggregate", "scram") and dice.random() < 0.2 else None
    told = Compared(patch, heads, padding, similarity, temperature, causal, **masks, max_offset=offset)
    settings: dict[str, Any] = {"patch_size": patch, "padding_mode": padding}
    settings |= {label: None if m is None else torch.from_numpy(m) for label, m in masks.items()}
    own: dict[str, Any] = {}
    if name != "linear":
        settings |= {"similarity": POINTWISE if similarity == "pointwise" else similarity, "temperature": temperature}
    if name != "masked":
        settings |= {"num_heads": heads}
    if name in ("patch", "aggregate", "scram"):
        settings |= {"max_offset": offset}
    if name not in ("masked", "linear"):
        settings |= {"is_causal": causal}
    if name in MATCHED:
        own = {"k": dice.choice((1, 3, prod(keys)))}
        settings |= {"method": "exact", "backend": backend}
    if name in ("patch", "aggregate", "masked"):
        own["aggregate"] = name == "aggregate" or (name == "masked" and dice.random() < 0.5)
    if name == "masked":
        settings.pop("query_mask")
    if name == "scram":
        weighting, normalization = dice.choice(("exp", "cauchy")), dice.choice(("sum", "count", "none"))
        own |= {"expand": dice.choice((0, 1)), "weighting": weighting, "normalization": normalization}
    if name == "full":
        own = {"key_stride": tuple(dice.choice((1, 2)) for _ in size)}
    if name == "local":
        own = {"window": tuple(dice.choice((1, 2, 3, 4)) for _ in size)}
    if name in ("strided", "fixed"):
        own = {"pattern": name, "summary": dice.choice((1, 2))}
    label = {"aggregate": "patch", "strided": "sparse", "fixed": "sparse"}.get(name, name)
    label = f"{label if name != 'masked' else 'masked_patch'}_attention"
    configuration = {"layer": name, "size": size, "keys": keys, "shared": shared, "ratio": ratio, **settings, **own}
    called = own
    if name == "scram":
        called = {**own, "weighting": None if weighting == "exp" else lambda s: 1 / (1 + s**2)}

    def formula(*images: Array) -> Array:
        found: Array = getattr(oracle, label)(*images, told, **own)
        return found

    return (
        configuration,
        formula,
        lambda *images: getattr(pa.baselines if label in pa.baselines.__all__ else pa, label)(
            *images, **settings, **called
        ),
        inputs,
    )


def _pasted(name: str, dice: random.Random, backend: str) -> Drawn:
    numbers, size, keys = np.random.default_rng(dice.randrange(2**31)), dice.choice(SIZES[2]), dice.choice(SIZES[2])
    batch, shared = 2, dice.random() < 0.3
    shapes = [(batch, 3, *size), (1 if shared else batch, 3, *keys), (1 if shared else batch, 2, *keys)]
    configuration: dict[str, Any] = {"layer": name, "size": size, "keys": keys, "shared": shared}
    patch = dice.choice((1, 3))
    if name == "contextual":
        inputs = [numbers.standard_normal(shape) for shape in shapes]
        mask = numbers.random((1, *keys)) < 0.9 if dice.random() < 0.6 else None
        own = {"rate": dice.choice((1, 2)), "scale": 2.0, "fuse": dice.random() < 0.5}
        configuration |= {**own, "patch": patch, "mask": mask}
        told = None if mask is None else torch.from_numpy(mask)
        return (
            configuration,
            lambda *images: oracle.contextual_attention(*images, patch=patch, key_mask=mask, **own),
            lambda *images: pa.contextual_attention(*images, patch_size=patch, key_mask=told, **own),
            inputs,
        )
    ratio = dice.choice((1, 2, 3))
    shapes[2] = (*shapes[2][:2], *(ratio * n for n in keys))
    own = {"scale": dice.choice((1.0, 10.0)), "divisor": dice.choice((1.0, 6.0))}
    k = None if name == "cross_scale" else dice.choice((1, 4, prod(keys)))
    configuration |= {**own, "patch": patch, "ratio": ratio, "k": k, "backend": backend}
    extra = {} if k is None else {"k": k, "method": "exact", "backend": backend}
    return (
        configuration,
        lambda *images: oracle.cross_scale_attention(*images, patch=patch, k=k, **own),
        lambda *images: getattr(pa, f"{name}_attention")(*images, patch_size=patch, **own, **extra),
        [numbers.standard_normal(shape) for shape in shapes],
    )


def assert_as_defined(drawn: Drawn) -> None:
    configuration, formula, layer, inputs = drawn
    found = layer(*map(torch.from_numpy, inputs)).numpy()
    np.testing.assert_allclose(found, formula(*inputs), rtol=1e-8, atol=1e-9, err_msg=str(configuration))


@pytest.mark.parametrize("names", [MATCHED, DENSE, PASTED])
def test_layers_are_what_their_formulas_say(names: tuple[str, ...]) -> None:
    for seed in range(SAMPLE // 3):
        assert_as_defined(draw(seed, names, ("reference",)))


@pytest.mark.needs("cpu")
@pytest.mark.parametrize("names", [("patch", "aggregate"), ("scram",), ("masked",), ("cross_scale_patch",)])
def test_the_cpu_is_as_defined(names: tuple[str, ...]) -> None:
    for seed in range(20):
        assert_as_defined(draw(1000 + seed, names, ("cpu",)))


@pytest.mark.needs("gpu")
def test_the_gpu_is_as_defined() -> None:
    for seed in range(3):
        assert_as_defined(draw(2000 + seed, ("patch", "scram"), ("gpu",)))


@pytest.mark.parametrize("name", [*MATCHED, *DENSE, *PASTED])
def test_gradients_are_those_of_the_formulas(name: str) -> None:
    """Along one direction, by differences of the formula."""
    for seed in range(3):
        configuration, formula, layer, inputs = draw(3000 + seed, (name,), ("reference",))
        images = [torch.from_numpy(image).requires_grad_() for image in inputs]
        numbers = np.random.default_rng(seed)
        weights = numbers.standard_normal(formula(*inputs).shape)
        output = (layer(*images) * torch.from_numpy(weights)).sum()
        if configuration["layer"] == "masked" and not output.requires_grad:
            continue
        gradients = torch.autograd.grad(output, images, materialize_grads=True, allow_unused=True)
        direction = [numbers.standard_normal(image.shape) for image in inputs]
        along = sum(float((g.numpy() * d).sum()) for g, d in zip(gradients, direction, strict=True))
        step = 1e-6
        there, back = (
            (formula(*(x + sign * step * d for x, d in zip(inputs, direction, strict=True))) * weights).sum()
            for sign in (1, -1)
        )
        np.testing.assert_allclose(along, (there - back) / (2 * step), rtol=1e-5, atol=1e-6, err_msg=str(configuration))
