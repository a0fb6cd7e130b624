"""Vector instructions of guided search: eight keys at once against a query, and sorted lists.

Projected features are 16-bit integers. The keys of a leaf stand side by side, four dimensions at a time:

    group 0: key 0 (dims 0..3), key 1 (dims 0..3), ..., key 7 (dims 0..3)      one 512-bit vector
    group 1: key 0 (dims 4..7), ...

so that one load, one subtraction and one multiply-add (`vpdpwssd`, `vpmaddwd`, or what the processor has) compare four
dimensions of eight keys with four dimensions of the query, repeated eight times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from patchattn.kernels.cpu.compiler import instruction
from patchattn.kernels.cpu.vectors import broadcast
from patchattn.kernels.parameters import COMPONENTS_PER_GROUP, LEAF_SIZE, MAX_COMPONENTS, MIN_COMPONENTS

__all__ = [
    "BYTE",
    "ENTRIES",
    "INT32",
    "INT64",
    "LANES",
    "address_of",
    "at_most",
    "count_less",
    "data_of",
    "first_bit",
    "insert_sorted",
    "lanes",
    "leaf_distances",
    "prefetch",
    "repeat",
]

LANES = LEAF_SIZE
"""Keys in a leaf, and entries in a vector of a list."""

BYTE, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
NUMBERS = LANES * COMPONENTS_PER_GROUP
ENTRIES = ir.VectorType(INT64, LANES)


def lanes(values: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(INT32, len(values)), list(values))


def _constant(value: int) -> ir.Constant:
    return ir.Constant(ENTRIES, [value] * LANES)


def repeat(builder: ir.IRBuilder, value: Any) -> Any:
    return broadcast(builder, value, ENTRIES)


def data_of(context: Any, builder: ir.IRBuilder, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


def address_of(builder: ir.IRBuilder, base: Any, offset: Any, vector: Any) -> Any:
    return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())


@instruction
def leaf_distances(
    typing_context: Any, table: Any, at: Any, queries: Any, q_at: Any, groups: Any, distances: Any, d_at: Any
) -> Any:
    """Squared distances of the query at `queries[q_at]` to the eight keys of the leaf at `table[at]`.

    They are written to `distances[d_at]` and the seven after it (int64).
    """
    signature = types.void(table, types.intp, queries, types.intp, types.intp, distances, types.intp)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        table, at, queries, q_at, groups, distances, d_at = arguments
        table_data = data_of(context, builder, signature.args[0], table)
        query_data = data_of(context, builder, signature.args[2], queries)
        output = data_of(context, builder, signature.args[5], distances)
        integer = context.get_value_type(types.intp)
        shorts, products = ir.VectorType(INT16, NUMBERS), ir.VectorType(INT32, NUMBERS)
        sums = ir.VectorType(INT32, NUMBERS // 2)
        total = cgutils.alloca_once_value(builder, ir.Constant(sums, [0] * (NUMBERS // 2)))

        def add(group: Any) -> None:
            key_at = builder.add(at, builder.mul(group, ir.Constant(integer, NUMBERS)))
            dims_at = builder.add(q_at, builder.mul(group, ir.Constant(integer, COMPONENTS_PER_GROUP)))
            keys = builder.load(address_of(builder, table_data, key_at, shorts), align=2)
            dims = builder.load(address_of(builder, query_data, dims_at, INT64), align=2)
            difference = builder.sub(keys, builder.bitcast(repeat(builder, dims), shorts))
            # LLVM recognizes sums of neighboring products as multiply-add instructions in this form only.
            wide = builder.sext(difference, products)
            squares = builder.mul(wide, wide, flags=("nsw",))
            even = builder.shuffle_vector(squares, squares, lanes(range(0, NUMBERS, 2)))
            odd = builder.shuffle_vector(squares, squares, lanes(range(1, NUMBERS, 2)))
            builder.store(builder.add(builder.load(total), builder.add(even, odd)), total)

        # The usual numbers of groups without a loop.
        done = builder.append_basic_block("done")
        some = builder.append_basic_block("some")
        switch = builder.switch(groups, some)
        for number in range(MIN_COMPONENTS // COMPONENTS_PER_GROUP, MAX_COMPONENTS // COMPONENTS_PER_GROUP + 1):
            block = builder.append_basic_block(f"groups_{number}")
            switch.add_case(ir.Constant(groups.type, number), block)
            builder.position_at_end(block)
            for group in range(number):
                add(ir.Constant(integer, group))
            builder.branch(done)
        builder.position_at_end(some)
        with cgutils.for_range(builder, groups, intp=integer) as loop:
            add(loop.index)
        builder.branch(done)
        builder.position_at_end(done)
        # Two 32-bit sums for each key, side by side: their sum goes to the lower half of 64 bits.
        pairs = builder.bitcast(builder.load(total), ENTRIES)
        both = builder.add(pairs, builder.lshr(pairs, _constant(32)))
        squared = builder.and_(both, _constant(0xFFFFFFFF))
        builder.store(squared, address_of(builder, output, d_at, ENTRIES), align=8)
        return context.get_dummy_value()

    return signature, generate


@instruction
def at_most(typing_context: Any, values: Any, at: Any, limit: Any) -> Any:
    """A bit for each of the eight numbers (int64) at `values[at]` that is at most the limit."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        values, at, limit = arguments
        data = data_of(context, builder, signature.args[0], values)
        eight = builder.load(address_of(builder, data, at, ENTRIES), align=8)
        within = builder.icmp_signed("<=", eight, repeat(builder, limit))
        return builder.zext(builder.bitcast(within, BYTE), INT64)

    return types.int64(values, types.intp, types.int64), generate


@instruction
def insert_sorted(typing_context: Any, lists: Any, at: Any, vectors: Any, entry: Any) -> Any:
    """Insert an entry into the ascending list of `8 * vectors` entries at `lists[at]`; the last drops out.

    An entry that differs from one in the list in the lowest three bits only changes nothing. No branch depends on the
    data: each place takes the middle one of its own entry, the one before it, and the new one.
    """
    signature = types.void(lists, types.intp, types.intp, types.int64)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        lists, at, vectors, entry = arguments
        data = data_of(context, builder, signature.args[0], lists)
        integer = context.get_value_type(types.intp)

        def place(vector: Any) -> Any:
            return address_of(builder, data, builder.add(at, builder.mul(vector, ir.Constant(integer, LANES))), ENTRIES)

        new = repeat(builder, entry)
        equal = cgutils.alloca_once_value(builder, ir.Constant(BYTE, 0))
        with cgutils.for_range(builder, vectors, intp=integer) as loop:
            difference = builder.xor(builder.load(place(loop.index), align=8), new)
            same = builder.bitcast(builder.icmp_unsigned("<", difference, _constant(8)), BYTE)
            builder.store(builder.or_(builder.load(equal), same), equal)
        held = builder.icmp_signed("!=", builder.load(equal), ir.Constant(BYTE, 0))
        new = repeat(builder, builder.select(held, ir.Constant(INT64, 2**63 - 1), entry))
        before = cgutils.alloca_once_value(builder, _constant(-(2**63)))
        with cgutils.for_range(builder, vectors, intp=integer) as loop:
            address = place(loop.index)
            here = builder.load(address, align=8)
            shifted = builder.shuffle_vector(builder.load(before), here, lanes(range(LANES - 1, 2 * LANES - 1)))
            larger = builder.select(builder.icmp_signed(">", shifted, new), shifted, new)
            middle = builder.select(builder.icmp_signed("<", here, larger), here, larger)
            builder.store(middle, address, align=8)
            builder.store(here, before)
        return context.get_dummy_value()

    return signature, generate


@instruction
def count_less(typing_context: Any, values: Any, at: Any, vectors: Any, limit: Any) -> Any:
    """Number of the `8 * vectors` integers (int64) at `values[at]` that are less than the limit."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        values, at, vectors, limit = arguments
        data = data_of(context, builder, signature.args[0], values)
        integer = context.get_value_type(types.intp)
        limits = repeat(builder, limit)
        count = cgutils.alloca_once_value(builder, ir.Constant(INT64, 0))
        with cgutils.for_range(builder, vectors, intp=integer) as loop:
            place = builder.add(at, builder.mul(loop.index, ir.Constant(integer, LANES)))
            eight = builder.load(address_of(builder, data, place, ENTRIES), align=8)
            less = builder.bitcast(builder.icmp_signed("<", eight, limits), BYTE)
            builder.store(builder.add(builder.load(count), builder.zext(builder.ctpop(less), INT64)), count)
        return builder.load(count)

    return types.int64(values, types.intp, types.intp, types.int64), generate


@instruction
def first_bit(typing_context: Any, bits: Any) -> Any:
    """The number of the lowest bit that is set; `bits` is not 0."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@instruction
def prefetch(typing_context: Any, array: Any, at: Any) -> Any:
    """Ask for `array[at]` ahead of its use."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        pointer = BYTE.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, INT32, INT32, INT32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        address = builder.gep(data_of(context, builder, signature.args[0], arguments[0]), [arguments[1]])
        read, keep, data = (ir.Constant(INT32, value) for value in (0, 3, 1))
        builder.call(function, [builder.bitcast(address, pointer), read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate
