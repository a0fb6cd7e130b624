"""Deprecated names: old places of public names that have moved."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

__all__ = ["moved_names", "renamed_argument", "warn_renamed"]

P = ParamSpec("P")
R = TypeVar("R")


def moved_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a module whose public names have moved.

    A moved name is imported when it is asked for, with a `DeprecationWarning` that points at the code that asked.

    Args:
        module: the module that the names have left, its `__name__`.
        names: old name to new place, "module:name"; "module" alone for what is a module now.

    Returns:
        The function to assign to `__getattr__` at the module's top level.

    Example:
        >>> __getattr__ = moved_names("patchattn.example", {"resolve": "patchattn.similarity:resolve_similarity"})
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     resolve = __getattr__("resolve")
        >>> print(caught[0].message)
        patchattn.example.resolve has moved to patchattn.similarity.resolve_similarity; the old name is removed in 1.0.
    """
    places = dict(names)

    def moved(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
        new_module, _, new_name = places[name].partition(":")
        place = f"{new_module}.{new_name}" if new_name else new_module
        warnings.warn(
            f"{module}.{name} has moved to {place}; the old name is removed in 1.0.", DeprecationWarning, stacklevel=2
        )
        found = import_module(new_module)
        return getattr(found, new_name) if new_name else found

    return moved


def warn_renamed(old: str, new: str) -> None:
    """Warn that a name is deprecated, in the name of the code that used it."""
    warnings.warn(f"{old} is now {new}; the old name is removed in 1.0.", DeprecationWarning, stacklevel=3)


def renamed_argument(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a decorator that accepts the keyword `old` in place of `new`, with a `DeprecationWarning`.

    Example:
        >>> @renamed_argument("picture", "image")
        ... def invert(image: int) -> int:
        ...     return 255 - image
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     invert(picture=5)
        250
        >>> print(caught[0].message)
        invert(picture=...) is now invert(image=...); the old name is removed in 1.0.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = getattr(function, "__name__", "")

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs and new not in kwargs:
                warn_renamed(f"{name}({old}=...)", f"{name}({new}=...)")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate
