"""What `build_kernels.py` runs in processes of their own, since Numba compiles for one processor in a process.

python tools/kernel_worker.py record LEVEL > SIGNATURES
python tools/kernel_worker.py compile LEVEL < SIGNATURES

`record` runs the calls of `default_calls.py`, and writes which kernels were compiled for which types, as it finds out.
`compile` compiles those, as they come, and runs none: the machine need not have the level's instructions. Both then
write the level's file into the package.
"""

from __future__ import annotations

import importlib
import io
import logging
import pickle
import pkgutil
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, BinaryIO

import torch
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target

from patchattn.kernels import cpu
from patchattn.kernels.cpu.levels import levels_of
from patchattn.kernels.cpu.object_file import write_objects
from patchattn.kernels.cpu.shipped import object_name, pack_compiled, path_of, stamp_of

Signatures = list[tuple[str, str, tuple[Any, ...]]]
"""Module and name of a kernel, and the types of its arguments."""


def kernels() -> dict[tuple[str, str], Any]:
    """All kernels that are kept on disk, by module and name."""
    found = {}
    for info in pkgutil.iter_modules(cpu.__path__, f"{cpu.__name__}."):
        for name, value in vars(importlib.import_module(info.name)).items():
            if isinstance(value, Dispatcher) and getattr(function_of(value), "__module__", None) == info.name:
                found[info.name, name] = value
    return found


def function_of(kernel: Any) -> Any:
    """The function that a kernel was made of; None for what is compiled into kernels and not kept."""
    return getattr(kernel._cache, "function", None)


def record(output: BinaryIO) -> Signatures:
    """Run all calls, and return what they compiled; the signatures are written at once."""
    from default_calls import default_calls, run_call

    torch.set_num_threads(1)  # two threads would compile in any order
    found: Signatures = []
    for name, call in default_calls():
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            run_call(name, call, Path(folder))
        new = [(*place, types) for place, kernel in kernels().items() for types in kernel.overloads]
        new = sorted((signature for signature in new if signature not in found), key=str)
        for signature in new:
            pickle.dump(signature, output)
        output.flush()
        found += new
    return found


def compile_all(source: BinaryIO) -> Signatures:
    """Compile the kernels in the order in which they come, which shows in the names that Numba gives."""
    known, done = kernels(), []
    while True:
        try:
            module, name, types = pickle.load(source)
        except EOFError:
            return done
        known[module, name].compile(types)
        done.append((module, name, types))


def write_level(level_name: str, signatures: Signatures) -> None:
    """Write what was compiled into the package."""
    codegen = cpu_target.target_context.codegen()
    triple, processor, features = codegen.magic_tuple()
    (level,) = (level for level in levels_of(triple) if level.name == level_name)
    assert (processor, features) == (level.cpu, ""), "build_kernels.py sets what Numba compiles for"
    known, objects = kernels(), {}
    for module, name, types in signatures:
        kernel = known[module, name]
        objects[object_name(function_of(kernel), types)] = pack_compiled(kernel.overloads[types])
    path = path_of(level)
    path.parent.mkdir(exist_ok=True)
    write_objects(path, stamp_of(level, triple), objects)
    print(f"{path.name}: {len(objects)} kernels, {path.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    task, level = sys.argv[1:]
    logging.getLogger("patchattn").setLevel(logging.ERROR)  # that kernels are compiled is no news here
    write_level(level, record(sys.stdout.buffer) if task == "record" else compile_all(sys.stdin.buffer))
