"""Products of rows with a matrix of few columns: the one matrix product that projections need.

Why not a library's: its sums would be split among threads, so that the last bits, and with them whole matches, would
depend on their number; and a convolution with so few outputs runs slower than this.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from patchattn.kernels.cpu.aligned import aligned_array
from patchattn.kernels.cpu.compiler import inlined, instruction, kernel
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.vectors import broadcast, integers_of

__all__ = ["BLOCK", "COLUMNS", "VECTOR", "BlockSteps", "aligned_columns", "block_product", "multiply", "quantize"]

BLOCK = 8
"""Rows in one block: with three vectors of columns, 24 sums stay in registers."""
VECTOR = 16
"""Columns in one vector."""
COLUMNS = 3 * VECTOR
"""Most columns there can be."""
FLAGS = ("contract",)
INT32, FLOAT = ir.IntType(32), ir.FloatType()


class BlockSteps(NamedTuple):
    """Layout of the elements of some rows: each has `slices` times `runs` times `length` of them."""

    row_step: int
    """From one row to the next."""
    rows: int
    slices: int
    slice_step: int
    runs: int
    run_step: int
    length: int
    step: int
    """From one element of a run to the next."""


def _block_product(vectors: int) -> Any:
    """Build `f(a, start, steps, columns, output)`; `steps` are `BlockSteps`.

    Row m of the block has its elements at `a[start + m * row_step + s * slice_step + r * run_step + c * step]`, with
    s, r, c in `slices x runs x length`; the matrix has a line of `16 * vectors` numbers for each of them. The products
    go to `output[m * 16 * vectors]`; rows from `rows` on repeat the first.
    """

    @instruction
    def product(typing_context: Any, a: Any, start: Any, steps: Any, columns: Any, output: Any) -> Any:
        signature = types.void(a, types.intp, steps, columns, output)
        lanes = ir.VectorType(FLOAT, VECTOR)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            a, start, steps, columns, output = arguments
            row_step, rows, slices, slice_step, runs, run_step, length, step = integers_of(
                context, builder, signature.args[2], steps
            )
            data, matrix, result = (
                context.make_array(signature.args[n])(context, builder, array).data
                for n, array in ((0, a), (3, columns), (4, output))
            )
            integer = context.get_value_type(types.intp)
            constant = lambda value: ir.Constant(integer, value)  # noqa: E731
            zeros = ir.Constant(lanes, [0.0] * VECTOR)
            sums = [[cgutils.alloca_once_value(builder, zeros) for _ in range(vectors)] for _ in range(BLOCK)]
            line = cgutils.alloca_once_value(builder, constant(0))
            first = [
                builder.mul(
                    row_step, builder.select(builder.icmp_signed("<", constant(m), rows), constant(m), constant(0))
                )
                for m in range(BLOCK)
            ]
            with (
                cgutils.for_range(builder, slices, intp=integer) as one_slice,
                cgutils.for_range(builder, runs, intp=integer) as one_run,
                cgutils.for_range(builder, length, intp=integer) as one,
            ):
                at = builder.add(start, builder.mul(one_slice.index, slice_step))
                at = builder.add(at, builder.mul(one_run.index, run_step))
                at = builder.add(at, builder.mul(one.index, step))
                weights_at = builder.load(line)
                weights = [
                    builder.load(
                        builder.bitcast(
                            builder.gep(matrix, [builder.add(weights_at, constant(v * VECTOR))]), lanes.as_pointer()
                        ),
                        align=64,
                    )
                    for v in range(vectors)
                ]
                builder.store(builder.add(weights_at, constant(vectors * VECTOR)), line)
                for m in range(BLOCK):
                    value = builder.load(builder.gep(data, [builder.add(at, first[m])]))
                    if value.type != FLOAT:
                        value = builder.fptrunc(value, FLOAT)
                    repeated = broadcast(builder, value, lanes)
                    for v in range(vectors):
                        total = builder.load(sums[m][v])
                        added = builder.fmul(repeated, weights[v], flags=FLAGS)
                        builder.store(builder.fadd(total, added, flags=FLAGS), sums[m][v])
            for m in range(BLOCK):
                for v in range(vectors):
                    address = builder.gep(result, [constant((m * vectors + v) * VECTOR)])
                    builder.store(builder.load(sums[m][v]), builder.bitcast(address, lanes.as_pointer()), align=4)
            return context.get_dummy_value()

        return signature, generate

    return product


_one, _two, _three = (_block_product(vectors) for vectors in (1, 2, 3))


@inlined
def block_product(a: Any, start: int, steps: Any, columns: Any, vectors: int, output: Any) -> None:
    """The product of up to BLOCK rows with `16 * vectors` columns; see `_block_product`."""
    if vectors == 1:
        _one(a, start, steps, columns, output)
    elif vectors == 2:
        _two(a, start, steps, columns, output)
    else:
        _three(a, start, steps, columns, output)


@instruction
def quantize(
    typing_context: Any, sums: Any, at: Any, vectors: Any, factor: Any, offset: Any, more: Any, extra: Any,
    longest: Any, output: Any,
) -> Any:  # fmt: skip
    """Round `x = factor * sums[at:] - offset + more * extra` to 16 bits, shortened to `longest`; not finite: 0."""
    signature = types.void(
        sums, types.intp, types.intp, types.float32, offset, types.float32, extra, types.float32, output
    )
    lanes = ir.VectorType(FLOAT, VECTOR)
    shorts = ir.VectorType(ir.IntType(16), VECTOR)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        sums, at, vectors, factor, offset, more, extra, longest, output = arguments
        data, offsets, extras, result = (
            context.make_array(signature.args[n])(context, builder, array).data
            for n, array in ((0, sums), (4, offset), (6, extra), (8, output))
        )
        integer = context.get_value_type(types.intp)
        zeros = ir.Constant(lanes, [0.0] * VECTOR)

        def load(base: Any, place: Any) -> Any:
            return builder.load(builder.bitcast(builder.gep(base, [place]), lanes.as_pointer()), align=4)

        def call(name: str, value: Any, suffix: str) -> Any:
            kind = ir.FunctionType(value.type, [value.type])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.{suffix}"), [value])

        factors, mores = broadcast(builder, factor, lanes), broadcast(builder, more, lanes)
        squares = cgutils.alloca_once_value(builder, zeros)
        with cgutils.for_range(builder, vectors, intp=integer) as loop:
            place = builder.mul(loop.index, ir.Constant(integer, VECTOR))
            address = builder.bitcast(builder.gep(data, [builder.add(at, place)]), lanes.as_pointer())
            value = builder.fsub(builder.fmul(builder.load(address, align=4), factors), load(offsets, place))
            value = builder.fadd(value, builder.fmul(mores, load(extras, place)))
            builder.store(value, address, align=4)
            builder.store(builder.fadd(builder.load(squares), builder.fmul(value, value)), squares)
        square = builder.load(squares)
        for half in (8, 4, 2, 1):
            mask = ir.Constant(ir.VectorType(INT32, VECTOR), [(n + half) % VECTOR for n in range(VECTOR)])
            square = builder.fadd(square, builder.shuffle_vector(square, square, mask))
        square = builder.extract_element(square, ir.Constant(INT32, 0))
        usable = builder.fcmp_ordered("<", square, ir.Constant(FLOAT, float("inf")))
        too_long = builder.fcmp_ordered(">", square, builder.fmul(longest, longest))
        shrink = builder.fdiv(longest, call("sqrt", square, "f32"))
        shrink = builder.select(too_long, shrink, ir.Constant(FLOAT, 1.0))
        scale = broadcast(builder, builder.select(usable, shrink, ir.Constant(FLOAT, 0.0)), lanes)
        with cgutils.for_range(builder, vectors, intp=integer) as loop:
            place = builder.mul(loop.index, ir.Constant(integer, VECTOR))
            value = builder.select(usable, load(data, builder.add(at, place)), zeros)
            value = call("rint", builder.fmul(value, scale), "v16f32")
            whole = builder.trunc(builder.fptosi(value, ir.VectorType(INT32, VECTOR)), shorts)
            builder.store(whole, builder.bitcast(builder.gep(result, [place]), shorts.as_pointer()), align=2)
        return context.get_dummy_value()

    return signature, generate


def aligned_columns(matrix: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
    """A matrix of few columns as `block_product` takes it (flat, aligned, whole vectors), and its vectors in a line."""
    lines, columns = matrix.shape
    vectors = -(-columns // VECTOR)
    flat = aligned_array(lines * vectors * VECTOR, np.float32)
    flat[:] = 0
    flat.reshape(lines, vectors * VECTOR)[:, :columns] = matrix
    return flat, vectors


def multiply(a: NDArray[np.float32], b: NDArray[Any]) -> NDArray[np.float32]:
    """`a @ b` for at most COLUMNS columns of b, each sum in one order whatever the number of threads.

    `a` is contiguous, or the transpose of a contiguous array.
    """
    rows, elements = a.shape
    matrix, vectors = aligned_columns(b)
    output = np.empty((rows, vectors * VECTOR), np.float32)
    row_step, step = (stride // a.itemsize for stride in a.strides)
    flat = a.reshape(-1) if step == 1 else a.T.reshape(-1)
    scratch = lambda: (np.empty(BLOCK * COLUMNS, np.float32),)  # noqa: E731
    run_ranges(
        _multiply_range, rows, 8 * BLOCK, flat, row_step, elements, step, matrix, vectors, output.reshape(-1),
        scratch=scratch,
    )  # fmt: skip
    return output[:, : b.shape[1]]


@kernel()
def _multiply_range(
    low: int, high: int, a: Any, row_step: int, elements: int, step: int, matrix: Any, vectors: int, output: Any,
    block: Any,
) -> None:  # fmt: skip
    width = vectors * VECTOR
    for first in range(low, high, BLOCK):
        rows = min(BLOCK, high - first)
        steps = BlockSteps(row_step, rows, 1, 0, 1, 0, elements, step)
        block_product(a, first * row_step, steps, matrix, vectors, block)
        for m in range(rows * width):
            output[first * width + m] = block[m]
