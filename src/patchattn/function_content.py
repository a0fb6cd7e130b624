"""Functions by content: what they compute with, as a digest that equal functions share, and as a copy that stays so."""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
import sys
from collections.abc import Iterator
from hashlib import sha256
from itertools import takewhile
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

__all__ = ["UnknownContentError", "content_digest", "frozen"]

PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes)
LIBRARIES_OF_UFUNCS = ("numpy", "scipy.special")
LIBRARIES = ("builtins", "math", "cmath", "operator", "numpy", "scipy")
"""Their functions are what their names say, in every process."""
ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
FROM_GLOBALS, FROM_CLOSURE = ("LOAD_GLOBAL", "LOAD_NAME"), ("LOAD_DEREF", "LOAD_CLASSDEREF")
OUTWARDS = ("STORE_GLOBAL", "DELETE_GLOBAL", "IMPORT_NAME")
DYNAMIC = (eval, exec, compile, globals, locals, vars, getattr, setattr, __import__, open, input)
"""Builtin functions through which code reaches what cannot be read off it."""


class UnknownContentError(Exception):
    """A function depends on something whose content cannot be described; the message says on what."""


def content_digest(function: Any) -> str:
    """Return a digest of what a function computes with: its code, constants, defaults, and what it reads from outside.

    Names of the function and its place in a file do not count. Byte code does, so that digests belong to one version of
    Python.

    Raises:
        UnknownContentError: it depends on an object that is no number, array, function, or tuple of such.
    """
    return sha256(repr(_described(function, ())).encode()).hexdigest()


def frozen(function: Any) -> Any:
    """Return a copy of a function that `content_digest` describes, which keeps what the function reads from outside as
    it is now: variables of a loop go on, and globals can be changed.
    """
    return _frozen(function, {})


def _described(value: Any, within: tuple[int, ...]) -> Any:
    """A value as tuples of texts. `within`: the functions that are being described."""
    if isinstance(value, PLAIN) and type(value) in PLAIN:
        return type(value).__name__, repr(value)
    if type(value) is tuple:
        return "tuple", *(_described(part, within) for part in value)
    if type(value) is frozenset:
        return "frozenset", *sorted(repr(_described(part, within)) for part in value)
    if isinstance(value, (np.generic, np.ndarray)) and not value.dtype.hasobject:
        return "numpy", value.dtype.str, value.shape, sha256(value.tobytes()).hexdigest()
    name = _library_name(value)
    if name is not None:
        return "library", name
    if id(value) in within:
        return "itself", within.index(id(value))
    if isinstance(value, functools.partial):
        parts = value.func, value.args, tuple(sorted(value.keywords.items()))
        return "partial", *(_described(part, within) for part in parts)
    if hasattr(value, "py_func"):  # compiled by Numba
        options = sorted(getattr(value, "targetoptions", {}).items())
        return "compiled", repr(options), _described(value.py_func, within)
    if isinstance(value, FunctionType):
        return _described_function(value, (*within, id(value)))
    raise UnknownContentError(f"{value!r}")


def _described_function(function: FunctionType, within: tuple[int, ...]) -> Any:
    defaults = function.__defaults__ or (), tuple(sorted((function.__kwdefaults__ or {}).items()))
    outer = [
        (name, path, _described_outer(name, path, value, within)) for name, path, _, value in _outer_values(function)
    ]
    return "function", _described_code(function.__code__), _described(defaults, within), tuple(sorted(outer, key=repr))


def _described_outer(name: str, path: tuple[str, ...], value: Any, within: tuple[int, ...]) -> Any:
    try:
        return _described(value, within)
    except UnknownContentError as error:
        raise UnknownContentError(f"{'.'.join((name, *path))}, which is {error}") from None


def _described_code(code: CodeType) -> Any:
    """The instructions with what they refer to: places in tables would depend on docstrings."""
    lines = []
    for instruction in _instructions(code):
        argument: Any = instruction.arg
        if isinstance(instruction.argval, CodeType):
            argument = _described_code(instruction.argval)
        elif instruction.opcode in dis.hasconst:
            argument = _described(instruction.argval, ())
        elif instruction.opcode in (*dis.hasname, *dis.hasfree):
            argument = instruction.argval
        lines.append((instruction.opname, argument))
    handlers = getattr(code, "co_exceptiontable", b"")
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
    # Keyword arguments are given by name.
    keywords = code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]
    return "code", counts, keywords, code.co_flags & ~inspect.CO_NESTED, tuple(lines), handlers.hex()


def _instructions(code: CodeType) -> list[dis.Instruction]:
    return [line for line in dis.get_instructions(code) if line.opname not in ("EXTENDED_ARG", "CACHE")]


def _outer_values(function: FunctionType) -> Iterator[tuple[str, tuple[str, ...], Any, Any]]:
    """Yield what a function, and functions inside it, read from outside: a name, attributes, what the name holds, and
    the value. Modules are followed to what is taken from them: `np.exp` is "np", ("exp",), the module and the function.
    """
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    seen = set()
    for source, name, attributes in _outer_reads(function.__code__):
        if source in FROM_CLOSURE and name not in cells:
            continue  # a variable of the function that holds the inner one
        try:
            held = value = cells[name].cell_contents if source in FROM_CLOSURE else _global_of(function, name)
            path = 0
            while isinstance(value, ModuleType) and path < len(attributes):
                value = getattr(value, attributes[path])
                path += 1
        except (ValueError, KeyError, AttributeError) as error:
            raise UnknownContentError(f"{name}, which does not exist yet ({error})") from None
        if isinstance(value, ModuleType) or any(value is one for one in DYNAMIC):
            raise UnknownContentError(f"{name}, which is {value!r}")
        if (name, attributes[:path]) not in seen:
            seen.add((name, attributes[:path]))
            yield name, attributes[:path], held, value


def _outer_reads(code: CodeType) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """The instruction, the name and the attributes taken from it at once, for every read from outside."""
    instructions = _instructions(code)
    for at, instruction in enumerate(instructions):
        if isinstance(instruction.argval, CodeType):
            yield from _outer_reads(instruction.argval)
        elif instruction.opname in (*FROM_GLOBALS, *FROM_CLOSURE):
            attributes = takewhile(lambda line: line.opname in ATTRIBUTE, instructions[at + 1 :])
            yield instruction.opname, instruction.argval, tuple(line.argval for line in attributes)
        elif instruction.opname in OUTWARDS or (
            instruction.opname == "STORE_DEREF" and instruction.argval in code.co_freevars
        ):
            raise UnknownContentError(f"{instruction.argval}, by {instruction.opname}")


def _global_of(function: FunctionType, name: str) -> Any:
    return function.__globals__[name] if name in function.__globals__ else vars(builtins)[name]


def _library_name(value: Any) -> str | None:
    """The qualified name of a function or type of a library, None of everything else."""
    if not callable(value):
        return None
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(name, str):
        return None
    module = getattr(value, "__module__", None)
    if module is None and isinstance(value, np.ufunc):
        held = (known for known in LIBRARIES_OF_UFUNCS if getattr(sys.modules.get(known), name, None) is value)
        module = next(held, None)
    if not isinstance(module, str) or module.partition(".")[0] not in LIBRARIES:
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}.{name}" if found is value else None


def _frozen(value: Any, copies: dict[int, Any]) -> Any:
    if isinstance(value, np.ndarray):
        value = value.copy()
        value.flags.writeable = False
    elif isinstance(value, functools.partial):
        value = functools.partial(_frozen(value.func, copies), *value.args, **value.keywords)
    elif isinstance(value, FunctionType) and _library_name(value) is None:
        if id(value) not in copies:
            _copy_function(value, copies)
        value = copies[id(value)]
    return value


def _copy_function(function: FunctionType, copies: dict[int, Any]) -> None:
    """Put a copy of a function into `copies`, before those of the functions that it calls: they may call it."""
    scope: dict[str, Any] = {"__builtins__": builtins, "__name__": function.__module__}
    cells = {name: CellType() for name in function.__code__.co_freevars}
    defaults = function.__defaults__ and tuple(_frozen(value, copies) for value in function.__defaults__)
    copy = FunctionType(function.__code__, scope, function.__name__, defaults, tuple(cells.values()))
    copy.__kwdefaults__ = function.__kwdefaults__ and dict(function.__kwdefaults__)
    copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
    copies[id(function)] = copy
    kept: dict[str, Any] = {}
    for name, path, held, value in _outer_values(function):
        if isinstance(held, ModuleType):
            kept[name] = _frozen_module(kept.get(name, held), path, _frozen(value, copies))
        else:
            kept[name] = _frozen(value, copies)
    for name, value in kept.items():
        if name in cells:
            cells[name].cell_contents = value
        else:
            scope[name] = value


def _frozen_module(module: ModuleType, path: tuple[str, ...], value: Any) -> ModuleType:
    """A copy of a module that keeps `value` under the attributes `path`; libraries stay as they are."""
    if module.__name__.partition(".")[0] in LIBRARIES:
        return module
    copy = ModuleType(module.__name__)
    vars(copy).update(vars(module))
    setattr(copy, path[0], value if len(path) == 1 else _frozen_module(getattr(module, path[0]), path[1:], value))
    return copy
