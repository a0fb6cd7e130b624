"""Published packages that some layers are made of: imported when they are first used."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from typing import Any

__all__ = ["load_baseline_package"]


@cache
def load_baseline_package(module: str, package: str) -> Any:
    """Import a module of the extra `baselines`."""
    try:
        with warnings.catch_warnings():
            # What they call of Python and PyTorch is deprecated.
            warnings.simplefilter("ignore")
            return import_module(module)
    except ImportError as error:
        raise RuntimeError(
            f'{package}: the package does not load ({error}). Install it with: pip install "patchattn[baselines]"'
        ) from error
