"""Options declared once, as the fields of a dataclass: command lines, checks and tables of them are made from that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from inspect import get_annotations
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from patchattn.registry import Registry

__all__ = ["Declared", "Option", "check_options", "declared_options", "values_of"]


@dataclass(frozen=True)
class Option:
    """Describes one field of a dataclass: `k: Annotated[int, Option("Matches of each pixel.", min=1)] = 3`.

    A field of the type `Literal["a", "b"]` takes one of these words; of `Literal["a", "b"] | str`, with `registry`,
    also what is registered there.
    """

    help: str
    min: float | None = None
    max: float | None = None
    flags: tuple[str, ...] = ()
    """Names on the command line; none: `--` and the field's name."""
    metavar: str | None = None
    """Placeholder of the value in a help text."""
    shown_default: str | None = None
    """The default in words, where it is not a constant."""
    positional: bool = False
    """On the command line the value stands alone, without a name."""
    variable: str | None = None
    """An environment variable that can hold the value."""
    registry: Registry[Any] | None = None
    """Where more choices may be registered."""


@dataclass(frozen=True)
class Declared:
    """An option of a dataclass."""

    name: str
    type: Any
    """Without its description; `Literal` where there are choices."""
    option: Option
    default: Any
    """`dataclasses.MISSING` where there is none."""

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is MISSING

    @cached_property
    def choices(self) -> tuple[Any, ...]:
        """The values that are allowed, if the type lists them."""
        listed = next((get_args(one) for one in self._alternatives if get_origin(one) is Literal), ())
        registry = self.option.registry
        return listed if registry is None else tuple(dict.fromkeys((*listed, *registry.names())))

    @property
    def is_optional(self) -> bool:
        """Whether None is allowed."""
        return NoneType in self._alternatives

    @property
    def _alternatives(self) -> tuple[Any, ...]:
        origin = get_origin(self.type)
        return (self.type,) if origin is None or origin in (Literal, list, tuple) else get_args(self.type)


def declared_options(config: type[Any]) -> list[Declared]:
    """Return the options of a dataclass in the order of their declaration, those of its bases last.

    Example:
        >>> @dataclass(frozen=True)
        ... class Sizes:
        ...     width: Annotated[int, Option("Pixels in a row.", min=1)] = 640
        >>> [(one.name, one.default, one.option.help) for one in declared_options(Sizes)]
        [('width', 640, 'Pixels in a row.')]
    """
    return list(_declared(config))


def _declared(config: type[Any]) -> Iterator[Declared]:
    hints = get_type_hints(config, include_extras=True)
    defaults = {field.name: field.default for field in fields(config)}
    names = dict.fromkeys(name for one in config.__mro__ for name in get_annotations(one) if name in defaults)
    for name in names:
        type_, *described = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
        option = next((one for one in described if isinstance(one, Option)), None)
        if option is not None:
            yield Declared(name, type_, option, defaults[name])


def check_options(config: Any) -> None:
    """Refuse values that the declaration of an instance's dataclass does not allow.

    Raises:
        ValueError: a value is out of range, or none of its choices.
    """
    for one in declared_options(type(config)):
        value = getattr(config, one.name)
        if value is None and one.is_optional:
            continue
        if one.choices and value not in one.choices:
            allowed = ", ".join(map(repr, one.choices))
            raise ValueError(f"{one.name}: got {value!r}; allowed are {allowed}.")
        low, high = one.option.min, one.option.max
        if (low is not None and value < low) or (high is not None and value > high):
            expected = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
            raise ValueError(f"{one.name}: got {value!r}; expected {expected}.")


def values_of(config: Any, part: type[Any]) -> dict[str, Any]:
    """Return the fields that an instance has from one of its bases, or all of its own dataclass."""
    return {field.name: getattr(config, field.name) for field in fields(part)}
