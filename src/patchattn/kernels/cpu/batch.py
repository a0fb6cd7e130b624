"""All heads and batch items in one parallel loop.

A kernel is written for one item: `kernel(low, high, *arguments)` computes the rows `low` to `high` of its arrays.
`item_kernel` makes of it a kernel for rows that are numbered through all items, which hands the first one the arrays
of the item that a row belongs to. So the threads share out the rows of many small images as they do those of a large
one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any, NamedTuple

import numba
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import SETTINGS, configured, instruction, kernel
from patchattn.kernels.cpu.pool import Scratch, run_ranges

__all__ = ["Each", "groups", "item_kernel", "run_items"]

GROUP = 1 << 18
"""Rows of the items that are computed at one time: their lists are all the working space there is."""


class Each(NamedTuple):
    """An array for each item: that of item n is row `n % len(rows)`.

    So one row, or one for each head, serves all batch items, and working space one group of items after another.
    """

    rows: NDArray[Any]


def groups(items: int, rows: int) -> Iterator[range]:
    """The items in groups, as many as have GROUP rows together.

    The size of each divides the number of its first item, which so has the first row of an `Each` for the group.
    """
    most = max(GROUP // max(rows, 1), 1)
    first = 0
    while first < items:
        size = min(most, items - first)
        while first % size:
            size -= 1
        yield range(first, first + size)
        first += size


def run_items(
    kernel: Callable[..., Any],
    items: range,
    rows: int,
    chunk: int,
    *arguments: Any,
    targets: int | None = None,
    scratch: Scratch = tuple,
) -> None:
    """Run a kernel made by `item_kernel` on all `rows` of some items; see `run_ranges`.

    Args:
        kernel: Takes `arguments`; of an `Each` it sees the array of the item that it works on.
        items: Their numbers.
        rows: Of each item.
        chunk: Rows in one range of work.
        arguments: What the kernel takes.
        targets: With fewer targets than items, item n adds to target `n % targets`: one thread does so for all of
            these items, in order.
        scratch: Arrays that a thread has for itself.
    """
    targets = len(items) if targets is None else targets
    chunk = max(chunk * targets // max(len(items), targets, 1), 1)
    run_ranges(kernel, targets * rows, chunk, rows, items.start, items.stop, targets, *arguments, scratch=scratch)


def item_kernel(*, vectorize: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function of one item's rows into a kernel for the rows of all items, which `run_items` runs.

    Args:
        vectorize: see `kernel`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        names = list(signature(function).parameters)[2:]
        own = ", ".join(f"own({name}, item)" for name in names)
        with configured():
            one = numba.njit(inline="always", **SETTINGS)(function)
        # The disk cache reads a kernel back into the module that its globals name.
        scope: dict[str, Any] = {"one": one, "own": _own, "__name__": function.__module__}
        exec(ALL_ITEMS.format(names=", ".join(names), own=own), scope)
        return kernel(vectorize=vectorize, around=function)(scope["all_items"])

    return decorate


ALL_ITEMS = """
def all_items(low, high, rows, first_item, last_item, targets, {names}):
    for target in range(low // rows, -(-high // rows)):
        begin, end = max(low - target * rows, 0), min(high - target * rows, rows)
        for item in range(first_item + (target - first_item) % targets, last_item, targets):
            one(begin, end, {own})
"""


@instruction
def _own(typing_context: Any, argument: Any, item: Any) -> Any:
    """The item's array of an `Each`, also of those in a named tuple; anything else as it is."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _own_value(context, builder, argument, *values)

    return _own_type(argument)(argument, types.intp), generate


def _own_type(kind: Any) -> Any:
    if _is_each(kind):
        return _type_of_row(kind)
    if _has_each(kind):
        return types.BaseTuple.from_types(tuple(map(_own_type, kind.types)), kind.instance_class)
    return kind


def _own_value(context: Any, builder: Any, kind: Any, value: Any, item: Any) -> Any:
    if _is_each(kind):
        return _row(context, builder, kind, value, item)
    if not _has_each(kind):
        return value
    parts = enumerate(kind.types)
    own = [_own_value(context, builder, part, builder.extract_value(value, n), item) for n, part in parts]
    return context.make_tuple(builder, _own_type(kind), own)


def _has_each(kind: Any) -> bool:
    return _is_each(kind) or (_is_named_tuple(kind) and any(map(_has_each, kind.types)))


def _is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, types.BaseNamedTuple)


def _is_each(kind: Any) -> bool:
    return getattr(kind, "instance_class", None) is Each


def _type_of_row(kind: Any) -> Any:
    if kind.types[0].layout != "C":
        raise TypingError("Each takes contiguous arrays: rows are found by their length")
    return types.Array(kind.types[0].dtype, 1, "C")


def _row(context: Any, builder: Any, kind: Any, value: Any, item: Any) -> Any:
    from numba.np.arrayobj import populate_array  # what this imports is for compiling, and takes a while

    matrix = context.make_array(kind.types[0])(context, builder, builder.extract_value(value, 0))
    count, size = cgutils.unpack_tuple(builder, matrix.shape)
    step = cgutils.unpack_tuple(builder, matrix.strides)
    start = builder.mul(builder.urem(item, count), size)
    row = context.make_array(_type_of_row(kind))(context, builder)
    populate_array(
        row, data=builder.gep(matrix.data, [start]), shape=[size], strides=[step[1]], itemsize=matrix.itemsize,
        meminfo=None,
    )  # fmt: skip
    return row._getvalue()
