"""A mask cut into rectangles where wide gaps lie between its pixels."""

from __future__ import annotations

import torch
from jaxtyping import Bool

__all__ = ["boxes"]

GAP = 0.25
"""A gap is cut out if it is at least so much of the rectangle's height or width: each cut saves as much work, and many
small holes close together stay one."""


def boxes(mask: Bool[torch.Tensor, "height width"]) -> list[tuple[slice, slice]]:
    """Rectangles, as slices of rows and columns, that hold every True pixel and do not overlap.

    Example:
        >>> mask = torch.zeros(40, 90, dtype=torch.bool)
        >>> mask[3:9, 2:5] = mask[20:30, 60:80] = True
        >>> boxes(mask)
        [(slice(3, 9, None), slice(2, 5, None)), (slice(20, 30, None), slice(60, 80, None))]
    """
    if not mask.any():
        return []
    rows, columns = (_ends(mask.any(dim)) for dim in (1, 0))
    inside = mask[rows, columns]
    for dim, lines in enumerate((rows, columns)):
        gap = _widest_gap(inside.any(1 - dim))
        if gap.stop - gap.start >= GAP * (lines.stop - lines.start):
            ends = (slice(0, gap.start), slice(gap.stop, inside.shape[dim]))
            halves = [inside[end] if dim == 0 else inside[:, end] for end in ends]
            starts = [(end.start, 0) if dim == 0 else (0, end.start) for end in ends]
            return [
                (_shifted(box[0], rows.start + down), _shifted(box[1], columns.start + across))
                for half, (down, across) in zip(halves, starts, strict=True)
                for box in boxes(half)
            ]
    return [(rows, columns)]


def _ends(line: torch.Tensor) -> slice:
    """From the first True to the last."""
    found = line.nonzero()[:, 0]
    return slice(int(found[0]), int(found[-1]) + 1)


def _widest_gap(line: torch.Tensor) -> slice:
    """The longest run of False between two True, of a line that begins and ends with True."""
    found = line.nonzero()[:, 0]
    lengths = found.diff()
    if lengths.numel() == 0:
        return slice(0, 0)
    at = int(lengths.argmax())
    return slice(int(found[at]) + 1, int(found[at + 1]))


def _shifted(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)
