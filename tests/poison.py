"""Memory that nobody has written yet, made visible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

__all__ = ["poisoned"]


@contextmanager
def poisoned(warn_only: bool = False) -> Iterator[None]:
    """Fill what `torch.empty` and `numpy.empty` return with NaN (whole numbers: the largest).

    PyTorch does so where its algorithms are to be deterministic; `warn_only`: it does not refuse those that are not.
    """
    empty = np.empty

    def filled(shape: Any, dtype: Any = float, *arguments: Any, **settings: Any) -> Any:
        array = empty(shape, dtype, *arguments, **settings)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        elif array.dtype.kind in "iu":
            array.fill(np.iinfo(array.dtype).max)
        return array

    deterministic = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    try:
        torch.utils.deterministic.fill_uninitialized_memory = True
        torch.use_deterministic_algorithms(True, warn_only=warn_only)
        with patch.object(np, "empty", filled):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fill
