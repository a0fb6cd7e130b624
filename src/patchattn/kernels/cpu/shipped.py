"""Machine code that comes with the package, compiled for CPU levels by `tools/build_kernels.py`.

It holds for one version of Numba and of Python. Where it does not hold, or is absent as in a checkout, kernels are
compiled at first use.
"""

from __future__ import annotations

import hashlib
import pickle
import platform
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite import binding
from numba.core.compiler import CompileResult
from numba.core.runtime.nrt import rtsys
from numba.core.serialize import dumps

from patchattn.kernels.cpu.levels import Level, levels_of, supported
from patchattn.kernels.cpu.object_file import ObjectFile

__all__ = [
    "FOLDER",
    "fingerprint",
    "load_shipped",
    "object_name",
    "pack_compiled",
    "path_of",
    "shipped_state",
    "stamp_of",
]

FOLDER = Path(__file__).with_name("objects")
PYTHON = f"{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}"
STUB = 'define void @"{wrapper}"() {{ ret void }}'


def load_shipped(function: Callable[..., Any], signature: Any, target_context: Any) -> Any:
    """A kernel's compiled code for these arguments, None if none holds here.

    Numba's registries are not loaded for it: what they hold is for compiling, and importing them takes longer than
    all kernels of a call.
    """
    try:
        file, _ = _chosen(target_context.codegen().magic_tuple())
        packed = None if file is None else file.read(object_name(function, signature))
        if packed is None:
            return None
        rtsys.initialize(target_context)
        compiled = CompileResult._rebuild(target_context, *pickle.loads(packed))
    except Exception:  # damaged, or by another hand: unpickling may raise anything
        return None
    return compiled if compiled.signature.args == _arguments(signature) else None


def shipped_state() -> dict[str, str | None]:
    """The CPU `level` of the shipped machine code that runs here, and the `problem` if none does; one is None."""
    from numba.core.registry import cpu_target

    file, problem = _chosen(cpu_target.target_context.codegen().magic_tuple())
    return {"level": None if file is None else file.stamp["level"], "problem": problem}


def pack_compiled(compiled: Any) -> bytes:
    """Serialize what Numba compiled, without what only inspecting it needs.

    Nor with the bitcode, over half of it, which is for inlining a kernel in another: no kernel calls another. In its
    place stands a module that names the function that Python calls, which Numba looks for. (A function that calls a
    kernel all the same is linked to its machine code.)
    """
    (name, kind, (machine_code, _)), *rest = compiled._reduce()
    module = binding.parse_assembly(STUB.format(wrapper=compiled.fndesc.llvm_cpython_wrapper_name))
    rest[5] = ""  # the types of all variables, as a text
    return bytes(dumps(((name, kind, (machine_code, module.as_bitcode())), *rest)))


def object_name(function: Callable[..., Any], signature: Any) -> str:
    """The name of a kernel's code for these arguments."""
    return f"{function.__module__}.{function.__qualname__}{_arguments(signature)}"


def path_of(level: Level) -> Path:
    """The file with the code for a level, this Python and this system."""
    return FOLDER / f"{PYTHON}-{sys.platform}-{platform.machine().lower()}-{level.name}.bin"


def stamp_of(level: Level, triple: str) -> dict[str, str]:
    """All that code for a level depends on."""
    return {
        "sources": fingerprint(),
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "python": PYTHON,
        "triple": triple,
        "level": level.name,
    }


@cache
def fingerprint() -> str:
    """A digest of all that kernels are made of: the sources of this folder, and `parameters.py`."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in (folder.parent / "parameters.py", *sorted(folder.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _chosen(target: tuple[str, str, str]) -> tuple[ObjectFile | None, str | None]:
    """The file for the highest level that the processor has, or the reason why there is none."""
    triple, cpu, features = target
    problem = f"the package holds none for {cpu} ({triple}) and {PYTHON}"
    for level in levels_of(triple):
        if not supported(level, cpu, features):
            continue
        path, stamp = path_of(level), stamp_of(level, triple)
        try:
            file = ObjectFile(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"{path.name} cannot be read ({error})"
            continue
        if file.stamp == stamp:
            return file, None
        problem = f"{path.name} was made with {_difference(file.stamp, stamp)}"
    return None, problem


def _difference(found: dict[str, str], expected: dict[str, str]) -> str:
    if found.get("sources") != expected["sources"]:
        return "other sources"
    parts = [f"{name} {found.get(name)}, not {value}" for name, value in expected.items() if found.get(name) != value]
    return ", ".join(parts)


def _arguments(signature: Any) -> tuple[Any, ...]:
    """The types that a kernel is called with; Numba gives them alone or in a signature."""
    return tuple(getattr(signature, "args", signature))
