"""The match field: for every query position, its matches among the key positions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from patchattn.canvas import CanvasLayout
from patchattn.checks import check_count, per_dimension
from patchattn.field_file import read_field, write_field

__all__ = ["MatchField", "MatchTransform", "home_coordinates", "register_tree"]


@dataclass(frozen=True)
class MatchTransform:
    """The transforms of the matches of a field: `MatchField.transform`.

    Beside the query's patch, that of a match in the key is mirrored left to right (where `mirror`), then rotated
    counterclockwise by `angle` degrees, and `scale` times as large: the pixel at offset o of the query's patch is
    compared with the key at p + A o, with p the match's exact position (`coordinates`) and A its `matrix`.

    Where there is no match, the angle is 0, the scale 1, and nothing is mirrored.

    Example:
        >>> import torch
        >>> from patchattn import match
        >>> image = torch.rand(1, 3, 16, 16)
        >>> field = match(image, image.rot90(1, (2, 3)), patch_size=3, rotations=(0, 90), method="exact")
        >>> field.transform.angle[0, 0, 0, 8, 8]
        tensor(90.)
    """

    place: Int32[Tensor, "batch heads k *query"]
    """Flat positions on the canvas of transformed copies of the key; -1 where there is no match."""
    layout: CanvasLayout
    """The canvas: its transforms, in the order of `number`, and where each copy lies."""

    @property
    def number(self) -> Int64[Tensor, "batch heads k *query"]:
        """Number of the match's transform in `layout.transforms`; -1 where there is no match."""
        numbers = self.layout.number(self.place.device).flatten()[self.place.clamp(min=0).long()].long()
        return torch.where(self.place >= 0, numbers, -1)

    @property
    def angle(self) -> Float[Tensor, "batch heads k *query"]:
        """Degrees, counterclockwise."""
        return self._of_each([transform.angle for transform in self.layout.transforms], 0.0)

    @property
    def scale(self) -> Float[Tensor, "batch heads k *query"]:
        """Size of the match's patch in the key, 1 for that of the query's."""
        return self._of_each([transform.scale for transform in self.layout.transforms], 1.0)

    @property
    def mirror(self) -> Bool[Tensor, "batch heads k *query"]:
        """Whether the match is mirrored."""
        return self._of_each([transform.mirror for transform in self.layout.transforms], False)

    @property
    def matrix(self) -> Float[Tensor, "batch heads k 2 2 *query"]:
        """A: the offset in the key, (row, column), of one in the query."""
        entries = [
            [self._of_each([t.matrix[row][column] for t in self.layout.transforms], float(row == column))
             for column in (0, 1)]
            for row in (0, 1)
        ]  # fmt: skip
        return torch.stack([torch.stack(row, 3) for row in entries], 3)

    def coordinates(self) -> Float[Tensor, "batch heads k 2 *query"]:
        """Return exact key positions, (row, column), float64; -1 where there is no match.

        `MatchField.index` is the nearest whole position.
        """
        found = self.layout.positions(self.place).movedim(0, 3)
        return torch.where((self.place >= 0).unsqueeze(3), found, -1)

    def _of_each(self, of_transforms: list[Any], of_none: Any) -> Tensor:
        numbers = self.number
        values = torch.tensor([*of_transforms, of_none], device=numbers.device)  # -1 is the last
        return values[numbers]


@dataclass(frozen=True)
class MatchField:
    """The k matches of every query position, best first.

    `index` refers to positions of the key, counted row by row (`row * width + column` in two dimensions).

    To PyTorch a field is a tree of its two tensors (`torch.utils._pytree`): layers that are compiled, exported or
    transformed may take and return it.

    Iterating over a field gives the coordinates of the best matches of all queries, then those of the second best, and
    so on: `coordinates()` unbound along k.

    Example:
        >>> import torch
        >>> from patchattn import match
        >>> image = torch.rand(1, 3, 16, 16)
        >>> best, second = match(image, image, k=2, patch_size=3)
        >>> best.shape  # (batch, heads, dims, *query)
        torch.Size([1, 1, 2, 16, 16])
    """

    index: Int32[Tensor, "batch heads k *query"]
    """Flat key positions; -1 where there is no match."""
    similarity: Float[Tensor, "batch heads k *query"]
    """Similarities of the patches there, float32 (float64 for float64 features); -inf where there is no match."""
    key_shape: tuple[int, ...]
    """Spatial size of the key."""
    transform: MatchTransform | None = None
    """Rotation, scale and mirroring of each match; None where all are translations."""

    @property
    def k(self) -> int:
        """Number of matches of a query."""
        return self.index.shape[2]

    @property
    def query_shape(self) -> tuple[int, ...]:
        """Spatial size of the query."""
        return tuple(self.index.shape[3:])

    @property
    def key_count(self) -> int:
        """Number of key positions."""
        return prod(self.key_shape)

    def __iter__(self) -> Iterator[Int64[Tensor, "batch heads dims *query"]]:
        """Coordinates of the matches, `(B, heads, D, *query)` for each of the k, best first."""
        return iter(self.coordinates().unbind(2))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the field to a file that `load` reads: arrays of NumPy (.npz). The file appears whole or not at all.

        It holds `index`, `similarity`, `key_shape` and the name of the similarities' `dtype`, and what `transform` is
        made of if there is one, from whichever device.

        Raises:
            OSError: the file cannot be written; what was there stays as it was.
        """
        write_field(path, self.index, self.similarity, self.key_shape, _arrays_of(self.transform))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MatchField:
        """Read a field that `save` or `patchattn match` wrote, bit for bit, onto the CPU. No code in a file is run.

        Raises:
            ValueError: the file is damaged, or no field.
            OSError: it cannot be opened.

        Example:
            >>> import tempfile, torch
            >>> from patchattn import MatchField, match
            >>> image = torch.rand(1, 3, 16, 16)
            >>> field = match(image, image, patch_size=3)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     field.save(f"{folder}/field.npz")
            ...     torch.equal(MatchField.load(f"{folder}/field.npz").index, field.index)
            True
        """
        index, similarity, key_shape, arrays = read_field(path)
        return cls(index, similarity, key_shape, _transform_from(arrays, key_shape))

    def to(self, *arguments: Any, **settings: Any) -> MatchField:
        """Move the field to a device, or its similarities to a precision; arguments of `torch.nn.Module.to`."""
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*arguments, **settings)
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"dtype: expected that of similarities, a floating-point one, got {dtype}.")
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        return replace(moved, similarity=moved.similarity.to(dtype)) if dtype is not None else moved

    def cpu(self) -> MatchField:
        """Move the field to the CPU."""
        return self._each(Tensor.cpu)

    def cuda(self, *arguments: Any, **settings: Any) -> MatchField:
        """Move the field to a GPU; arguments as those of `torch.Tensor.cuda`."""
        return self._each(lambda tensor: tensor.cuda(*arguments, **settings))

    def detach(self) -> MatchField:
        """Return the field without the similarities' autograd history."""
        return self._each(Tensor.detach)

    def pin_memory(self) -> MatchField:
        """Copy the field into pinned memory, from which copies to a GPU are asynchronous; data loaders call it."""
        return self._each(Tensor.pin_memory)

    def is_pinned(self) -> bool:
        """Return whether all tensors are in pinned memory."""
        pinned = self.index.is_pinned() and self.similarity.is_pinned()
        return pinned and (self.transform is None or self.transform.place.is_pinned())

    def _each(self, function: Callable[[Tensor], Tensor]) -> MatchField:
        transform = self.transform
        if transform is not None:
            transform = replace(transform, place=function(transform.place))
        return replace(self, index=function(self.index), similarity=function(self.similarity), transform=transform)

    def coordinates(self) -> Int64[Tensor, "batch heads k dims *query"]:
        """Return key positions as coordinates, (row, column) in two dimensions; -1 where there is no match."""
        position = self.index.long()
        parts = []
        for size in reversed(self.key_shape):
            parts.append(torch.remainder(position, size))
            position = torch.div(position, size, rounding_mode="floor")
        coordinates = torch.stack(parts[::-1], dim=3)
        return torch.where((self.index >= 0).unsqueeze(3), coordinates, -1)

    def offsets(self) -> Int64[Tensor, "batch heads k dims *query"]:
        """Return match minus query position; 0 where there is no match.

        If query and key differ in size, minus the key position that corresponds to the query position,
        floor((2 q + 1) N_key / (2 N_query)).
        """
        home = home_coordinates(self.query_shape, self.key_shape, self.index.device)
        return torch.where((self.index >= 0).unsqueeze(3), self.coordinates() - home, 0)

    def token_index(self) -> Int32[Tensor, "batch heads n k"]:
        """Return the index as that of tokens, row by row, as `attend_at` takes it: `(B, heads, n, k)`."""
        return self.index.flatten(3).transpose(2, 3).contiguous()

    @classmethod
    def from_token_index(
        cls,
        index: Int[Tensor, "batch heads n k"],
        query_shape: tuple[int, ...],
        key_shape: tuple[int, ...],
        similarity: Float[Tensor, "batch heads n k"] | None = None,
    ) -> MatchField:
        """Make a field of an index of tokens, int32 or int64, wherever it comes from; what `token_index` returns.

        Without `similarity` those of the field are NaN, unknown (-inf where there is no match); `patch_attention` and
        others that take a field compute theirs anew.

        Raises:
            ValueError: the index is of another kind, or not for so many queries.

        Example:
            >>> import torch
            >>> from patchattn import MatchField, patch_attention
            >>> image = torch.rand(1, 3, 16, 16)
            >>> index = torch.randint(256, (1, 1, 256, 5))
            >>> field = MatchField.from_token_index(index, (16, 16), (16, 16))
            >>> patch_attention(image, image, image, patch_size=3, field=field).shape
            torch.Size([1, 3, 16, 16])
        """
        n = prod(query_shape)
        whole = index.dtype in (torch.int32, torch.int64)
        if not whole or index.dim() != 4 or index.shape[2] != n:
            raise ValueError(
                f"index: expected int32 or int64 (B, heads, {n}, k) for queries of size {tuple(query_shape)}, got "
                f"{index.dtype} {tuple(index.shape)}."
            )
        # What is out of range stays so in 32 bits, and is refused where the field is used.
        lists = index.clamp(-2, 2**31 - 1).int()
        if similarity is None:
            similarity = torch.full(lists.shape, torch.nan, device=lists.device).masked_fill(lists < 0, -torch.inf)
        elif similarity.shape != lists.shape or not similarity.is_floating_point():
            raise ValueError(
                f"similarity: expected floating-point numbers of the index's shape {tuple(lists.shape)}, got "
                f"{similarity.dtype} {tuple(similarity.shape)}."
            )
        lists, found = (
            torch.unflatten(x.transpose(2, 3).contiguous(), 3, tuple(query_shape)) for x in (lists, similarity)
        )
        return cls(lists, found, tuple(key_shape))

    def without_self(self, radius: int = 0) -> MatchField:
        """Return the field without matches at the query's own position, or within `radius` of it in every dimension.

        Matches left move up, and -1 fills the places at the end. For self-attention in which no position attends to
        itself: search for one match more, `match(image, image, k=k + 1).without_self()`, or `(2 radius + 1)^D` more.
        (`min_separation` of `match` is about the distance between the matches of one query, not from the query.)

        Raises:
            ValueError: query and key differ in size; or `radius` is no integer of at least 0.

        Example:
            >>> import torch
            >>> from patchattn import match
            >>> image = torch.rand(1, 3, 16, 16)
            >>> others = match(image, image, k=4, patch_size=3).without_self()  # three, and one place at the end
            >>> bool((others.offsets()[:, :, :3] == 0).all(3).any())
            False
        """
        if self.query_shape != tuple(self.key_shape):
            raise ValueError(
                "without_self() needs a field of an image in itself, got one of queries of size "
                f"{self.query_shape} in keys of size {tuple(self.key_shape)}."
            )
        if not isinstance(radius, int) or isinstance(radius, bool) or radius < 0:
            raise ValueError(f"radius: expected an integer of at least 0, got {radius!r}.")
        excluded = (self.index < 0) | (self.offsets().abs() <= radius).all(3)
        return self._without(excluded, excluded.to(torch.uint8).sort(dim=2, stable=True).indices)

    def best(self, k: int, score: Float[Tensor, "batch heads k *query"] | None = None) -> MatchField:
        """Return the k matches of highest score for every query, best first.

        Args:
            k: matches to keep, or all if there are fewer.
            score: of the index's shape; None: the field's similarities. Where it is -inf or NaN there is no match. The
                similarities of the matches that are left stay theirs.

        Raises:
            ValueError: `k` is no integer of at least 1, or `score` has another shape.

        Example:
            >>> import torch
            >>> from patchattn import match
            >>> image = torch.rand(1, 3, 16, 16)
            >>> field = match(image, image, k=9, patch_size=3)
            >>> near = field.best(4, field.similarity - 0.1 * field.offsets().square().sum(3))
            >>> near.index.shape
            torch.Size([1, 1, 4, 16, 16])
        """
        check_count("k", k, 1)
        score = self.similarity if score is None else score
        if score.shape != self.index.shape:
            raise ValueError(f"score: expected the index's shape {tuple(self.index.shape)}, got {tuple(score.shape)}.")
        excluded = (self.index < 0) | ~(score > -torch.inf)
        ranked = score.detach().masked_fill(excluded, -torch.inf).sort(dim=2, descending=True, stable=True)
        return self._without(excluded, ranked.indices[:, :, :k])

    def _without(self, excluded: Tensor, order: Tensor) -> MatchField:
        """The matches in another order, and none where they are excluded."""
        index = self.index.masked_fill(excluded, -1).gather(2, order)
        similarity = self.similarity.masked_fill(excluded, -torch.inf).gather(2, order)
        transform = self.transform
        if transform is not None:
            transform = replace(transform, place=transform.place.masked_fill(excluded, -1).gather(2, order))
        return replace(self, index=index, similarity=similarity, transform=transform)

    @classmethod
    def around(
        cls, home: Int[Tensor, "batch heads dims *query"], radius: int | Sequence[int], key_shape: tuple[int, ...]
    ) -> MatchField:
        r"""Make a field of all key positions within a radius of positions that are given, one for every query.

        These may be an optical flow's, or the best matches of an earlier search, moved or not: iterating over a field
        gives such positions. The field has (2 radius + 1)^D matches for each query, -1 for those outside of the key,
        and unknown similarities (NaN): `patch_attention(field=...)` attends to all of them, and `best` keeps some. (A
        window about the query's own position is found by `match(max_offset=...)`, in less memory.)

        Args:
            home: integers `(B, heads, D, *query)`, (row, column) in two dimensions; they may lie outside of the key.
            radius: for all dimensions or one for each.
            key_shape: spatial size of the key.

        Raises:
            ValueError: an argument is out of range; the message names it, what came and what is allowed.

        Example:
            >>> import torch
            >>> from patchattn import MatchField, match, similarity_at
            >>> image = torch.rand(1, 3, 16, 16)
            >>> home = next(iter(match(image, image, patch_size=7)))
            >>> field = MatchField.around(home, 2, (16, 16))
            >>> field.best(4, similarity_at(image, image, field, patch_size=3)).index.shape
            torch.Size([1, 1, 4, 16, 16])
        """
        dims = len(key_shape)
        if home.dtype not in (torch.int32, torch.int64) or home.dim() != 3 + dims or home.shape[2] != dims:
            raise ValueError(
                f"home: expected int32 or int64 (B, heads, {dims}, *query) with {dims} spatial dimensions as key_shape "
                f"has, got {home.dtype} {tuple(home.shape)}."
            )
        reach = per_dimension("radius", radius, dims, 0)
        index = torch.zeros((), dtype=torch.int64, device=home.device)
        inside = torch.ones((), dtype=torch.bool, device=home.device)
        for d, (coordinate, r, size) in enumerate(zip(home.long().unbind(2), reach, key_shape, strict=True)):
            # (B, heads, *(2 r + 1), *query): each dimension of the window varies along its own.
            along = [1] * dims
            along[d] = 2 * r + 1
            steps = torch.arange(-r, r + 1, device=home.device).view(*along, *[1] * dims)
            at = coordinate.view(*coordinate.shape[:2], *[1] * dims, *coordinate.shape[2:]) + steps
            inside = inside & (at >= 0) & (at < size)
            index = index * size + at
        index = torch.where(inside, index, -1).int().flatten(2, 1 + dims)
        unknown = torch.full(index.shape, torch.nan, device=home.device)
        return cls(index, unknown.masked_fill(index < 0, -torch.inf), tuple(key_shape))

    @classmethod
    def stack(cls, fields: Sequence[MatchField]) -> MatchField:
        """Join the fields of one query in several keys of one size, such as frames, to one field in a stack of them.

        The stack is a first spatial dimension more: `torch.stack(keys, 2)` is the key, and the value likewise;
        `query.unsqueeze(2)` the query, and `(1, *patch_size)` the size of patches. `patch_attention(field=...)` then
        takes one softmax over the matches in all keys.

        Raises:
            ValueError: there is no field, or they differ in the sizes of query or key; or they have three spatial
                dimensions already.

        Example:
            >>> import torch
            >>> from patchattn import MatchField, match, patch_attention
            >>> query, frames = torch.rand(1, 3, 16, 16), torch.rand(4, 1, 3, 16, 16)
            >>> field = MatchField.stack([match(query, frame, k=2, patch_size=3) for frame in frames])
            >>> key = torch.stack(tuple(frames), 2)
            >>> patch_attention(query.unsqueeze(2), key, key, field=field, patch_size=(1, 3, 3)).shape
            torch.Size([1, 3, 1, 16, 16])
        """
        kinds = {(*field.index.shape[:2], field.query_shape, tuple(field.key_shape)) for field in fields}
        if len(kinds) != 1 or len(fields[0].key_shape) > 2:
            shapes = ", ".join(f"{tuple(field.index.shape)} in {tuple(field.key_shape)}" for field in fields)
            raise ValueError(
                "fields: expected at least one field, all of one query in keys of one size, with one or two spatial "
                f"dimensions, got {shapes or 'none'}."
            )
        if any(field.transform is not None for field in fields):
            raise ValueError("fields: got matches that are rotated, scaled or mirrored; expected translations.")
        key_shape = (len(fields), *fields[0].key_shape)
        if prod(key_shape) > 2**31 - 1:
            raise ValueError(f"fields: expected fewer than 2^31 key positions in all, got {prod(key_shape)}.")
        first = [number * field.key_count for number, field in enumerate(fields)]
        index = [
            torch.where(field.index >= 0, field.index + start, -1) for field, start in zip(fields, first, strict=True)
        ]
        similarity = torch.cat([field.similarity for field in fields], 2)
        return cls(torch.cat(index, 2).unsqueeze(3), similarity.unsqueeze(3), key_shape)


def home_coordinates(
    query_shape: tuple[int, ...], key_shape: tuple[int, ...], device: torch.device
) -> Int[Tensor, "dims *query"]:
    """Return the key coordinates that correspond to every query position."""
    axes = [
        torch.div((2 * torch.arange(q, device=device) + 1) * k, 2 * q, rounding_mode="floor")
        for q, k in zip(query_shape, key_shape, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def register_tree(cls: type[Any]) -> None:
    """Make a data class a tree of its tensors to PyTorch.

    What else it holds belongs to the tree's form, but for sizes that a graph leaves open: these are found anew, like
    tensors, whenever it is run.
    """
    names = [field.name for field in fields(cls)]

    def flatten(whole: Any) -> tuple[list[Any], Any]:
        values = {name: getattr(whole, name) for name in names}
        leaves = {name: value for name, value in values.items() if _varies(value)}
        form = tuple((name, value) for name, value in values.items() if name not in leaves)
        return list(leaves.values()), (tuple(leaves), form)

    def flatten_with_keys(whole: Any) -> tuple[list[Any], Any]:
        leaves, form = flatten(whole)
        return [(pytree.GetAttrKey(name), leaf) for name, leaf in zip(form[0], leaves, strict=True)], form

    def unflatten(leaves: Any, form: Any) -> Any:
        return cls(**dict(zip(form[0], leaves, strict=True)), **dict(form[1]))

    pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        to_dumpable_context=lambda form: (form[0], tuple((name, _dumped(value)) for name, value in form[1])),
        from_dumpable_context=lambda form: (tuple(form[0]), tuple((name, _loaded(value)) for name, value in form[1])),
        flatten_with_keys_fn=flatten_with_keys,
    )


def _varies(value: Any) -> bool:
    return isinstance(value, (Tensor, MatchTransform)) or (
        isinstance(value, tuple) and any(isinstance(n, (Tensor, torch.SymInt)) for n in value)
    )


def _dumped(value: Any) -> Any:
    """JSON knows no layouts."""
    return {"layout": value.numbers()} if isinstance(value, CanvasLayout) else value


def _loaded(value: Any) -> Any:
    """JSON knows lists only."""
    if isinstance(value, dict):
        return CanvasLayout.from_numbers(*value["layout"])
    return tuple(value) if isinstance(value, list) else value


def _arrays_of(transform: MatchTransform | None) -> dict[str, NDArray[Any]]:
    """The arrays of transforms in a file."""
    if transform is None:
        return {}
    _, transforms, margin = transform.layout.numbers()
    place = transform.place.detach().cpu().numpy()
    return {"place": place, "transforms": np.array(transforms), "margin": np.array(margin, np.int64)}


def _transform_from(arrays: dict[str, NDArray[Any]], key_shape: tuple[int, ...]) -> MatchTransform | None:
    if not arrays:
        return None
    layout = CanvasLayout.from_numbers(key_shape, arrays["transforms"].tolist(), arrays["margin"].tolist())
    return MatchTransform(torch.from_numpy(arrays["place"].copy()), layout)


register_tree(MatchTransform)
register_tree(MatchField)
