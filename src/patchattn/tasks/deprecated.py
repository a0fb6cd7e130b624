"""Old names of arguments and attributes in `tasks`, which warn and go on working until 1.0."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from patchattn.tasks.peak_memory import peak_memory

if TYPE_CHECKING:
    from patchattn.tasks.image import Image

__all__ = ["ImageResult", "renamed_argument", "warn_renamed"]

P = ParamSpec("P")
R = TypeVar("R")


def warn_renamed(old: str, new: str, *, stacklevel: int = 3) -> None:
    """Warn that a name is deprecated, in the name of the code that used it."""
    warnings.warn(f"{old} is now {new}; the old name is removed in 1.0.", DeprecationWarning, stacklevel=stacklevel)


def renamed_argument(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator that accepts the keyword `old` in place of `new`.

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


class ImageResult:
    """Base of the results of tasks, with the attributes that they had before."""

    if TYPE_CHECKING:

        @property
        def image(self) -> Image: ...

    @property
    def picture(self) -> Image:  # deprecated name
        """Old name of `image`."""
        warn_renamed(f"{type(self).__name__}.picture", f"{type(self).__name__}.image")
        return self.image

    @property
    def peak_memory(self) -> int | None:
        """Old place of `tasks.peak_memory.peak_memory()`, which is of the process and not of a result."""
        warn_renamed(f"{type(self).__name__}.peak_memory", "patchattn.tasks.peak_memory.peak_memory()")
        return peak_memory()
