"""Damaged files: a result or a sentence, whatever was changed in them (benchmarks/fuzzing.py tries many more)."""

from __future__ import annotations

from functools import cache

import pytest
from PIL import Image

from benchmarks.mutations import mutated, seeds
from patchattn.tasks.images import read_image
from patchattn.tasks.sequences import read_frames

# Ours say what is left out; Pillow has its own.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

NAMES = sorted(seeds())
files = cache(seeds)


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the commands have it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_sound(name: str) -> None:
    assert sorted(read_image(files()[name]).size) == [24, 32] or name.endswith(".ico")


@pytest.mark.parametrize("name", NAMES)
def test_changed_files(name: str) -> None:
    read = 0
    for number in range(40):
        data = mutated(files()[name], number)
        try:
            read_image(data)
            for _ in read_frames(data):
                pass
            read += 1
        except ValueError as error:
            sentence = str(error).strip()
            assert sentence.startswith("path: ")
            assert "\n" not in sentence
            assert sentence.endswith(".")
    assert read < 40


@pytest.mark.parametrize("name", ["plain.png", "baseline.jpg", "lossless.webp", "raw.tif", "plain.bmp", "deep.png"])
def test_cut_anywhere(name: str) -> None:
    whole = files()[name]
    for length in range(0, len(whole) - 60, max(1, len(whole) // 40)):
        try:
            image = read_image(whole[:length])
        except ValueError as error:
            sentence = str(error)
        else:
            sentence = ""
            assert sorted(image.size) == [24, 32]
        assert not sentence or sentence.startswith("path: cannot read standard input as an image")
