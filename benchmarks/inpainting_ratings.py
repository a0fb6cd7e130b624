"""Completions rated by eye without knowing whose they are: sheets to look at, and the page of the ratings.

    python benchmarks/inpainting.py --data DIR --set removal --made MADE
    python benchmarks/inpainting_ratings.py sheets --made MADE --out FOLDER --methods A B C --seed N
    python benchmarks/inpainting_ratings.py tally --key FOLDER/key.json --ratings ratings.csv [--results docs/results]

`sheets` writes FOLDER/SET-NN.png for every image in MADE: the surroundings of its hole enlarged, with the hole in
magenta and then what the methods (names of folders in MADE) made of it, in an order that differs from image to image,
marked A, B, C. FOLDER/key.json says whose they are; it must stay closed until the ratings are written.

ratings.csv has the heading `image,order,reason`, and a row for each sheet: its name, the letters from the best to the
worst with > or = between them (`B>A=C`), and why.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import string
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from inpainting_methods import METHODS, REFERENCE, folder_name
from inpainting_sheets import write_sheets
from machine import table
from page import write_page

DISPLAYED = {folder_name(name): name for name in METHODS}
HEADING = ["image", "order", "reason"]


@dataclass(frozen=True)
class Rating:
    """How one image's completions were ranked."""

    image: str
    ranking: list[list[str]]
    """Methods from the best to the worst; those in one list are level."""
    reason: str

    def rank(self, method: str) -> int:
        return next(place for place, level in enumerate(self.ranking) if method in level)


def read_ratings(path: Path, key: dict[str, list[str]]) -> list[Rating]:
    """Read ratings.csv and put the methods' names where the letters were.

    Raises:
        ValueError: a row is not as the heading and the key ask, or an image has none.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        heading, *rows = [row for row in csv.reader(file) if row] or [[]]
    if heading != HEADING:
        raise ValueError(f"expected the heading {','.join(HEADING)}, got {','.join(heading) or 'nothing'}")
    ratings = [rating(row, key) for row in rows]
    rated = [entry.image for entry in ratings]
    if sorted(rated) != sorted(key):
        raise ValueError(
            f"expected one row for each of {', '.join(sorted(key))}; got {', '.join(sorted(rated)) or 'none'}"
        )
    return ratings


def rating(row: list[str], key: dict[str, list[str]]) -> Rating:
    if len(row) != len(HEADING) or row[0] not in key:
        raise ValueError(f"expected rows image,order,reason of an image in the key, got {','.join(row)}")
    image, order, reason = (cell.strip() for cell in row)
    names = {
        letter: DISPLAYED.get(method, method)
        for letter, method in zip(string.ascii_uppercase, key[image], strict=False)
    }
    ranking = [re.sub(r"\s", "", level).split("=") for level in order.split(">")]
    if sorted(letter for level in ranking for letter in level) != sorted(names):
        raise ValueError(f"{image}: expected each of {', '.join(names)} once, as in B>A=C; got {order}")
    return Rating(image, [[names[letter] for letter in level] for level in ranking], reason)


def page(ratings: list[Rating]) -> list[str]:
    others = sorted({method for entry in ratings for level in entry.ranking for method in level} - {REFERENCE})
    rows = []
    for entry in ratings:
        ranking = " > ".join(" = ".join(sorted(level)) for level in entry.ranking)
        rows.append([entry.image, ranking, entry.reason.replace("|", r"\|")])
    return [
        "# Completions rated by eye",
        f"Completions of {len(ratings)} images, ranked by looking at them side by side without knowing whose they are: "
        "in shuffled order, the names hidden until all were ranked. Sheets and page are made by "
        "`python benchmarks/inpainting_ratings.py`.",
        table(["", f"preferred to {REFERENCE}", "level", "not"], [counts(ratings, method) for method in others]),
        table(["image", "from the best to the worst", "reason"], rows),
    ]


def counts(ratings: list[Rating], method: str) -> list[str]:
    """How often a method was ranked above, with and below the reference."""
    places = [(entry.rank(method), entry.rank(REFERENCE)) for entry in ratings]
    above, level = sum(own < other for own, other in places), sum(own == other for own, other in places)
    return [method, str(above), str(level), str(len(places) - above - level)]


def tally(key_path: Path, ratings_path: Path, results: Path | None) -> None:
    """Print the page, and write it if asked to."""
    key = json.loads(key_path.read_text())
    if any(folder_name(REFERENCE) not in order for order in key.values()):
        sys.exit(f"--key: {key_path} lacks {folder_name(REFERENCE)}, which the others are compared with")
    try:
        ratings = read_ratings(ratings_path, key)
    except ValueError as error:
        sys.exit(f"--ratings: {ratings_path}: {error}")
    parts = page(ratings)
    print("\n\n".join(parts))
    if results is not None:
        write_page(results, "inpainting_ratings", parts, [asdict(entry) for entry in ratings])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sheets = commands.add_parser("sheets", help="write what is looked at")
    sheets.add_argument("--made", type=Path, required=True, help="what benchmarks/inpainting.py --made wrote")
    sheets.add_argument("--out", type=Path, required=True, help="where the sheets and the key go")
    sheets.add_argument("--methods", nargs="+", required=True, help="names of folders in --made")
    sheets.add_argument("--seed", type=int, required=True, help="of the order")
    ratings = commands.add_parser("tally", help="count ratings, and write their page")
    ratings.add_argument("--key", type=Path, required=True, help="key.json of the sheets")
    ratings.add_argument("--ratings", type=Path, required=True, help="a CSV file: image,order,reason")
    ratings.add_argument("--results", type=Path, help="where inpainting_ratings.md and .json go")
    arguments = parser.parse_args()
    if arguments.command == "sheets":
        write_sheets(arguments.made, arguments.out, arguments.methods, arguments.seed)
    else:
        tally(arguments.key, arguments.ratings, arguments.results)


if __name__ == "__main__":
    main()
