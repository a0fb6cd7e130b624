"""Layers that are computed in tiles, as one operator of a compiled, exported or traced graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from patchattn.attention.images import Images
from patchattn.checks import is_traced
from patchattn.ops.autocast import autocasts, without_autocast
from patchattn.ops.layer import layer_operator
from patchattn.ops.schema import Schema
from patchattn.ops.transforms import differentiates, transforming

__all__ = ["as_operator"]

Layer = Callable[..., Tensor]


def as_operator(name: str) -> Callable[[Layer], Layer]:
    """Make a function of `Images` and plain settings the operator `patchattn::name` where that is needed.

    It is needed where a graph is made (compiled, exported, traced), to hold one node in the place of thousands, for all
    sizes; where nothing is computed (device "meta", no queries); and where autocast is on while a gradient is wanted,
    for the backward pass would multiply in half precision then. Else its operations are seen one by one, so that all
    that autograd knows can be done with them. It is computed without autocast either way.
    """

    def decorate(function: Layer) -> Layer:
        schema = Schema(function)

        def flat(*arguments: Any) -> Tensor:
            return computed(*schema.rebuild(arguments))

        def computed(images: Images, *settings: Any) -> Tensor:
            with without_autocast(images.query.device):
                return function(images, *settings)

        flat.__signature__ = schema.signature  # type: ignore[attr-defined]
        operator = layer_operator(name, flat)

        @wraps(function)
        def layer(images: Images, *settings: Any) -> Tensor:
            if not _whole(images):
                return computed(images, *settings)
            found: Tensor = operator(*schema.flatten((images, *settings)))
            return found

        return layer

    return decorate


def _whole(images: Images) -> bool:
    query = images.query
    if torch.compiler.is_compiling() or is_traced() or query.is_meta or query.numel() == 0:
        return True
    if transforming():
        return False  # they go through operations that they know
    return autocasts(query.device) and differentiates(query, images.key, images.value)
