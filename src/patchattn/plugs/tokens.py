"""Self-attention of tokens to their k best matches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isqrt, prod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from patchattn.attention.tokens import attend_at
from patchattn.backends import KernelBackend
from patchattn.checks import check_count
from patchattn.matching.match import match
from patchattn.names import Backend, Method
from patchattn.search_methods import SearchMethod

__all__ = ["TokenAttention", "mass_of_best"]


@dataclass(kw_only=True)
class TokenAttention:
    """Self-attention of tokens `(batch, heads, n, d)` to their k best matches, in memory linear in n.

    Called as `scaled_dot_product_attention` is: every token attends to the k keys of largest product, and with k = n it
    gives what that gives. For trained networks: what their layers learned stays as it is. Where the softmax is broad,
    the best k hold little of its mass, and the network's output changes: `mass_of_best` predicts that.

    Example:
        >>> import torch
        >>> from patchattn.plugs import TokenAttention
        >>> query, key, value = (torch.randn(1, 4, 1024, 16) for _ in range(3))
        >>> TokenAttention(k=32)(query, key, value).shape
        torch.Size([1, 4, 1024, 16])
    """

    k: int = 64
    """Matches for each token, of each head."""
    min_tokens: int = 1024
    """Calls with fewer tokens are left as they are: dense attention is sooner done there."""
    size: Sequence[int] | None = None
    """Rows and columns of the tokens, which guide the search: neighbors have matches beside each other. None: a square,
    if the number of tokens is one, else a sequence. The search depends on it, not the formula."""
    prefix: int = 0
    """Number of tokens before those of the image (class, registers, text): all attend to them, and they to all."""
    method: Method | SearchMethod = "auto"
    """See `match`, as for the three that follow."""
    iterations: int | None = None
    seed: int = 0
    backend: Backend | KernelBackend | None = None
    replaced: int = field(default=0, init=False)
    """Number of calls that were answered by matches."""
    left: Counter[str] = field(default_factory=Counter, init=False)
    """Number of those that were left as they are, by reason."""

    def __post_init__(self) -> None:
        self.k = check_count("k", self.k, 1)
        self.min_tokens = check_count("min_tokens", self.min_tokens, 1)
        self.prefix = check_count("prefix", self.prefix, 0)
        if self.size is not None:
            self.size = tuple(check_count("size", extent, 1) for extent in self.size)

    def __call__(
        self,
        query: Float[Tensor, "batch heads n d"],
        key: Float[Tensor, "batch kv_heads n d"],
        value: Float[Tensor, "batch kv_heads n dv"],
        *,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Float[Tensor, "batch heads n dv"]:
        """Attend; gradients flow to query, key and value, the matches held fixed.

        Raises:
            ValueError: `size` and `prefix` do not make up the tokens, or see `attend_at`.
        """
        first = self.prefix
        index = self._matches(query[:, :, first:], key[:, :, first:], is_causal)
        if first == 0:
            return attend_at(query, key, value, index, scale=scale, backend=self.backend)
        index = torch.where(index >= 0, index + first, -1)
        before = torch.arange(first, dtype=index.dtype, device=index.device).expand(*index.shape[:3], -1)
        index = torch.cat([before, index], 3)
        rest = attend_at(query[:, :, first:], key, value, index, scale=scale, backend=self.backend)
        ahead = functional.scaled_dot_product_attention(
            query[:, :, :first], key, value, scale=scale, enable_gqa=key.shape[1] < query.shape[1]
        )
        return torch.cat([ahead, rest], 2)

    def refuses(self, query: Tensor, key: Tensor, mask: Tensor | None, dropout: float, is_causal: bool) -> str | None:
        """The reason why a call is left as it is; None: there is none."""
        if query.dim() != 4:
            return "other dimensions than (batch, heads, tokens, channels)"
        if mask is not None:
            return "a mask"
        if dropout:
            return "dropout"
        if query.shape[2] != key.shape[2]:
            return "cross-attention"
        if is_causal and self.prefix:
            return "causal, with tokens before the image"
        if query.shape[2] - self.prefix < self.min_tokens:
            return f"fewer than {self.min_tokens} tokens"
        return None

    def _matches(self, query: Tensor, key: Tensor, is_causal: bool) -> Tensor:
        """`(batch, heads, n, k)`, -1 for none."""
        heads, n = query.shape[1], query.shape[2]
        size = self._size_of(n)
        key = key.repeat_interleave(heads // key.shape[1], 1)
        images = (
            tokens.detach().transpose(2, 3).reshape(tokens.shape[0], -1, *size).contiguous() for tokens in (query, key)
        )
        field = match(
            *images,
            k=min(self.k, n),
            patch_size=(1,) * len(size),
            similarity="dot",
            num_heads=heads,
            is_causal=is_causal,
            method=self.method,
            iterations=self.iterations,
            seed=self.seed,
            backend=self.backend,
        )
        return field.token_index()

    def _size_of(self, n: int) -> tuple[int, ...]:
        if self.size is not None:
            if prod(self.size) != n:
                raise ValueError(
                    f"size: {tuple(self.size)} makes {prod(self.size)} tokens, got {n} (prefix={self.prefix} apart); "
                    "give the rows and columns of this layer's tokens, or None."
                )
            return tuple(self.size)
        side = isqrt(n)
        return (side, side) if side**2 == n else (n,)


def mass_of_best(
    query: Float[Tensor, "batch heads n d"],
    key: Float[Tensor, "batch heads m d"],
    k: int,
    *,
    scale: float | None = None,
    samples: int = 256,
) -> Float[Tensor, " heads"]:
    r"""Share of the softmax's mass that the k keys of largest product hold, of each head; the mean over some queries.

    $$\frac{1}{|I|} \sum_{i \in I} \frac{\sum_{j \in \psi(i)} \exp(c\, Q_i \cdot K_j)}{\sum_j \exp(c\, Q_i \cdot K_j)}$$

    It predicts what a swap costs: the rest of the mass is what attention to the best k leaves out. Near 1, attention is
    sharp, and matches give what the network gave. At a half, the output is another one.

    Args:
        k: matches for each query.
        scale: c; None: 1 / sqrt(d).
        samples: number of queries that are asked, spread evenly.

    Example:
        >>> import torch
        >>> from patchattn.plugs import mass_of_best
        >>> query = key = torch.randn(1, 2, 400, 16)
        >>> bool((mass_of_best(query, key, 8, scale=2.0) > mass_of_best(query, key, 8, scale=0.1)).all())
        True
    """
    check_count("k", k, 1)
    n = query.shape[2]
    chosen = torch.linspace(0, n - 1, min(check_count("samples", samples, 1), n), device=query.device).long()
    factor = query.shape[3] ** -0.5 if scale is None else scale
    weights = (factor * (query[:, :, chosen] @ key.transpose(2, 3)).float()).softmax(3)
    return weights.topk(min(k, key.shape[2]), 3).values.sum(3).mean((0, 2))
