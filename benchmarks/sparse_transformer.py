"""The factorized attention of the Sparse Transformer (Child, Gray, Radford, Sutskever 2019), at its best on a CPU.

    python benchmarks/sparse_transformer.py

checks it against dense attention under a mask, forward and backward, in float32 and float64.

Not causal, as the layers beside it, on a square image of side l flattened row by row, with the paper's stride l:

- `strided`: a query attends to its own row (the l positions of it) and to its own column (every l-th position);
- `fixed`: to its own row and to the last c positions of every row. The paper has c in {8, 16, 32} for l in {128, 256};
  here it is l / 16 (at least 1) up to its smallest value, 8, and no more: the cost is n l (1 + c), which is n^1.5 only
  where c does not grow with l.

Both halves are ONE softmax over their union (the paper's "merged head"): each is computed by PyTorch's fused CPU
kernel, which also tells the logarithm of its denominator, and the two are joined by these. A key that is in both halves
is left out of one. Backward, the kernel is given the joint output and the joint denominator: the gradients of a half
need nothing else of the other. So nothing of n x n numbers is ever made, nor of n x l.

The mask that leaves a query's own position out of its row costs no time that shows beside the same without it, nor do
columns read in place rather than copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

PATTERNS = ("strided", "fixed")
SMALLEST_SUMMARY = 8

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def side_of(n: int) -> int:
    """The side of a square of n positions."""
    side = isqrt(n)
    if side * side != n or side < 2:
        raise ValueError(f"n: got {n}; it must be the square of 2 or more")
    return side


def summary_width(side: int) -> int:
    """The paper's c: how many positions at the end of every row all queries of `fixed` attend to."""
    return min(SMALLEST_SUMMARY, max(1, side // 16))


def dense_pattern(n: int, pattern: str) -> Tensor:
    """The n x n mask, True where a query (row) attends to a key (column): for small n, to check by."""
    side = side_of(n)
    row, column = torch.arange(n) // side, torch.arange(n) % side
    own_row = row[:, None] == row[None]
    if pattern == "strided":
        return own_row | (column[:, None] == column[None])
    if pattern == "fixed":
        return own_row | (column >= side - summary_width(side))
    raise ValueError(f"pattern: got {pattern!r}; there are {', '.join(PATTERNS)}")


@dataclass(frozen=True)
class Half:
    """Some keys of every query, attended to in blocks; images are (side, side, d)."""

    side: int
    blocks: int
    """How many blocks the queries are in: the rows or columns, or 1."""
    turned: bool = False
    """Whether blocks are columns."""
    first: int = 0
    end: int | None = None
    """The columns of the image that keys are in."""
    mask: Tensor | None = None
    """(queries, keys) of each block, added to the similarities."""

    def _view(self, image: Tensor) -> Tensor:
        return image.transpose(0, 1) if self.turned else image

    def _split(self, image: Tensor) -> Tensor:
        """The same in blocks (blocks, 1, length, d); nothing is copied where the kernel reads it as it is."""
        return self._view(image).reshape(self.blocks, 1, -1, image.shape[-1])

    def _joined(self, blocks: Tensor) -> Tensor:
        """Back from blocks."""
        return self._view(blocks.reshape(self.side, -1, blocks.shape[-1]))

    def keys(self, image: Tensor) -> Tensor:
        """The part of an image of keys that this half attends to, as a view."""
        return image[:, self.first : self.end]

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The attention to these keys alone, and the logarithm of its denominator as (side, side, 1)."""
        blocks = self._split(query), self._split(self.keys(key)), self._split(self.keys(value))
        output, denominator = _forward(*blocks, attn_mask=self.mask)
        return self._joined(output), self._joined(denominator.unsqueeze(-1))

    def backward(
        self, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, denominator: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients by query, and by the keys and values of this half; output and denominator are the joint ones."""
        blocks = self._split(query), self._split(self.keys(key)), self._split(self.keys(value)), self._split(output)
        joint = self._split(denominator)[..., 0]
        grads = _backward(self._split(grad), *blocks, joint, 0.0, False, attn_mask=self.mask)
        return self._joined(grads[0]), self._joined(grads[1]), self._joined(grads[2])


def halves(side: int, pattern: str, dtype: torch.dtype) -> tuple[Half, Half]:
    """A pattern as two halves that have no key in common."""
    if pattern == "strided":
        # The query's own position is in its row and in its column; the column keeps it.
        others = torch.zeros(side, side, dtype=dtype).fill_diagonal_(float("-inf"))
        return Half(side, side, mask=others), Half(side, side, turned=True)
    if pattern == "fixed":
        first = side - summary_width(side)
        return Half(side, side, end=first), Half(side, 1, first=first)
    raise ValueError(f"pattern: got {pattern!r}; there are {', '.join(PATTERNS)}")


class _Factorised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, pattern: str) -> Tensor:
        one, other = halves(query.shape[0], pattern, query.dtype)
        (output, denominator), (output_2, denominator_2) = (half.forward(query, key, value) for half in (one, other))
        joint = torch.logaddexp(denominator, denominator_2)
        output = torch.lerp(output_2, output, (denominator - joint).exp().to(output.dtype))
        ctx.save_for_backward(query, key, value, output, joint)
        ctx.halves = one, other
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, output, joint = ctx.saved_tensors
        grad_query, grad_key, grad_value = (torch.zeros_like(x) for x in (query, key, value))
        for half in ctx.halves:
            grads = half.backward(grad, query, key, value, output, joint)
            grad_query += grads[0]
            half.keys(grad_key).add_(grads[1])
            half.keys(grad_value).add_(grads[2])
        return grad_query, grad_key, grad_value, None


def factorized_attention(query: Tensor, key: Tensor, value: Tensor, pattern: str) -> Tensor:
    """Attention within a pattern between (1, 1, n, d), as `scaled_dot_product_attention` takes them."""
    n, width = query.shape[2:]
    side = side_of(n)
    images = (x.reshape(side, side, width) for x in (query, key, value))
    output: Tensor = _Factorised.apply(*images, pattern)
    return output.reshape(1, 1, n, width)


def check(side: int, width: int, pattern: str, dtype: torch.dtype) -> float:
    """The largest error of output and gradients, relative to the largest number in each, beside dense attention."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 1, side * side, width, generator=generator, dtype=dtype) * 2 for _ in range(3)]
    grad = torch.randn(inputs[0].shape, generator=generator, dtype=dtype)
    answers = []
    for name in (pattern, None):
        leaves = [x.clone().requires_grad_() for x in inputs]
        if name is None:
            mask = dense_pattern(side * side, pattern)
            output = functional.scaled_dot_product_attention(*leaves, attn_mask=mask)
        else:
            output = factorized_attention(*leaves, name)
        output.backward(grad)
        answers.append([output.detach(), *(leaf.grad for leaf in leaves)])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*answers, strict=True))


def main() -> None:
    allowed = {torch.float32: 1e-5, torch.float64: 1e-12}
    errors = {
        (pattern, side, width, dtype): check(side, width, pattern, dtype)
        for pattern in PATTERNS
        for side in (2, 5, 16, 33, 48)
        for width in (3, 64)
        for dtype in allowed
    }
    for (pattern, side, width, dtype), error in errors.items():
        wrong = "" if error < allowed[dtype] else "  WRONG"
        print(f"{pattern:8} {side:3} x {side:<3} d = {width:<3} {dtype!s:14} {error:.1e}{wrong}")
    if any(error >= allowed[dtype] for (*_, dtype), error in errors.items()):
        raise SystemExit("the factorized attention differs from the dense one")


if __name__ == "__main__":
    main()
