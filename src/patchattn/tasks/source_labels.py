"""Copies by graph cuts: one offset for every pixel of a hole, few of them, with seams where they show least."""

from __future__ import annotations

from math import inf

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchattn.field import MatchField
from patchattn.tasks.neighbors import NEIGHBORS, inside, neighbors_at

__all__ = ["MAX_LABELS", "label_sources", "refine_sources"]

MAX_LABELS = 100
"""Offsets to choose from: the most frequent of the field that was found. More do not come to more than a few pixels."""
TARGET_WEIGHT = 0.1
"""Weight of the distance to what was there before, beside the costs of seams. With 0.02 seams show less and structures
move, with 0.5 they stay and show (docs/inpaint.md)."""
ROUNDS = 2
"""Moves for each label, where all are free."""
REACH = 3
"""Pixels by which a seam may move in a finer level, where its place is known to two."""


def label_sources(
    field: MatchField,
    image: Float[Tensor, "1 channels height width"],
    target: Float[Tensor, "1 channels height width"],
    hole: Bool[Tensor, "1 1 height width"],
    sources: Bool[Tensor, "1 1 height width"],
    guide: Float[Tensor, "1 maps height width"] | None = None,
) -> MatchField:
    r"""Choose for every pixel of a hole the offset it is copied from, by alpha-expansion.

    $$E(s) = \sum_{i \in H} \Big( \lambda \lVert f_{i + s_i} - t_i \rVert^2 + \lVert g_{i + s_i} - g_i \rVert^2
      + \sum_{j \in N(i) \setminus H} \lVert f_{j + s_i} - f_j \rVert^2 \Big)
      + \sum_{i, j \in H} \lVert f_{i + s_i} - f_{i + s_j} \rVert^2 + \lVert f_{j + s_i} - f_{j + s_j} \rVert^2$$

    The seams of the shift map (Pritch et al. 2009) with a term that keeps to a completion t; the last sum is over pairs
    of neighbors. Offsets are the most frequent of a field (He and Sun 2012 take those of the whole image).

    Args:
        field: matches of single pixels.
        image: f, what is compared and copied; 0 in the hole.
        target: t.
        hole: H.
        sources: True: may be copied.
        guide: g, maps that are known in the hole too.

    Returns:
        The chosen source of each pixel of the hole, k = 1; -1 elsewhere.
    """
    offset = field.offsets()[0, 0, 0]
    found = offset[:, (field.index[0, 0, 0] >= 0)]
    offsets, counts = torch.unique(found, dim=1, return_counts=True)
    # The most frequent ones; of those as frequent the first by row and column.
    offsets = offsets[:, torch.sort(counts, descending=True, stable=True).indices[:MAX_LABELS]]
    height, width = hole.shape[2:]
    rows, columns = hole[0, 0].nonzero().unbind(1)
    compared, target = _with_guide(image, guide), _with_guide(target, guide)
    wanted, content, allowed = target[0][:, rows, columns], compared[0], sources[0, 0]
    least = content.new_full((len(rows),), inf)
    labels = torch.zeros(len(rows), dtype=torch.int32, device=hole.device)
    for number, (down, right) in enumerate(offsets.T.tolist()):
        row, column = rows + down, columns + right
        is_inside = inside(row, column, height, width)
        row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
        cost = (wanted - content[:, row, column]).square().sum(0)
        cost = torch.where(is_inside & allowed[row, column], cost, inf)
        labels = torch.where(cost < least, number, labels)
        least = torch.minimum(least, cost)
    return _expanded(labels, offsets, image, compared, target, hole, sources, ROUNDS, 0)


def refine_sources(
    coarse: MatchField,
    image: Float[Tensor, "1 channels height width"],
    hole: Bool[Tensor, "1 1 height width"],
    sources: Bool[Tensor, "1 1 height width"],
    guide: Float[Tensor, "1 maps height width"] | None = None,
) -> MatchField:
    """Carry the sources of a level of half the size on: offsets are doubled, seams move by some pixels.

    The energy is that of `label_sources` without t, which the coarse level has kept to.

    Args:
        coarse: what `label_sources` or this function gave there.
        image, hole, sources, guide: as for `label_sources`.
    """
    rows, columns = hole[0, 0].nonzero().unbind(1)
    parents = torch.zeros(coarse.query_shape, dtype=torch.bool, device=hole.device)
    parents[rows // 2, columns // 2] = True
    small = _nearest(coarse.offsets()[0, 0, 0], coarse.index[0, 0, 0] >= 0, parents)
    offsets, labels = torch.unique(2 * small[:, rows // 2, columns // 2], dim=1, return_inverse=True)
    known = image[:, :0] if guide is None else guide
    return _expanded(labels.int(), offsets, image, known, known, hole, sources, 1, REACH)


def _with_guide(image: Tensor, guide: Tensor | None) -> Tensor:
    """Features of the data term: an earlier completion is a guess, and weighs less than the guide, which is known."""
    weighted = TARGET_WEIGHT**0.5 * image
    return weighted if guide is None else torch.cat([weighted, guide], 1)


def _expanded(
    labels: Tensor,
    offsets: Tensor,
    image: Tensor,
    compared: Tensor,
    target: Tensor,
    hole: Tensor,
    sources: Tensor,
    rounds: int,
    reach: int,
) -> MatchField:
    """Run alpha-expansion on the CPU, whatever the device: it is one sequence of small steps."""
    from patchattn.kernels.cpu.source_labels import expand_labels

    plane = torch.zeros(hole.shape[2:], dtype=torch.int32, device=hole.device)
    plane[hole[0, 0]] = labels
    array, order = plane.cpu().numpy(), torch.arange(offsets.shape[1], dtype=torch.int32).numpy()
    pixels, known, wanted = (
        t[0].permute(1, 2, 0).float().contiguous().cpu().numpy() for t in (image, compared, target)
    )
    settings = offsets.T.int().contiguous().cpu().numpy(), pixels, known, wanted
    masks = hole[0, 0].cpu().numpy(), sources[0, 0].cpu().numpy()
    for _ in range(rounds):
        if expand_labels(array, order, *settings, *masks, reach) == 0:
            break
    chosen = offsets[:, torch.from_numpy(array).to(hole.device).long()]
    height, width = hole.shape[2:]
    rows, columns = (torch.arange(n, device=hole.device) for n in (height, width))
    row, column = rows[:, None] + chosen[0], columns + chosen[1]
    is_inside = inside(row, column, height, width)
    at = torch.where(is_inside, row * width + column, 0)
    index = torch.where(hole[0, 0] & is_inside & sources.flatten()[at], at, -1).int()[None, None, None]
    return MatchField(index, torch.where(index >= 0, 0.0, -inf), (height, width))


def _nearest(plane: Tensor, known: Tensor, needed: Tensor) -> Tensor:
    """Fill what is needed and not known of a plane with what is known nearby, ring by ring."""
    while known.any() and not known[needed].all():
        for down, right in NEIGHBORS:
            beside = neighbors_at(known.float(), down, right) > 0
            plane = torch.where(~known & beside, neighbors_at(plane.double(), down, right).long(), plane)
            known = known | beside
    return plane
