"""Memory and time of each attention layer as the image grows: PSAL's Table 1.

One call on 16 channels with patches 7x7, forward, and forward with backward: the peak of resident memory beyond inputs
and outputs, and processor time of one thread. Every number is measured in a process of its own, which first runs the
layer on a small image. What would take longer than --budget seconds or more than --memory GB is not run: its value is
extrapolated from the size before (memory with the pixels, time as the layer's complexity is) and marked with ~.

Measurements are kept in the work folder and not made again.

    python benchmarks/table1.py [--sizes 64 128 ...] [--budget 60] [--memory 12] [--work FOLDER] [--results FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from page import check_plots
from table1_cells import Cells, Limits
from table1_layers import SIDES
from table1_page import write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIDES), help="sides, the smallest at least 64")
    parser.add_argument("--budget", type=float, default=60, help="seconds that a call may take")
    parser.add_argument("--memory", type=float, default=12, help="GB that a call may take")
    parser.add_argument("--forward", action="store_true", help="forward passes alone")
    parser.add_argument("--work", type=Path, default=Path("out/table1"), help="where measurements are kept")
    parser.add_argument("--results", type=Path, help="where table1.md, .json and .png go")
    arguments = parser.parse_args()
    if min(arguments.sizes) < SIDES[0]:
        parser.error(f"--sizes: got {min(arguments.sizes)}; the smallest is {SIDES[0]}")
    check_plots(arguments.results)
    limits = Limits(arguments.budget, arguments.memory * 1e9)
    cells = Cells(limits, arguments.work, lambda line: print(line, file=sys.stderr, flush=True)).all(
        sorted(arguments.sizes), (False,) if arguments.forward else (False, True)
    )
    write(cells, limits, arguments.results)


if __name__ == "__main__":
    main()
