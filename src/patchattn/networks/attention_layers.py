"""The layers by name, as command lines and weight files call them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

from patchattn.attention.layer import AttentionLayer
from patchattn.attention.patch import PatchAttention
from patchattn.attention.scram import ScramAttention
from patchattn.baselines import (
    FullAttention,
    LinearAttention,
    LocalAttention,
    PerformerAttention,
    ReformerAttention,
    SparseAttention,
)
from patchattn.checks import check_choice

__all__ = ["NAMES", "named_attention"]

LAYERS: dict[str, Callable[..., AttentionLayer]] = {
    "psal": PatchAttention,
    # One match of each patch: what PSAL's Table 4 calls "PSAL1 Aggreg.".
    "psal-aggregate": partial(PatchAttention, aggregate=True, k=1),
    "scram": ScramAttention,
    "full": FullAttention,
    "local": LocalAttention,
    "linear": LinearAttention,
    "sparse": SparseAttention,
    "performer": PerformerAttention,
    "reformer": ReformerAttention,
}
NAMES = tuple(LAYERS)


def named_attention(
    name: str,
    settings: Mapping[str, Any] | None = None,
    layers: Mapping[str, Callable[..., AttentionLayer]] | None = None,
    argument: str = "attention",
) -> AttentionLayer:
    """Make a layer by its name, one of `NAMES`.

    `"psal"` is PSAL-k (k = 3 by default), `"psal-aggregate"` the one with votes (k = 1 by default); the others are
    called as their classes are.

    Args:
        name: which layer.
        settings: the arguments of its class.
        layers: the names to choose from, and what they make; None: all of `NAMES`.
        argument: what an error calls `name`.

    Returns:
        The layer; all are called as `layer(query, key, value)`.

    Raises:
        ValueError: there is no such layer, or it has no such setting; the message lists what there is.

    Example:
        >>> named_attention("psal", {"k": 7, "patch_size": 5})
        PatchAttention(k=7, patch_size=5, similarity='l2', temperature=1.0, aggregate=False, num_heads=1, method='auto')
        >>> named_attention("linear", {"k": 7})
        Traceback (most recent call last):
        ValueError: attention: 'linear' has no setting 'k'; it has patch_size, num_heads, padding_mode.
    """
    layers = LAYERS if layers is None else layers
    check_choice(argument, name, tuple(layers))
    make, settings = layers[name], dict(settings or {})
    known = tuple(signature(make).parameters)
    for setting in settings:
        if setting not in known:
            raise ValueError(f"{argument}: {name!r} has no setting {setting!r}; it has {', '.join(known)}.")
    return make(**settings)
