"""Scores of matches, of which the softmax is taken: similarities over a temperature, plus a bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchattn.attention.values import values_at
from patchattn.checks import FLOATS, check_positive
from patchattn.field import MatchField
from patchattn.matching.indices import require

__all__ = ["Bias", "Scoring", "define_scoring"]

Bias = Tensor | Callable[[MatchField], Tensor]
"""A table of relative offsets, `(heads or 1, *odd sizes)`; or a function from a field to what is added to the scores of
its matches, of a shape that can be broadcast to that of its index."""


@dataclass(frozen=True)
class Scoring:
    """The temperature and the bias by which the similarity of a match becomes its score."""

    temperature: float | Tensor
    """A number, or a tensor that can be broadcast to `(B, heads, k, *query)`."""
    bias: Bias | None
    key_size: tuple[int, ...]
    backend: str

    @property
    def number(self) -> float | None:
        """The temperature, if a score is a similarity over a number, as kernels compute it themselves; else None."""
        return None if self.bias is not None or isinstance(self.temperature, Tensor) else self.temperature

    def __call__(self, similarity: Tensor, index: Tensor) -> Tensor:
        """Return the scores of matches, both `(B, heads, k, *query)`; differentiable in all that they depend on."""
        if self.number is not None:
            return similarity / self.number
        # Infinity over a temperature would have a derivative that is NaN.
        exists = (index >= 0) & similarity.isfinite()
        known = torch.where(exists, similarity, 0)
        tau = self.temperature
        score = known / (tau.to(known.dtype) if isinstance(tau, Tensor) else tau)
        if self.bias is not None:
            score = score + self._bias_of(MatchField(index, similarity.detach(), self.key_size)).to(score.dtype)
        return torch.where(exists, score, -torch.inf)

    def best(self, field: MatchField, k: int) -> MatchField:
        """Keep the k matches of highest score, best first."""
        with torch.no_grad():
            return field.best(k, self(field.similarity, field.index))

    def _bias_of(self, field: MatchField) -> Tensor:
        if isinstance(self.bias, Tensor):
            return _at_offsets(self.bias, field, self.backend)
        assert self.bias is not None
        found = self.bias(field)
        shape = tuple(field.index.shape)
        if not isinstance(found, Tensor) or found.dtype not in FLOATS:
            came = found.dtype if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"bias: expected the function to return a tensor of float16, bfloat16, float32 or float64, got {came}."
            )
        if not _fits(found, shape):
            raise ValueError(
                f"bias: expected the function to return a shape that can be broadcast to that of field.index, {shape}, "
                f"got {tuple(found.shape)}."
            )
        if found.device != field.index.device:
            raise ValueError(
                f"bias: expected the function to return a tensor on {field.index.device} as query is, got "
                f"{found.device}."
            )
        return found


def define_scoring(
    temperature: float | Tensor,
    bias: Bias | None,
    *,
    query: Tensor,
    key_size: tuple[int, ...],
    num_heads: int,
    backend: str,
    limit: Sequence[int] | None = None,
    field: MatchField | None = None,
) -> Scoring:
    """Check temperature and bias.

    Args:
        limit: `max_offset` of the search whose matches are scored.
        field: the matches, if they are given instead: their offsets are looked at.
    """
    if isinstance(temperature, Tensor):
        temperature = _check_temperature(temperature, query, num_heads)
    else:
        temperature = check_positive("temperature", temperature)
    if isinstance(bias, Tensor):
        _check_table(bias, query, num_heads)
        _check_reach(bias, key_size, limit, field)
    elif bias is not None and not callable(bias):
        raise ValueError(
            "bias: expected a tensor (a table of relative offsets) or a function of a MatchField, got "
            f"{type(bias).__name__}."
        )
    return Scoring(temperature, bias, key_size, backend)


def _check_temperature(temperature: Tensor, query: Tensor, num_heads: int) -> Tensor:
    """Return the tensor with a dimension for k."""
    batch, size = query.shape[0], tuple(query.shape[2:])
    if temperature.dtype not in FLOATS:
        raise ValueError(
            f"temperature: expected a number, or a tensor of float16, bfloat16, float32 or float64, got "
            f"{temperature.dtype}."
        )
    if temperature.dim() < 2:  # one for all, or one for each head
        whole = temperature.reshape(1, -1, *(1 for _ in size))
    else:
        whole = temperature if temperature.dim() == 2 + len(size) else temperature.unsqueeze(0)
    if whole.dim() != 2 + len(size) or not _fits(whole, (batch, num_heads, *size)):
        raise ValueError(
            f"temperature: expected ({num_heads},), which is one for each head, or a shape that can be broadcast to "
            f"(B, heads, *query) = {(batch, num_heads, *size)}, got {tuple(temperature.shape)}."
        )
    if temperature.device != query.device:
        raise ValueError(f"temperature: expected device {query.device} as query has, got {temperature.device}.")
    require(
        temperature, lambda numbers: (numbers > 0) & numbers.isfinite(), "temperature: expected numbers above 0 alone."
    )
    return whole.unsqueeze(2)


def _check_table(table: Tensor, query: Tensor, num_heads: int) -> None:
    if table.dtype not in FLOATS:
        raise ValueError(f"bias: expected a tensor of float16, bfloat16, float32 or float64, got {table.dtype}.")
    dims = query.dim() - 2
    if table.dim() != 1 + dims or table.shape[0] not in (1, num_heads) or any(n % 2 == 0 for n in table.shape[1:]):
        sizes = ", ".join(f"2 r{d + 1} + 1" for d in range(dims))
        raise ValueError(
            f"bias: expected a table of relative offsets ({num_heads} or 1, {sizes}), or a function of a MatchField, "
            f"got shape {tuple(table.shape)}."
        )
    if table.device != query.device:
        raise ValueError(f"bias: expected device {query.device} as query has, got {table.device}.")


def _check_reach(
    table: Tensor, key_size: tuple[int, ...], limit: Sequence[int] | None, field: MatchField | None
) -> None:
    """Refuse a table that does not know all offsets which matches may have."""
    radius = tuple(n // 2 for n in table.shape[1:])
    farthest = tuple(n - 1 for n in key_size)
    if field is None and limit is not None:
        farthest = tuple(map(min, farthest, limit))
    if all(far <= r for far, r in zip(farthest, radius, strict=True)):
        return
    if field is None:
        raise ValueError(
            f"bias: a table of shape {tuple(table.shape)} knows offsets up to {radius}, but matches may be {farthest} "
            f"away; limit them by max_offset={radius}, or give a larger table, or a function of a MatchField."
        )

    def known(offsets: Tensor) -> Tensor:
        return torch.stack([offset.abs() <= r for offset, r in zip(offsets.unbind(3), radius, strict=True)])

    require(
        field.offsets(),
        known,
        f"bias: a table of shape {tuple(table.shape)} knows offsets up to {radius}, but field holds larger ones; give "
        "a larger table, or a function of a MatchField.",
    )


def _at_offsets(table: Tensor, field: MatchField, backend: str) -> Tensor:
    """The entries of a table at the offsets of a field, `(B, heads, k, *query)`; 0 where there is no match."""
    place = torch.zeros_like(field.index, dtype=torch.int64)
    for offset, size in zip(field.offsets().unbind(3), table.shape[1:], strict=True):
        place = place * size + offset + size // 2
    index = torch.where(field.index >= 0, place, -1).int()
    each = table.to(field.similarity.dtype).expand(field.index.shape[1], *table.shape[1:])
    # Read by an operator whose gradient, sums of many matches for each entry, is the same from run to run.
    return values_at(index, each.unsqueeze(0), backend).squeeze(3)


def _fits(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a tensor can be broadcast to a shape."""
    if tensor.dim() > len(shape):
        return False
    return all(n in (1, whole) for n, whole in zip(tensor.shape, shape[len(shape) - tensor.dim() :], strict=True))
