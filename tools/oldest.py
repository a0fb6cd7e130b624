"""Print the oldest releases that pyproject.toml allows, one requirement a line, for `make oldest`.

python tools/oldest.py [EXTRA ...]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import tomllib

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
BOUND = re.compile(r"([\w.-]+)>=([\d.]+)$")


def oldest(extras: list[str]) -> list[str]:
    """`name==version` for every lower bound of the library and of some extras; other requirements are refused."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    pins = []
    for requirement in [*project["dependencies"], *(r for e in extras for r in project["optional-dependencies"][e])]:
        bound = BOUND.match(requirement)
        if bound is None:
            raise SystemExit(f"{requirement!r} in pyproject.toml: expected name>=version, without marker")
        pins.append(f"{bound[1]}=={bound[2]}")
    return pins


if __name__ == "__main__":
    print(*oldest(sys.argv[1:]), sep="\n")
