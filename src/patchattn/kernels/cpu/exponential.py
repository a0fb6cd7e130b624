"""The exponential function in arithmetic alone, which compilers turn into vector instructions."""

from __future__ import annotations

from math import factorial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from patchattn.kernels.cpu.compiler import instruction
from patchattn.kernels.cpu.vectors import VECTOR_BYTES, broadcast, load_vector

__all__ = ["exp_of_differences", "exp_of_negative"]

LOG2_E = 1.4426950408889634
# ln 2 in two parts, of which whole multiples of the first are exact (Cody and Waite).
LN2 = {32: (0.693359375, -2.12194440e-4), 64: (6.93145751953125e-1, 1.42860682030941723212e-6)}
TERMS = {32: 8, 64: 14}
"""Terms of the Taylor series, enough for |x| <= ln 2 / 2."""
LOWEST = {32: -87.0, 64: -708.0}
"""Below it results have no full precision, and count as 0."""
MANTISSA, BIAS = {32: 23, 64: 52}, {32: 127, 64: 1023}


@instruction
def exp_of_negative(typing_context: Any, x: Any) -> Any:
    """exp(x) for x <= 0, to about one unit in the last place; 0 where it is below 1e-37 (1e-307 in float64)."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return _exponential(builder, arguments[0], x.bitwidth)

    return x(x), generate


@instruction
def exp_of_differences(typing_context: Any, x: Any, count: Any, largest: Any) -> Any:
    """`x[:count] = exp_of_negative(x[:count] - largest)`, by whole vectors: `x` ends with `SLACK` spare elements."""
    number = x.dtype
    signature = types.void(x, types.intp, number)
    size = number.bitwidth // 8
    lanes = VECTOR_BYTES // size

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        array, count, largest = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        integer = context.get_value_type(types.intp)
        vector = ir.VectorType(context.get_value_type(number), lanes)
        repeated = broadcast(builder, largest, vector)
        zero, step = ir.Constant(integer, 0), ir.Constant(integer, lanes)
        with cgutils.for_range_slice(builder, zero, count, step, intp=integer) as (at, _):
            difference = builder.fsub(load_vector(builder, data, at, vector, size), repeated)
            result = _exponential(builder, difference, number.bitwidth)
            builder.store(result, builder.bitcast(builder.gep(data, [at]), vector.as_pointer()), align=size)
        return context.get_dummy_value()

    return signature, generate


def _exponential(builder: ir.IRBuilder, x: Any, bits: int) -> Any:
    """exp(x) for a number, or a vector of numbers, of so many bits that are at most 0."""
    kind = x.type
    lanes = kind.count if isinstance(kind, ir.VectorType) else 0
    integer = ir.VectorType(ir.IntType(bits), lanes) if lanes else ir.IntType(bits)

    def number(value: float) -> ir.Constant:
        return ir.Constant(kind, [value] * lanes if lanes else value)

    def whole_number(value: int) -> ir.Constant:
        return ir.Constant(integer, [value] * lanes if lanes else value)

    is_low = builder.fcmp_ordered("<", x, number(LOWEST[bits]))
    value = builder.select(is_low, number(LOWEST[bits]), x)
    name = f"llvm.rint.v{lanes}f{bits}" if lanes else f"llvm.rint.f{bits}"
    rint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
    power = builder.call(rint, [builder.fmul(value, number(LOG2_E))])
    rest = value
    for part in LN2[bits]:
        rest = builder.fsub(rest, builder.fmul(power, number(part)), flags=("contract",))
    total = number(1 / factorial(TERMS[bits] - 1))
    for n in reversed(range(TERMS[bits] - 1)):
        total = builder.fmul(total, rest, flags=("contract",))
        total = builder.fadd(total, number(1 / factorial(n)), flags=("contract",))
    # 2^power, by its bits; NaN has no integer, so it takes that of 0.
    is_number = builder.fcmp_ordered("ord", value, value)
    whole = builder.fptosi(builder.select(is_number, power, number(0.0)), integer)
    whole = builder.shl(builder.add(whole, whole_number(BIAS[bits])), whole_number(MANTISSA[bits]))
    result = builder.fmul(total, builder.bitcast(whole, kind))
    return builder.select(is_low, number(0.0), result)
