"""Files of match fields: arrays of NumPy (.npz) that hold no code, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["read_field", "write_field"]

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, MemoryError, NotImplementedError, TypeError, ValueError)
"""Errors of zipfile and NumPy about bytes that they cannot read."""
OF_TRANSFORMS = ("place", "transforms", "margin")
"""The arrays of `MatchField.transform`."""


def write_field(
    path: str | os.PathLike[str],
    index: Tensor,
    similarity: Tensor,
    key_shape: tuple[int, ...],
    transform: Mapping[str, NDArray[Any]],
) -> None:
    """Write a field beside `path` and rename it, so that a file is there whole or not at all.

    `transform`: the arrays of its transforms, if it has any.
    """
    # NumPy has no bfloat16; float32 holds all of its numbers.
    held = similarity.float() if similarity.dtype == torch.bfloat16 else similarity
    arrays = {
        "index": index.detach().cpu().numpy(),
        "similarity": held.detach().cpu().numpy(),
        "key_shape": np.array(key_shape, np.int64),
        "dtype": np.array(str(similarity.dtype).removeprefix("torch.")),
        **transform,
    }
    final = Path(path)
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        if final.exists():
            temporary.chmod(stat.S_IMODE(final.stat().st_mode))
        os.replace(temporary, final)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def read_field(
    path: str | os.PathLike[str],
) -> tuple[Tensor, Tensor, tuple[int, ...], dict[str, NDArray[Any]]]:
    """Return the index, similarity, key shape and arrays of transforms that a file holds.

    Raises:
        ValueError: it is no whole field.
    """
    try:
        with Path(path).open("rb") as file, _archive(file) as archive:
            arrays = {name: archive[name] for name in ("index", "similarity", "key_shape")}
            dtype = str(archive["dtype"]) if "dtype" in archive else str(arrays["similarity"].dtype)
            of_transforms = {name: archive[name] for name in OF_TRANSFORMS} if "place" in archive else {}
        index, similarity, key_shape = _checked(arrays, dtype)
        if of_transforms:
            _check_transforms(of_transforms, index)
        return index, similarity, key_shape, of_transforms
    except DAMAGE as error:
        reason = str(error.args[0]) if error.args else type(error).__name__
        raise ValueError(
            f"path: {os.fspath(path)} is no whole field ({reason.rstrip('.')}); expected a file that MatchField.save() "
            "or `patchattn match` wrote."
        ) from error


def _check_transforms(arrays: Mapping[str, NDArray[Any]], index: Tensor) -> None:
    place, transforms, margin = (arrays[name] for name in OF_TRANSFORMS)
    if place.dtype != np.int32 or place.shape != tuple(index.shape):
        raise ValueError(f"place is {place.dtype} of shape {place.shape}, index of shape {tuple(index.shape)}")
    if transforms.dtype.kind != "f" or transforms.ndim != 2 or transforms.shape[1] != 3 or not len(transforms):
        raise ValueError(f"transforms is {transforms.dtype} of shape {transforms.shape}")
    if not np.isfinite(transforms).all() or (transforms[:, 1] <= 0).any():
        raise ValueError(f"transforms holds {transforms.tolist()}")
    if margin.dtype.kind != "i" or margin.shape != (2,) or (margin < 0).any() or index.dim() != 5:
        raise ValueError(f"margin is {margin.tolist()} for an index of {index.dim()} dimensions")


def _archive(file: BinaryIO) -> Any:
    """Open what NumPy takes for several arrays; it reads other files than archives, too."""
    loaded = np.load(file, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise ValueError("it holds a single array")
    return loaded


def _checked(arrays: Mapping[str, NDArray[Any]], dtype: str) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    index, similarity, shape = arrays["index"], arrays["similarity"], arrays["key_shape"]
    if shape.dtype.kind != "i" or shape.ndim != 1 or not 1 <= len(shape) <= 3 or (shape < 1).any():
        raise ValueError(f"key_shape is {shape.tolist()}")
    key_shape = tuple(int(size) for size in shape)
    if index.ndim == 1 + len(key_shape):  # `patchattn match` writes that of one image and one head
        index, similarity = index[None, None], similarity[None, None]
    if index.dtype != np.int32 or index.ndim != 3 + len(key_shape):
        raise ValueError(f"index is {index.dtype} of shape {index.shape}")
    if similarity.dtype.kind != "f" or similarity.shape != index.shape:
        raise ValueError(f"similarity is {similarity.dtype} of shape {similarity.shape}, index of shape {index.shape}")
    if index.size and not (index.min() >= -1 and index.max() < prod(key_shape)):
        raise ValueError(f"index holds {index.min()} to {index.max()}, the key {prod(key_shape)} positions")
    chosen = getattr(torch, dtype, None)
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise ValueError(f"dtype is {dtype!r}")
    return torch.from_numpy(index.copy()), torch.from_numpy(similarity.copy()).to(chosen), key_shape
