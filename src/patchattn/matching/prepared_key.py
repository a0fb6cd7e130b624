"""`prepare`: a key image, prepared once for many searches."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import Unpack

from patchattn.backends import KernelBackend
from patchattn.checks import check_features, per_dimension
from patchattn.matching.define import define_problem
from patchattn.names import Backend, PaddingMode, SimilarityName
from patchattn.ops.search import search
from patchattn.reuse import PreparationsOfOneKey, content_of, use_preparations
from patchattn.settings import SearchSettings, settings_from, shows
from patchattn.similarity import Similarity, resolve_similarity

__all__ = ["PreparedKey", "prepare", "resolve_key"]


@dataclass(kw_only=True, eq=False, repr=False)
class KeySettings:
    """Defaults of `prepare`: of what a search is told, that which concerns the key."""

    patch_size: int | Sequence[int] = 1
    similarity: SimilarityName | Similarity = "l2"
    num_heads: int = 1
    padding_mode: PaddingMode = "reflect"
    backend: Backend | KernelBackend | None = None


class KeyOptions(TypedDict, total=False):
    """The types of `KeySettings`."""

    patch_size: int | Sequence[int]
    similarity: SimilarityName | Similarity
    num_heads: int
    padding_mode: PaddingMode
    backend: Backend | KernelBackend | None


@dataclass(frozen=True, eq=False, repr=False)
class PreparedKey:
    """A key image, prepared once for many searches: `match(query, prepared)`; made by `prepare`.

    It holds the key (not a copy of it) and what guided search makes of a key: principal components, and the k-d tree of
    the projected patches. It can be pickled, with all that it holds. Between threads it can be shared.
    """

    key: Tensor
    """`(B, C, *spatial)`; it must not be changed in place."""
    key_mask: Tensor | None
    """`(B or 1, *spatial)`; it must not be changed either."""
    patch_size: tuple[int, ...]
    similarity: Similarity
    num_heads: int
    padding_mode: PaddingMode
    backend: Backend | KernelBackend | None
    _preparations: PreparationsOfOneKey
    _content: Any

    @property
    def shape(self) -> torch.Size:
        """The key's shape, `(B, C, *spatial)`."""
        return self.key.shape

    @property
    def device(self) -> torch.device:
        """The device of the key, on which searches of it run."""
        return self.key.device

    @property
    def nbytes(self) -> int:
        """Bytes that are kept beside the key and its mask; a tree takes 40 to 50 for each key position."""
        return sum(part.nbytes for part in _arrays(self._preparations.kept, set()))

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in OF_THE_KEY[:-1] if name != "similarity")
        return (
            f"PreparedKey({tuple(self.shape)}, {self.key.dtype}, {self.device}, similarity={self.similarity.name!r}, "
            f"{settings}, nbytes={self.nbytes})"
        )

    def __getstate__(self) -> dict[str, Any]:
        # Memory has another address in another process.
        return {**self.__dict__, "_preparations": self._preparations.kept, "_content": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        preparations = PreparationsOfOneKey(self.key)
        preparations.kept = state["_preparations"]
        self.__dict__.update(_preparations=preparations, _content=self._now())

    def to(self, device: torch.device | str) -> PreparedKey:
        """The same key, prepared on another device; itself if it is there already."""
        if torch.empty(0, device=device).device == self.device:
            return self
        mask = None if self.key_mask is None else self.key_mask.to(device)
        options = {name: getattr(self, name) for name in OF_THE_KEY if name != "backend"}
        return prepare(self.key.to(device), key_mask=mask, **options)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let the searches of a block use what is kept."""
        if self._now() != self._content:
            raise ValueError("key: it, or its mask, was changed in place since it was prepared; call prepare() again.")
        with use_preparations(self._preparations):
            yield

    def _now(self) -> tuple[Hashable, Hashable]:
        return content_of(self.key), content_of(self.key_mask)


OF_THE_KEY = tuple(setting.name for setting in fields(KeySettings))


@shows(KeySettings)
def prepare(
    key: Float[Tensor, "key_batch channels *key"],
    *,
    key_mask: Bool[Tensor, "mask_batch *key"] | None = None,
    **options: Unpack[KeyOptions],
) -> PreparedKey:
    """Prepare a key image for many searches: by bands of queries, by frames of a film, by training steps.

    The guided search reduces the key's patches to principal components and sorts them into a k-d tree, which takes
    a fifth of its time where there are as many queries as keys, and nearly all of it where there are few. This is done
    here, once, and `match` and `patch_attention` take what is returned in the place of the key. Their results are
    the same to the bit. Exact search and PatchMatch prepare nothing of a key, and the reference keeps nothing.

    Queries whose patches are much longer than the key's have their components scaled in another way: their first search
    makes another tree, which is kept as well.

    Args:
        key: `(B, C, *spatial)`; it must not be changed in place afterwards (a search says so if it was; of a tensor
            made in inference mode PyTorch does not know).
        key_mask: `(B or 1, *spatial)`, False: no query matches this key.
        patch_size, similarity, num_heads, padding_mode, backend: see `match`.

    Returns:
        A `PreparedKey`, which tells its memory (`nbytes`), moves to another device (`to`), can be pickled, and shared
        by threads.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.
        RuntimeError: the backend does not load.

    Example:
        >>> import torch
        >>> from patchattn import match, prepare
        >>> frames, reference = torch.rand(4, 3, 32, 32), torch.rand(1, 3, 256, 256)
        >>> prepared = prepare(reference, patch_size=5)
        >>> fields = [match(frame[None], prepared, k=3) for frame in frames]
        >>> fields[0].index.shape
        torch.Size([1, 1, 3, 32, 32])
    """
    settings = SearchSettings(**vars(settings_from(KeySettings, options, "prepare")), method="guided", iterations=0)
    check_features("key", key, may_be_empty=True)
    patch = per_dimension("patch_size", settings.patch_size, key.dim() - 2, 1)
    corner = key
    for dim, size in enumerate(patch, 2):
        corner = corner.narrow(dim, 0, min(size, key.shape[dim]))
    problem = define_problem(corner, key, settings, None, key_mask)
    prepared = PreparedKey(
        key,
        key_mask,
        patch,
        problem.geometry.similarity,
        problem.geometry.num_heads,
        settings.padding_mode,
        settings.backend,
        PreparationsOfOneKey(key),
        (content_of(key), content_of(key_mask)),
    )
    if corner.numel():
        with prepared.used():
            search(corner.detach(), key.detach(), None, problem)
    return prepared


def resolve_key(
    key: Tensor | PreparedKey, key_mask: Tensor | None, options: Mapping[str, Any]
) -> tuple[Tensor, Tensor | None, Mapping[str, Any], AbstractContextManager[None]]:
    """Return key, mask and options of a call, and the context of its search.

    A prepared key brings what it was prepared for, which need not be said again.

    Raises:
        ValueError: the call asks for something else than the key was prepared for.
    """
    if not isinstance(key, PreparedKey):
        return key, key_mask, options, nullcontext()
    if key_mask is not None and key_mask is not key.key_mask:
        raise ValueError("key_mask: the key was prepared with another one, or without; give it to prepare().")
    if any(options.get(name) for name in ("rotations", "scales", "mirror")):
        raise ValueError("key: it was prepared without rotations, scales and mirror; give the key itself.")
    own = {name: getattr(key, name) for name in OF_THE_KEY}
    for name, given in options.items():
        if name in own and not _agrees(name, given, own[name], key.key.dim() - 2):
            raise ValueError(
                f"{name}: got {given!r}, but the key was prepared for {_shown(own[name])!r}; leave it out, or prepare "
                "another key."
            )
    return key.key, key.key_mask, {**options, **own}, key.used()


def _agrees(name: str, given: Any, own: Any, dims: int) -> bool:
    if name == "backend" and given is None:
        return True
    if name == "patch_size":
        given = per_dimension(name, given, dims, 1)
    elif name == "similarity":
        given = resolve_similarity(given)
    return bool(given == own)


def _shown(value: Any) -> Any:
    return value.name if isinstance(value, Similarity) else value


def _arrays(value: Any, seen: set[int]) -> Iterator[np.ndarray[Any, Any] | Tensor]:
    """Yield the arrays and tensors in a structure of objects, of each piece of memory the largest."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray) and isinstance(value.base, (np.ndarray, Tensor)):
        yield from _arrays(value.base, seen)
    elif isinstance(value, (np.ndarray, Tensor)):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _arrays(part, seen)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _arrays(part, seen)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from _arrays(vars(value), seen)
