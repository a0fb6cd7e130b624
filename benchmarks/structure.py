"""Figures of the code itself: what one call passes through, and how often a parameter is declared.

    python benchmarks/structure.py

Calls, file switches and checks are those of one forward `patch_attention` at 64x64 (16 channels, patches of 7x7) on the
CPU, after a first call; only functions of the package are counted, compiled kernels are not.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import patchattn

PACKAGE = Path(patchattn.__file__).parent
MOST = 12
"""Parameters from which on a function is listed."""


def main() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    print(f"lines of {len(files)} files: {sum(len(path.read_text().splitlines()) for path in files)}")
    functions = [found for path in files for found in functions_of(path)]
    long = [(count, name) for count, name, _ in functions if count > MOST]
    print(f"functions with more than {MOST} parameters: {len(long)}; the longest: {sorted(long, reverse=True)[:3]}")
    declared = Counter(
        parameter
        for _, name, parameters in functions
        if "/kernels/" not in name and "/cli/" not in name and "/demo/" not in name
        for parameter in parameters
    )
    print("declared so many times above the kernels: " + ", ".join(f"{n} {declared[n]}" for n in WATCHED))
    query = torch.rand(1, 16, 64, 64)
    print("one forward call:", traced(lambda: patchattn.patch_attention(query, query, query)))


WATCHED = (
    "patch_size",
    "padding_mode",
    "num_heads",
    "is_causal",
    "max_offset",
    "min_separation",
    "similarity",
    "method",
)


def functions_of(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yield parameters' number, name and names of every function of a file, overloads and dataclass fields included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            a = node.args
            names = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs) if p.arg not in ("self", "cls")]
            yield len(names), f"{path.relative_to(PACKAGE.parent)}:{node.name}", names
        elif isinstance(node, ast.ClassDef):
            fields = [f.target.id for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
            yield 0, f"{path.relative_to(PACKAGE.parent)}:{node.name}", fields


def traced(call: Callable[[], Any]) -> dict[str, Any]:
    """Count calls of the package's functions, of its checks, and changes from one file to another."""
    call()
    calls, files, checks = 0, [""], Counter[str]()

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(str(PACKAGE)):
            return
        calls += 1
        if file != files[-1]:
            files.append(file)
        if frame.f_code.co_name.startswith(("check_", "resolve_", "per_dimension")):
            checks[frame.f_code.co_name] += 1

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return {"files": len(set(files)) - 1, "calls": calls, "switches": len(files) - 1, "checks": checks.most_common()}


if __name__ == "__main__":
    main()
