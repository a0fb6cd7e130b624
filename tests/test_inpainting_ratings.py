"""benchmarks/inpainting_ratings.py: letters on the sheets, and the ratings put together with the key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.benchmark_modules import benchmark_modules

COLORS = {"patchattn-good": (200, 0, 0), "PyPatchMatch-11": (0, 200, 0), "GMIC": (0, 0, 200)}
KEY = {
    "removal-00": ["GMIC", "PyPatchMatch-11", "patchattn-good"],
    "removal-01": ["patchattn-good", "GMIC", "PyPatchMatch-11"],
}


@pytest.fixture(scope="module")
def ratings() -> Iterator[ModuleType]:
    with benchmark_modules("inpainting_ratings") as modules:
        yield modules["inpainting_ratings"]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Images that each method has painted in a color of its own."""
    folder = tmp_path / "made"
    hole = np.zeros((60, 80), np.uint8)
    hole[20:40, 30:50] = 255
    for n in range(6):
        for name, color in {"image": (90, 90, 90), "hole": None, **COLORS}.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(hole) if color is None else Image.new("RGB", (80, 60), color)
            image.save(folder / name / f"removal-{n:02d}.png")
    return folder


def test_a_sheet_shows_the_hole_and_then_what_the_key_says(ratings: ModuleType, made: Path, tmp_path: Path) -> None:
    ratings.write_sheets(made, tmp_path / "out", list(COLORS), 0)
    key = json.loads((tmp_path / "out" / "key.json").read_text())
    assert len({tuple(order) for order in key.values()}) > 1, "the order must differ from image to image"
    for name, order in key.items():
        sheet = Image.open(tmp_path / "out" / f"{name}.png")
        middles = [sheet.getpixel((round((n + 0.5) * sheet.width / 4), sheet.height // 2)) for n in range(4)]
        assert middles == [(255, 0, 255), *(COLORS[method] for method in order)]


def test_a_method_that_was_not_made_is_named(ratings: ModuleType, made: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"lacks .*Telea.*there are GMIC, PyPatchMatch-11, hole, image"):
        ratings.write_sheets(made, tmp_path / "out", ["GMIC", "Telea"], 0)


def test_letters_become_methods_and_are_counted(ratings: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "ratings.csv"
    file.write_text('image,order,reason\nremoval-00,C>A=B,"straight, sharp"\nremoval-01,C > A > B,no seam | no copy\n')
    found = ratings.read_ratings(file, KEY)
    assert found[0].ranking == [["patchattn, good"], ["G'MIC", "PyPatchMatch 11"]]
    assert ratings.counts(found, "patchattn, good") == ["patchattn, good", "1", "0", "1"]
    assert ratings.counts(found, "G'MIC") == ["G'MIC", "0", "1", "1"]
    rows = ratings.page(found)[-1].splitlines()
    assert rows[2] == "| removal-00 | patchattn, good > G'MIC = PyPatchMatch 11 | straight, sharp |"
    assert rows[3] == r"| removal-01 | PyPatchMatch 11 > patchattn, good > G'MIC | no seam \| no copy |"


@pytest.mark.parametrize(("text", "message"), [
    ("", "expected the heading image,order,reason, got nothing"),
    ("removal-00,A>B>C,x\n", "expected the heading image,order,reason, got removal-00"),
    ("image,order,reason\nremoval-00,A>B,x\n", "removal-00: expected each of A, B, C once, as in B>A=C; got A>B"),
    ("image,order,reason\nremoval-00,A>B>B,x\n", "expected each of A, B, C once"),
    ("image,order,reason\nremoval-09,A>B>C,x\n", "of an image in the key, got removal-09"),
    ("image,order,reason\nremoval-00,A>B>C\n", "expected rows image,order,reason"),
    ("image,order,reason\nremoval-00,A>B>C,x\n", "expected one row for each of removal-00, removal-01; got removal-00"),
])  # fmt: skip
def test_a_rating_that_says_too_little_is_refused(ratings: ModuleType, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "ratings.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        ratings.read_ratings(file, KEY)
