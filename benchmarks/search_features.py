"""Sections `tokens` and `noise`: features of networks, and features that have little structure or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import Report
from pairs import PHOTOGRAPHS, K, convolved, frames, interior_cost, read, standardized, timed, tokens
from torch import Tensor

from patchattn import MatchField

TOKEN_SIZE = 128
TOKEN_SEARCH: dict[str, Any] = {"k": 16, "patch_size": 1, "similarity": "scaled_dot"}
TOKEN_SETTINGS = (("guided", 2), ("guided", 4), ("patchmatch", 5))
CROSS = ((0, 1), (2, 3))

NOISE_SIZE = 256
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
ITERATIONS = (1, 2, 5, 10)


def recall(found: MatchField, exact: MatchField) -> float:
    """Attention mass of what was found over that of the exact matches, mean over the queries."""
    best = exact.similarity.double().amax(2, keepdim=True)
    masses = [(field.similarity.double() - best).exp().sum(2) for field in (found, exact)]
    return float((masses[0] / masses[1]).mean())


def _projected(features: Tensor, seed: int) -> Tensor:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(seed)) / 8
    return torch.einsum("oc,bchw->bohw", weight, features)


def _token_pairs(data: Path, size: int) -> list[tuple[str, Tensor, Tensor]]:
    files = sorted(data.glob("bsds500/*.jpg"))[:PHOTOGRAPHS]
    features = [tokens(read(file, size)) for file in files]
    pairs = [(f"{file.stem} with itself", one, one) for file, one in zip(files, features, strict=True)]
    pairs += [(f"{files[i].stem}, {files[j].stem}", features[i], features[j]) for i, j in CROSS]
    return pairs + [(f"{name}; projected", _projected(q, 1), _projected(k, 2)) for name, q, k in pairs]


def report_tokens(data: Path, runs: int, size: int = TOKEN_SIZE) -> Report:
    """Attention between positions of feature maps."""
    rows: list[list[str]] = []
    results: list[dict[str, Any]] = []
    for name, query, key in _token_pairs(data, size):
        exact, time = timed(query, key, runs, **TOKEN_SEARCH, method="exact")
        row = [name, f"{time['median']:.2f}"]
        results.append({"features": name, "method": "exact", "seconds": time})
        for method, iterations in TOKEN_SETTINGS:
            field, time = timed(query, key, runs, **TOKEN_SEARCH, method=method, iterations=iterations)
            held = recall(field, exact)
            row += [f"{time['median']:.2f}", f"{held:.3f}"]
            results.append(
                {"features": name, "method": method, "iterations": iterations, "seconds": time, "recall": held}
            )
        rows.append(row)
    headings = [heading for method, n in TOKEN_SETTINGS for heading in (f"{method} {n}, s", "recall")]
    return Report(
        f"Does it find what attention attends to? Single positions of {size}x{size} feature maps (photographs through "
        "three random convolutions), 64 channels, scaled dot products, k = 16; recall is the softmax mass of the "
        'matches over that of the exact ones, mean over the queries; "projected": query and key each through a random '
        "64x64 matrix of its own. Seconds are medians.",
        ["features (query, key)", "exact, s", *headings],
        rows,
        results,
    )


@dataclass(frozen=True)
class Kind:
    """Features of an image, and the noise that is like them."""

    name: str
    patch: int
    features: Callable[[Tensor], Tensor]
    standard: bool
    """Whether the features have mean 0 and standard deviation 1, rather than lie in [0, 1]."""

    def noisy(self, image: Tensor, share: float, seed: int) -> Tensor:
        """Features blended with uniform noise."""
        clean = self.features(image)
        noise = torch.rand(clean.shape, generator=torch.Generator().manual_seed(seed))
        if self.standard:
            noise = (noise - 0.5) * 12**0.5
        return (1 - share) * clean + share * noise


def _as_it_is(image: Tensor) -> Tensor:
    return image


KINDS = (
    Kind("RGB, 7x7", 7, _as_it_is, False),
    Kind("RGB, 3x3", 3, _as_it_is, False),
    Kind("16 channels, 7x7", 7, lambda image: standardized(convolved(image)), True),
    Kind("64 channels, 1x1", 1, tokens, True),
)


def explained(query: Tensor, key: Tensor, patch: int) -> float:
    """Share of the keys' variance that the principal components of the guided search hold."""
    from patchattn.kernels.cpu.padded_image import pad
    from patchattn.kernels.cpu.patch_similarity import inverse_norms, patches_of
    from patchattn.kernels.cpu.projection import fit_basis, key_side
    from patchattn.problem import PatchGeometry
    from patchattn.similarity import resolve_similarity

    geometry = PatchGeometry((patch, patch), "reflect", 1, resolve_similarity("l2"))
    queries, keys = pad(query, geometry), pad(key, geometry)
    patches = patches_of(queries, keys, geometry)
    side, _ = key_side(keys, keys.item(0), inverse_norms(keys, geometry)[0], patches)
    return fit_basis(side, np.arange(key.shape[2] * key.shape[3]), patches).explained


def at_time(time: float, known: list[tuple[float, float]]) -> tuple[float, bool]:
    """The cost at a time, between known (time, cost) in the logarithm of time; and whether it lies between them.

    Before the first and after the last, it is theirs.
    """
    times, costs = zip(*sorted(known), strict=True)
    return float(np.interp(np.log(time), np.log(times), costs)), times[0] <= time <= times[-1]


def _compare(query: Tensor, key: Tensor, patch: int, runs: int) -> dict[str, Any]:
    search: dict[str, Any] = {"k": K, "patch_size": patch}
    field, time = timed(query, key, runs, **search, method="guided")
    guided: dict[str, Any] = {"seconds": time, "cost": float(interior_cost(field, patch)[0])}
    others: list[dict[str, Any]] = []
    for iterations in ITERATIONS:
        field, time = timed(query, key, runs, **search, method="patchmatch", iterations=iterations)
        others.append({"iterations": iterations, "seconds": time, "cost": float(interior_cost(field, patch)[0])})
    known = [(other["seconds"]["median"], other["cost"]) for other in others]
    cost, between = at_time(guided["seconds"]["median"], known)
    return {"guided": guided, "patchmatch": others, "patchmatch_at_equal_time": cost, "between": between}


def _shown(measured: dict[str, Any]) -> str:
    return f"{measured['seconds']['median']:.2f} s: {measured['cost']:.4g}"


def report_noise(data: Path, runs: int, size: int = NOISE_SIZE) -> Report:
    """Images that fade into white noise."""
    query, key = frames(data, size)
    rows, results = [], []
    for kind in KINDS:
        for share in SHARES:
            pair = kind.noisy(query, share, 1), kind.noisy(key, share, 2)
            result = _compare(*pair, kind.patch, runs)
            held, equal = explained(*pair, kind.patch), result["patchmatch_at_equal_time"]
            results.append({"features": kind.name, "noise": share, "explained": held, **result})
            rows.append(
                [
                    kind.name,
                    f"{share:g}",
                    f"{held:.0%}",
                    _shown(result["guided"]),
                    *map(_shown, result["patchmatch"]),
                    f"{equal:.4g}{'' if result['between'] else ' *'}",
                    f"{result['guided']['cost'] / equal:.3f}",
                ]
            )
    return Report(
        f"Does the guided search notice features that nothing can guide in? Frames at {size}x{size}, blended with a "
        "share of white noise, independent for query and key; median seconds and mean costs of the best match (l2, "
        "k = 3). The last columns: PatchMatch's cost in guided's time (in the logarithm of time between those "
        "measured; *: guided's time is outside of them, the nearest counts), and guided's over it (below 1: better).",
        [
            *("features", "noise", "variance explained", "guided"),
            *(f"patchmatch {n}" for n in ITERATIONS),
            *("patchmatch at equal time", "guided over it"),
        ],
        rows,
        results,
    )
