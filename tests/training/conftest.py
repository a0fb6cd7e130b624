"""Two scenes of small frames."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data
from PIL import Image


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of photographs that move, as the frames of a video do."""
    folder = tmp_path_factory.mktemp("frames")
    for name, photograph in (("astronaut", skimage.data.astronaut()), ("coffee", skimage.data.coffee())):
        (folder / name).mkdir()
        for n in range(3):
            at = 100 + 12 * n
            Image.fromarray(photograph[at : at + 160, 2 * at : 2 * at + 200]).save(folder / name / f"{n:05d}.png")
    return folder
