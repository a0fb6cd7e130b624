"""Checks of arguments, made once, at the public functions; every message names the argument and what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    "on_host",
    "per_dimension",
    "positive_per_dimension",
]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_POSITIONS = 2**31 - 1


def check_features(name: str, tensor: Tensor, like: Tensor | None = None, like_name: str = "") -> None:
    """A floating-point `(B, C, *spatial)` tensor with one to three spatial dimensions, like another one if given."""
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
    if tensor.numel() == 0:
        raise ValueError(f"{name}: expected at least one element in every dimension, got shape {tuple(tensor.shape)}.")
    if tensor[0, 0].numel() > MAX_POSITIONS:
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
    """Query and key that can be compared, head by head."""
    check_features("query", query)
    check_features("key", key, query, "query")
    if key.shape[1] != query.shape[1]:
        raise ValueError(f"key: expected {query.shape[1]} channels as query has, got {key.shape[1]}.")
    check_count("num_heads", num_heads, 1)
    check_heads("query", query, num_heads)


def check_finite(name: str, *tensors: Tensor | None) -> None:
    """Pictures hold numbers, neither NaN nor infinity."""
    if not all(tensor is None or bool(tensor.isfinite().all()) for tensor in tensors):
        raise ValueError(f"{name}: it holds NaN or infinity; expected numbers in [0, 1].")


def check_heads(name: str, tensor: Tensor, num_heads: int) -> None:
    if tensor.shape[1] % num_heads:
        raise ValueError(f"num_heads: got {num_heads}, which does not divide the {tensor.shape[1]} channels of {name}.")


def check_count(name: str, value: int, least: int) -> None:
    """A whole number of at least `least` that fits into 64 bits."""
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)) or not least <= value < 2**63:
        raise ValueError(f"{name}: expected a whole number of at least {least} (and below 2^63), got {value!r}.")


def check_positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"{name}: expected a number above 0, got {value!r}.")


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}; allowed are {', '.join(map(repr, allowed))}.")


def check_mask(name: str, mask: Tensor | None, features_name: str, features: Tensor, batch: int) -> None:
    """A bool `(B or 1, *spatial)` mask for a feature tensor."""
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
    """Whether a value can be read at once: on any other device the read would wait for all work under way."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def per_dimension(name: str, value: int | Sequence[int], dims: int, least: int) -> tuple[int, ...]:
    """One whole number for each spatial dimension, from one for all or one for each."""
    values: tuple[Any, ...] = tuple(value) if isinstance(value, (list, tuple)) else (value,) * dims
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in values)
    if len(values) != dims or not whole or any(v < least for v in values):
        raise ValueError(
            f"{name}: expected a whole number of at least {least}, or {dims} of them (one for each spatial dimension), "
            f"got {value!r}."
        )
    return values


def positive_per_dimension(name: str, value: float | Sequence[float], dims: int) -> tuple[float, ...]:
    """One number above 0 for each spatial dimension, from one for all or one for each."""
    values: tuple[Any, ...] = tuple(value) if isinstance(value, (list, tuple)) else (value,) * dims
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if len(values) != dims or not numbers or not all(0 < v < float("inf") for v in values):
        raise ValueError(
            f"{name}: expected a number above 0, or {dims} of them (one for each spatial dimension), got {value!r}."
        )
    return tuple(float(v) for v in values)
