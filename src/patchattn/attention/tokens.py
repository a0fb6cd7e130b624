"""Attention of tokens to keys given by index."""

from __future__ import annotations

from typing import Literal, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchattn.attention.precision import promote
from patchattn.backends import KernelBackend
from patchattn.checks import FLOATS, MAX_POSITIONS, check_positive
from patchattn.matching.define import resolve_backend
from patchattn.matching.indices import check_positions
from patchattn.ops.attend import attend
from patchattn.ops.autocast import without_autocast
from patchattn.ops.similarity_at import similarity_at
from patchattn.problem import PatchGeometry
from patchattn.settings import Backend
from patchattn.similarity import resolve_similarity

__all__ = ["attend_at"]

LAYOUT = {
    "query": "(batch, heads, n, d)",
    "key": "(batch, kv_heads, m, d)",
    "value": "(batch, kv_heads, m, dv)",
}


@overload
def attend_at(
    query: Tensor, key: Tensor, value: Tensor, index: Tensor, *, bias: Tensor | None = None,
    scale: float | None = None, return_lse: Literal[False] = False, backend: Backend | KernelBackend | None = None,
) -> Tensor: ...  # fmt: skip
@overload
def attend_at(
    query: Tensor, key: Tensor, value: Tensor, index: Tensor, *, bias: Tensor | None = None,
    scale: float | None = None, return_lse: Literal[True], backend: Backend | KernelBackend | None = None,
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
@overload
def attend_at(
    query: Tensor, key: Tensor, value: Tensor, index: Tensor, *, bias: Tensor | None = None,
    scale: float | None = None, return_lse: bool, backend: Backend | KernelBackend | None = None,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip


def attend_at(
    query: Float[Tensor, "batch heads n d"],
    key: Float[Tensor, "batch kv_heads m d"],
    value: Float[Tensor, "batch kv_heads m dv"],
    index: Int[Tensor, "index_batch index_heads n k"],
    *,
    bias: Float[Tensor, "#batch #heads #n #k"] | None = None,
    scale: float | None = None,
    return_lse: bool = False,
    backend: Backend | KernelBackend | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Attend from every token to the k keys that an index names, wherever the index comes from.

    $$O_i = \sum_{m=1}^{k} \frac{\exp(s_{im})}{\sum_{l} \exp(s_{il})}\, V_{j_{im}}, \qquad
    s_{im} = c\, Q_i \cdot K_{j_{im}} + b_{im}$$

    with j the `index`, c the `scale` and b the `bias`: `scaled_dot_product_attention` in which a query sees its k keys
    alone. The sums run over places of the index, not over keys: an index that stands twice counts twice, as if there
    were two such keys. What is -1 does not count.

    Keys and values are read where they lie, in the forward and in the backward pass: memory is linear, O(n k) numbers
    beside the arguments and their gradients, and never n k d. Gradients flow to query, key, value and bias, are the
    same from run to run, and can be differentiated again.

    Args:
        query: `(batch, heads, n, d)`; float16, bfloat16, float32 or float64. Sums are taken in float32 at least. Under
            autocast, arguments of different precision are brought to the highest among them.
        key: `(batch, kv_heads, m, d)`. `heads` is a multiple of `kv_heads`; query heads g h to g h + g - 1 share key
            head h, with g = heads / kv_heads, as with `enable_gqa` of `scaled_dot_product_attention`.
        value: `(batch, kv_heads, m, dv)`.
        index: int32 or int64, `(batch or 1, heads or kv_heads or 1, n, k)`: positions in `key`, from 0 to m - 1, or -1
            for none, in any order and any place. With `kv_heads` or 1 heads, query heads share it. `match(...)` gives
            such indices as `field.token_index()`.
        bias: added to the scaled products, float of any precision, of a shape that can be broadcast to `(batch, heads,
            n, k)`; -inf excludes what the index names. None: 0.
        scale: c, above 0; None: 1 / sqrt(d).
        return_lse: also return the logarithms of the sums of exponentials, with which results for several sets of keys
            can be put together.
        backend: see `match`.

    Returns:
        `(batch, heads, n, dv)` in the dtype of value; 0 for a query without any valid index. With `return_lse=True` the
        pair of it and `(batch, heads, n)`, float32 (float64 for float64 values): log sum exp s; -inf for a query
        without any valid index. It can be differentiated too.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed. Of an index that
            is out of range, the largest (or smallest) is named; on a GPU, and in a compiled graph, nothing is read,
            which would wait for the device: the check is enqueued, and fails as an assertion there.
        RuntimeError: the backend does not load.

    Example:
        >>> import torch
        >>> from patchattn import attend_at
        >>> query, key, value = torch.rand(1, 8, 100, 16), torch.rand(1, 2, 300, 16), torch.rand(1, 2, 300, 24)
        >>> index = torch.randint(-1, 300, (1, 2, 100, 12))
        >>> attend_at(query, key, value, index).shape
        torch.Size([1, 8, 100, 24])
        >>> output, lse = attend_at(query, key, value, index, bias=torch.zeros(8, 1, 12), return_lse=True)
        >>> lse.shape
        torch.Size([1, 8, 100])
    """
    query, key, value = promote(query, key, value)
    _check_tokens(query, key, value)
    _check_index(index, query, key)
    _check_bias(bias, query, index)
    factor = query.shape[3] ** -0.5 if scale is None else check_positive("scale", scale)
    chosen = resolve_backend(backend, query)

    keys = key.shape[2]
    if index.shape[3] == 0:  # one place that is empty, which the kernels know
        index = index.new_full((*index.shape[:3], 1), -1)
        bias = None
    if keys == 0:  # a key that no index names
        key, value = (torch.nn.functional.pad(x, (0, 0, 0, 1)) for x in (key, value))

    # Query heads that share a key head are more queries of it, and heads are items of a batch: nothing is copied.
    batch, heads, n, _ = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    rows = (batch * kv_heads, group * n)
    q, kk, v = (_as_sequences(x, kv_heads) for x in (query, key, value))
    lists = _as_lists(_per_head(index, heads).expand(batch, -1, -1, -1), rows)
    with without_autocast(query.device):
        score = factor * similarity_at(q, kk, lists, GEOMETRY, chosen)
        if bias is not None:
            places = bias.expand(batch, heads, n, index.shape[3])
            score = score + _as_lists(places, rows).to(score.dtype)
        output = attend(score, lists, v, (1,), 1.0, chosen)
        output = output.transpose(1, 2).reshape(batch, heads, n, value.shape[3])
        return (output, _log_sum_exp(score).view(batch, heads, n)) if return_lse else output


GEOMETRY = PatchGeometry((1,), "zeros", 1, resolve_similarity("dot"))
"""Single positions of a sequence."""


def _as_sequences(tokens: Tensor, kv_heads: int) -> Tensor:
    """`(batch, heads, n, d)` as `(batch kv_heads, d, group n)`."""
    batch, heads, n, d = tokens.shape
    return tokens.reshape(batch * kv_heads, heads // kv_heads * n, d).transpose(1, 2)


def _per_head(index: Tensor, heads: int) -> Tensor:
    """An index for each query head: those of a group share one."""
    shared = heads // index.shape[1]
    return index if shared == 1 else index.unsqueeze(2).expand(-1, -1, shared, -1, -1).flatten(1, 2)


def _as_lists(places: Tensor, rows: tuple[int, int]) -> Tensor:
    """`(batch, heads, n, k)` as a field, `(batch kv_heads, 1, k, group n)`."""
    lists = places.reshape(*rows, places.shape[3]).transpose(1, 2).unsqueeze(1)
    return lists if lists.is_floating_point() else lists.int()


def _log_sum_exp(score: Tensor) -> Tensor:
    """Over the places of each query; -inf, with gradients of 0, where there is none."""
    score = torch.where(score.isnan(), -torch.inf, score)
    exists = (score > -torch.inf).any(2, keepdim=True)
    return torch.where(exists, score, 0).logsumexp(2).where(exists.squeeze(2), -torch.inf)


def _check_tokens(query: Tensor, key: Tensor, value: Tensor) -> None:
    for name, tokens in (("query", query), ("key", key), ("value", value)):
        if not isinstance(tokens, Tensor):
            raise ValueError(f"{name}: expected a tensor {LAYOUT[name]}, got {type(tokens).__name__}.")
        if tokens.dim() != 4:
            raise ValueError(f"{name}: expected {LAYOUT[name]}, got shape {tuple(tokens.shape)}.")
        if tokens.dtype not in FLOATS:
            raise ValueError(
                f"{name}: expected float16, bfloat16, float32 or float64, got {tokens.dtype}; convert it, for instance "
                f"with {name}.float()."
            )
        if 0 in (tokens.shape[1], tokens.shape[3]):
            raise ValueError(
                f"{name}: expected at least one head and one channel, {LAYOUT[name]}, got shape {tuple(tokens.shape)}."
            )
        if tokens.shape[2] > MAX_POSITIONS:
            raise ValueError(f"{name}: expected fewer than 2^31 tokens, got {tokens.shape[2]}.")
        for what, own, expected in (
            ("dtype", tokens.dtype, query.dtype),
            ("device", tokens.device, query.device),
            ("batch size", tokens.shape[0], query.shape[0]),
        ):
            if own != expected:
                raise ValueError(f"{name}: expected {what} {expected} as query has, got {own}.")
    heads, kv_heads = query.shape[1], key.shape[1]
    if heads % kv_heads:
        raise ValueError(f"key: expected a number of heads that divides query's {heads}, got {kv_heads}.")
    if key.shape[3] != query.shape[3]:
        raise ValueError(f"key: expected d = {query.shape[3]} channels as query has, got {key.shape[3]}.")
    if value.shape[1:3] != key.shape[1:3]:
        raise ValueError(
            f"value: expected {kv_heads} heads and {key.shape[2]} tokens as key has, got {value.shape[1]} and "
            f"{value.shape[2]}."
        )


def _check_index(index: Tensor, query: Tensor, key: Tensor) -> None:
    (batch, heads, n, _), kv_heads = query.shape, key.shape[1]
    if not isinstance(index, Tensor) or index.dtype not in (torch.int32, torch.int64):
        came = index.dtype if isinstance(index, Tensor) else type(index).__name__
        raise ValueError(f"index: expected a tensor of int32 or int64, got {came}.")
    shape = tuple(index.shape)
    if len(shape) != 4 or shape[0] not in (1, batch) or shape[1] not in (1, kv_heads, heads) or shape[2] != n:
        numbers = dict.fromkeys((heads, kv_heads, 1))
        raise ValueError(
            f"index: expected shape ({batch} or 1, {' or '.join(map(str, numbers))}, {n}, k), which is (batch or 1, "
            f"heads or kv_heads or 1, n, k), got {shape}."
        )
    if index.device != query.device:
        raise ValueError(f"index: expected device {query.device} as query has, got {index.device}.")
    check_positions("index: it", index, key.shape[2])


def _check_bias(bias: Tensor | None, query: Tensor, index: Tensor) -> None:
    if bias is None:
        return
    if not isinstance(bias, Tensor) or bias.dtype not in FLOATS:
        came = bias.dtype if isinstance(bias, Tensor) else type(bias).__name__
        raise ValueError(f"bias: expected a tensor of float16, bfloat16, float32 or float64, got {came}.")
    whole = (*query.shape[:3], index.shape[3])
    fits = bias.dim() <= 4 and all(
        own in (1, all_) for own, all_ in zip(bias.shape, whole[4 - bias.dim() :], strict=True)
    )
    if not fits:
        raise ValueError(
            f"bias: expected a shape that can be broadcast to (batch, heads, n, k) = {whole}, got {tuple(bias.shape)}."
        )
    if bias.device != query.device:
        raise ValueError(f"bias: expected device {query.device} as query has, got {bias.device}.")
