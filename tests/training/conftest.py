"""Two scenes of small frames, and how a run on them is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage.data
import torch
from PIL import Image


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of photographs that move, as the frames of a film do."""
    folder = tmp_path_factory.mktemp("frames")
    for name, photograph in (("astronaut", skimage.data.astronaut()), ("coffee", skimage.data.coffee())):
        (folder / name).mkdir()
        for n in range(3):
            at = 100 + 12 * n
            Image.fromarray(photograph[at : at + 160, 2 * at : 2 * at + 200]).save(folder / name / f"{n:05d}.png")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
