"""Time, cost and memory of the search: on video frames, photographs, features and noise, and beside other libraries.

    python benchmarks/search.py --data DIR [--only SECTION ...] [--runs 5] [--json FILE] [--plot FILE.png]

Sections, in this order: frames, channels, davis (time and cost), peers (other libraries), large (time and memory up to
4096x4096), tokens, noise (features), noisy (queries), long (patches), crossover (where the guided search overtakes the
exact one), peak (inner loops against the processor). Each prints a table; all times are medians of `--runs` searches,
everything included.

DIR holds frames512/target.png and reference.png, oracle/frames512_p7_k3_l2.npz (exact costs), davis/SEQUENCE/*.jpg,
highres/*.jpg and bsds500/*.jpg: what the chosen sections need.
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
from pairs import check_data
from peers import peers_at
from search_conditions import report_long, report_noisy
from search_features import report_noise, report_tokens
from search_peak import report_peak
from search_peers import report_peers
from search_plot import plot
from search_quality import report_channels, report_davis, report_frames
from search_scaling import LARGE, measure_large, report_crossover, report_large


def sections(arguments: argparse.Namespace) -> dict[str, Callable[[], Report]]:
    """What the report consists of, in its order."""
    data, runs = arguments.data, arguments.runs
    again = [sys.executable, __file__, "--data", str(data), "--runs", str(runs), "--here"]
    return {
        "frames": lambda: report_frames(data, runs),
        "channels": lambda: report_channels(data, runs),
        "davis": lambda: report_davis(data, runs),
        "peers": lambda: report_peers(data, runs, arguments.sizes),
        "large": lambda: report_large(data, runs, arguments.largest, again),
        "tokens": lambda: report_tokens(data, runs),
        "noise": lambda: report_noise(data, runs),
        "noisy": lambda: report_noisy(data, runs),
        "long": lambda: report_long(data, runs),
        "crossover": lambda: report_crossover(data, runs),
        "peak": lambda: report_peak(runs),
    }


def check(arguments: argparse.Namespace, chosen: list[str]) -> None:
    """Stop the program for what would stop it later: missing files and libraries, settings that cannot be."""
    check_data(arguments.data, chosen)
    if arguments.plot is not None and "peers" not in chosen:
        sys.exit("--plot draws what the section peers measures; add it to --only")
    if "large" in chosen and arguments.largest < LARGE[0]:
        sys.exit(f"--largest: got {arguments.largest}; the smallest size is {LARGE[0]}")
    try:
        if arguments.plot is not None:
            check_matplotlib()
        if "peers" in chosen:
            for size in arguments.sizes:
                peers_at(size)
    except RuntimeError as error:
        sys.exit(str(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--only", nargs="+", metavar="SECTION", help="these sections (default: all)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="of the section peers")
    parser.add_argument("--largest", type=int, default=LARGE[-1], help="size of the section large")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="draw the section peers")
    parser.add_argument("--here", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure_large(arguments.data, arguments.here, arguments.runs)))
        return
    known = sections(arguments)
    unknown = set(arguments.only or []) - set(known)
    if unknown:
        parser.error(f"--only: got {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = [name for name in known if arguments.only is None or name in arguments.only]
    check(arguments, chosen)
    print(machine(), end="\n\n", flush=True)
    results: dict[str, list[dict[str, Any]]] = {}
    for name in chosen:
        report = known[name]()
        report.show()
        results[name] = report.results
    save(arguments.json, [{"section": name, **result} for name in chosen for result in results[name]])
    if arguments.plot is not None:
        plot(arguments.plot, results["peers"])


if __name__ == "__main__":
    main()
