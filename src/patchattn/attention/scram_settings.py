"""Settings of `scram_attention`: types, defaults and checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from patchattn.attention.layer import learnable
from patchattn.attention.patch import FieldCall
from patchattn.attention.scoring import Bias
from patchattn.checks import (
    check_choice,
    check_count,
    check_share,
    per_dimension,
    positive_per_dimension,
)
from patchattn.ops.methods import check_method
from patchattn.search_methods import SearchMethod
from patchattn.settings import CommonOptions, CommonSettings, HeadlessOptions, SimilarityName
from patchattn.similarity import Similarity

__all__ = [
    "CheckedSettings",
    "Normalization",
    "ScramLayerOptions",
    "ScramOptions",
    "ScramSettings",
    "Weighting",
    "check_search",
    "check_settings",
    "is_softmax",
]

Weighting = Callable[[Tensor], Tensor]
Normalization = Literal["sum", "count", "none"] | Callable[[Tensor], Tensor]

MIN_SEPARATION = 5


@learnable("temperature", "bias")
@dataclass(kw_only=True, eq=False, repr=False)
class ScramSettings(CommonSettings):
    """Defaults of `scram_attention`."""

    k: int = 3
    selection: Literal["max", "mode"] | None = None
    separation: int | Sequence[int] | None = None
    expand: int | Sequence[int] = 0
    patch_size: int | Sequence[int] = 1
    similarity: SimilarityName | Similarity = "scaled_dot"
    temperature: float | Tensor = 1.0
    bias: Bias | None = None
    weighting: Weighting | None = None
    normalization: Normalization = "sum"
    estimator: Literal["snis", "mh"] | None = None
    samples: int = 64
    scale: float | Sequence[float] = 2.0
    alpha: float = 0.5
    chains: int = 1
    iterations: int = 8


class ScramLayerOptions(HeadlessOptions, total=False):
    """The types of the settings of `ScramAttention`, but for `num_heads` and `bias`."""

    k: int
    selection: Literal["max", "mode"] | None
    separation: int | Sequence[int] | None
    expand: int | Sequence[int]
    patch_size: int | Sequence[int]
    similarity: SimilarityName | Similarity
    temperature: float | Tensor
    weighting: Weighting | None
    normalization: Normalization
    estimator: Literal["snis", "mh"] | None
    samples: int
    scale: float | Sequence[float]
    alpha: float
    chains: int
    iterations: int


class ScramOptions(ScramLayerOptions, CommonOptions, FieldCall, total=False):
    """The types of all that `scram_attention` takes by keyword."""

    bias: Bias | None


def is_softmax(settings: ScramSettings) -> bool:
    """Whether weights are the softmax, as they are unless a weighting or normalization is given."""
    return settings.weighting is None and settings.normalization == "sum"


@dataclass(frozen=True)
class CheckedSettings:
    """The settings that describe which keys are used, checked."""

    radius: tuple[int, ...]
    """Reach of `expand` in each dimension."""
    separation: tuple[int, ...]
    scale: tuple[float, ...]
    alpha: float
    samples: int
    chains: int
    seed: int


def check_settings(settings: ScramSettings, dims: int) -> CheckedSettings:
    """Check the settings that do not depend on the tensors."""
    _check_normalization(settings.normalization)
    radius = per_dimension("expand", settings.expand, dims, 0)
    _check_estimator(settings.estimator, radius, is_softmax(settings))
    return CheckedSettings(
        radius,
        _separation(settings.selection, settings.separation, settings.estimator, radius),
        positive_per_dimension("scale", settings.scale, dims),
        check_share("alpha", settings.alpha),
        check_count("samples", settings.samples, 1),
        check_count("chains", settings.chains, 1),
        check_count("seed", settings.seed, 0),
    )


def _check_estimator(estimator: str | None, radius: tuple[int, ...], plain: bool) -> None:
    """Refuse an estimator beside what it replaces."""
    check_choice("estimator", estimator, (None, "snis", "mh"))
    if estimator is None:
        return
    if any(radius):
        raise ValueError(
            f"expand: estimator={estimator!r} draws keys around the modes itself; leave expand at 0 (scale says how "
            f"far it draws), got {radius}."
        )
    if not plain:
        raise ValueError(
            f"weighting, normalization: estimator={estimator!r} estimates the softmax over all keys; leave both out, "
            "or the estimator."
        )


def _check_normalization(normalization: Any) -> None:
    if not callable(normalization):
        check_choice("normalization", normalization, ("sum", "count", "none"))


def _separation(
    selection: str | None, separation: int | Sequence[int] | None, estimator: str | None, radius: tuple[int, ...]
) -> tuple[int, ...]:
    """L for each dimension; 0 where matches need not be apart."""
    check_choice("selection", selection, (None, "max", "mode"))
    if selection == "mode" or (selection is None and estimator is not None):
        if separation is None:
            return tuple(max(2 * b + 1, MIN_SEPARATION) for b in radius)
        return per_dimension("separation", separation, len(radius), 0)
    if separation is not None:
        raise ValueError(f"separation: got {separation!r}, which only selection='mode' keeps; got {selection!r}.")
    return (0,) * len(radius)


def check_search(method: str | SearchMethod, iterations: int, causal: bool) -> tuple[str, int]:
    """Refuse a search that does not fit; return the method's name, and `iterations` as a Python number."""
    iterations = check_count("iterations", iterations, 0)
    name, _ = check_method(method, None)
    if name == "guided" and causal:
        raise ValueError(
            "method: 'guided' makes its tree of all keys, so that later ones would decide which earlier ones it finds; "
            "with is_causal use 'patchmatch', 'repeated', 'exact' or 'auto'."
        )
    return name, iterations
