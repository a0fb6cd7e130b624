"""What the layer does with one pixel, asked of the layer itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from patchattn import MatchField, match, patch_attention
from patchattn.baselines import full_attention
from patchattn.tasks.alpha import resize_with_alpha
from patchattn.tasks.flow_image import flow_image
from patchattn.tasks.images import Image, same_channels, write_image
from patchattn.tasks.metadata import NO_METADATA

__all__ = ["look", "marks"]

SIDE = 320
"""The longer side of the pictures: single pixels can be seen, and every search is done while one looks."""
FEWEST = 0.002
"""The least weight of a vote that is marked."""
MOST = 400
"""How many votes are marked at most."""


def look(pictures: tuple[Image, Image], folder: Path, settings: dict[str, Any], tell: Any) -> dict[str, Any]:
    """Find the field between two pictures, keep it in the folder, and draw it.

    Args:
        pictures: where to look from, and where to look; made smaller first.
        folder: where the field and the pictures are written.
        settings: k, patch_size, similarity, method and temperature.
        tell: called with the name of each stage.
    """
    one, other = (_small(picture) for picture in pictures)
    query, key = same_channels(one, other)
    tell("matching")
    search = {name: settings[name] for name in ("k", "patch_size", "similarity", "method")}
    field = match(query, key, **search)
    tell("drawing")
    kept = {"query": query.clone(), "key": key.clone(), "index": field.index, "settings": settings}
    torch.save(kept, folder / "field.pt")
    drawn = flow_image(field.offsets()[0, 0, 0], matched=field.index[0, 0, 0] >= 0)
    shown = {"query": one, "key": other, "flow": drawn}
    for name, picture in shown.items():
        write_image(folder / f"{name}.png", picture)
    return {
        "field": str(folder / "field.pt"),
        **{name: str(folder / f"{name}.png") for name in shown},
        "query_size": list(one.size),
        "key_size": list(other.size),
        "patch_size": settings["patch_size"],
    }


def marks(path: Path, row: int, column: int) -> dict[str, Any]:
    """What one pixel attends to: its k matches and its votes, as (row, column, weight), and the mass they hold.

    The weight of a position is the derivative of the output with respect to the value there, so that the layer itself
    says what it did.
    """
    kept = torch.load(path, weights_only=True)
    query, key, settings = kept["query"], kept["key"], kept["settings"]
    field = MatchField(kept["index"], torch.zeros_like(kept["index"], dtype=torch.float32), tuple(key.shape[2:]))
    row, column = min(max(row, 0), query.shape[2] - 1), min(max(column, 0), query.shape[3] - 1)
    softmax = {name: settings[name] for name in ("patch_size", "similarity", "temperature")}
    weights = []
    for aggregate in (False, True):
        value = torch.zeros_like(key[:, :1], requires_grad=True)
        output = patch_attention(query, key, value, field=field, aggregate=aggregate, **softmax)
        (weight,) = torch.autograd.grad(output[0, 0, row, column], value)
        weights.append(weight[0, 0])
    own = field.coordinates()[0, 0, :, :, row, column]
    return {
        "row": row,
        "column": column,
        "matches": [[int(y), int(x), float(weights[0][y, x])] for y, x in own if y >= 0],
        "votes": _heaviest(weights[1]),
        "mass": _mass(query, key, field, (row, column), softmax),
    }


def _heaviest(weight: Tensor) -> list[list[float]]:
    found = weight.flatten().topk(min(MOST, weight.numel()))
    width = weight.shape[1]
    pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
    return [[place // width, place % width, share] for place, share in pairs if share >= FEWEST]


def _mass(
    query: Tensor, key: Tensor, field: MatchField, pixel: tuple[int, int], softmax: dict[str, Any]
) -> float | None:
    """How much of the softmax over all keys falls on the matches: full attention to a picture that is 1 there."""
    if softmax["similarity"] == "l1":
        return None  # full attention does not know it
    row, column = pixel
    radius = softmax["patch_size"] // 2
    # Full attention from one patch, in whose middle the pixel is.
    bordered = F.pad(query, (radius,) * 4, mode="reflect")
    patch = bordered[:, :, row : row + 2 * radius + 1, column : column + 2 * radius + 1]
    chosen = torch.zeros_like(key[:, :1]).flatten()
    index = field.index[0, 0, :, row, column].long()
    chosen[index[index >= 0]] = 1
    middle = torch.zeros(patch.shape[2:], dtype=torch.bool)
    middle[radius, radius] = True
    with torch.no_grad():
        output = full_attention(patch, key, chosen.view_as(key[:, :1]), **softmax)
    return float(output[0, 0, radius, radius])


def _small(picture: Image) -> Image:
    ratio = min(1.0, SIDE / max(picture.size))
    size = max(1, round(picture.size[0] * ratio)), max(1, round(picture.size[1] * ratio))
    color = picture.color if ratio == 1 else resize_with_alpha(picture.color, picture.alpha, size)[0]
    return replace(picture, color=color, alpha=None, bit_depth=8, metadata=NO_METADATA)
