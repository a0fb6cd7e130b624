"""Compile every Triton kernel for real GPUs, with no GPU present, and say what each takes of them.

The operators run as on a GPU, but on tensors without data (PyTorch's device `meta`): whatever they would launch is
noted with its block shapes, warps and constants, and compiled. An operator that reads a value from the device has none
to read, and fails.

Exit code 1 if a kernel does not compile, spills registers, or if a kernel of a search would have fewer than a quarter
of a multiprocessor's warps resident on sm_90.

    python benchmarks/gpu_compile.py [--targets sm_90 ...] [--quick] [--results docs/results]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from gpu_compile_report import JUDGED, LEAST, WANTED, write
from gpu_problems import PROBLEMS, Case, operators, running
from gpu_resources import MOST_WARPS, TARGETS, Resources, compiling_for, resources_of

from patchattn import pointwise_similarity
from patchattn.kernels.gpu.launch import options_for

MULTIPROCESSORS = 132
"""Of a GPU that is sm_90."""
SEARCHES = "search_"
SIDES, CHANNELS, LISTS = (1, 3, 7), (16, 64), (1, 3, 16)
ODD, CONSTRAINED = "61x67, 2 items, 2 heads", "masks, separation, offset, init"
CHARBONNIER = pointwise_similarity(
    lambda q, k: -((1e-2 + (q - k) ** 2) ** 0.5),
    lambda q, k: (-(q - k) / (1e-2 + (q - k) ** 2) ** 0.5, (q - k) / (1e-2 + (q - k) ** 2) ** 0.5),
)
SPECIAL_TARGETS = ("sm_90", "gfx942")
"""What special cases are built for; the others differ from the first by little."""


def cases(quick: bool) -> list[Case]:
    """What is built: all p, C and k in their plain form, and one of each special thing."""
    sizes = [(7, 16, 3), (1, 64, 16)] if quick else product(SIDES, CHANNELS, LISTS)
    plain = [Case(p, channels, k) for p, channels, k in sizes]
    one = Case()
    special = [
        replace(one, size=(61, 67), batch=2, heads=2, extra=ODD),
        replace(one, dtype=torch.float16, extra="float16"),
        replace(one, constraints="masks", extra="masks"),
        replace(one, constraints="masks separation offset", init=True, extra=CONSTRAINED),
        replace(one, p=3, size=(64, 64, 64), constraints="causal", extra="3-D, causal"),
    ]
    if not quick:
        special += [
            replace(one, dtype=torch.float64, extra="float64"),
            replace(one, dtype=torch.bfloat16, extra="bfloat16"),
            replace(one, channels=3, extra="colors"),
            replace(one, channels=1, extra="gray"),
            replace(one, k=16, constraints="separation", extra="separation"),
            replace(one, constraints="offset", extra="max_offset"),
            replace(one, constraints="causal", extra="causal"),
            *(replace(one, similarity=name, extra=name) for name in ("dot", "cosine")),
            replace(one, similarity=CHARBONNIER, extra="a user's similarity"),
            replace(one, size=(4096,), extra="1-D"),
        ]
    return plain + special


def of_interest(operator: str, kernel: str, case: Case) -> bool:
    """Whether a kernel that an operator launches is built for it: repeated and guided search have PatchMatch's kernels,
    slightly changed, which is enough in a few cases.
    """
    again = operator == "search_repeated" or (operator == "search_guided" and kernel.startswith("patchmatch."))
    return not again or case in (Case(), Case(1, 64, 16)) or case.extra in (ODD, CONSTRAINED)


@dataclass
class Launch:
    """One kernel with everything that decides its machine code, and where it was launched."""

    kernel: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    constants: int
    """Numbers of the arguments that are compiled in: sizes of 1, and what the kernel declares."""
    programs: int
    places: list[tuple[str, Case]] = field(default_factory=list)

    @property
    def where(self) -> str:
        operator, case = self.places[0]
        return f"{operator}: {_label(case)}"

    @property
    def name(self) -> str:
        module = self.kernel.__module__.rsplit(".", 1)[-1]
        return f"{module}.{re.sub(r'^_|_kernel$', '', self.kernel.__name__)}"

    @property
    def searches(self) -> bool:
        return any(operator.startswith(SEARCHES) for operator, _ in self.places)

    @property
    def special(self) -> bool:
        return all(case.extra for _, case in self.places)


def launches_of(all_cases: Iterable[Case], only: Collection[str] = ()) -> tuple[list[Launch], list[str]]:
    """Run all operators on tensors without data; return what differs of what they launch, and what went wrong."""
    found: dict[tuple[str, str], Launch] = {}
    failures: dict[str, str] = {}
    seen: list[str] = []

    def compile_nothing(self: Any, key: str, *_: Any) -> None:
        seen.append(key)

    def note(kernel: Any, grid: tuple[int, ...], device: torch.device, arguments: Any, options: dict[str, Any]) -> None:
        seen.clear()
        kernel.warmup(*arguments, grid=grid, **options)
        launch = Launch(kernel, arguments, options, seen[-1].count("constexpr"), prod(grid))
        if of_interest(operator, launch.name, case):
            found.setdefault((repr(kernel), seen[-1]), launch).places.append((operator, case))

    compiling_for(next(iter(TARGETS)))
    with running(note), patch.object(triton.JITFunction, "_do_compile", compile_nothing):
        for operator, run in operators().items():
            for case in all_cases:
                if only and operator not in only:
                    continue
                try:
                    run(case)
                except (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError) as error:
                    what = f"{operator}: {str(error).splitlines()[0]}"
                    failures.setdefault(what, f"{what} ({_label(case)})")
    return list(found.values()), list(failures.values())


def chosen(launches: list[Launch], quick: bool) -> list[Launch]:
    """What is worth a build. One kernel is launched with many numbers, and those that are 1 or divide by 16 are
    compiled in or made use of: all such variants are built where everything has its usual or its odd size (unless it
    is to be quick), elsewhere the one that assumes least.
    """
    usual = Case()
    in_full = () if quick else (usual, replace(usual, size=(61, 67), batch=2, heads=2, extra=ODD))
    best: dict[tuple[str, str, Case], Launch] = {}
    wanted: set[int] = set()
    for launch in launches:
        for operator, case in launch.places:
            if case in in_full:
                wanted.add(id(launch))
            held = best.setdefault((operator, launch.name, case), launch)
            if launch.constants < held.constants:
                best[operator, launch.name, case] = launch
    wanted |= {id(launch) for launch in best.values()}
    return [launch for launch in launches if id(launch) in wanted]


def _label(case: Case) -> str:
    return f"p {case.p}, C {case.channels}, k {case.k}" + (f", {case.extra}" if case.extra else "")


_launches: list[Launch] = []
Built = tuple[int, str, "Resources | str", float]


def build(job: tuple[int, str]) -> Built:
    """Compile one launch for one target; a sentence instead of resources if that fails."""
    number, target = job
    compiling_for(target)
    launch, start = _launches[number], time.perf_counter()
    try:
        options = options_for(TARGETS[target].backend == "cuda", launch.options)
        kernel = launch.kernel.warmup(*launch.arguments, grid=(1,), **options)
        result: Resources | str = resources_of(kernel, target)
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        result = f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1][:200]}"
    return number, target, result, time.perf_counter() - start


def build_all(launches: list[Launch], targets: list[str], processes: int) -> list[Built]:
    """Compile all for all, most work first, and print how far it is."""
    _launches[:] = launches
    jobs = [
        (number, target)
        for number, launch in enumerate(launches)
        for target in targets
        if not launch.special or target in SPECIAL_TARGETS
    ]
    jobs.sort(key=lambda job: -max(case.k for _, case in launches[job[0]].places))
    built: list[Built] = []
    start = shown = time.perf_counter()
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for result in pool.imap_unordered(build, jobs):
            built.append(result)
            now = time.perf_counter()
            if now - shown > 10 or len(built) == len(jobs):
                print(f"{len(built)} of {len(jobs)} builds, {now - start:.0f} s", flush=True)
                shown = now
    return sorted(built, key=lambda result: (result[0], targets.index(result[1])))


def judge(launches: list[Launch], built: list[Built], stack: int) -> tuple[list[str], list[str]]:
    """Sentences about what must not be, and about what could be better: the worst of each kernel and target."""
    errors: Found = {}
    remarks: Found = {}

    def tell(found: Found, kind: str, badness: float, text: str) -> None:
        found.setdefault((launch.name, target, kind), []).append((badness, f"{text} ({launch.where})"))

    for number, target, result, _ in built:
        launch = launches[number]
        if isinstance(result, str):
            tell(errors, result, 0, f"does not compile: {result}")
            continue
        if result.stack > stack:
            spills = f"spills: {result.spilled} accesses, {result.stack} bytes of stack, {result.registers} registers"
            tell(errors, "spills", result.stack, spills)
        if result.moved:
            tell(remarks, "moves", result.moved, f"{result.moved} scalar registers kept in lanes of vector registers")
        if target == JUDGED and result.occupancy < WANTED:
            told = f"occupancy {result.occupancy:.0%}, {result.registers} registers, {result.shared} B shared"
            # Where all programs fit at once in any case, more room would be empty.
            full = launch.programs > MULTIPROCESSORS * result.occupancy * MOST_WARPS / result.warps
            few = launch.searches and full and result.occupancy < LEAST
            tell(errors if few else remarks, "occupancy", -result.occupancy, told)
    return _worst(errors), _worst(remarks)


Found = dict[tuple[str, str, str], list[tuple[float, str]]]


def _worst(found: Found) -> list[str]:
    told = []
    for (name, target, _), cases_ in found.items():
        more = f" and {len(cases_) - 1} more" if len(cases_) > 1 else ""
        told.append(f"{name} on {target}{more}: {max(cases_)[1]}")
    return told


def rows(launches: list[Launch], built: list[Built], targets: list[str]) -> list[dict[str, Any]]:
    """The worst build of each kernel in each case, by target; cases with the same builds share a row."""
    results = {(number, target): result for number, target, result, _ in built}
    of_case: dict[tuple[str, Case], set[int]] = {}
    for number, launch in enumerate(launches):
        for _, case in launch.places:
            of_case.setdefault((launch.name, case), set()).add(number)
    shared: dict[tuple[str, tuple[int, ...]], list[Case]] = {}
    for (name, case), numbers in of_case.items():
        shared.setdefault((name, tuple(sorted(numbers))), []).append(case)
    found = []
    for (name, numbers), its_cases in shared.items():
        row: dict[str, Any] = {"kernel": name}
        for key, values in (
            ("p", [case.p for case in its_cases]),
            ("channels", [case.channels for case in its_cases]),
            ("k", [case.k for case in its_cases]),
        ):
            row[key] = sorted(set(values))
        plain = any(not case.extra for case in its_cases)
        row["extra"] = "" if plain else "; ".join(dict.fromkeys(case.extra for case in its_cases))
        for target in targets:
            of_target = [result for n in numbers if isinstance(result := results.get((n, target)), Resources)]
            if any(isinstance(results.get((n, target)), str) for n in numbers):
                row.setdefault("fails", []).append(target)
            if of_target:
                worst = min(of_target, key=lambda result: (result.occupancy, -result.registers))
                most = {name: max(getattr(x, name) for x in of_target) for name in ("spilled", "moved", "stack")}
                row[target] = worst.as_dict() | most
        found.append(row)
    return sorted(found, key=lambda row: (row["kernel"], row["extra"], row["p"], row["channels"], row["k"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--quick", action="store_true", help="two sizes and a few special cases")
    parser.add_argument("--operators", nargs="+", choices=PROBLEMS, default=[], help="these alone")
    parser.add_argument("--stack", type=int, default=0, help="bytes of a thread's stack that are no error")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--results", type=Path, help="where gpu_kernels.md, .json and .png go")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cache = tempfile.mkdtemp(prefix="gpu_compile_")
    triton.knobs.cache.dir = cache
    try:
        start = time.perf_counter()
        noted, failures = launches_of(cases(arguments.quick), arguments.operators)
        launches = chosen(noted, arguments.quick)
        kernels = len({launch.name for launch in launches})
        print(f"{kernels} kernels, {len(launches)} variants, noted in {time.perf_counter() - start:.0f} s", flush=True)
        built = build_all(launches, arguments.targets, arguments.processes)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    errors, remarks = judge(launches, built, arguments.stack)
    found = rows(launches, built, arguments.targets)
    if arguments.results is not None:
        write(arguments.results, found, arguments.targets)
    for title, told in (
        (f"Could be better (occupancy below {WANTED:.0%} on {JUDGED}, scalar registers moved):", remarks),
        ("Not as it must be:", [*failures, *errors]),
    ):
        if told:
            print("\n".join([title, *(f"  {line}" for line in told)]))
    good = [result for _, _, result, _ in built if isinstance(result, Resources)]
    spent = sum(seconds for *_, seconds in built)
    print(
        f"{len(good)} of {len(built)} builds good, {spent:.0f} s of compiling; most registers "
        f"{max((result.registers for result in good), default=0)}, least occupancy "
        f"{min((result.occupancy for result in good), default=0):.0%}"
    )
    sys.exit(1 if failures or errors else 0)


if __name__ == "__main__":
    main()
