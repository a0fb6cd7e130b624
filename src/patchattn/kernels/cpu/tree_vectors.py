"""Vector instructions that build the tree: sums of components and of their squares."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from patchattn.kernels.cpu.compiler import instruction
from patchattn.kernels.cpu.leaf_vectors import INT32, address_of, data_of
from patchattn.kernels.parameters import COMPONENTS_PER_GROUP, VARIANCE_SHIFT

__all__ = ["add_components"]

WIDE = 16
"""Components at once."""


@instruction
def add_components(typing_context: Any, rows: Any, width: Any, keys: Any, first: Any, count: Any, sums: Any) -> Any:
    """Add the components, without their lowest bits, of the keys at `keys[first : first + count]` to `sums[:width]`,
    and their squares to `sums[width : 2 * width]`.
    """
    signature = types.void(rows, types.intp, keys, types.intp, types.intp, sums)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        rows, width, keys, first, count, sums = arguments
        data = data_of(context, builder, signature.args[0], rows)
        numbers = data_of(context, builder, signature.args[2], keys)
        output = data_of(context, builder, signature.args[5], sums)
        integer = context.get_value_type(types.intp)

        def add(at: Any, lanes: int) -> None:
            shorts, vector = ir.VectorType(ir.IntType(16), lanes), ir.VectorType(INT32, lanes)
            targets = [address_of(builder, output, place, vector) for place in (at, builder.add(at, width))]
            totals = [cgutils.alloca_once(builder, vector) for _ in targets]
            for total, target in zip(totals, targets, strict=True):
                builder.store(builder.load(target, align=4), total)
            with cgutils.for_range(builder, count, intp=integer) as loop:
                key = builder.load(builder.gep(numbers, [builder.add(first, loop.index)]))
                place = builder.add(builder.mul(builder.sext(key, integer), width), at)
                value = builder.sext(builder.load(address_of(builder, data, place, shorts), align=2), vector)
                value = builder.ashr(value, ir.Constant(vector, [VARIANCE_SHIFT] * lanes))
                for total, more in zip(totals, (value, builder.mul(value, value)), strict=True):
                    builder.store(builder.add(builder.load(total), more), total)
            for total, target in zip(totals, targets, strict=True):
                builder.store(builder.load(total), target, align=4)

        # By wide vectors as far as they go, the rest by narrower ones.
        begin = ir.Constant(integer, 0)
        for lanes in (WIDE, WIDE // 2, COMPONENTS_PER_GROUP):
            step = ir.Constant(integer, lanes)
            end = builder.and_(width, ir.Constant(integer, -lanes))
            with cgutils.for_range_slice(builder, begin, end, step, intp=integer) as (at, _):
                add(at, lanes)
            begin = end
        return context.get_dummy_value()

    return signature, generate
