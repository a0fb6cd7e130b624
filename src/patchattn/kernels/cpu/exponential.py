"""The exponential function in arithmetic alone, which compilers turn into vector instructions."""

from __future__ import annotations

from math import factorial
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from patchattn.kernels.cpu.compiler import instruction

__all__ = ["exp_of_negative"]

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
    bits = x.bitwidth

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        kind, integer = arguments[0].type, ir.IntType(bits)
        number = lambda value: ir.Constant(kind, value)  # noqa: E731
        is_low = builder.fcmp_ordered("<", arguments[0], number(LOWEST[bits]))
        value = builder.select(is_low, number(LOWEST[bits]), arguments[0])
        rint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), f"llvm.rint.f{bits}")
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
        whole = builder.shl(builder.add(whole, ir.Constant(integer, BIAS[bits])), ir.Constant(integer, MANTISSA[bits]))
        result = builder.fmul(total, builder.bitcast(whole, kind))
        return builder.select(is_low, number(0.0), result)

    return x(x), generate
