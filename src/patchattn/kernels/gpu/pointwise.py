"""A user's own similarity as device code: its function is called once, with operands that write down what is done."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import triton
import triton.language as tl
from numpy.lib.mixins import NDArrayOperatorsMixin

from patchattn.similarity import Similarity

__all__ = ["compiled_derivative", "compiled_function", "derivative_by"]

NUMBERS: dict[np.ufunc, str] = {
    np.add: "{} + {}",
    np.subtract: "{} - {}",
    np.multiply: "{} * {}",
    np.divide: "{} / {}",
    np.floor_divide: "tl.floor({} / {})",
    np.remainder: "{0} - tl.floor({0} / {1}) * {1}",
    np.negative: "-{}",
    np.positive: "{}",
    np.absolute: "tl.abs({})",
    np.fabs: "tl.abs({})",
    np.square: "{0} * {0}",
    np.reciprocal: "1 / {}",
    np.sqrt: "tl.sqrt({})",
    np.hypot: "tl.sqrt({0} * {0} + {1} * {1})",
    np.sign: "sign({})",
    np.exp: "tl.exp({})",
    np.exp2: "tl.exp2({})",
    np.expm1: "expm1({})",
    np.log: "tl.log({})",
    np.log2: "tl.log2({})",
    np.log10: "tl.log({}) * 0.4342944819032518",
    np.log1p: "log1p({})",
    np.sin: "tl.sin({})",
    np.cos: "tl.cos({})",
    np.tan: "tl.sin({0}) / tl.cos({0})",
    np.tanh: "tanh({})",
    np.floor: "tl.floor({})",
    np.ceil: "tl.ceil({})",
    np.minimum: "tl.minimum({}, {}, propagate_nan=tl.PropagateNan.ALL)",
    np.maximum: "tl.maximum({}, {}, propagate_nan=tl.PropagateNan.ALL)",
    np.fmin: "tl.minimum({}, {})",
    np.fmax: "tl.maximum({}, {})",
}
"""NumPy's functions of numbers, with numbers as their results."""
COMPARISONS: dict[np.ufunc, str] = {
    np.less: "{} < {}",
    np.less_equal: "{} <= {}",
    np.greater: "{} > {}",
    np.greater_equal: "{} >= {}",
    np.equal: "{} == {}",
    np.not_equal: "{} != {}",
    np.isnan: "{0} != {0}",
    np.isfinite: 'tl.abs({}) < float("inf")',
    np.isinf: 'tl.abs({}) == float("inf")',
}
CONNECTIVES: dict[np.ufunc, str] = {
    np.logical_and: "{} & {}",
    np.bitwise_and: "{} & {}",
    np.logical_or: "{} | {}",
    np.bitwise_or: "{} | {}",
    np.logical_xor: "{} ^ {}",
    np.bitwise_xor: "{} ^ {}",
    np.logical_not: "~{}",
    np.invert: "~{}",
}
"""Operators of truth values."""


class UntraceableError(Exception):
    """Something that device code cannot do."""


class Code:
    """The lines of a function, one operation each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, expression: str, *, truth: bool = False) -> Operand:
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        return Operand(self, name, truth=truth)

    def number(self, value: Any) -> str:
        """The expression for a number, which may be a plain one."""
        if isinstance(value, Operand):
            return f"{value.name}.to(q.dtype)" if value.truth else value.name
        # As a tensor of the operands' type: by itself, it would have 32 bits.
        return self.write(f"tl.zeros_like(q) + {_literal(_plain(value))}").name

    def truth(self, value: Any) -> str:
        if isinstance(value, Operand) and value.truth:
            return value.name
        return self.write(f"{self.number(value)} != 0", truth=True).name


class Operand(NDArrayOperatorsMixin):
    """Stand-in for a number, which a user's function is traced with: NumPy and Python's operators call it."""

    def __init__(self, code: Code, name: str, *, truth: bool = False) -> None:
        self.code, self.name, self.truth = code, name, truth

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Operand:
        if method != "__call__" or options:
            raise UntraceableError(f"numpy.{ufunc.__name__} is used in a way that is not elementwise")
        code = self.code
        if ufunc in (np.power, np.float_power):
            return _power(code, *inputs)
        if ufunc in NUMBERS:
            if all(isinstance(value, Operand) and value.truth for value in inputs):
                raise UntraceableError(f"numpy.{ufunc.__name__} of truth values; use numpy.where")
            return code.write(NUMBERS[ufunc].format(*(code.number(value) for value in inputs)))
        if ufunc in COMPARISONS:
            return code.write(COMPARISONS[ufunc].format(*(code.number(value) for value in inputs)), truth=True)
        if ufunc in CONNECTIVES:
            return code.write(CONNECTIVES[ufunc].format(*(code.truth(value) for value in inputs)), truth=True)
        raise UntraceableError(f"numpy.{ufunc.__name__} has no counterpart there")

    def __array_function__(self, function: Any, _types: Any, arguments: Any, options: Any) -> Any:
        if function not in FUNCTIONS:
            raise UntraceableError(f"numpy.{function.__name__} has no counterpart there")
        return FUNCTIONS[function](self.code, *arguments, **options)

    def __bool__(self) -> bool:
        raise UntraceableError("what is done depends on an operand, as by `if`, `and` or `max`; use numpy.where")

    def __float__(self) -> float:
        raise UntraceableError(
            "an operand is turned into a plain number, as by `float` or `math`; use NumPy's functions"
        )

    __int__ = __index__ = __complex__ = __float__


def _where(code: Code, condition: Any, first: Any, second: Any) -> Operand:
    return code.write(f"tl.where({code.truth(condition)}, {code.number(first)}, {code.number(second)})")


def _clip(_code: Code, value: Any, a_min: Any = None, a_max: Any = None) -> Any:
    if a_min is not None:
        value = np.maximum(value, a_min)
    return value if a_max is None else np.minimum(value, a_max)


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.where: _where,
    np.clip: _clip,
    np.zeros_like: lambda _code, _like: 0.0,
    np.ones_like: lambda _code, _like: 1.0,
    np.full_like: lambda _code, _like, value: value,
}
"""NumPy's functions that are no ufuncs."""


def _power(code: Code, base: Any, exponent: Any) -> Operand:
    """Whole powers by multiplication, halves by a root, all others through the logarithm."""
    if isinstance(exponent, Operand):
        if isinstance(base, Operand) or not _plain(base) > 0:
            raise UntraceableError("a power with an operand in the exponent; use numpy.exp and numpy.log")
        return code.write(f"tl.exp2({code.number(exponent)} * {_literal(float(np.log2(base)))})")
    exponent, factor = _plain(exponent), code.number(base)
    if not float(2 * exponent).is_integer():
        return code.write(f"tl.exp2({_literal(exponent)} * tl.log2({factor}))")
    factors = [f"tl.sqrt({factor})"] if exponent % 1 else []
    left = int(abs(exponent))
    while left:
        if left % 2:
            factors.append(factor)
        left //= 2
        if left:
            factor = code.write(f"{factor} * {factor}").name
    product = " * ".join(factors) or code.number(1)
    return code.write(f"1 / ({product})" if exponent < 0 else product)


def _plain(value: Any) -> float:
    if np.ndim(value) != 0:
        raise UntraceableError(f"an array of shape {np.shape(value)} is used")
    return float(value)


def _literal(value: float) -> str:
    return f"({value!r})" if np.isfinite(value) else f'float("{value}")'


def compiled_function(similarity: Similarity) -> Any:
    """The device function `(q, k) -> similarity`."""
    return _compiled_for(similarity.name, similarity.function, 1)


def compiled_derivative(similarity: Similarity) -> Any:
    """The device function `(q, k) -> (derivative by q, derivative by k)`."""
    if similarity.derivative is None:
        raise RuntimeError(
            f"similarity: {similarity.name} has no derivative; "
            "give one to pointwise_similarity() to train query and key."
        )
    return _compiled_for(similarity.name, similarity.derivative, 2)


def _compiled_for(name: str, function: Any, results: int) -> Any:
    try:
        return compiled(function, results)
    except Exception as error:
        raise RuntimeError(
            f"similarity: {name} cannot be compiled for the GPU ({error}); write it with operators, abs and NumPy's "
            'elementwise functions of its two operands, or pass backend="reference".'
        ) from error


@lru_cache(maxsize=256)
def compiled(function: Callable[[Any, Any], Any], results: int) -> Any:
    """Trace a function of two numbers into a device function that returns so many."""
    code = Code()
    found = function(Operand(code, "q"), Operand(code, "k"))
    values = found if results > 1 else (found,)
    if not isinstance(values, tuple) or len(values) != results:
        raise UntraceableError(f"it returns {type(found).__name__}, not a tuple of {results}")
    code.lines.append(f"return {', '.join([code.number(value) for value in values])}")
    body = "".join(f"    {line}\n" for line in code.lines)
    # Triton's caches know a function that a kernel is given in a tuple by its name alone.
    name = f"pointwise_{sha256(Path(__file__).read_bytes() + body.encode()).hexdigest()[:32]}"
    source = f"@triton.jit\ndef {name}(q, k):\n{body}"
    # Triton reads a function's source where Python's debugger does.
    file = f"patchattn_{name}.py"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    scope = {
        "__name__": __name__,
        "triton": triton,
        "tl": tl,
        "sign": sign,
        "expm1": expm1,
        "log1p": log1p,
        "tanh": tanh,
    }
    exec(compile(source, file, "exec"), scope)
    return scope[name]


@triton.jit
def derivative_by(DERIVATIVE: tl.constexpr, near, far, SIDE: tl.constexpr):
    """The derivative of a user's similarity by `near`: the query's number on side 0, the key's on side 1."""
    if SIDE == 0:
        by_near, _ = DERIVATIVE(near, far)
    else:
        _, by_near = DERIVATIVE(far, near)
    return by_near


@triton.jit
def sign(x):
    one = tl.zeros_like(x) + 1
    # 0 and NaN stay what they are.
    return tl.where(x > 0, one, tl.where(x < 0, -one, x))


@triton.jit
def expm1(x):
    """Kahan's way: what is lost by rounding e^x is lost in both terms of the quotient."""
    power = tl.exp(x)
    found = (power - 1) * x / tl.log(power)
    found = tl.where(power == 1, x, found)
    return tl.where((power == 0) | (power == float("inf")), power - 1, found)


@triton.jit
def log1p(x):
    sum_ = x + 1
    found = tl.log(sum_) * x / (sum_ - 1)
    found = tl.where(sum_ == 1, x, found)
    return tl.where(sum_ == float("inf"), sum_, found)


@triton.jit
def tanh(x):
    t = expm1(-2 * tl.abs(x))
    return sign(x) * (-t / (t + 2))
