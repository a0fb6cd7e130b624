"""Refuse words of our own where the field has a term, and docstrings that open with a question word.

    python tools/words.py [FILE ...]

Names are looked at in code (functions, classes, variables, arguments, files), openings in docstrings and in the strings
below constants and fields.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
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
EXEMPT = "# deprecated name"
"""Says on the line of a name that it is kept for those who use it."""
NOT_YET: tuple[str, ...] = ()
"""Folders of the package that are still to be read; to be emptied."""


def parts_of(name: str) -> set[str]:
    """The words of a name: `open_film` and `OpenFilm` have `film` and `Film`."""
    return {part for piece in name.split("_") for part in (piece, *re.findall("[A-Z][a-z]+", piece))}


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
    terms = {word: term for words, term in banned.items() for word in words.split()}
    for line, name in [(1, path.stem), *names_of(tree)]:
        if name in WHOLE_NAMES:
            yield f"{path}:{line}: the name {name!r}; say what it limits: MIN_..., MAX_..."
        for word in sorted(parts_of(name) & terms.keys()):
            if EXEMPT not in lines[line - 1]:
                yield f"{path}:{line}: the name {name!r} has {word!r}; the term is: {terms[word]}"
    for line, opening in texts_of(tree):
        if OPENINGS.match(opening):
            yield f"{path}:{line}: opens with {opening.split()[0]!r}; say what the thing is or does"


def main(paths: list[Path]) -> None:
    skipped = [SOURCE / "patchattn" / folder for folder in NOT_YET]
    chosen = paths or [p for p in sorted(SOURCE.rglob("*.py")) if not any(p.is_relative_to(s) for s in skipped)]
    found = [complaint for path in chosen for complaint in complaints(path)]
    if found:
        raise SystemExit("\n".join([*found, f"{len(found)} names and openings; see tools/words.py"]))


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
