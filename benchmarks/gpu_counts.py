"""What the interpreter counts of the GPU's kernels: beside their formulas, and of searches on a photograph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from gpu_formulas import FORMULAS, Facts, count_votes
from gpu_problems import SAMPLES, STEPS, Case, operators
from gpu_traffic import Launched, Traffic, counting
from machine import table
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

__all__ = [
    "CHECKED",
    "MEASURED_SIDE",
    "PATCHMATCH_ITERATIONS",
    "Checked",
    "Rates",
    "check",
    "check_table",
    "measure_rates",
]

CHECKED = {
    "search_patchmatch": ("patchmatch.initialize", "patchmatch.propagate", "patchmatch.random_search"),
    "search_exact": ("exact.exact",),
    "search_guided": (
        "projection.project",
        "tree.widest",
        "guided_seed.seed",
        "guided_scan.scan",
        "guided_finish.finish",
    ),
    "similarity_at": ("similarity.similarity",),
    "similarity_at_backward": ("similarity_backward.query", "similarity_backward.key"),
    "attend": ("attend.attend",),
    "attend_backward": ("vote_gradients.score", "vote_gradients.value"),
    "weighted_sum": ("weighted_sum.sum",),
    "weighted_sum_backward": ("vote_gradients.score", "vote_gradients.value"),
    "expand": ("expand.expand",),
    "majority": ("majority.majority",),
    "sample_mixture": ("mixture.mixture",),
    "sample_chains": ("chains.chains",),
}
"""The kernels of each operator that have a formula."""
TOO_SMALL = ("gaussians", "temperature", "coldness", "words", "leaves", "counts")
"""Arguments of a few hundred bytes, left out of formulas and counts."""
DATA_DECIDE = ("patchmatch.", "guided_", "chains.")
"""Kernels of which the data decide how much they look at: that number is taken from the count itself."""


@dataclass(frozen=True)
class Checked:
    """Bytes predicted and counted."""

    operator: str
    kernel: str
    p: int
    loads: tuple[int, int]
    stores: tuple[int, int]


def check(operator: str, p: int, size: tuple[int, ...] = (32, 32), k: int = 3) -> list[Checked]:
    """Run an operator on random features in the interpreter, counting, and evaluate the formulas beside."""
    case = Case(p, 16, k, size=size, iterations=1, device="cpu")
    with counting() as traffic:
        operators()[operator](case)
    found = []
    for kernel in CHECKED[operator]:
        launches = traffic.of(kernel)
        needs = [FORMULAS[kernel](facts_of(launch, case)) for launch in launches]
        loads = sum(
            number
            for launch in launches
            for argument, number in launch.loads.items()
            if not any(part in argument for part in TOO_SMALL)
        )
        stores = sum(launch.stores.total() for launch in launches)
        predicted = sum(need.loads for need in needs), sum(need.stores for need in needs)
        found.append(Checked(operator, kernel, p, (predicted[0], loads), (predicted[1], stores)))
    return found


def facts_of(launch: Launched, case: Case) -> Facts:
    """What the formula of a kernel needs to know of a launch."""
    kernel, arguments = launch.kernel, launch.arguments
    facts = Facts(case.size, case.p, case.channels, case.k, softmax=False, programs=prod(launch.grid[:2]))
    if kernel == "exact.exact":
        facts = replace(facts, tile=arguments["TILE"].value)
    if kernel == "patchmatch.propagate":
        facts = replace(facts, distance=arguments["distance"])
    if kernel == "similarity.similarity":
        facts = replace(facts, candidates=facts.n * facts.k)
    if "votes" in arguments:
        votes = arguments["votes"]
        softmax = arguments.get("log_normalizer") is not None
        window = votes.X.value
        facts = replace(facts, window=window, softmax=softmax, **_votes(votes.index, case.size, window))
    if kernel == "expand.expand":
        facts = replace(facts, window=case.p, at_once=arguments["windows"].AT_ONCE.value)
    if kernel == "mixture.mixture":
        facts = replace(facts, samples=SAMPLES, at_once=arguments["mixture"].AT_ONCE.value)
    if kernel == "chains.chains":
        facts = replace(facts, steps=STEPS)
    if kernel in ("guided_seed.seed", "guided_scan.scan", "guided_finish.finish"):
        ranked = arguments["ranked"]
        facts = replace(facts, length=ranked.LENGTH.value, numbers=numbers_of(ranked), levels=ranked.tree.levels)
    if kernel == "tree.widest":
        facts = replace(facts, level=arguments["level"], samples_of_ranges=bytes_of(launch, "values") // 64)
    if kernel.startswith(DATA_DECIDE):
        facts = replace(
            facts,
            candidates=bytes_of(launch, "pairs.key.pixels") // facts.patch,
            leaves=bytes_of(launch, "tree.members") // 32,
            lookups=bytes_of(launch, "tree.leaf_of") // 4,
        )
    return facts


def numbers_of(ranked: Any) -> int:
    """Numbers of a patch that are compared: two a word, some words at once."""
    at_once = ranked.WORDS_AT_ONCE.value
    return 2 * -(-int(ranked.words.max()) // at_once) * at_once


def bytes_of(launch: Launched, *ends: str) -> int:
    """What a launch loads of the arguments whose names end so."""
    return sum(number for argument, number in launch.loads.items() if argument.endswith(ends))


def _votes(index: Tensor, size: tuple[int, ...], window: int) -> dict[str, int]:
    def places(flat: Tensor) -> list[tuple[int, ...]]:
        return list(zip(*(n.tolist() for n in torch.unravel_index(flat.long(), size)), strict=True))

    slots = index.flatten(0, 1)
    own = places(torch.arange(prod(size)).repeat(len(slots)))
    votes, near = count_votes(own, places(slots.flatten()), size, window)
    return {"votes": votes, "near": near}


def check_table(checks: list[Checked]) -> str:
    rows = []
    for one in checks:
        cells = []
        for predicted, counted in (one.loads, one.stores):
            cells += [f"{predicted:,}", f"{counted:,}", f"{counted / predicted:.4f}"]
        rows.append([one.operator, one.kernel, str(one.p), *cells])
    headings = [
        "operator",
        "kernel",
        "p",
        "loads predicted",
        "counted",
        "ratio",
        "stores predicted",
        "counted",
        "ratio",
    ]
    return table(headings, rows)


MEASURED_SIDE, PATCHMATCH_ITERATIONS, GUIDED_ITERATIONS = 64, 5, 2


@dataclass(frozen=True)
class Rates:
    """For each query of a search on a photograph (k = 3, patches 7x7 of 16 channels)."""

    start: float
    """Patches measured to fill the lists."""
    spread: list[float]
    """In the four steps of each iteration; of a neighbor's matches only what is new is looked at."""
    random: list[float]
    leaves: list[float]
    """Leaves of eight keys compared in each scan of guided search."""
    lookups: list[float]
    begin: float
    """Leaves that guided search begins with."""
    finish: float
    """Patches measured at its end."""
    numbers: int
    length: int


def measure_rates(side: int = MEASURED_SIDE) -> Rates:
    """Search one view of a scene for the patches of the other."""
    from patchattn.kernels.gpu import search_guided, search_patchmatch

    query, key = photographs(side)
    case, facts = Case(), Facts((side, side))

    def searched(search: Any, iterations: int) -> Traffic:
        with counting() as traffic:
            search(query, key, case.k, case.geometry, case.limits, iterations, 0, None)
        return traffic

    def patches(launch: Launched) -> float:
        return bytes_of(launch, "pairs.key.pixels") / facts.patch / facts.n

    traffic = searched(search_patchmatch, PATCHMATCH_ITERATIONS)
    spread = [patches(launch) for launch in traffic.of("patchmatch.propagate")]
    guided = searched(search_guided, GUIDED_ITERATIONS)
    scans, (seed,), (finish,) = (guided.of(f"guided_{name}.{name}") for name in ("scan", "seed", "finish"))
    ranked = finish.arguments["ranked"]
    return Rates(
        start=patches(traffic.of("patchmatch.initialize")[0]),
        spread=[sum(spread[4 * n : 4 * n + 4]) for n in range(PATCHMATCH_ITERATIONS)],
        random=[patches(launch) for launch in traffic.of("patchmatch.random_search")],
        leaves=[bytes_of(scan, "tree.members") / 32 / facts.n for scan in scans],
        lookups=[bytes_of(scan, "tree.leaf_of") / 4 / facts.n for scan in scans],
        begin=bytes_of(seed, "tree.members") / 32 / facts.n,
        finish=patches(finish),
        numbers=numbers_of(ranked),
        length=ranked.LENGTH.value,
    )


def photographs(side: int) -> tuple[Tensor, Tensor]:
    """Two views of one scene, in 16 channels: three colors through a fixed random convolution."""
    import skimage.data

    mixing = torch.randn((16, 3, 3, 3), generator=torch.Generator().manual_seed(0))
    views = []
    for view in skimage.data.stereo_motorcycle()[:2]:
        colors = torch.from_numpy(view[:496, 200:696].copy()).permute(2, 0, 1)[None].float() / 255
        views.append(conv2d(interpolate(colors, (side, side), mode="area"), mixing, padding=1))
    return views[0], views[1]
