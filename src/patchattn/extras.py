"""Error messages for missing packages of an extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["extra"]


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import the packages of an extra inside this, so that a missing one is named with its remedy.

    Args:
        name: of the extra, as in `pip install "patchattn[name]"`.

    Raises:
        RuntimeError: a package is not installed.

    Example:
        >>> with extra("tools"):
        ...     import a_package_that_is_not_there
        Traceback (most recent call last):
        RuntimeError: a_package_that_is_not_there is not installed; install it with: pip install "patchattn[tools]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f'{error.name} is not installed; install it with: pip install "patchattn[{name}]"'
        ) from error
