"""SCRAM attention as its paper shows it: maps, blobs, how cost grows, errors of the estimators, ways to search.

    python benchmarks/scram.py --data DIR [--only SECTION ...] [--runs 5] [--json FILE] [--plots DIR]

Sections, in this order: maps (Figure 2), blobs (Figure 3), scaling (Figure 4: time and memory beside full attention
and the Sparse Transformer), error (sparse approximation, importance sampling and Metropolis-Hastings beside full
attention), search (how Algorithm 1 is best run). Each prints tables, and draws an image if --plots is given.

DIR holds frames512/target.png and reference.png (maps, error), highres/*.jpg (scaling), bsds500/*.jpg (error, search).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures import check_matplotlib
from machine import Report, machine, save
from pairs import FRAMES
from scram_error import report_error
from scram_maps import report_blobs, report_maps
from scram_scaling import SIDES, measure_here, plot_scaling, report_scaling
from scram_search import report_search

# What the sections read: patterns, and how many files of each there must be.
FILES = {
    "maps": {FRAMES[0]: 1},
    "scaling": {"highres/*.jpg": 1},
    "error": {FRAMES[0]: 1, FRAMES[1]: 1, "bsds500/*.jpg": 2},
    "search": {"bsds500/*.jpg": 1},
}


def _scaling(arguments: argparse.Namespace) -> list[Report]:
    command = [sys.executable, __file__, "--data", str(arguments.data), "--here"]
    sides = [side for side in SIDES if side <= arguments.largest]
    # The pairs are measured where full attention takes a few seconds.
    pairs = max(arguments.runs, 5) if arguments.largest >= 256 else 0
    reports = report_scaling(arguments.data, arguments.runs, command, arguments.budget, sides, pairs)
    if arguments.plots is not None:
        plot_scaling(arguments.plots / "scram-scaling.png", reports[0].results)
    return reports


def sections(arguments: argparse.Namespace) -> dict[str, Callable[[], list[Report]]]:
    """What the report consists of, in its order."""
    data, plots = arguments.data, arguments.plots
    return {
        "maps": lambda: report_maps(data, plots),
        "blobs": lambda: report_blobs(plots),
        "scaling": lambda: _scaling(arguments),
        "error": lambda: report_error(data, plots, arguments.seeds),
        "search": lambda: report_search(data, plots, arguments.runs),
    }


def check(arguments: argparse.Namespace, chosen: list[str]) -> None:
    """Stop the program for what would stop it later: missing files and libraries."""
    missing = {
        pattern
        for name in chosen
        for pattern, count in FILES.get(name, {}).items()
        if len(list(arguments.data.glob(pattern))) < count
    }
    if missing:
        sys.exit(
            f"--data: {arguments.data} lacks {', '.join(sorted(missing))}; put them there, give another folder, or "
            "leave their sections out (--only)"
        )
    if arguments.plots is not None:
        try:
            check_matplotlib()
        except RuntimeError as error:
            sys.exit(str(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--only", nargs="+", metavar="SECTION", help="these sections (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="timed calls (scaling, search)")
    parser.add_argument("--seeds", type=int, default=4, help="of the estimators (error)")
    parser.add_argument("--largest", type=int, default=SIDES[-1], help="side up to which scaling goes")
    parser.add_argument("--budget", type=float, default=60, help="seconds a call may take (scaling)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw an image of each section here")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure_here(arguments.data, json.loads(arguments.here))))
        return
    known = sections(arguments)
    unknown = set(arguments.only or []) - set(known)
    if unknown:
        parser.error(f"--only: got {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = [name for name in known if arguments.only is None or name in arguments.only]
    check(arguments, chosen)
    print(machine(), end="\n\n", flush=True)
    results: list[dict[str, Any]] = []
    for name in chosen:
        for report in known[name]():
            report.show()
            results += [{"section": name, **result} for result in report.results]
    save(arguments.json, results)


if __name__ == "__main__":
    main()
