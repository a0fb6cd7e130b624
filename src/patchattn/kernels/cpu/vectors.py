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

__all__ = [
    "SLACK",
    "PatchSteps",
    "add_scaled",
    "find_above",
    "integers_of",
    "sum_absolute_difference",
    "sum_product",
    "sum_runs",
    "sum_squared_difference",
]

VECTOR_BYTES = 64
SLACK = VECTOR_BYTES // 4
FLAGS = ("reassoc", "contract", "nsz")
INT32 = ir.IntType(32)

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


def _load(builder: ir.IRBuilder, base: Any, offset: Any, vector: ir.VectorType, size: int) -> Any:
    pointer = builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())
    return builder.load(pointer, align=size)


def _reduce(builder: ir.IRBuilder, value: Any, lanes: int) -> Any:
    while lanes > 1:
        half = lanes // 2
        low = ir.Constant(ir.VectorType(INT32, half), list(range(half)))
        high = ir.Constant(ir.VectorType(INT32, half), list(range(half, lanes)))
        value = builder.fadd(builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high))
        lanes = half
    return builder.extract_element(value, ir.Constant(INT32, 0))


def _tail_mask(builder: ir.IRBuilder, tail: Any, lanes: int) -> Any:
    vector = ir.VectorType(INT32, lanes)
    count = builder.insert_element(ir.Constant(vector, ir.Undefined), builder.trunc(tail, INT32), ir.Constant(INT32, 0))
    count = builder.shuffle_vector(count, count, ir.Constant(vector, [0] * lanes))
    return builder.icmp_signed("<", ir.Constant(vector, list(range(lanes))), count)


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


def integers_of(context: Any, builder: ir.IRBuilder, kind: Any, values: Any) -> list[Any]:
    """Return the members of a tuple of integers as those that arrays are indexed with."""
    parts = zip(cgutils.unpack_tuple(builder, values, len(kind.types)), kind.types, strict=True)
    return [context.cast(builder, value, part, types.intp) for value, part in parts]


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
            mask = _tail_mask(builder, builder.sub(length, whole), lanes)
            done = builder.append_basic_block("done")

            def add(at_q: Any, at_k: Any, which: int, mask: Any = None) -> None:
                a, b = _load(builder, q_data, at_q, vector, size), _load(builder, k_data, at_k, vector, size)
                total = builder.load(sums[which])
                builder.store(builder.fadd(total, step(builder, a, b, mask, zero), flags=FLAGS), sums[which])

            def total() -> Any:
                a, b, c, d = (builder.load(s) for s in sums)
                return _reduce(builder, builder.fadd(builder.fadd(a, b), builder.fadd(c, d)), lanes)

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


@instruction
def add_scaled(typing_context: Any, total: Any, x: Any, start: Any, length: Any, factor: Any) -> Any:
    """`total[:length] += factor * x[start : start + length]`, by whole vectors.

    Up to one vector past `length` is read from `x` and written to `total`: both end with slack, and `total` belongs to
    one thread.
    """
    number = total.dtype
    signature = types.void(total, x, types.intp, types.intp, number)
    lanes = VECTOR_BYTES // (number.bitwidth // 8)
    size = number.bitwidth // 8

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        total, x, start, length, factor = arguments
        total_data = context.make_array(signature.args[0])(context, builder, total).data
        x_data = context.make_array(signature.args[1])(context, builder, x).data
        integer = context.get_value_type(types.intp)
        vector = ir.VectorType(context.get_value_type(number), lanes)
        factors = builder.insert_element(ir.Constant(vector, ir.Undefined), factor, ir.Constant(INT32, 0))
        factors = builder.shuffle_vector(factors, factors, ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes))
        zero, step = ir.Constant(integer, 0), ir.Constant(integer, lanes)
        with cgutils.for_range_slice(builder, zero, length, step, intp=integer) as (at, _):
            added = _load(builder, x_data, builder.add(start, at), vector, size)
            before = _load(builder, total_data, at, vector, size)
            after = builder.fadd(before, builder.fmul(factors, added, flags=FLAGS), flags=FLAGS)
            builder.store(after, builder.bitcast(builder.gep(total_data, [at]), vector.as_pointer()), align=size)
        return context.get_dummy_value()

    return signature, generate


@instruction
def sum_runs(
    typing_context: Any, output: Any, to: Any, numbers: Any, starts: Any, first: Any, terms: Any, at: Any, length: Any
) -> Any:
    """`output[to : to + length]` becomes the sum of the runs of `numbers` that begin at `at + starts[first + d]`, for
    all d below `terms`; `numbers` and `output` do not overlap.
    """
    number = output.dtype
    signature = types.void(output, types.intp, numbers, starts, *([types.intp] * 4))
    size = number.bitwidth // 8
    lanes = VECTOR_BYTES // size

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        output, to, numbers, starts, first, terms, at, length = arguments
        output, numbers, starts = (
            context.make_array(signature.args[n])(context, builder, array).data
            for n, array in ((0, output), (2, numbers), (3, starts))
        )
        integer = context.get_value_type(types.intp)
        constant = lambda value: ir.Constant(integer, value)  # noqa: E731
        vector = ir.VectorType(context.get_value_type(number), lanes)

        def add(begin: Any, kind: Any, places: list[int]) -> None:
            """Sum at these distances from `begin`, which take turns."""
            zero = ir.Constant(kind, [0.0] * lanes if kind is vector else 0.0)
            sums = [cgutils.alloca_once_value(builder, zero) for _ in places]
            for total in sums:
                builder.store(zero, total)
            with cgutils.for_range(builder, terms, intp=integer) as term:
                start = builder.load(builder.gep(starts, [builder.add(first, term.index)]))
                start = builder.add(builder.add(start, at), begin)
                for place, total in zip(places, sums, strict=True):
                    added = _load(builder, numbers, builder.add(start, constant(place)), kind, size)
                    builder.store(builder.fadd(builder.load(total), added, flags=FLAGS), total)
            for place, total in zip(places, sums, strict=True):
                pointer = builder.gep(output, [builder.add(builder.add(to, begin), constant(place))])
                builder.store(builder.load(total), builder.bitcast(pointer, kind.as_pointer()), align=size)

        def loop(low: Any, high: Any, step: int, kind: Any, places: list[int]) -> None:
            with cgutils.for_range_slice(builder, low, high, constant(step), intp=integer) as (begin, _):
                add(begin, kind, places)

        fours, whole = builder.and_(length, constant(-4 * lanes)), builder.and_(length, constant(-lanes))
        loop(constant(0), fours, 4 * lanes, vector, [0, lanes, 2 * lanes, 3 * lanes])
        loop(fours, whole, lanes, vector, [0])
        with builder.if_else(builder.icmp_signed("<", length, constant(lanes))) as (is_short, is_long):
            with is_short:
                loop(constant(0), length, 1, vector.element, [0])
            with is_long, builder.if_then(builder.icmp_signed("<", whole, length)):
                # The last whole vector: some of it is summed twice.
                add(builder.sub(length, constant(lanes)), vector, [0])
        return context.get_dummy_value()

    return signature, generate


@instruction
def find_above(typing_context: Any, numbers: Any, start: Any, end: Any, limit: Any) -> Any:
    """The first place from `start` on whose number is above `limit`, or `end`. NaN is not. Reads into the slack."""
    number = numbers.dtype
    signature = types.intp(numbers, types.intp, types.intp, number)
    size = number.bitwidth // 8
    lanes = VECTOR_BYTES // size

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        numbers, start, end, limit = arguments
        numbers = context.make_array(signature.args[0])(context, builder, numbers).data
        integer = context.get_value_type(types.intp)
        vector = ir.VectorType(context.get_value_type(number), lanes)
        limits = builder.insert_element(ir.Constant(vector, ir.Undefined), limit, ir.Constant(INT32, 0))
        limits = builder.shuffle_vector(limits, limits, ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes))
        bits = ir.IntType(lanes)
        place, above = cgutils.alloca_once_value(builder, end), cgutils.alloca_once_value(builder, ir.Constant(bits, 0))
        builder.store(end, place)
        builder.store(ir.Constant(bits, 0), above)
        done = builder.append_basic_block("done")
        with cgutils.for_range_slice(builder, start, end, ir.Constant(integer, lanes), intp=integer) as (at, _):
            found = builder.fcmp_ordered(">", _load(builder, numbers, at, vector, size), limits)
            found = builder.bitcast(found, bits)
            builder.store(found, above)
            builder.store(at, place)
            onwards = builder.append_basic_block("onwards")
            builder.cbranch(builder.icmp_unsigned("!=", found, ir.Constant(bits, 0)), done, onwards)
            builder.position_at_end(onwards)
        builder.branch(done)
        builder.position_at_end(done)
        # Without any, the number of zeros is that of the lanes: from the last vector on, that is past the end.
        zeros = builder.zext(builder.cttz(builder.load(above), ir.Constant(ir.IntType(1), 0)), integer)
        first = builder.add(builder.load(place), zeros)
        return builder.select(builder.icmp_signed("<", first, end), first, end)

    return signature, generate
