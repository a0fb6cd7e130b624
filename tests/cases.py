"""What the tests (and the benchmarks) share: features, photographs, labeled cases, and the one table of tolerances."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.library import opcheck

from patchattn.ops.register import Operator
from patchattn.problem import Constraints, PatchGeometry
from patchattn.similarity import pointwise_similarity, resolve_similarity

COMPILED = ("cpu", "gpu")
BACKENDS = (*COMPILED, "reference")
PADDINGS = ("reflect", "replicate", "zeros")

TOLERANCE = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 1.6e-2},
}
"""Sums of a few hundred terms around 1, taken in another order; half precision rounds the result once."""


Case = TypeVar("Case")


def geometry(patch: Any, padding: str, heads: int, similarity: Any) -> PatchGeometry:
    """How patches are compared, by the names that the tests use."""
    return PatchGeometry(tuple(patch), padding, heads, resolve_similarity(SIMILARITIES.get(similarity, similarity)))


def check_operator(operator: Operator, arguments: tuple[Any, ...]) -> None:
    """`torch.library.opcheck` of an operator, called as it is here."""
    opcheck(operator.overload, tuple(operator.schema.flatten(arguments)))


def fewer(backend: str, many: Case, few: Case) -> Case:
    """`few` for gpu, whose kernels run in Triton's interpreter: a loop takes as long there as it has operations."""
    return few if backend == "gpu" else many


def gradcheck(backend: str, function: Any, inputs: Any, **settings: Any) -> bool:
    """`torch.autograd.gradcheck`; for gpu along one random direction, not along every number of the inputs."""
    return torch.autograd.gradcheck(function, inputs, fast_mode=backend == "gpu", **settings)


def half_square(q: Any, k: Any) -> Any:
    return -0.5 * (q - k) ** 2


def half_square_derivative(q: Any, k: Any) -> Any:
    return k - q, q - k


POINTWISE = pointwise_similarity(half_square, half_square_derivative)
SIMILARITIES = {name: name for name in ("l2", "l1", "dot", "scaled_dot", "cosine")} | {"pointwise": POINTWISE}


@dataclass(frozen=True)
class Pair:
    """Sizes of a query and a key, and of the patches to compare."""

    query: tuple[int, ...]
    key: tuple[int, ...]
    patch: tuple[int, ...]
    heads: int = 1
    batch: int = 2
    shared: bool = False
    """The key has batch size 1."""

    @property
    def dims(self) -> int:
        return len(self.query)

    def on(self, backend: str) -> Pair:
        """Cut down for gpu, where a search that goes from query to query would take a minute in the interpreter."""
        if backend != "gpu":
            return self
        most = {1: (14,), 2: (5, 7), 3: (3, 3, 4)}[self.dims]
        query, key = (tuple(map(min, size, most)) for size in (self.query, self.key))
        return replace(self, query=query, key=key)

    def features(self, make: Any, channels: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Query and key, made by `integers` or `normals`."""
        key_batch = 1 if self.shared else self.batch
        query = make(self.batch, channels, *self.query, seed=seed)
        return query, make(key_batch, channels, *self.key, seed=seed + 1)

    def geometry(self, similarity: Any = "l2", padding: str = "reflect") -> PatchGeometry:
        return PatchGeometry(self.patch, padding, self.heads, resolve_similarity(similarity))


PAIRS = {
    "1d": Pair((97,), (97,), (5,), heads=2),
    "1d_short": Pair((17,), (5,), (3,)),
    "2d": Pair((9, 13), (9, 13), (3, 5), heads=2),
    "2d_sizes": Pair((9, 13), (11, 8), (3, 3), heads=4),
    "2d_shared": Pair((7, 11), (9, 9), (3, 3), shared=True),
    "2d_pixels": Pair((9, 13), (9, 13), (1, 1)),
    "3d": Pair((4, 5, 6), (4, 5, 6), (3, 3, 1), heads=2),
    "3d_sizes": Pair((3, 5, 4), (4, 4, 7), (1, 3, 3), shared=True),
}
SAME_SIZE = [name for name, pair in PAIRS.items() if pair.query == pair.key]


def constraints_of(name: str, pair: Pair) -> Constraints:
    """Constraints by label, for the sizes of a pair."""
    dims = pair.dims
    query_mask, key_mask = mask(pair.batch, *pair.query, share=0.8), mask(1, *pair.key, share=0.5, seed=1)
    own_mask = mask(pair.batch, *pair.key, share=0.6, seed=2)
    return {
        "free": Constraints(),
        "masks": Constraints(query_mask=query_mask, key_mask=key_mask),
        "few_keys": Constraints(key_mask=mask(pair.batch, *pair.key, share=0.05, seed=3)),
        "separation": Constraints(min_separation=(3,) * dims),
        "offset": Constraints(max_offset=(2,) * dims),
        "all_but_causal": Constraints(query_mask, own_mask, False, (2,) * dims, (4,) * dims),
        "causal": Constraints(is_causal=True),
        "strict": Constraints(is_causal=True, strict=True),
        "all": Constraints(query_mask, own_mask, True, (2,) * dims, (3,) * dims),
    }[name]


CONSTRAINTS = ("free", "masks", "few_keys", "separation", "offset", "all_but_causal")
CAUSAL = ("causal", "strict", "all")
"""Only where query and key have one size."""


def integers(*shape: int, seed: int = 0, high: int = 7) -> Tensor:
    """Whole numbers, whose sums and products float32 holds exactly."""
    return torch.randint(0, high + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def normals(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def mask(*shape: int, share: float, seed: int = 0) -> Tensor:
    """True for about this share of the positions."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def random_index(pair: Pair, k: int, seed: int = 0) -> Tensor:
    """Key positions, some of them -1."""
    shape, keys = (pair.batch, pair.heads, k, *pair.query), int(np.prod(pair.key))
    return torch.randint(-1, keys, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


def strided(tensor: Tensor) -> Tensor:
    """The same numbers with another memory layout: every other element of a buffer, dimensions in reverse order."""
    buffer = torch.zeros((*tensor.shape[::-1], 2), dtype=tensor.dtype)
    view = buffer[..., 1].permute(*range(tensor.dim() - 1, -1, -1))
    view.copy_(tensor)
    assert not view.is_contiguous()
    return view


def photograph(name: str, rows: slice, columns: slice) -> Tensor:
    """A cropped photograph from scikit-image's wheel, `(1, C, H, W)` float32 in [0, 1]."""
    import skimage.data  # a machine that only compares kernels need not have it

    array = getattr(skimage.data, name)()[rows, columns]
    array = array[..., None] if array.ndim == 2 else array
    return torch.tensor(array).permute(2, 0, 1)[None].contiguous().float() / 255
