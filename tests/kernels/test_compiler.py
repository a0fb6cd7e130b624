"""The disk cache of compiled kernels."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.needs("cpu")


def double(values: Any) -> None:
    for n in range(values.size):
        values[n] *= 2


class Vanished:
    """A class that a later version of the package does not have."""


def test_a_cache_of_another_version_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from patchattn.kernels.cpu.compiler import kernel

    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    kernel()(double)(np.ones(2))
    (index,) = tmp_path.rglob("*.nbi")
    version = pickle.dumps(pickle.loads(index.read_bytes()))  # the first of two pickles; the second is the table
    table = pickle.dumps(("stamp", {"key": Vanished})).replace(b"Vanished", b"Departed")
    index.write_bytes(version + table)
    values = np.ones(2)
    kernel()(double)(values)
    assert values.tolist() == [2, 2]
    assert b"Departed" not in index.read_bytes()
