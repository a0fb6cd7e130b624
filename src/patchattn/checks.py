"""Checks of arguments at the public functions; every message names the argument, what came and what is allowed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "check_choice",
    "check_count",
    "check_features",
    "check_finite",
    "check_heads",
    "check_mask",
    "check_pair",
    "check_positive",
    "check_share",
    "is_traced",
    "on_host",
    "per_dimension",
    "plain",
    "positive_per_dimension",
    "warn_of_missing_batch",
]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (int, np.integer, torch.SymInt)
REAL = (*WHOLE, float, np.floating, torch.SymFloat)
MAX_POSITIONS = 2**31 - 1


def check_features(
    name: str, tensor: Tensor, like: Tensor | None = None, like_name: str = "", *, may_be_empty: bool = False
) -> None:
    """Check a floating-point `(B, C, *spatial)` tensor with one to three spatial dimensions, against another if given.

    A batch may hold nothing; positions may be none only where `may_be_empty`, and where nothing is asked of them: in
    keys and values without a query.
    """
    may_be_empty = may_be_empty or (isinstance(like, Tensor) and like.numel() == 0)
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name}: expected a tensor (B, C, *spatial), got {type(tensor).__name__}.")
    if not 3 <= tensor.dim() <= 5:
        raise ValueError(
            f"{name}: expected (B, C, *spatial) with one to three spatial dimensions, got shape {tuple(tensor.shape)}."
        )
    if tensor.dtype not in FLOATS:
        raise ValueError(
            f"{name}: expected float16, bfloat16, float32 or float64, got {tensor.dtype}; convert it, for instance "
            f"with {name}.float()."
        )
    if 0 in tensor.shape[1 : 2 if may_be_empty else None]:
        needed = "channel" if may_be_empty else "channel and one position in every dimension"
        raise ValueError(f"{name}: expected at least one {needed}, got shape {tuple(tensor.shape)}.")
    if prod(tensor.shape[2:]) > MAX_POSITIONS:
        raise ValueError(f"{name}: expected fewer than 2^31 positions, got spatial size {tuple(tensor.shape[2:])}.")
    if like is None:
        return
    if tensor.dim() != like.dim():
        raise ValueError(
            f"{name}: expected {like.dim() - 2} spatial dimensions as {like_name} has, got shape {tuple(tensor.shape)} "
            f"beside {tuple(like.shape)}."
        )
    if tensor.dtype != like.dtype:
        raise ValueError(f"{name}: expected {like.dtype} as {like_name} has, got {tensor.dtype}.")
    if tensor.device != like.device:
        raise ValueError(f"{name}: expected device {like.device} as {like_name} has, got {tensor.device}.")
    if tensor.shape[0] not in (1, like.shape[0]):
        raise ValueError(
            f"{name}: expected batch size {like.shape[0]} as {like_name} has, or 1 (shared by all), got "
            f"{tensor.shape[0]}."
        )


def check_pair(query: Tensor, key: Tensor, num_heads: int) -> None:
    """Check that query and key can be compared, head by head."""
    check_features("query", query, may_be_empty=True)
    check_features("key", key, query, "query")
    if key.shape[1] != query.shape[1]:
        raise ValueError(f"key: expected {query.shape[1]} channels as query has, got {key.shape[1]}.")
    check_heads("query", query, check_count("num_heads", num_heads, 1))


def check_finite(name: str, *tensors: Tensor | None) -> None:
    """Refuse images that hold NaN or infinity."""
    if not all(tensor is None or bool(tensor.isfinite().all()) for tensor in tensors):
        raise ValueError(f"{name}: it holds NaN or infinity; expected numbers in [0, 1].")


def check_heads(name: str, tensor: Tensor, num_heads: int) -> None:
    """Refuse channels that do not divide into heads."""
    if tensor.shape[1] % num_heads:
        raise ValueError(f"num_heads: got {num_heads}, which does not divide the {tensor.shape[1]} channels of {name}.")


def plain(value: Any) -> Any:
    """Return NumPy's numbers as Python's, its arrays of one dimension or none as tuples; else the value itself."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return tuple(value.tolist()) if isinstance(value, np.ndarray) and value.ndim == 1 else value


def is_whole(value: Any) -> bool:
    return isinstance(value, WHOLE) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, REAL) and not isinstance(value, bool)


def check_count(name: str, value: int, least: int) -> int:
    """Return an integer of at least `least` that fits into 64 bits, as a Python number."""
    if not is_whole(value) or not least <= value < 2**63:
        raise ValueError(f"{name}: expected an integer of at least {least} (and below 2^63), got {shown(value)}.")
    number: int = plain(value)
    return number


def check_positive(name: str, value: float) -> float:
    """Return a finite number above 0, as a Python number."""
    if not is_number(value) or not 0 < value < float("inf"):
        raise ValueError(f"{name}: expected a number above 0, got {shown(value)}.")
    number: float = plain(value)
    return number


def check_share(name: str, value: float) -> float:
    """Return a number from 0 to 1, as a Python number."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a number from 0 to 1, got {shown(value)}.")
    return float(value)


def shown(value: Any) -> str:
    """Return the text of a value for a message, with the way out for a tensor."""
    return f"a tensor of shape {tuple(value.shape)}; use .item()" if isinstance(value, Tensor) else repr(value)


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse a value that is not among the allowed ones."""
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}; allowed are {', '.join(map(repr, allowed))}.")


def check_mask(name: str, mask: Tensor | None, features_name: str, features: Tensor, batch: int) -> None:
    """Check a bool `(B or 1, *spatial)` mask for a feature tensor."""
    if mask is None:
        return
    spatial = tuple(features.shape[2:])
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        came = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"{name}: expected a bool tensor (True = may take part), got {came}.")
    if mask.dim() != features.dim() - 1 or tuple(mask.shape[1:]) != spatial or mask.shape[0] not in (1, batch):
        raise ValueError(
            f"{name}: expected shape ({batch} or 1, {', '.join(map(str, spatial))}) for {features_name} of shape "
            f"{tuple(features.shape)}, got {tuple(mask.shape)}."
        )
    if mask.device != features.device:
        raise ValueError(f"{name}: expected device {features.device} as {features_name} has, got {mask.device}.")


def on_host(tensor: Tensor) -> bool:
    """Return whether a value can be read at once: on other devices the read would wait for all work under way."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def is_traced() -> bool:
    """Return whether `torch.jit.trace` is recording."""
    recording: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return recording


def per_dimension(name: str, value: int | Sequence[int], dims: int, least: int) -> tuple[int, ...]:
    """Return one integer for each spatial dimension, from one for all or one for each."""
    if type(value) is int and value >= least:
        return (value,) * dims
    values = _for_each(value, dims)
    if len(values) != dims or not all(map(is_whole, values)) or any(v < least for v in values):
        raise ValueError(
            f"{name}: expected an integer of at least {least}, or {dims} of them (one for each spatial dimension), "
            f"got {shown(value)}."
        )
    return tuple(map(plain, values))


def positive_per_dimension(name: str, value: float | Sequence[float], dims: int) -> tuple[float, ...]:
    """Return one number above 0 for each spatial dimension, from one for all or one for each."""
    values = _for_each(value, dims)
    if len(values) != dims or not all(map(is_number, values)) or not all(0 < v < float("inf") for v in values):
        raise ValueError(
            f"{name}: expected a number above 0, or {dims} of them (one for each spatial dimension), got "
            f"{shown(value)}."
        )
    return tuple(float(v) for v in values)


def _for_each(value: Any, dims: int) -> tuple[Any, ...]:
    value = plain(value)
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * dims


def warn_of_missing_batch(query: Tensor, patch_size: Any) -> None:
    """Warn where three dimensions, read as a sequence, look like an image: both at least 8, less than twice apart.

    A sequence (B, C, length) is far longer than it has channels; where it is not, a patch size for one dimension,
    `patch_size=(7,)`, says that it is one.
    """
    if query.dim() != 3 or isinstance(patch_size, (list, tuple, np.ndarray)):
        return
    if torch.compiler.is_compiling() or is_traced():
        return
    batch, channels, length = query.shape
    if min(channels, length) >= 8 and max(channels, length) < 2 * min(channels, length):
        warnings.warn(
            f"query: shape {tuple(query.shape)} is read as {batch} sequence(s) of {length} positions with {channels} "
            "channels. For one image (C, H, W) pass query.unsqueeze(0), and key and value alike; for sequences, a "
            "patch size for one dimension, for instance patch_size=(7,), says so.",
            stacklevel=4,
        )
