"""Preparation of keys that several searches share, kept between them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from torch import Tensor

__all__ = [
    "Preparations",
    "PreparationsOfOneKey",
    "content_of",
    "current_preparations",
    "keep_prepared_keys",
    "use_preparations",
]

Prepared = TypeVar("Prepared")


class Preparations:
    """Where searches look for what they prepare of their keys; this one keeps nothing."""

    keeps = False

    def find(self, owners: tuple[Tensor | None, ...], name: Hashable, prepare: Callable[[], Prepared]) -> Prepared:
        """Return what `prepare` returns, or returned for the same owners and the same name before."""
        return prepare()


class PreparationsOfAnyKey(Preparations):
    """Keeps what is prepared of every key, by the memory that it was made of.

    The owners are kept as well, so that their memory is not given to other tensors meanwhile.
    """

    keeps = True

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Any, ...]] = {}

    def find(self, owners: tuple[Tensor | None, ...], name: Hashable, prepare: Callable[[], Prepared]) -> Prepared:
        if any(tensor is not None and tensor.is_inference() for tensor in owners):
            return prepare()  # of a tensor made in inference mode nobody can tell whether it was changed
        place = (name, *map(content_of, owners))
        if place not in self._kept:
            self._kept[place] = (prepare(), owners)
        found: Prepared = self._kept[place][0]
        return found


class PreparationsOfOneKey(Preparations):
    """Keeps what is prepared of one key, which does not change meanwhile; of others nothing.

    By name alone: the other owners belong to the key, though they need not always be the same tensors.
    """

    keeps = True

    def __init__(self, key: Tensor) -> None:
        self.content = content_of(key)
        self.kept: dict[Hashable, Any] = {}

    def find(self, owners: tuple[Tensor | None, ...], name: Hashable, prepare: Callable[[], Prepared]) -> Prepared:
        if content_of(owners[0]) != self.content:
            return prepare()
        if name not in self.kept:
            self.kept[name] = prepare()
        found: Prepared = self.kept[name]
        return found


_current: ContextVar[Preparations] = ContextVar("patchattn_preparations", default=Preparations())  # noqa: B039


def current_preparations() -> Preparations:
    """Where the searches of this thread look; to be asked before work is handed to other threads."""
    return _current.get()


@contextmanager
def use_preparations(preparations: Preparations) -> Iterator[None]:
    """Let searches look here until the block ends."""
    token = _current.set(preparations)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def keep_prepared_keys() -> Iterator[None]:
    """Keep what searches prepare of their keys until the block ends: the next search of the same key begins at once.

    For keys that are searched again and again deep inside a function; where the key is at hand, `prepare` says so for
    one key. The guided search then makes its tree once. Matches are the same to the bit. What is kept of each key that
    is searched takes 40 to 50 bytes for each of its pixels; a key that was changed in place is another one. Of keys
    made in inference mode nothing is kept, since PyTorch does not tell whether they were changed.

    Example:
        >>> import torch
        >>> from patchattn import match
        >>> from patchattn.reuse import keep_prepared_keys
        >>> key = torch.rand(1, 3, 64, 64)
        >>> with keep_prepared_keys():
        ...     fields = [match(torch.rand(1, 3, 16, 64), key, patch_size=3) for _ in range(3)]
    """
    with use_preparations(PreparationsOfAnyKey()):
        yield


def content_of(tensor: Tensor | None) -> Hashable:
    """The identity of a tensor's memory as it is now: another after a change in place."""
    if tensor is None:
        return None
    version = None if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, tensor.shape, tensor.stride(), tensor.dtype
