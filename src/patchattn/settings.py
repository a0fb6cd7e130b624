"""The arguments that searches share: their types and defaults, declared once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any, TypedDict, TypeVar

from patchattn.backends import KernelBackend
from patchattn.names import Backend, Causality, Method, PaddingMode, SimilarityName
from patchattn.search_methods import SearchMethod
from patchattn.similarity import Similarity

__all__ = [
    "Backend",
    "Causality",
    "CommonOptions",
    "CommonSettings",
    "HeadlessOptions",
    "Method",
    "PaddingMode",
    "SearchOptions",
    "SearchSettings",
    "SimilarityName",
    "settings_from",
    "shows",
]

Settings = TypeVar("Settings")
Call = TypeVar("Call")


@dataclass(kw_only=True, eq=False, repr=False)
class CommonSettings:
    """Defaults that all functions with a search share; see `match` for what each means."""

    num_heads: int = 1
    method: Method | SearchMethod = "auto"
    seed: int = 0
    is_causal: Causality = False
    max_offset: int | Sequence[int] | None = None
    padding_mode: PaddingMode = "reflect"
    backend: Backend | KernelBackend | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class SearchSettings(CommonSettings):
    """Defaults of `match`."""

    k: int = 1
    patch_size: int | Sequence[int] = 1
    similarity: SimilarityName | Similarity = "l2"
    iterations: int | None = None
    min_separation: int | Sequence[int] = 0
    rotations: Sequence[float] | None = None
    scales: Sequence[float] | None = None
    mirror: bool = False


class HeadlessOptions(TypedDict, total=False):
    """The types of `CommonSettings` but for `num_heads`, which some callers set themselves."""

    method: Method | SearchMethod
    seed: int
    is_causal: Causality
    max_offset: int | Sequence[int] | None
    padding_mode: PaddingMode
    backend: Backend | KernelBackend | None


class CommonOptions(HeadlessOptions, total=False):
    """The types of `CommonSettings`, for type checkers."""

    num_heads: int


class SearchOptions(CommonOptions, total=False):
    """The types of `SearchSettings`."""

    k: int
    patch_size: int | Sequence[int]
    similarity: SimilarityName | Similarity
    iterations: int | None
    min_separation: int | Sequence[int]
    rotations: Sequence[float] | None
    scales: Sequence[float] | None
    mirror: bool


def settings_from(kind: type[Settings], options: Mapping[str, Any], function: str) -> Settings:
    """Return the settings of a call, defaults for what was not given.

    Raises:
        TypeError: there is no such argument; the message names one that is spelled alike.
    """
    for name in options:
        if name not in kind.__dataclass_fields__:  # type: ignore[attr-defined]
            near = get_close_matches(name, [field.name for field in fields(kind)], 1)  # type: ignore[arg-type]
            hint = f"; is it {near[0]!r}?" if near else "."
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{hint}")
    return kind(**options)


def shows(settings: type[Any]) -> Callable[[Call], Call]:
    """Have `help()` and manuals show a function's settings, with their defaults, in the place of `**options`."""

    def decorate(function: Call) -> Call:
        own = signature(function)  # type: ignore[arg-type]
        named = [parameter for parameter in own.parameters.values() if parameter.kind is not Parameter.VAR_KEYWORD]
        declared = [
            parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in signature(settings).parameters.values()
        ]
        declared.sort(key=lambda parameter: parameter.name in CommonSettings.__dataclass_fields__)
        tensors = [parameter for parameter in named if parameter.kind is not Parameter.KEYWORD_ONLY]
        of_a_call = [parameter for parameter in named if parameter.kind is Parameter.KEYWORD_ONLY]
        function.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[*tensors, *declared, *of_a_call]
        )
        return function

    return decorate
