"""Rebuilding one video frame from another by attention: PSAL's Tables 2 and 3 and its Figure 2.

Query: the 7x7 patches of a frame; key: those of the frame ten frames before; value: that frame's pixels; l2 on RGB in
[0, 1], temperature 1. The error is the mean squared error over the whole frame. All pairs of consecutive files of
DIR/davis/SEQUENCE/*.jpg, resized to 512x512. Exact matches and full attention at stride 1 take minutes a pair there:
they are measured on random tiles of each pair, against the same pixels of what is measured whole.

Every measurement is a file in the work folder, and is not made again: an interrupted run goes on where it was.

    python benchmarks/reconstruction.py --data DIR [--work FOLDER] [--pairs N] [--whole N]
                                        [--only ROW ...] [--results FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from page import check_plots
from reconstruction_page import write
from reconstruction_rows import Store, pairs_of, run, tasks_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--work", type=Path, default=Path("out/reconstruction"), help="where measurements are kept")
    parser.add_argument("--pairs", type=int, help="so many of the pairs (default: all)")
    parser.add_argument("--whole", type=int, default=1, help="pairs whose exact matches are searched of all pixels")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="measure these rows now (default: all)")
    parser.add_argument("--measured", action="store_true", help="measure nothing: report what the work folder holds")
    parser.add_argument("--results", type=Path, help="where reconstruction.md, .json and the images go")
    arguments = parser.parse_args()
    pairs = pairs_of(arguments.data)
    if not pairs:
        sys.exit(f"--data: {arguments.data} has no davis/SEQUENCE/*.jpg with at least two files in a folder")
    check_plots(arguments.results)
    store = Store(arguments.work)
    if not arguments.measured:
        tasks = tasks_of(pairs, arguments.pairs or len(pairs), arguments.whole)
        unknown = set(arguments.only or []) - {task.row for task in tasks}
        if unknown:
            rows = "; ".join(dict.fromkeys(task.row for task in tasks))
            parser.error(f"--only: got {'; '.join(sorted(unknown))}; there are {rows}")
        tasks = [task for task in tasks if arguments.only is None or task.row in arguments.only]
        run(tasks, store, lambda line: print(line, flush=True))
    write(pairs, store, arguments.results)


if __name__ == "__main__":
    main()
