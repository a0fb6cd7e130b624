"""Refuse words of our own where the field has a term, and docstrings that open with a question word.

    python tools/words.py [FILE ...]

Names are looked at in the package's code (functions, classes, variables, arguments, files), openings in its docstrings
and in the strings below constants and fields. Pages, benchmarks, examples and names of tests keep to a shorter list.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
OPENINGS = re.compile(r"(What|Of|How)\b")
WORDS = {
    "film films sounds": "video, audio stream",
    "picture pictures photograph photographs": "image",
    "told tells said Told Tell": "report, message, metadata",
    "peer peers": "baseline",
    "colour coloured recolour": "color",
    "Work Descent Described SteppedTask": "TrainState, TrainConfig, Task",
}
WHOLE_NAMES = {"FEWEST", "MOST", "ENOUGH", "LONGEST", "EXPLAINED", "NOTHING", "SHARE", "FITTED", "HOTTER", "SHARPER"}
"""Constants that say nothing of what they limit; as parts of a name they do."""
WORDS_OF_THE_PAGE = {
    "house House lane lanes Lane desk Desk bench Bench looking": "app state, queue, worker, field view"
}
WORDS_OF_PAGES = {"picture pictures": "image", "film films": "video"}
"""Refused in prose, and in names outside of the package. Photographs may be called so: many are no other images."""
EXEMPT = "# deprecated name"
"""Says on the line of a name that it is kept for those who use it."""
NOT_YET: tuple[str, ...] = ()
"""Folders of the package that are still to be read; to be emptied."""


def parts_of(name: str) -> set[str]:
    """The words of a name: `open_film` and `OpenFilm` have `film` and `Film`."""
    return {part for piece in name.split("_") for part in (piece, *re.findall("[A-Z][a-z]+", piece))}


def terms_of(words: dict[str, str]) -> dict[str, str]:
    return {word: term for some, term in words.items() for word in some.split()}


def names_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that a module defines, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def texts_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every docstring, and every string that stands below a constant or a field, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def complaints(path: Path) -> Iterator[str]:
    """Yield a line for everything that is wrong with a file."""
    text = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines() or [""]
    banned = WORDS | (WORDS_OF_THE_PAGE if "demo" in path.parts else {})
    terms = terms_of(banned)
    for line, name in [(1, path.stem), *names_of(tree)]:
        if name in WHOLE_NAMES:
            yield f"{path}:{line}: the name {name!r}; say what it limits: MIN_..., MAX_..."
        for word in sorted(parts_of(name) & terms.keys()):
            if EXEMPT not in lines[line - 1]:
                yield f"{path}:{line}: the name {name!r} has {word!r}; the term is: {terms[word]}"
    for line, opening in texts_of(tree):
        if OPENINGS.match(opening):
            yield f"{path}:{line}: opens with {opening.split()[0]!r}; say what the thing is or does"


def complaints_outside(path: Path) -> Iterator[str]:
    """Yield a line for every refused word of a page, or in a name of a test, benchmark or example."""
    text, terms = path.read_text(encoding="utf-8"), terms_of(WORDS_OF_PAGES)
    if path.suffix == ".md":
        found = [(n, word) for n, line in enumerate(text.splitlines(), 1) for word in re.findall(r"\w+", line)]
    else:
        names = [(1, path.stem), *names_of(ast.parse(text))]
        found = [(line, part) for line, name in names for part in parts_of(name)]
        if path.is_relative_to(ROOT / "tests"):  # the names of tests alone
            found = [(line, part) for line, name in names if name.startswith("test_") for part in parts_of(name)]
    lines = text.splitlines() or [""]
    for line, word in found:
        if word.lower() in terms and EXEMPT not in lines[line - 1]:
            yield f"{path}:{line}: {word!r}; the term is: {terms[word.lower()]}"


def outside() -> list[Path]:
    """The pages, benchmarks, examples and tests."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return pages + [
        path for name in ("benchmarks", "examples", "tests") for path in sorted((ROOT / name).rglob("*.py"))
    ]


def main(paths: list[Path]) -> None:
    skipped = [SOURCE / "patchattn" / folder for folder in NOT_YET]
    chosen = paths or [p for p in sorted(SOURCE.rglob("*.py")) if not any(p.is_relative_to(s) for s in skipped)]
    found = [complaint for path in chosen for complaint in complaints(path)]
    if not paths:
        found += [complaint for path in outside() for complaint in complaints_outside(path)]
    if found:
        raise SystemExit("\n".join([*found, f"{len(found)} names and openings; see tools/words.py"]))


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
