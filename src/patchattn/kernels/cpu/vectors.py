"""Vector instructions: sums of runs of neighboring numbers, and the search for a large one.

Runs are read in whole vectors: up to one vector past the end of a run is read, so every array given to these functions
ends with `SLACK` spare elements (`padded_image.py` makes them).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from patchattn.kernels.cpu.compiler import instruction

__all__ = [
    "FLAGS",
    "INT32",
    "SLACK",
    "VECTOR_BYTES",
    "add_scaled",
    "add_scaled_run",
    "broadcast",
    "find_above",
    "integers_of",
    "load_vector",
    "lower_bound",
    "sum_runs",
    "sum_scaled_runs",
    "tail_mask",
]

VECTOR_BYTES = 64
SLACK = VECTOR_BYTES // 4
FLAGS = ("reassoc", "contract", "nsz")
INT32 = ir.IntType(32)


def load_vector(builder: ir.IRBuilder, base: Any, offset: Any, vector: ir.VectorType, size: int) -> Any:
    """Load a vector of elements of so many bytes from `base[offset]`, which need not be aligned."""
    pointer = builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())
    return builder.load(pointer, align=size)


def broadcast(builder: ir.IRBuilder, value: Any, vector: ir.VectorType) -> Any:
    """Return a vector of one number, in every lane."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(INT32, vector.count), [0] * vector.count))


def tail_mask(builder: ir.IRBuilder, tail: Any, lanes: int) -> Any:
    """Return a mask of the first `tail` lanes."""
    vector = ir.VectorType(INT32, lanes)
    count = broadcast(builder, builder.trunc(tail, INT32), vector)
    return builder.icmp_signed("<", ir.Constant(vector, list(range(lanes))), count)


def integers_of(context: Any, builder: ir.IRBuilder, kind: Any, values: Any) -> list[Any]:
    """Return the members of a tuple of integers as those that arrays are indexed with."""
    parts = zip(cgutils.unpack_tuple(builder, values, len(kind.types)), kind.types, strict=True)
    return [context.cast(builder, value, part, types.intp) for value, part in parts]


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
        factors = broadcast(builder, factor, vector)
        zero, step = ir.Constant(integer, 0), ir.Constant(integer, lanes)
        with cgutils.for_range_slice(builder, zero, length, step, intp=integer) as (at, _):
            added = load_vector(builder, x_data, builder.add(start, at), vector, size)
            before = load_vector(builder, total_data, at, vector, size)
            after = builder.fadd(before, builder.fmul(factors, added, flags=FLAGS), flags=FLAGS)
            builder.store(after, builder.bitcast(builder.gep(total_data, [at]), vector.as_pointer()), align=size)
        return context.get_dummy_value()

    return signature, generate


@instruction
def add_scaled_run(typing_context: Any, total: Any, at: Any, x: Any, start: Any, length: Any, factor: Any) -> Any:
    """`total[at : at + length] += factor * x[start : start + length]`, by whole vectors.

    Up to one vector past `length` is read from both, which end with slack. What comes after in `total` keeps its
    value, but is written anew: it belongs to one thread.
    """
    number = total.dtype
    signature = types.void(total, types.intp, x, types.intp, types.intp, number)
    size = number.bitwidth // 8
    lanes = VECTOR_BYTES // size

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        total, at, x, start, length, factor = arguments
        total = context.make_array(signature.args[0])(context, builder, total).data
        x = context.make_array(signature.args[2])(context, builder, x).data
        integer = context.get_value_type(types.intp)
        vector = ir.VectorType(context.get_value_type(number), lanes)
        factors = broadcast(builder, factor, vector)
        zero, step = ir.Constant(integer, 0), ir.Constant(integer, lanes)

        def add(place: Any, mask: Any = None) -> None:
            to = builder.add(at, place)
            before = load_vector(builder, total, to, vector, size)
            added = load_vector(builder, x, builder.add(start, place), vector, size)
            after = builder.fadd(before, builder.fmul(factors, added, flags=FLAGS), flags=FLAGS)
            if mask is not None:
                after = builder.select(mask, after, before)
            builder.store(after, builder.bitcast(builder.gep(total, [to]), vector.as_pointer()), align=size)

        whole = builder.and_(length, ir.Constant(integer, -lanes))
        with cgutils.for_range_slice(builder, zero, whole, step, intp=integer) as (place, _):
            add(place)
        with builder.if_then(builder.icmp_signed("<", whole, length)):
            add(whole, tail_mask(builder, builder.sub(length, whole), lanes))
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
                    added = load_vector(builder, numbers, builder.add(start, constant(place)), kind, size)
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
def sum_scaled_runs(
    typing_context: Any, output: Any, to: Any, numbers: Any, step: Any, factors: Any, first: Any, terms: Any,
    length: Any,
) -> Any:  # fmt: skip
    """`output[to : to + length]` becomes the sum of the runs of `numbers` that begin at `d * step`, each times
    `factors[first + d]`, for all d below `terms`; `output` overlaps with nothing.
    """
    number = output.dtype
    signature = types.void(output, types.intp, numbers, types.intp, factors, *([types.intp] * 3))
    size = number.bitwidth // 8
    lanes = VECTOR_BYTES // size

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        output, to, numbers, step, factors, first, terms, length = arguments
        output, numbers, factors = (
            context.make_array(signature.args[n])(context, builder, array).data
            for n, array in ((0, output), (2, numbers), (4, factors))
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
                factor = builder.load(builder.gep(factors, [builder.add(first, term.index)]))
                if kind is vector:
                    factor = broadcast(builder, factor, vector)
                start = builder.add(builder.mul(term.index, step), begin)
                for place, total in zip(places, sums, strict=True):
                    added = load_vector(builder, numbers, builder.add(start, constant(place)), kind, size)
                    added = builder.fmul(factor, added, flags=FLAGS)
                    builder.store(builder.fadd(builder.load(total), added, flags=FLAGS), total)
            for place, total in zip(places, sums, strict=True):
                pointer = builder.gep(output, [builder.add(builder.add(to, begin), constant(place))])
                builder.store(builder.load(total), builder.bitcast(pointer, kind.as_pointer()), align=size)

        def loop(low: Any, high: Any, stride: int, kind: Any, places: list[int]) -> None:
            with cgutils.for_range_slice(builder, low, high, constant(stride), intp=integer) as (begin, _):
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
        limits = broadcast(builder, limit, vector)
        bits = ir.IntType(lanes)
        place, above = cgutils.alloca_once_value(builder, end), cgutils.alloca_once_value(builder, ir.Constant(bits, 0))
        builder.store(end, place)
        builder.store(ir.Constant(bits, 0), above)
        done = builder.append_basic_block("done")
        with cgutils.for_range_slice(builder, start, end, ir.Constant(integer, lanes), intp=integer) as (at, _):
            found = builder.fcmp_ordered(">", load_vector(builder, numbers, at, vector, size), limits)
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


@instruction
def lower_bound(typing_context: Any, numbers: Any, length: Any, count: Any) -> Any:
    """A number that at least `count` of the first `length` numbers reach; -inf where there are more than lanes.

    Every lane has its largest number, and `count` of these reach the result. NaN counts as -inf, and so must the
    slack after the numbers, up to a vector of which is read.
    """
    number = numbers.dtype
    signature = number(numbers, types.intp, types.intp)
    size = number.bitwidth // 8
    lanes = VECTOR_BYTES // size

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        numbers, length, count = arguments
        numbers = context.make_array(signature.args[0])(context, builder, numbers).data
        integer = context.get_value_type(types.intp)
        vector = ir.VectorType(context.get_value_type(number), lanes)
        bits = ir.IntType(lanes)
        nothing = ir.Constant(vector, [float("-inf")] * lanes)
        largest = cgutils.alloca_once_value(builder, nothing)
        builder.store(nothing, largest)
        step = ir.Constant(integer, lanes)
        with cgutils.for_range_slice(builder, ir.Constant(integer, 0), length, step, intp=integer) as (at, _):
            other, before = load_vector(builder, numbers, at, vector, size), builder.load(largest)
            builder.store(builder.select(builder.fcmp_ordered(">", other, before), other, before), largest)
        maxima = builder.load(largest)
        bound = ir.Constant(vector.element, float("-inf"))
        for lane in range(lanes):
            one = builder.extract_element(maxima, ir.Constant(INT32, lane))
            reached = builder.bitcast(builder.fcmp_ordered(">=", maxima, broadcast(builder, one, vector)), bits)
            enough = builder.icmp_signed(">=", builder.zext(builder.ctpop(reached), integer), count)
            better = builder.and_(enough, builder.fcmp_ordered(">", one, bound))
            bound = builder.select(better, one, bound)
        return bound

    return signature, generate
