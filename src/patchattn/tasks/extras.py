"""What to say when the packages of an extra are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["tools_extra", "video_extra"]


@contextmanager
def tools_extra() -> Iterator[None]:
    """Import the packages of the extra `tools` inside this, so that a missing one is named with its remedy.

    Raises:
        RuntimeError: a package is not installed.

    Example:
        >>> with tools_extra():
        ...     import a_package_that_is_not_there
        Traceback (most recent call last):
        RuntimeError: a_package_that_is_not_there is not installed; install it with: pip install "patchattn[tools]"
    """
    with _extra("tools"):
        yield


@contextmanager
def video_extra() -> Iterator[None]:
    """Do the same for the extra `video`.

    Raises:
        RuntimeError: a package is not installed.
    """
    with _extra("video"):
        yield


@contextmanager
def _extra(name: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f'{error.name} is not installed; install it with: pip install "patchattn[{name}]"'
        ) from error
