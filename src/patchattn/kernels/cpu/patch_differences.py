"""Squared differences of one short-rowed patch and four others at once, which share the query's rows in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from patchattn.kernels.cpu.compiler import inlined, instruction
from patchattn.kernels.cpu.patch_sums import reduce_vector
from patchattn.kernels.cpu.vectors import FLAGS, VECTOR_BYTES, integers_of, load_vector, tail_mask

__all__ = ["AT_ONCE", "has_short_rows", "squared_differences"]

AT_ONCE = 4


@inlined
def has_short_rows(length: int, itemsize: int) -> bool:
    """Whether a row is one vector and a part of another at most, as `squared_differences` wants it."""
    return length < 2 * VECTOR_BYTES // itemsize


@instruction
def squared_differences(
    typing_context: Any, q: Any, q_start: Any, k: Any, starts: Any, first: Any, steps: Any, output: Any
) -> Any:
    """Write to `output[first:]` the sums of (q - k)^2 over the patches that begin at `q[q_start]` and at k's elements
    `starts[first:]`, AT_ONCE of them; `steps` are `PatchSteps`.

    Rows are short (`has_short_rows`). The sums have the bits of `sum_squared_difference`.
    """
    number = q.dtype
    signature = types.void(q, types.intp, k, starts, types.intp, steps, output)
    size = number.bitwidth // 8
    count = VECTOR_BYTES // size

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        q, q_start, k, starts, first, steps, output = arguments
        slices, rows, length, q_slice, q_row, k_slice, k_row, _ = integers_of(
            context, builder, signature.args[5], steps
        )
        q_data, k_data, starts_data, result = (
            context.make_array(signature.args[n])(context, builder, array).data
            for n, array in ((0, q), (2, k), (3, starts), (6, output))
        )
        integer = context.get_value_type(types.intp)
        vector = ir.VectorType(context.get_value_type(number), count)
        zero = ir.Constant(vector, [0.0] * count)
        places = [builder.add(first, ir.Constant(integer, n)) for n in range(AT_ONCE)]
        begins = [builder.load(builder.gep(starts_data, [place])) for place in places]
        whole = builder.and_(length, ir.Constant(integer, -count))
        has_whole = builder.icmp_signed(">", whole, ir.Constant(integer, 0))
        mask = tail_mask(builder, builder.sub(length, whole), count)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(2)] for _ in range(AT_ONCE)]

        def add(q_at: Any, k_at: Any, part: int) -> None:
            a = load_vector(builder, q_data, q_at, vector, size)
            for begin, parts in zip(begins, sums, strict=True):
                b = load_vector(builder, k_data, builder.add(begin, k_at), vector, size)
                difference = builder.fsub(a, b)
                if part:
                    difference = builder.select(mask, difference, zero)
                square = builder.fmul(difference, difference, flags=FLAGS)
                builder.store(builder.fadd(builder.load(parts[part]), square, flags=FLAGS), parts[part])

        with (
            cgutils.for_range(builder, slices, intp=integer) as one_slice,
            cgutils.for_range(builder, rows, intp=integer) as one_row,
        ):
            q_at = builder.add(builder.mul(one_slice.index, q_slice), builder.mul(one_row.index, q_row))
            q_at = builder.add(q_start, q_at)
            k_at = builder.add(builder.mul(one_slice.index, k_slice), builder.mul(one_row.index, k_row))
            with builder.if_then(has_whole):
                add(q_at, k_at, 0)
            add(builder.add(q_at, whole), builder.add(k_at, whole), 1)
        for place, parts in zip(places, sums, strict=True):
            total = builder.fadd(*(builder.load(part) for part in parts))
            builder.store(reduce_vector(builder, total, count), builder.gep(result, [place]))
        return context.get_dummy_value()

    return signature, generate
