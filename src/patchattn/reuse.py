"""Preparation of keys that several searches share, kept between them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from torch import Tensor

__all__ = ["keep_prepared_keys", "prepared"]

Prepared = TypeVar("Prepared")
_kept: ContextVar[dict[Hashable, tuple[Any, ...]] | None] = ContextVar("patchattn_prepared_keys", default=None)


@contextmanager
def keep_prepared_keys() -> Iterator[None]:
    """Keep what searches prepare of their keys until the block ends: the next search of the same key begins at once.

    For a key that is searched again and again: by one band of queries after another, or by each frame of a film. The
    guided search on the CPU then makes its tree once. Matches are the same to the bit. What is kept of each key that is
    searched takes about 100 bytes for each of its pixels; a key that was changed in place is another one. Of keys made
    in inference mode nothing is kept, since PyTorch does not tell whether they were changed.

    Example:
        >>> import torch
        >>> from patchattn import match
        >>> from patchattn.reuse import keep_prepared_keys
        >>> key = torch.rand(1, 3, 64, 64)
        >>> with keep_prepared_keys():
        ...     fields = [match(torch.rand(1, 3, 16, 64), key, patch_size=3) for _ in range(3)]
    """
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def prepared(owners: tuple[Tensor | None, ...], name: Hashable, prepare: Callable[[], Prepared]) -> Prepared:
    """Return what `prepare` returns, from an earlier call for the same memory of the owners and the same name.

    The owners are kept as well, so that their memory is not given to other tensors meanwhile.
    """
    kept = _kept.get()
    if kept is None or any(tensor is not None and tensor.is_inference() for tensor in owners):
        return prepare()  # of a tensor made in inference mode nobody can tell whether it was changed
    place = (name, *map(_content, owners))
    if place not in kept:
        kept[place] = (prepare(), owners)
    found: Prepared = kept[place][0]
    return found


def _content(tensor: Tensor | None) -> Hashable:
    if tensor is None:
        return None
    return tensor.data_ptr(), tensor._version, tensor.shape, tensor.stride(), tensor.dtype
