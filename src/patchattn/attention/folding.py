"""Patches as positions: cut on a lattice of any stride, of even size, dilated; and put together again at matches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from patchattn.attention.tiles import recomputed
from patchattn.attention.values import check_weights
from patchattn.backends import KernelBackend
from patchattn.checks import check_features, check_heads, per_dimension
from patchattn.field import MatchField
from patchattn.matching.define import resolve_backend
from patchattn.matching.indices import check_positions
from patchattn.matching.match import refuse_transform
from patchattn.ops.autocast import without_autocast
from patchattn.ops.weighted_sum import weighted_sum
from patchattn.settings import Backend

__all__ = ["fold", "unfold"]

Sizes = tuple[int, ...]


def unfold(
    image: Float[Tensor, "batch channels *spatial"],
    patch_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
) -> Float[Tensor, "batch elements *lattice"]:
    r"""Cut an image into patches, each of which becomes the channels of one position of a lattice.

    $$P_{(c, o), l} = I_{c,\, s l + d o}, \qquad 0 \le o < p$$

    with stride s, dilation d and patch size p in each dimension: `torch.nn.functional.unfold` for one to three
    dimensions, with the lattice kept in shape. `match` with `patch_size=1` then compares these patches, at every
    second or fifth position, of even size or dilated, by any similarity, and `max_offset` counts steps of the lattice;
    `fold` puts the patches of the matches together. The patches are copied, which takes prod(p / s) times the memory
    of the image: for odd patches at every position `match` has `patch_size`, without copies.

    Args:
        image: `(B, C, *spatial)`, one to three spatial dimensions. Patches lie inside it: pad it before
            (`torch.nn.functional.pad`) for patches that stick out.
        patch_size: p, at least 1; one for all dimensions or one for each.
        stride: s, pixels from one patch to the next, likewise.
        dilation: d, pixels from one element of a patch to the next, likewise.

    Returns:
        `(B, C prod(p), *lattice)` with (n - d (p - 1) - 1) // s + 1 positions in a dimension of n pixels. As channels
        come first, heads split them as they split those of the image.

    Raises:
        ValueError: an argument is out of range, or no patch fits; the message names it, what came and what is allowed.

    Example:
        >>> import torch
        >>> from patchattn import match, unfold
        >>> image = torch.rand(1, 3, 40, 40)
        >>> patches = unfold(image, 10, stride=5)
        >>> patches.shape
        torch.Size([1, 300, 7, 7])
        >>> match(patches, patches, k=4).index.shape
        torch.Size([1, 1, 4, 7, 7])
    """
    check_features("image", image)
    size = tuple(image.shape[2:])
    patch, steps, apart = _sizes(patch_size, stride, dilation, len(size))
    _lattice("image", size, patch, steps, apart)
    for dim, (p, s, d) in enumerate(zip(patch, steps, apart, strict=True), 2):
        image = image.unfold(dim, d * (p - 1) + 1, s)[..., ::d]
    dims = len(size)
    return image.permute(0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims)).flatten(1, 1 + dims)


def fold(
    field: MatchField,
    value: Float[Tensor, "value_batch value_channels *value"],
    patch_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    key_stride: int | Sequence[int] | None = None,
    dilation: int | Sequence[int] = 1,
    weights: Float[Tensor, "#batch #heads #k *query"] | None = None,
    output_size: int | Sequence[int] | None = None,
    backend: Backend | KernelBackend | None = None,
) -> Float[Tensor, "batch value_channels *out"]:
    r"""Put the whole patches of the matches together: overlaps are added up and averaged.

    $$O_x = \frac{\sum_{(l, o):\, s l + d o = x} \sum_k w_{lk}\, V_{s' \psi_k(l) + d o}}
    {\sum_{(l, o):\, s l + d o = x} \sum_k w_{lk}}$$

    with psi_k(l) the k-th match of the patch at position l of the queries' lattice (`unfold`), s and s' the strides of
    queries and keys, d the dilation: what `torch.nn.functional.fold` of the weighted patches is, divided by that of the
    weights. Non-local denoisers aggregate like this. Softmax weights of one query sum to 1, and every patch then counts
    alike; with weights of None all matches do.

    Memory is linear in the pixels: one row of the patches' elements at a time is gathered, and gathered again for the
    gradient. Gradients flow to weights and value, are the same from run to run, and can be differentiated again.

    Args:
        field: of the lattices, from `match` of what `unfold` returned: `(B, heads, k, *lattice)`.
        value: `(B or 1, Cv, *spatial)`, float16, bfloat16, float32 or float64, whose patches (`patch_size`,
            `key_stride`, `dilation`) are as many as the field has keys. Sums are taken in float32 at least.
        patch_size: at least 1; one for all dimensions or one for each.
        stride: of the queries' patches, likewise; where they are put.
        key_stride: of the keys' patches, likewise; None: that of the queries.
        dilation: of both, likewise.
        weights: float of any precision, of a shape that can be broadcast to that of `field.index`; None: 1 for every
            match. Those of places without a match are not looked at.
        output_size: of the output, at least what the patches cover, which is the default.
        backend: see `match`.

    Returns:
        `(B, Cv, *output_size)` in the dtype of value; 0 where no patch lies and where the weights sum to 0.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.
        RuntimeError: the backend does not load.

    Source: aggregation of the N3 block (Plötz and Roth, Neural Nearest Neighbors Networks, 2018), whose patches of
    10x10 pixels lie 5 pixels apart.

    Example:
        >>> import torch
        >>> from patchattn import fold, match, unfold
        >>> image = torch.rand(1, 3, 40, 40)
        >>> patches = unfold(image, 10, stride=5)
        >>> field = match(patches, patches, k=4)
        >>> fold(field, image, 10, stride=5, weights=(field.similarity / 10).softmax(2)).shape
        torch.Size([1, 3, 40, 40])
    """
    if not isinstance(field, MatchField):
        raise ValueError(f"field: expected a MatchField, got {type(field).__name__}.")
    refuse_transform("field", field, "search on the lattice without `rotations`, `scales` and `mirror`")
    check_features("value", value)
    index, size = field.index, tuple(value.shape[2:])
    if index.dtype != torch.int32 or index.dim() != len(size) + 3:
        raise ValueError(
            f"field: expected an int32 index (B, heads, k, *lattice) with {len(size)} spatial dimensions as value has, "
            f"got {index.dtype} {tuple(index.shape)}."
        )
    if value.shape[0] not in (1, index.shape[0]):
        raise ValueError(f"value: expected batch size {index.shape[0]} as field has, or 1, got {value.shape[0]}.")
    if value.device != index.device:
        raise ValueError(f"field: expected device {value.device} as value has, got {index.device}.")
    check_heads("value", value, index.shape[1])
    patch, steps, apart = _sizes(patch_size, stride, dilation, len(size))
    key_steps = steps if key_stride is None else per_dimension("key_stride", key_stride, len(size), 1)
    keys = _lattice("value", size, patch, key_steps, apart)
    if keys != tuple(field.key_shape):
        raise ValueError(
            f"value: of size {size} it has {keys} patches of size {patch} at stride {key_steps} and dilation {apart}, "
            f"but the keys of field are {tuple(field.key_shape)}."
        )
    check_positions("field: its index", index, prod(keys))
    lattice = field.query_shape
    covered = tuple(
        s * (n - 1) + d * (p - 1) + 1 if n else 0 for n, s, d, p in zip(lattice, steps, apart, patch, strict=True)
    )
    output = covered if output_size is None else per_dimension("output_size", output_size, len(size), 0)
    if any(n < m for n, m in zip(output, covered, strict=True)):
        raise ValueError(f"output_size: expected at least the {covered} that the patches cover, got {output}.")
    chosen = resolve_backend(backend, value)
    given = torch.ones((), device=value.device).expand(index.shape) if weights is None else weights
    check_weights(given, index, value)
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    if 0 in index.shape or 0 in output:
        # The sum of nothing, so that there is a gradient, of zeros.
        return value.new_zeros((index.shape[0], value.shape[1], *output)) + value[:0].sum()
    with without_autocast(value.device):
        counted = given.expand(index.shape).to(dtype).masked_fill(index < 0, 0)
        whole = _Lattice(lattice, keys, patch, steps, key_steps, apart, output)
        total = whole.spread([counted.sum(2)] * prod(patch))
        summed = whole.sum_patches(counted, index, torch.unflatten(value.to(dtype), 1, (index.shape[1], -1)), chosen)
        known = (total != 0).unsqueeze(2)
        mean = torch.where(known, summed / torch.where(known, total.unsqueeze(2), 1), 0)
        return mean.flatten(1, 2).to(value.dtype)


class _Lattice:
    """Where patches of queries and keys lie."""

    def __init__(
        self, queries: Sizes, keys: Sizes, patch: Sizes, stride: Sizes, key_stride: Sizes, dilation: Sizes, size: Sizes
    ) -> None:
        self.queries, self.keys, self.stride, self.key_stride, self.size = queries, keys, stride, key_stride, size
        self.offsets = [
            tuple(d * n for d, n in zip(dilation, o, strict=True)) for o in product(*(range(p) for p in patch))
        ]
        self.row = patch[-1]

    def sum_patches(self, weights: Tensor, index: Tensor, value: Tensor, backend: str) -> Tensor:
        """The weighted sum of the matches' patches, spread out: `(B, heads, Cv / heads, *size)`."""

        def elements(weights: Tensor, value: Tensor, offsets: list[Sizes]) -> Tensor:
            # Elements of patches beside each other are channels of the keys' lattice, head by head.
            row = torch.stack([self._of_keys(value, offset) for offset in offsets], 3).flatten(1, 3)
            found: Tensor = weighted_sum(weights, index, row, backend)
            return torch.unflatten(found, 1, (index.shape[1], -1, len(offsets)))

        # A compiler chooses by itself what to compute again.
        call = (lambda f, *arguments: f(*arguments)) if torch.compiler.is_compiling() else recomputed
        rows = [self.offsets[at : at + self.row] for at in range(0, len(self.offsets), self.row)]
        return self.spread(part for row in rows for part in call(elements, weights, value, row).unbind(3))

    def _of_keys(self, value: Tensor, offset: Sizes) -> Tensor:
        """The element at an offset of each key's patch."""
        for dim, (at, n, step) in enumerate(zip(offset, self.keys, self.key_stride, strict=True), 3):
            value = value.narrow(dim, at, step * (n - 1) + 1)
        places: Any = (..., *(slice(None, None, step) for step in self.key_stride))
        return value[places]

    def spread(self, elements: Iterable[Tensor]) -> Tensor:
        """Add up `(..., *queries)` for each element of the patches at the pixels where it lies: `(..., *size)`.

        Pixels that are a whole number of strides apart are a phase: in each, an element's queries lie side by side.
        """
        blocks = [-(-n // s) for n, s in zip(self.size, self.stride, strict=True)]
        phases: dict[Sizes, Tensor] = {}
        like = None
        for offset, element in zip(self.offsets, elements, strict=True):
            margins: list[int] = []
            for o, s, n, m in reversed(list(zip(offset, self.stride, self.queries, blocks, strict=True))):
                margins += [o // s, m - o // s - n]
            phase = tuple(o % s for o, s in zip(offset, self.stride, strict=True))
            like = pad(element, margins)
            phases[phase] = phases[phase] + like if phase in phases else like
        assert like is not None  # a patch has an element
        nothing = torch.zeros_like(like)
        every = [phases.get(phase, nothing) for phase in product(*(range(s) for s in self.stride))]
        dims = len(blocks)
        whole = torch.unflatten(torch.stack(every, -1), -1, self.stride)
        leading = whole.dim() - 2 * dims
        order = [leading + dims * (n % 2) + n // 2 for n in range(2 * dims)]
        sizes = (m * s for m, s in zip(blocks, self.stride, strict=True))
        whole = whole.permute(*range(leading), *order).reshape(*like.shape[:leading], *sizes)
        inside: Any = (..., *(slice(n) for n in self.size))
        return whole[inside]


def _sizes(
    patch_size: int | Sequence[int], stride: int | Sequence[int], dilation: int | Sequence[int], dims: int
) -> tuple[Sizes, Sizes, Sizes]:
    patch, steps, apart = (
        per_dimension(name, given, dims, 1)
        for name, given in (("patch_size", patch_size), ("stride", stride), ("dilation", dilation))
    )
    return patch, steps, apart


def _lattice(name: str, size: Sizes, patch: Sizes, stride: Sizes, dilation: Sizes) -> Sizes:
    """The number of patches along each dimension."""
    spans = tuple(d * (p - 1) + 1 for p, d in zip(patch, dilation, strict=True))
    if any(span > n for span, n in zip(spans, size, strict=True)):
        raise ValueError(
            f"patch_size: got {patch}, with dilation {dilation}, which spans {spans} pixels and does not fit into "
            f"{name} of size {size}."
        )
    return tuple((n - span) // s + 1 for n, span, s in zip(size, spans, stride, strict=True))
