"""What is painted is the hole, wherever the brush has touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from PIL import ImageDraw

from patchattn.demo.jobs import _covered, _read_hole
from patchattn.tasks.images import Image, write_image


def job_of(path: Path, painted: bool) -> dict[str, Any]:
    return {"mask": str(path), "painted": painted, "megapixels": 24}


def test_the_rim_of_a_stroke_is_part_of_the_read_hole(tmp_path: Path) -> None:
    stroke = PIL.Image.new("L", (400, 300))
    ImageDraw.Draw(stroke).line([(40, 40), (360, 260)], fill=255, width=30)
    soft = stroke.resize((100, 75), PIL.Image.Resampling.BOX)  # as a browser draws it: the rim is gray
    soft.save(tmp_path / "mask.png")
    picture = Image(torch.zeros(1, 3, 75, 100))
    hole = _read_hole(job_of(tmp_path / "mask.png", painted=True), picture)
    values = torch.from_numpy(np.array(soft))
    assert hole is not None
    assert ((values > 0) & (values < 128)).any()
    assert torch.equal(hole, values > 0)


@pytest.mark.parametrize(
    "size", [(75, 100), (150, 200), (149, 201), (76, 101), (37, 50), (30, 33), (7, 11), (1000, 1333)]
)
def test_no_stroke_is_too_thin_for_an_image_of_another_size(size: tuple[int, int]) -> None:
    for column in range(0, 100, 7):
        painted = torch.zeros(1, 1, 75, 100)
        painted[..., column] = 1 / 255
        hole = _covered(painted, size)
        assert hole.shape == size
        assert hole.any(1).all()
        # Exactly the pixels that overlap the stroke.
        left, right = torch.arange(size[1]) * 100 / size[1], torch.arange(1, size[1] + 1) * 100 / size[1]
        assert torch.equal(hole[0], (right > column + 1e-6) & (left < column + 1 - 1e-6))


@pytest.mark.parametrize("size", [(75, 100), (150, 200), (10, 10), (300, 999), (1, 1)])
def test_what_is_not_painted_stays(size: tuple[int, int]) -> None:
    assert not _covered(torch.zeros(1, 1, 75, 100), size).any()
    assert _covered(torch.ones(1, 1, 75, 100), size).all()


def test_a_mask_without_white_is_a_sentence(tmp_path: Path) -> None:
    write_image(tmp_path / "mask.png", Image(torch.zeros(1, 1, 30, 40)))
    photo = Image(torch.rand(1, 3, 30, 40))
    for painted, message in (
        (True, "Nothing is painted yet"),
        (False, r"The mask: .* covers nothing \(it holds: black 100 %\)"),
    ):
        with pytest.raises(ValueError, match=message):
            _read_hole(job_of(tmp_path / "mask.png", painted), photo)
    with pytest.raises(ValueError, match="has 40 x 30 pixels, the photograph has 41 x 30"):
        _read_hole(job_of(tmp_path / "mask.png", False), Image(torch.zeros(1, 3, 30, 41)))
