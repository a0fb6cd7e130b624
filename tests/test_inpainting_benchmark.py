"""benchmarks/inpainting.py: the sets it reads, the methods it chooses, and its tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.benchmark_modules import benchmark_modules

MASKS = 3


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    with benchmark_modules("inpainting_methods", "inpainting_page", "inpainting_sets") as found:
        yield found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Masks that are white in a corner, and photographs each of a gray that says which it is."""
    for folder in ("places2/images", "places2/masks", "bsds500"):
        (tmp_path / folder).mkdir(parents=True)
    for n in range(MASKS):
        mask = np.zeros((40, 40), np.uint8)
        mask[:10, : 10 + n] = 255
        Image.fromarray(mask).save(tmp_path / "places2" / "masks" / f"{n:02d}.png")
        Image.new("RGB", (40, 40), (n, n, n)).save(tmp_path / "places2" / "images" / f"{n:02d}.jpg", quality=100)
    for n in range(33):
        Image.new("RGB", (60, 40), (n, n, n)).save(tmp_path / "bsds500" / f"{n:02d}.jpg", quality=100)
    return tmp_path


def test_places2_has_its_own_masks(modules: dict[str, ModuleType], data: Path) -> None:
    cases = modules["inpainting_sets"].load(data, "places2")
    assert [case.name for case in cases] == ["places2-00", "places2-01", "places2-02"]
    assert [int(case.hole.sum()) for case in cases] == [100, 110, 120]


def test_every_fourth_of_bsds500_with_masks_that_are_turned(modules: dict[str, ModuleType], data: Path) -> None:
    cases = modules["inpainting_sets"].load(data, "bsds500")
    assert [int(case.image[0, 0, 0]) for case in cases] == [0, 4, 8, 12, 16, 20, 24, 28, 32]
    # The corner at the upper left is at the lower left when rotated; before that it is mirrored, then flipped.
    corners = [tuple(map(bool, case.hole[[0, -1, 0, -1], [0, 0, -1, -1]])) for case in cases]
    lower_left, upper_left, lower_right = (False, True, False, False), (True, False, False, False), (0, 0, 0, 1)
    assert corners == [lower_left] * MASKS + [upper_left] * MASKS + [lower_right] * MASKS
    assert all(case.hole.shape == case.image.shape[:2] for case in cases)


def test_a_set_that_is_not_there_is_named(modules: dict[str, ModuleType], data: Path) -> None:
    with pytest.raises(SystemExit, match=r"--data: .* lacks removal/images/\*\.png"):
        modules["inpainting_sets"].load(data, "removal")


def test_gmic_is_left_out_where_it_is_not_installed(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    chosen, skipped = modules["inpainting_methods"].choose(["patchattn, fast", "G'MIC"])
    assert list(chosen) == ["patchattn, fast"]
    assert skipped == ["G'MIC is left out: there is no `gmic` on PATH; the Debian package is called `gmic`."]


def test_an_unknown_method_is_refused(modules: dict[str, ModuleType]) -> None:
    with pytest.raises(ValueError, match="got Photoshop; there are patchattn, fast; "):
        modules["inpainting_methods"].choose(["Photoshop"])


def test_names_of_folders_are_all_different(modules: dict[str, ModuleType]) -> None:
    methods = modules["inpainting_methods"]
    names = [methods.folder_name(name) for name in methods.METHODS]
    assert len(set(names)) == len(names)
    assert {"patchattn-good", "PyPatchMatch-11", "GMIC", "OpenCV-Telea"} < set(names)


def test_a_table_has_means_of_what_could_be_measured(modules: dict[str, ModuleType]) -> None:
    entries = [
        {"set": "places2", "image": "00", "method": "G'MIC", "seconds": 1.0, "sharp": 0.5, "repeated_copies": 0.25},
        {"set": "places2", "image": "00", "method": "the truth", "repeated_copies": 0.125},
        {"set": "places2", "image": "01", "method": "G'MIC", "seconds": 3.0, "sharp": math.nan, "repeated_copies": 0.5},
        {"set": "places2", "image": "01", "method": "the truth", "repeated_copies": 0.125},
        {"set": "places2", "image": "02", "method": "G'MIC", "seconds": 2.0, "sharp": 0.0, "repeated_copies": 0.75},
    ]
    heading, description, table, *notes = modules["inpainting_page"].section("places2", entries)
    assert heading == "## places2"
    assert description.startswith("3 photographs")
    assert table.splitlines()[2:] == [
        "| G'MIC | 0.250 | 50.0% | 2.00 (1.00 to 3.00) |",
        "| the truth |  | 12.5% |  |",
    ]
    assert notes == ["G'MIC filled the hole of 02 with one color."]
