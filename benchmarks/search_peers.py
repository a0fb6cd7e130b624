"""Section `peers`: the search beside libraries for nearest neighbors, on the same patches in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peers
from machine import Report, spread
from pairs import PATCH, K, frames, timed
from torch import Tensor

OURS = [*(("guided", n) for n in (1, 2, 3, 4)), *(("patchmatch", n) for n in (2, 5, 10))]


def _ours(images: tuple[Tensor, Tensor], given: peers.Problem, size: int, runs: int) -> list[dict[str, Any]]:
    results = []
    for method, iterations in OURS:
        field, time = timed(*images, runs, k=K, patch_size=PATCH, method=method, iterations=iterations)
        found = field.index[0, 0].flatten(1).T.numpy()[given.sample]
        ratios = peers.costs(given.queries[given.sample], given.keys, found).mean(0) / given.exact
        settings = {"size": size, "search": method, "settings": f"iterations {iterations}", "iterations": iterations}
        results.append({**settings, "over_exact": [float(ratios[0]), float(ratios[-1])], "seconds": time})
    return results


def _peer(peer: peers.Peer, given: peers.Problem, size: int) -> dict[str, Any]:
    measured = peers.measure(peer, given, size)
    return {
        "size": size,
        "search": f"{measured.peer} {measured.version}",
        "settings": measured.settings,
        "over_exact": list(measured.over_exact),
        "seconds": {"median": measured.total},
    }


def faster_by(other: dict[str, Any], results: list[dict[str, Any]]) -> float | None:
    """Its time over that of the fastest guided search that is at least as good; None: there is none as good."""
    as_good = [
        result["seconds"]["median"]
        for result in results
        if result["search"] == "guided" and result["over_exact"][0] <= other["over_exact"][0]
    ]
    return other["seconds"]["median"] / min(as_good) if as_good else None


def _row(result: dict[str, Any]) -> list[str]:
    time, faster = result["seconds"], result.get("guided_faster_by")
    return [
        f"{result['size']}x{result['size']}",
        result["search"],
        result["settings"],
        spread(time) if "min" in time else f"{time['median']:.2f}",
        *(f"{ratio:.4f}" for ratio in result["over_exact"]),
        f"{faster:.2f}" if faster else "" if result["search"] == "guided" else "-",
    ]


def report_peers(data: Path, runs: int, sizes: list[int]) -> Report:
    """All searches at all sizes."""
    results: list[dict[str, Any]] = []
    for size in sizes:
        images = frames(data, size)
        given = peers.problem(*images)
        here = _ours(images, given, size, runs)
        here += [_peer(peer, given, size) for peer in peers.peers_at(size)]
        for result in here:
            if result["search"] != "guided":
                result["guided_faster_by"] = faster_by(result, here)
        results += here
    return Report(
        f"Who finds matches as good in less time? RGB, patches 7x7, k = 3, the same {peers.SAMPLE} queries for all. "
        f"Peers' times are unfolding, building and searching (medians of {peers.RUNS}, one run from {peers.SHORT:.0f} "
        'seconds on). "Guided is faster by" (below 1: slower) is against the fastest guided search whose best cost is '
        "at most the same; -: there is none.",
        ["size", "search", "settings", "seconds", "best over exact", "third over exact", "guided is faster by"],
        [_row(result) for result in results],
        results,
    )
