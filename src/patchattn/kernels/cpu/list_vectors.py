"""Vector instructions of sorted lists: eight entries at once, sorted and merged without a branch."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from patchattn.kernels.cpu.compiler import instruction
from patchattn.kernels.cpu.leaf_vectors import BYTE, ENTRIES, INT32, INT64, LANES, address_of, data_of, lanes, repeat
from patchattn.kernels.cpu.vectors import broadcast, integers_of
from patchattn.kernels.parameters import DISTANCE_SHIFT, EMPTY, POSITION_SHIFT

__all__ = ["FORBIDDEN", "farthest_of_least", "forbid_outside", "has_twins", "keep_near", "merge_sorted"]

BITS = ir.VectorType(ir.IntType(1), LANES)
MEMBERS = ir.VectorType(INT32, LANES)
REALS = ir.VectorType(ir.DoubleType(), LANES)
FORBIDDEN = 1 << 30
"""The distance of a key that a query may not match: no list has a limit as far."""


def _exchange(builder: ir.IRBuilder, vector: Any, distance: int, upwards: list[bool]) -> Any:
    """Compare each lane with the one at `distance` from it; it takes the smaller one if it is the first of an upward
    pair or the second of a downward one.
    """
    other = builder.shuffle_vector(vector, vector, lanes([n ^ distance for n in range(LANES)]))
    takes_larger = [(n & distance != 0) == upwards[n] for n in range(LANES)]
    smaller = builder.icmp_signed("<", other, vector)
    chosen = builder.xor(smaller, ir.Constant(BITS, takes_larger))
    return builder.select(chosen, other, vector)


def _merge(builder: ir.IRBuilder, vector: Any) -> Any:
    """Sort a bitonic vector."""
    for distance in (4, 2, 1):
        vector = _exchange(builder, vector, distance, [True] * LANES)
    return vector


def _sort(builder: ir.IRBuilder, vector: Any) -> Any:
    """Batcher's bitonic network for eight."""
    for size, distance in ((2, 1), (4, 2), (4, 1)):
        vector = _exchange(builder, vector, distance, [n & size == 0 for n in range(LANES)])
    return _merge(builder, vector)


@instruction
def merge_sorted(typing_context: Any, lists: Any, at: Any, vectors: Any, new: Any, n_at: Any) -> Any:
    """Merge the eight entries at `new[n_at]`, in any order, into the ascending list of `8 * vectors` entries at
    `lists[at]`; the last eight drop out. Equal entries stay both.
    """
    signature = types.void(lists, types.intp, types.intp, new, types.intp)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        lists, at, vectors, new, n_at = arguments
        data = data_of(context, builder, signature.args[0], lists)
        source = data_of(context, builder, signature.args[3], new)
        integer = context.get_value_type(types.intp)
        backwards = lanes(range(LANES - 1, -1, -1))
        incoming = _sort(builder, builder.load(address_of(builder, source, n_at, ENTRIES), align=8))
        carried = cgutils.alloca_once_value(builder, incoming)
        last = builder.sub(vectors, ir.Constant(integer, 1))
        with cgutils.for_range(builder, vectors, intp=integer) as loop:
            place = builder.add(at, builder.mul(loop.index, ir.Constant(integer, LANES)))
            address = address_of(builder, data, place, ENTRIES)
            here = builder.load(address, align=8)
            incoming = builder.load(carried)
            incoming = builder.shuffle_vector(incoming, incoming, backwards)
            less = builder.icmp_signed("<", here, incoming)
            builder.store(_merge(builder, builder.select(less, here, incoming)), address, align=8)
            with builder.if_then(builder.icmp_signed("<", loop.index, last)):
                builder.store(_merge(builder, builder.select(less, incoming, here)), carried)
        return context.get_dummy_value()

    return signature, generate


@instruction
def has_twins(typing_context: Any, lists: Any, at: Any, vectors: Any) -> Any:
    """Whether the ascending list of `8 * vectors` entries at `lists[at]` holds two that differ in the lowest three bits
    only.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        lists, at, vectors = arguments
        data = data_of(context, builder, signature.args[0], lists)
        integer = context.get_value_type(types.intp)
        empty = ir.Constant(ENTRIES, [EMPTY] * LANES)
        before = cgutils.alloca_once_value(builder, empty)
        found = cgutils.alloca_once_value(builder, ir.Constant(BYTE, 0))
        with cgutils.for_range(builder, vectors, intp=integer) as loop:
            place = builder.add(at, builder.mul(loop.index, ir.Constant(integer, LANES)))
            here = builder.load(address_of(builder, data, place, ENTRIES), align=8)
            shifted = builder.shuffle_vector(builder.load(before), here, lanes(range(LANES - 1, 2 * LANES - 1)))
            near = builder.icmp_unsigned("<", builder.xor(here, shifted), ir.Constant(ENTRIES, [8] * LANES))
            twins = builder.and_(near, builder.icmp_signed("!=", here, empty))
            builder.store(builder.or_(builder.load(found), builder.bitcast(twins, BYTE)), found)
            builder.store(here, before)
        return builder.icmp_unsigned("!=", builder.load(found), ir.Constant(BYTE, 0))

    return types.boolean(lists, types.intp, types.intp), generate


@instruction
def farthest_of_least(typing_context: Any, distances: Any, vectors: Any, limit: Any) -> Any:
    """The largest of the eight lanes' least distances, or `limit` if that is less: at least eight keys are as near.

    (Keys in different lanes are different ones, even if a leaf is there twice.)
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        distances, vectors, limit = arguments
        data = data_of(context, builder, signature.args[0], distances)
        integer = context.get_value_type(types.intp)
        least = cgutils.alloca_once_value(builder, repeat(builder, limit))
        with cgutils.for_range(builder, vectors, intp=integer) as loop:
            place = builder.mul(loop.index, ir.Constant(integer, LANES))
            here = builder.load(address_of(builder, data, place, ENTRIES), align=8)
            held = builder.load(least)
            builder.store(builder.select(builder.icmp_signed("<", here, held), here, held), least)
        kind = ir.FunctionType(INT64, [ENTRIES])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.smax.v{LANES}i64")
        return builder.call(function, [builder.load(least)])

    return types.int64(distances, types.intp, types.int64), generate


@instruction
def keep_near(
    typing_context: Any, distances: Any, d_at: Any, members: Any, m_at: Any, limit: Any, scan: Any, entries: Any,
    count: Any,
) -> Any:  # fmt: skip
    """Append to `entries[count:]` those of the eight keys at `members[m_at]` whose distances, at `distances[d_at]`, are
    at most the limit; the new count. Whole vectors are written.
    """
    signature = types.intp(distances, types.intp, members, types.intp, types.int64, types.int64, entries, types.intp)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        distances, d_at, members, m_at, limit, scan, entries, count = arguments
        data = data_of(context, builder, signature.args[0], distances)
        positions = data_of(context, builder, signature.args[2], members)
        output = data_of(context, builder, signature.args[6], entries)
        shifts = [ir.Constant(ENTRIES, [shift] * LANES) for shift in (DISTANCE_SHIFT, POSITION_SHIFT)]
        eight = builder.load(address_of(builder, data, d_at, ENTRIES), align=8)
        places = builder.zext(builder.load(address_of(builder, positions, m_at, MEMBERS), align=4), ENTRIES)
        made = builder.or_(builder.shl(eight, shifts[0]), builder.shl(places, shifts[1]))
        made = builder.or_(made, repeat(builder, scan))
        near = builder.icmp_signed("<=", eight, repeat(builder, limit))
        kind = ir.FunctionType(ENTRIES, [ENTRIES, BITS, ENTRIES])
        name = f"llvm.experimental.vector.compress.v{LANES}i64"
        compress = cgutils.get_or_insert_function(builder.module, kind, name)
        kept = builder.call(compress, [made, near, ir.Constant(ENTRIES, [EMPTY] * LANES)])
        builder.store(kept, address_of(builder, output, count, ENTRIES), align=8)
        more = builder.zext(builder.ctpop(builder.bitcast(near, BYTE)), count.type)
        return builder.add(count, more)

    return signature, generate


@instruction
def forbid_outside(
    typing_context: Any, distances: Any, d_at: Any, members: Any, m_at: Any, within: Any, rows: Any, row: Any
) -> Any:
    """Make the distances of those of the eight keys at `members[m_at]` FORBIDDEN that are not `within` the bounds.

    Bounds are integers of a frame with so many `rows` in a slice, each `row` long: first and last t, y and x, and the
    last position. Coordinates come from quotients in float64, which for positions of 31 bits are never off: the half
    that is added keeps them farther from integers than they err.
    """
    signature = types.void(distances, types.intp, members, types.intp, within, types.intp, types.intp)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        distances, d_at, members, m_at, within, rows, row = arguments
        data = data_of(context, builder, signature.args[0], distances)
        positions = data_of(context, builder, signature.args[2], members)
        bounds = integers_of(context, builder, signature.args[4], within)
        in_slice, in_row, *bounds = (
            broadcast(builder, builder.trunc(number, INT32), MEMBERS) for number in (rows, row, *bounds)
        )
        half = ir.Constant(REALS, [0.5] * LANES)
        double = ir.DoubleType()

        def quotient(vector: Any, divisor: Any) -> Any:
            inverse = builder.fdiv(ir.Constant(double, 1.0), builder.sitofp(divisor, double))
            middle = builder.fadd(builder.sitofp(vector, REALS), half)
            return builder.fptosi(builder.fmul(middle, broadcast(builder, inverse, REALS)), MEMBERS)

        position = builder.load(address_of(builder, positions, m_at, MEMBERS), align=4)
        line = quotient(position, row)
        t = quotient(line, rows)
        y, x = builder.sub(line, builder.mul(t, in_slice)), builder.sub(position, builder.mul(line, in_row))
        allowed = builder.icmp_signed("<=", position, bounds[6])
        for n, coordinate in enumerate((t, y, x)):
            allowed = builder.and_(allowed, builder.icmp_signed(">=", coordinate, bounds[2 * n]))
            allowed = builder.and_(allowed, builder.icmp_signed("<=", coordinate, bounds[2 * n + 1]))
        address = address_of(builder, data, d_at, ENTRIES)
        far = ir.Constant(ENTRIES, [FORBIDDEN] * LANES)
        builder.store(builder.select(allowed, builder.load(address, align=8), far), address, align=8)
        return context.get_dummy_value()

    return signature, generate
