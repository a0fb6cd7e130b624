"""Section `error`: how far SCRAM's sparse approximation and its two estimators are from full attention.

On real feature maps of 64 x 64, single positions, scaled dot products, temperature 1: two photographs with themselves,
and one video frame with another (the pair whose attention is coherent), each as `tokens` (64 channels; values are the
key's features) and as standardized colors (3 channels; values are the key's image, standardized too).

The error is the root mean square of (output - full attention) over all queries and channels, relative to the root mean
square of full attention's output. That of an estimator is the root of the mean over several seeds of its square.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from figures import new_figure, plain_logarithmic, write_figure
from machine import Report
from pairs import frames, read, resized, standardized, tokens
from torch import Tensor

from patchattn import MatchField, ScramDiagnostics, scram_attention
from patchattn.baselines import full_attention

SIDE = 64
KAPPAS = (1, 2, 4, 8, 16, 32, 64)
RADII = (0, 1, 2)
# The rule that chooses keys: top-kappa(max), and top-kappa(mode) with its separation L.
RULES: dict[str, dict[str, Any]] = {
    "max": {"selection": "max"},
    **{f"mode, L = {apart}": {"selection": "mode", "separation": apart} for apart in (3, 5, 9)},
}
SAMPLES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
ESTIMATORS: dict[str, dict[str, Any]] = {
    "SNIS, mixture (α = 0.5)": {"estimator": "snis", "alpha": 0.5},
    "SNIS, uniform (α = 0)": {"estimator": "snis", "alpha": 0.0},
    "Metropolis-Hastings": {"estimator": "mh"},
}
MIXTURE, UNIFORM, CHAINS = ESTIMATORS
SLOPE_FROM, ASKED_SLOPE = 64, (-0.6, -0.4)
COMPARED_AT, ASKED_RATIO = 64, 5.0
TEMPERATURES = (1.0, 0.5, 0.25, 0.125)
MANY = 1024

ALPHAS = (0.25, 0.5, 0.75, 0.9)
SCALES = (1.0, 2.0, 4.0)
MODES = (1, 4, 8)
DEFAULTS = (0.5, 2.0, 3)


@dataclass(frozen=True)
class Map:
    """What is attended to, and whether its attention is coherent: neighbors attend to neighbors."""

    name: str
    query: Tensor
    key: Tensor
    value: Tensor
    coherent: bool
    temperature: float = 1.0

    @cached_property
    def full(self) -> Tensor:
        """The output to be approximated."""
        return full_attention(
            self.query, self.key, self.value, patch_size=1, similarity="scaled_dot", temperature=self.temperature
        )

    def effective_share(self) -> Tensor:
        """Of endless uniform samples, those that count, for every query: the limit of equation (16) over T."""
        query, key = (x[0].flatten(1).double() for x in (self.query, self.key))
        similarity = query.T @ key / query.shape[0] ** 0.5
        squares = (similarity / self.temperature).softmax(1).square().sum(1)
        return 1 / (key.shape[1] * squares)  # with r = 1 / n, its sums tend to T and T n sum p^2

    def squared_error(self, output: Tensor) -> float:
        """Relative mean squared error."""
        return float((output - self.full).double().square().mean() / self.full.double().square().mean())

    def attend(self, **settings: Any) -> tuple[Tensor, ScramDiagnostics]:
        """SCRAM's output and what it was computed from."""
        answer: tuple[Tensor, ScramDiagnostics] = scram_attention(
            self.query, self.key, self.value, temperature=self.temperature, **settings, return_diagnostics=True
        )
        return answer

    def modes(self, k: int) -> MatchField:
        """The modes that the estimators start from."""
        field: MatchField = scram_attention(self.query, self.key, self.value, k=k, selection="mode", return_field=True)[
            1
        ]
        return field


def maps_of(data: Path) -> list[Map]:
    """The feature maps."""
    files = sorted(data.glob("bsds500/*.jpg"))[:2]
    images = [(f"photograph {file.stem}", *[read(file, SIDE)] * 2, False) for file in files]
    images.append(("two video frames", *(resized(frame, SIDE) for frame in frames(data)), True))
    maps = []
    for name, query, key, coherent in images:
        for kind, features in (("64 channels", tokens), ("colors", standardized)):
            maps.append(Map(f"{name}, {kind}", features(query), features(key), features(key), coherent))
    return maps


def _fits(rule: str, k: int) -> bool:
    """Whether so many matches, so far apart, fill no more than half of the key: beyond, a search looks in vain."""
    return k * RULES[rule].get("separation", 1) ** 2 <= SIDE * SIDE / 2


def _sparse(one: Map) -> list[dict[str, Any]]:
    results = []
    for rule, settings in RULES.items():
        for k in KAPPAS:
            if not _fits(rule, k):
                continue
            field = scram_attention(one.query, one.key, one.value, k=k, **settings, return_field=True)[1]
            for radius in RADII:
                output, diagnostics = one.attend(field=field, expand=radius)
                keys = float((diagnostics.samples >= 0).sum(2).double().mean())
                results.append(
                    {"map": one.name, "kind": "sparse", "rule": rule, "k": k, "expand": radius}
                    | {"keys": keys, "error": one.squared_error(output) ** 0.5}
                )
    return results


def _estimated(one: Map, field: MatchField, seeds: int, **settings: Any) -> dict[str, float]:
    """The error over the seeds, and the means of the diagnostics."""
    squares, sizes, rates = [], [], []
    for seed in range(seeds):
        output, diagnostics = one.attend(field=field, seed=seed, **settings)
        squares.append(one.squared_error(output))
        if diagnostics.effective_sample_size is not None:
            sizes.append(float(diagnostics.effective_sample_size.double().mean()))
        if diagnostics.acceptance_rate is not None:
            rates.append(float(diagnostics.acceptance_rate.double().mean()))
    answer = {"error": float(np.mean(squares)) ** 0.5}
    if sizes:
        answer["effective"] = float(np.mean(sizes))
    if rates:
        answer["acceptance"] = float(np.mean(rates))
    return answer


def _estimates(one: Map, seeds: int, counts: Sequence[int]) -> list[dict[str, Any]]:
    field = one.modes(DEFAULTS[2])
    return [
        {"map": one.name, "kind": name, "samples": count, **_estimated(one, field, seeds, samples=count, **settings)}
        for name, settings in ESTIMATORS.items()
        for count in counts
    ]


def _tuned(one: Map, seeds: int) -> list[dict[str, Any]]:
    results = []
    for k in dict.fromkeys((*MODES, DEFAULTS[2])):
        field = one.modes(k)
        for alpha in ALPHAS:
            for scale in SCALES:
                chosen = {"alpha": alpha, "scale": scale, "samples": COMPARED_AT}
                results.append(
                    {"map": one.name, "kind": "tuning", "k": k, **chosen}
                    | _estimated(one, field, seeds, estimator="snis", **chosen)
                )
    return results


def _sharpened(one: Map, seeds: int) -> list[dict[str, Any]]:
    """Both proposals where the softmax is sharper."""
    field = one.modes(DEFAULTS[2])
    results = []
    for temperature in TEMPERATURES:
        sharp = replace(one, temperature=temperature)
        seen = {
            kind: _estimated(sharp, field, seeds, samples=COMPARED_AT, **ESTIMATORS[kind])
            for kind in (MIXTURE, UNIFORM)
        }
        # Few samples that all miss the peak look alike, and so effective; with many they do not.
        many = sharp.attend(field=field, samples=MANY, **ESTIMATORS[MIXTURE])[1].effective_sample_size
        mixture, uniform = many.flatten().double() / MANY, sharp.effective_share()
        results.append(
            {"map": one.name, "kind": "sharp", "temperature": temperature}
            | {"mixture": float(mixture.mean()) * COMPARED_AT, "uniform": float(uniform.mean()) * COMPARED_AT}
            | {"median_ratio": float((mixture / uniform).median())}
            | {"seen_ratio": seen[MIXTURE]["effective"] / seen[UNIFORM]["effective"]}
            | {"errors": [seen[kind]["error"] for kind in (MIXTURE, UNIFORM)]}
        )
    return results


def _sharp_report(results: list[dict[str, Any]]) -> Report:
    rows = []
    sharp = [r for r in results if r["kind"] == "sharp"]
    for r in sharp:
        ratio = r["mixture"] / r["uniform"]
        rows.append(
            [
                *(r["map"], f"{r['temperature']:g}", f"{r['mixture']:.1f}", f"{r['uniform']:.2f}", f"{ratio:.1f}"),
                f"{r['median_ratio']:.1f}",
                *("met" if ratio >= ASKED_RATIO else "MISSED", f"{r['seen_ratio']:.1f}"),
                *(f"{error:.3f}" for error in r["errors"]),
            ]
        )
    return Report(
        f"And where attention is sharper? Effective of {COMPARED_AT} samples in the limit of many (mixture: from "
        f"{MANY:,} samples; uniform: exactly, T / (n Σp²)), means over the queries, asked at least {ASKED_RATIO:g} "
        f"times the uniform one's; the ratio that equation (16) shows at T = {COMPARED_AT}, where uniform samples that "
        "all miss the peak look effective; and the errors.",
        [
            *(
                "map",
                "temperature",
                "mixture",
                "uniform",
                "ratio",
                "median of the queries' ratios",
                "asked",
                f"ratio seen at T = {COMPARED_AT}",
            ),
            *("error of the mixture", "of uniform"),
        ],
        rows,
        sharp,
    )


def _mean(results: list[dict[str, Any]], value: str, **chosen: Any) -> float:
    """Mean over the maps (geometric: no map outweighs the others)."""
    found = [r[value] for r in results if all(r.get(name) == wanted for name, wanted in chosen.items())]
    return float(np.exp(np.mean(np.log(found))))


def _sparse_report(results: list[dict[str, Any]]) -> Report:
    rows = []
    for rule in RULES:
        for radius in RADII:
            chosen = {"kind": "sparse", "rule": rule, "expand": radius}
            cells = [
                f"{_mean(results, 'error', k=k, **chosen):.3f} ({_mean(results, 'keys', k=k, **chosen):.0f})"
                if _fits(rule, k)
                else "does not fit"
                for k in KAPPAS
            ]
            rows.append([rule, str(radius), *cells])
    return Report(
        f"How near does the sparse approximation come to full attention over all {SIDE * SIDE:,} keys? Relative error, "
        "and in parentheses how many distinct keys it used; geometric means over the maps.",
        ["keys", "b", *(f"κ = {k}" for k in KAPPAS)],
        rows,
        [r for r in results if r["kind"] == "sparse"],
    )


def slope(results: list[dict[str, Any]], one: str, kind: str) -> float:
    """The power of T that an estimator's error falls with, from SLOPE_FROM on."""
    points = [
        (np.log(r["samples"]), np.log(r["error"]))
        for r in results
        if (r["map"], r["kind"]) == (one, kind) and r["samples"] >= SLOPE_FROM
    ]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])


def _found(results: list[dict[str, Any]], value: str, one: str, kind: str, samples: int) -> float:
    chosen = {"map": one, "kind": kind, "samples": samples}
    return next(r[value] for r in results if all(r.get(name) == wanted for name, wanted in chosen.items()))


def _estimator_report(results: list[dict[str, Any]], maps: list[str], counts: Sequence[int], seeds: int) -> Report:
    rows = []
    for one in maps:
        for kind in ESTIMATORS:
            errors = [f"{_found(results, 'error', one, kind, count):.3f}" for count in counts]
            name = "acceptance" if kind == CHAINS else "effective"
            told = _found(results, name, one, kind, COMPARED_AT)
            shown = f"{told:.0%} accepted" if kind == CHAINS else f"{told:.1f}"
            rows.append([one, kind, *errors, f"{slope(results, one, kind):.2f}", shown])
    return Report(
        f"And the estimators? Relative error over the number of samples T, {seeds} seeds, κ = {DEFAULTS[2]} modes, "
        f"φ = {DEFAULTS[1]:g}; the power of T it falls with from T = {SLOPE_FROM} on; and at T = {COMPARED_AT} the "
        "mean effective sample size, or what Metropolis-Hastings accepted.",
        ["map", "estimator", *(f"T = {count}" for count in counts), "falls as T to the", f"at T = {COMPARED_AT}"],
        rows,
        [r for r in results if r["kind"] in ESTIMATORS],
    )


def _target_report(results: list[dict[str, Any]], maps: list[Map]) -> Report:
    rows, found = [], []
    low, high = ASKED_SLOPE
    for one in maps:
        power = slope(results, one.name, MIXTURE)
        sizes = [_found(results, "effective", one.name, kind, COMPARED_AT) for kind in (MIXTURE, UNIFORM)]
        errors = [_found(results, "error", one.name, kind, COMPARED_AT) for kind in (MIXTURE, UNIFORM)]
        ratio, gain = sizes[0] / sizes[1], errors[1] / errors[0]
        found.append({"map": one.name, "slope": power, "ess_ratio": ratio, "error_ratio": gain, "kind": "targets"})
        falls = "met" if low <= power <= high else "MISSED"
        larger = ("met" if ratio >= ASKED_RATIO else "MISSED") if one.coherent else "not asked here"
        rows.append([one.name, f"{power:.2f}", falls, f"{ratio:.1f}", larger, f"{gain:.1f}"])
    return Report(
        f"Asked and seen, mixture beside uniform proposal: the mixture's error falls as T to the -1/2 ({low:g} to "
        f"{high:g}, T from {SLOPE_FROM} on), and at T = {COMPARED_AT} its effective sample size is at least "
        f"{ASKED_RATIO:g} times the uniform one's on a coherent map.",
        ["map", "power of T", "asked", "effective sample sizes, ratio", "asked", "error of uniform over mixture"],
        rows,
        found,
    )


def _tuning_report(results: list[dict[str, Any]], seeds: int) -> Report:
    counts = sorted({r["k"] for r in results if r["kind"] == "tuning"})
    rows = []
    for alpha in ALPHAS:
        for scale in SCALES:
            chosen = {"kind": "tuning", "alpha": alpha, "scale": scale}
            cells = [
                f"{_mean(results, 'error', k=k, **chosen):.3f} / {_mean(results, 'effective', k=k, **chosen):.1f}"
                + (" (default)" if (alpha, scale, k) == DEFAULTS else "")
                for k in counts
            ]
            rows.append([f"{alpha:g}", f"{scale:g}", *cells])
    tuned = [r for r in results if r["kind"] == "tuning"]
    choices = [(alpha, scale, k) for alpha in ALPHAS for scale in SCALES for k in counts]

    def mean(choice: tuple[float, float, int], value: str) -> float:
        return _mean(tuned, value, alpha=choice[0], scale=choice[1], k=choice[2])

    least = min(choices, key=lambda choice: mean(choice, "error"))
    most = max(choices, key=lambda choice: mean(choice, "effective"))
    named = [f"α = {a:g}, φ = {s:g}, κ = {k}" for a, s, k in (least, most)]
    return Report(
        f"What proposal is best? Mixture at T = {COMPARED_AT}, {seeds} seeds: relative error / effective sample size, "
        "geometric means over the maps.",
        ["α", "φ", *(f"κ = {k} modes" for k in counts)],
        rows,
        tuned,
        [f"Least error: {named[0]}. Largest effective sample size: {named[1]}."],
    )


def report_error(
    data: Path, plots: Path | None, seeds: int = 4, tuning_seeds: int = 2, counts: Sequence[int] = SAMPLES
) -> list[Report]:
    """Errors of everything."""
    maps = maps_of(data)
    results: list[dict[str, Any]] = []
    for one in maps:
        print(f"  {one.name}", file=sys.stderr, flush=True)
        results += _sparse(one) + _estimates(one, seeds, counts) + _tuned(one, tuning_seeds)
        if one.coherent:
            results += _sharpened(one, seeds)
    names = [one.name for one in maps]
    if plots is not None:
        _plot_error(plots / "scram-error.png", results, names)
    return [
        _sparse_report(results),
        _estimator_report(results, names, counts, seeds),
        _target_report(results, maps),
        _sharp_report(results),
        _tuning_report(results, tuning_seeds),
    ]


# Chosen so that the figure stays readable; the JSON holds all.
DRAWN = {
    ("max", 0): ("tab:blue", "-", "o"),
    ("max", 1): ("tab:blue", "--", "o"),
    ("mode, L = 5", 0): ("tab:green", "-", "s"),
    ("mode, L = 5", 1): ("tab:green", "--", "s"),
    ("mode, L = 5", 2): ("tab:green", ":", "s"),
}
DRAWN_ESTIMATORS = {MIXTURE: ("tab:red", "-", "^"), UNIFORM: ("tab:gray", "-", "v"), CHAINS: ("tab:orange", "-", "D")}


def _plot_error(path: Path, results: list[dict[str, Any]], names: list[str]) -> None:
    figure = new_figure(17, 10.5)
    # Photographs from left to right, kinds of features from top to bottom.
    panels = figure.subplots(2, len(names) // 2, sharex=True, sharey=True)
    ticks = [1, 4, 16, 64, 256, 1024]
    for n, name in enumerate(names):
        axes = panels[n % 2, n // 2]
        here = [r for r in results if r["map"] == name]
        for (rule, radius), (color, line, marker) in DRAWN.items():
            points = [(r["keys"], r["error"]) for r in here if (r.get("rule"), r.get("expand")) == (rule, radius)]
            label = f"sparse, top-κ({rule}), b = {radius}"
            axes.plot(*zip(*points, strict=True), color=color, linestyle=line, marker=marker, ms=5, label=label)
        for kind, (color, line, marker) in DRAWN_ESTIMATORS.items():
            points = [(r["samples"], r["error"]) for r in here if r["kind"] == kind]
            axes.plot(*zip(*points, strict=True), color=color, linestyle=line, marker=marker, ms=5, label=kind)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        plain_logarithmic(axes.xaxis, ticks)
        plain_logarithmic(axes.yaxis, [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2])
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.set_title(name)
        axes.set_xlabel("keys (sparse: distinct ones, mean) or samples T of a query")
        axes.set_ylabel("error relative to full attention")
        axes.tick_params(labelbottom=True, labelleft=True)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    write_figure(figure, path)
