"""The attention of one pixel: its matches, their weights and its votes, by derivatives of the layer's output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from patchattn import MatchField, match, patch_attention
from patchattn.baselines import full_attention
from patchattn.similarity import BY_PRODUCTS, resolve_similarity
from patchattn.tasks.alpha import resize_with_alpha
from patchattn.tasks.flow_image import flow_image
from patchattn.tasks.images import Image, same_channels, write_image
from patchattn.tasks.metadata import NO_METADATA

__all__ = ["attention_at_pixel", "write_field"]

MAX_SIDE = 320
"""Longer side of the images: single pixels can be seen, and every search takes a moment."""
MIN_VOTE_WEIGHT = 0.002
"""Smallest weight of a vote that is shown."""
MAX_VOTES = 400
"""Largest number of votes that are shown."""


def write_field(
    images: tuple[Image, Image], folder: Path, settings: dict[str, Any], report_stage: Callable[[str], None]
) -> dict[str, Any]:
    """Find the field between two images, and write it into a folder with images of query, key and flow.

    Args:
        images: query and key; downscaled to `MAX_SIDE` first.
        folder: where the field and the images are written.
        settings: k, patch_size, similarity, method and temperature.
        report_stage: called with the name of each stage.
    """
    query_image, key_image = (_downscaled(image) for image in images)
    query, key = same_channels(query_image, key_image)
    report_stage("matching")
    search = {name: settings[name] for name in ("k", "patch_size", "similarity", "method")}
    field = match(query, key, **search)
    report_stage("drawing")
    state = {"query": query.clone(), "key": key.clone(), "index": field.index, "settings": settings}
    torch.save(state, folder / "field.pt")
    flow = flow_image(field.offsets()[0, 0, 0], matched=field.index[0, 0, 0] >= 0)
    written = {"query": query_image, "key": key_image, "flow": flow}
    for name, image in written.items():
        write_image(folder / f"{name}.png", image)
    return {
        "field": str(folder / "field.pt"),
        **{name: str(folder / f"{name}.png") for name in written},
        "query_size": list(query_image.size),
        "key_size": list(key_image.size),
        "patch_size": settings["patch_size"],
    }


def attention_at_pixel(path: Path, row: int, column: int) -> dict[str, Any]:
    """The k matches and the votes of one pixel, as (row, column, weight), and the softmax mass of its matches.

    The weight of a position is the derivative of the output with respect to the value there, so that it is the layer
    itself that is shown.
    """
    state = torch.load(path, weights_only=True)
    query, key, settings = state["query"], state["key"], state["settings"]
    field = MatchField(state["index"], torch.zeros_like(state["index"], dtype=torch.float32), tuple(key.shape[2:]))
    row, column = min(max(row, 0), query.shape[2] - 1), min(max(column, 0), query.shape[3] - 1)
    softmax = {name: settings[name] for name in ("patch_size", "similarity", "temperature")}
    weights = []
    for aggregate in (False, True):
        value = torch.zeros_like(key[:, :1], requires_grad=True)
        output = patch_attention(query, key, value, field=field, aggregate=aggregate, **softmax)
        (weight,) = torch.autograd.grad(output[0, 0, row, column], value)
        weights.append(weight[0, 0])
    matches = field.coordinates()[0, 0, :, :, row, column]
    return {
        "row": row,
        "column": column,
        "matches": [[int(y), int(x), float(weights[0][y, x])] for y, x in matches if y >= 0],
        "votes": _largest(weights[1]),
        "mass": _softmax_mass(query, key, field, (row, column), softmax),
    }


def _largest(weight: Tensor) -> list[list[float]]:
    """The largest weights, as (row, column, weight)."""
    found = weight.flatten().topk(min(MAX_VOTES, weight.numel()))
    width = weight.shape[1]
    pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
    return [[index // width, index % width, value] for index, value in pairs if value >= MIN_VOTE_WEIGHT]


def _softmax_mass(
    query: Tensor, key: Tensor, field: MatchField, pixel: tuple[int, int], softmax: dict[str, Any]
) -> float | None:
    """The share of the softmax over all keys that falls on the matches: full attention to a value that is 1 there."""
    if resolve_similarity(softmax["similarity"]).name not in BY_PRODUCTS:
        return None  # full attention does not know it
    row, column = pixel
    radius = softmax["patch_size"] // 2
    # Full attention from one patch, with the pixel at its center.
    padded = F.pad(query, (radius,) * 4, mode="reflect")
    patch = padded[:, :, row : row + 2 * radius + 1, column : column + 2 * radius + 1]
    matched = torch.zeros_like(key[:, :1]).flatten()
    index = field.index[0, 0, :, row, column].long()
    matched[index[index >= 0]] = 1
    with torch.no_grad():
        output = full_attention(patch, key, matched.view_as(key[:, :1]), **softmax)
    return float(output[0, 0, radius, radius])


def _downscaled(image: Image) -> Image:
    """The image at most `MAX_SIDE` large, of 8 bits, without alpha and metadata."""
    ratio = min(1.0, MAX_SIDE / max(image.size))
    size = max(1, round(image.size[0] * ratio)), max(1, round(image.size[1] * ratio))
    color = image.color if ratio == 1 else resize_with_alpha(image.color, image.alpha, size)[0]
    return replace(image, color=color, alpha=None, bit_depth=8, metadata=NO_METADATA)
