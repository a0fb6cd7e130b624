"""Sums over patches, written as vector instructions.

A patch of a channel-last image is `slices x rows` runs of `length` neighboring numbers. Left to themselves, LLVM's
vectorizers need a length that is known when compiling, or spend most of the time in the tail of each run (21 numbers
for 7 RGB pixels). Here a run is read in whole vectors, the last one masked: it may read up to one vector past the end
of the run, so every array given to these functions ends with `SLACK` spare elements (`padded_image.py` makes them).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils

from patchattn.kernels.cpu.compiler import instruction
from patchattn.kernels.cpu.vectors import FLAGS, INT32, VECTOR_BYTES, integers_of, load_vector, tail_mask

__all__ = [
    "PatchSteps",
    "reduce_vector",
    "sum_absolute_difference",
    "sum_product",
    "sum_squared_difference",
]

Step = Callable[[ir.IRBuilder, Any, Any, Any, Any], Any]


def _squared_difference(builder: ir.IRBuilder, a: Any, b: Any, mask: Any, zero: Any) -> Any:
    difference = builder.fsub(a, b)
    if mask is not None:
        difference = builder.select(mask, difference, zero)
    return builder.fmul(difference, difference, flags=FLAGS)


def _absolute_difference(builder: ir.IRBuilder, a: Any, b: Any, mask: Any, zero: Any) -> Any:
    difference = builder.fsub(a, b)
    if mask is not None:
        difference = builder.select(mask, difference, zero)
    return builder.select(builder.fcmp_ordered("<", difference, zero), builder.fneg(difference), difference)


def _product(builder: ir.IRBuilder, a: Any, b: Any, mask: Any, zero: Any) -> Any:
    if mask is not None:
        a, b = builder.select(mask, a, zero), builder.select(mask, b, zero)
    return builder.fmul(a, b, flags=FLAGS)


def reduce_vector(builder: ir.IRBuilder, value: Any, lanes: int) -> Any:
    """The sum of a vector's lanes, halves first."""
    while lanes > 1:
        half = lanes // 2
        low = ir.Constant(ir.VectorType(INT32, half), list(range(half)))
        high = ir.Constant(ir.VectorType(INT32, half), list(range(half, lanes)))
        value = builder.fadd(builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high))
        lanes = half
    return builder.extract_element(value, ir.Constant(INT32, 0))


class PatchSteps(NamedTuple):
    """Layout of the elements of two patches: `slices` times `rows` runs of `length` neighboring numbers."""

    slices: int
    rows: int
    length: int
    q_slice: int
    """From one slice of the query's patch to the next; so are the others."""
    q_row: int
    k_slice: int
    k_row: int
    check: int
    """Rows between two comparisons of the sum so far with its limit."""


def _patch_sum(step: Step, summary: str, *, stops_early: bool) -> Any:
    """Build `f(q, q_start, k, k_start, steps, limit)`; `steps` are `PatchSteps`.

    `q` and `k` are flat arrays of one float type, `*_start` the first element of each patch. If `stops_early`, the sum
    so far is compared with `limit` before each row that follows `steps.check` rows since the last time, and returned as
    it is once it is larger.
    """

    @instruction
    def patch_sum(typing_context: Any, q: Any, q_start: Any, k: Any, k_start: Any, steps: Any, limit: Any) -> Any:
        number = q.dtype
        signature = number(q, types.intp, k, types.intp, steps, number)
        lanes = VECTOR_BYTES // (number.bitwidth // 8)
        size = number.bitwidth // 8

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            q, q_start, k, k_start, steps, limit = arguments
            slices, rows, length, q_slice, q_row, k_slice, k_row, check = integers_of(
                context, builder, signature.args[4], steps
            )
            q_data = context.make_array(signature.args[0])(context, builder, q).data
            k_data = context.make_array(signature.args[2])(context, builder, k).data
            integer = context.get_value_type(types.intp)
            constant = lambda value: ir.Constant(integer, value)  # noqa: E731
            vector = ir.VectorType(context.get_value_type(number), lanes)
            zero = ir.Constant(vector, [0.0] * lanes)
            # Four sums take turns, so that one addition need not wait for the one before it.
            sums = [cgutils.alloca_once_value(builder, zero) for _ in range(4)]
            since_check = cgutils.alloca_once_value(builder, constant(0))
            result = cgutils.alloca_once(builder, vector.element)
            pairs = builder.and_(length, constant(-2 * lanes))
            whole = builder.and_(length, constant(-lanes))
            mask = tail_mask(builder, builder.sub(length, whole), lanes)
            done = builder.append_basic_block("done")

            def add(at_q: Any, at_k: Any, which: int, mask: Any = None) -> None:
                a, b = (
                    load_vector(builder, q_data, at_q, vector, size),
                    load_vector(builder, k_data, at_k, vector, size),
                )
                total = builder.load(sums[which])
                builder.store(builder.fadd(total, step(builder, a, b, mask, zero), flags=FLAGS), sums[which])

            def total() -> Any:
                a, b, c, d = (builder.load(s) for s in sums)
                return reduce_vector(builder, builder.fadd(builder.fadd(a, b), builder.fadd(c, d)), lanes)

            def stop_if_beyond_limit() -> None:
                since = builder.load(since_check)
                builder.store(builder.add(since, constant(1)), since_check)
                with builder.if_then(builder.icmp_signed("==", since, check), likely=False):
                    builder.store(constant(1), since_check)
                    builder.store(total(), result)
                    onwards = builder.append_basic_block("onwards")
                    builder.cbranch(builder.fcmp_ordered(">", builder.load(result), limit), done, onwards)
                    builder.position_at_end(onwards)

            def start_of_row(start: Any, i_slice: Any, slice_step: Any, i_row: Any, row_step: Any) -> Any:
                return builder.add(start, builder.add(builder.mul(i_slice, slice_step), builder.mul(i_row, row_step)))

            with (
                cgutils.for_range(builder, slices, intp=integer) as one_slice,
                cgutils.for_range(builder, rows, intp=integer) as one_row,
            ):
                if stops_early:
                    stop_if_beyond_limit()
                q_at = start_of_row(q_start, one_slice.index, q_slice, one_row.index, q_row)
                k_at = start_of_row(k_start, one_slice.index, k_slice, one_row.index, k_row)
                with cgutils.for_range_slice(builder, constant(0), pairs, constant(2 * lanes), intp=integer) as (x, _):
                    add(builder.add(q_at, x), builder.add(k_at, x), 0)
                    x = builder.add(x, constant(lanes))
                    add(builder.add(q_at, x), builder.add(k_at, x), 1)
                with builder.if_then(builder.icmp_signed("<", pairs, whole)):
                    add(builder.add(q_at, pairs), builder.add(k_at, pairs), 2)
                with builder.if_then(builder.icmp_signed("<", whole, length)):
                    add(builder.add(q_at, whole), builder.add(k_at, whole), 3, mask)
            builder.store(total(), result)
            builder.branch(done)
            builder.position_at_end(done)
            return builder.load(result)

        return signature, generate

    patch_sum.__doc__ = summary
    return patch_sum


sum_squared_difference = _patch_sum(_squared_difference, "Sum of (q - k)^2 over a patch.", stops_early=True)
sum_absolute_difference = _patch_sum(_absolute_difference, "Sum of |q - k| over a patch.", stops_early=True)
sum_product = _patch_sum(_product, "Sum of q * k over a patch.", stops_early=False)
