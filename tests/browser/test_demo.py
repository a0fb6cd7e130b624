"""The page, as a visitor uses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

TABS = ("Inpaint", "Colorize", "Upscale", "Reconstruct", "Field")
COPYRIGHT = 0x8298
Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph with a copyright notice, its mask, one that is broken, and one that is too large."""
    folder = tmp_path_factory.mktemp("files")
    photograph = skimage.data.coffee()[100:196, 200:328]
    exif = Image.Exif()
    exif[COPYRIGHT] = "somebody"
    Image.fromarray(photograph).save(folder / "photo.png", exif=exif)
    mask = np.zeros(photograph.shape[:2], np.uint8)
    mask[30:50, 40:70] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    (folder / "broken.png").write_bytes((folder / "photo.png").read_bytes()[:3000])
    Image.new("L", (1200, 900)).save(folder / "large.png")
    return folder


def tab(page: Any, name: str) -> Any:
    """Choose a tab; return its panel."""
    page.get_by_role("tab", name=name).click()
    panel = page.get_by_role("tabpanel").filter(visible=True)
    panel.locator(".pa-intro").wait_for()
    return panel


def give(panel: Any, path: Path, *, nth: int = 0) -> None:
    panel.locator("input[type=file]").nth(nth).set_input_files(path)


def paint(page: Any, panel: Any, *points: tuple[float, float]) -> None:
    """Draw a stroke with the mouse; coordinates are parts of the picture's width and height."""
    canvas = panel.locator("canvas[data-ready]")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def download(page: Any, panel: Any, folder: Path) -> Path:
    with page.expect_download() as event:
        panel.locator(".pa-download").click()
    path = folder / event.value.suggested_filename
    event.value.save_as(path)
    return path


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_hole_that_is_painted_is_filled(visit: Visit, files: Path, tmp_path: Path) -> None:
    page = visit()
    panel = tab(page, "Inpaint")
    give(panel, files / "photo.png")
    paint(page, panel, (0.4, 0.5), (0.6, 0.5))
    panel.get_by_role("radio", name="fast").check()
    panel.get_by_role("button", name="Fill").click()
    path = download(page, panel, tmp_path)
    assert path.name == "photo-filled.png"
    given, filled = pixels(files / "photo.png"), pixels(path)
    rows, columns = np.nonzero((given != filled).any(2))
    # The stroke is 7.5 % of the longer side wide, and its ends are round.
    height, width = given.shape[:2]
    radius = 0.0375 * width + 2
    assert rows.size > 100
    assert abs(rows - 0.5 * height).max() <= radius
    assert 0.4 * width - radius <= columns.min() < columns.max() <= 0.6 * width + radius
    with Image.open(path) as image:
        assert image.getexif()[COPYRIGHT] == "somebody"
    panel.get_by_text("Before and after").wait_for()
    panel.get_by_role("button", name="Rocket").click()
    panel.locator(".pa-download").wait_for(state="hidden")
    panel.get_by_text("Filled in").wait_for(state="hidden")


def test_a_mask_that_is_loaded_is_the_hole(visit: Visit, files: Path, tmp_path: Path) -> None:
    page = visit()
    panel = tab(page, "Inpaint")
    give(panel, files / "photo.png")
    panel.locator("canvas[data-ready]").wait_for()
    panel.get_by_role("button", name="Fill").click()
    panel.get_by_role("alert").filter(has_text="Nothing is painted yet").wait_for()
    panel.get_by_role("button", name="Or load a mask").click()
    panel.locator("canvas[data-ready]").wait_for()
    give(panel, files / "mask.png", nth=-1)
    panel.get_by_alt_text("mask.png").wait_for()
    panel.get_by_role("radio", name="fast").check()
    panel.get_by_role("button", name="Fill").click()
    changed = (pixels(files / "photo.png") != pixels(download(page, panel, tmp_path))).any(2)
    assert changed.any()
    assert not changed[pixels(files / "mask.png") == 0].any()


@pytest.mark.parametrize(
    ("name", "button", "pictures", "made", "size"),
    [
        ("Colorize", "Color", 2, "photo-colored.png", (128, 96)),
        ("Upscale", "Upscale", 1, "photo-2x.png", (256, 192)),
        ("Reconstruct", "Reconstruct", 2, "photo-rebuilt.png", (128, 96)),
    ],
)
def test_the_other_tools(
    visit: Visit, files: Path, tmp_path: Path, name: str, button: str, pictures: int, made: str, size: tuple[int, int]
) -> None:
    page = visit()
    panel = tab(page, name)
    for nth in range(pictures):
        give(panel, files / "photo.png", nth=nth)
        panel.get_by_alt_text("photo.png").nth(nth).wait_for()
    panel.get_by_role("button", name=button, exact=True).click()
    path = download(page, panel, tmp_path)
    assert path.name == made
    assert pixels(path).shape[1::-1] == size


def test_a_pixel_shows_what_it_attends_to(visit: Visit) -> None:
    page = visit()
    panel = tab(page, "Field")
    panel.get_by_role("button", name="Motorcycle, left eye").click()
    panel.get_by_alt_text("left.png").wait_for()
    panel.get_by_role("button", name="Match", exact=True).click()
    picture = panel.locator("svg.pa-clickable").first
    picture.wait_for()
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    panel.locator("svg .pa-match").nth(2).wait_for()
    assert panel.locator("tbody tr").count() == 3
    assert panel.locator("svg .pa-vote").count() > 0
    # A picture matched with itself finds every pixel where it is.
    details = panel.locator(".pa-details > p").inner_text()
    row, column = (int(word) for word in details.split(".")[0].replace(",", "").split() if word.isdigit())
    assert panel.locator("tbody td:nth-child(2)").first.inner_text() == f"{row}, {column}"
    assert "% of the softmax over all 69120 pixels" in details
    page.keyboard.press("ArrowRight")
    panel.get_by_text(f"Row {row}, column {column + 1}.").wait_for()


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("broken.png", "The file: cannot read broken.png as an image"),
        ("large.png", "The file: 1200 x 900 are 1.1 megapixels, and this page takes up to 1."),
    ],
)
def test_a_file_that_is_refused_is_told_of_in_a_sentence(visit: Visit, files: Path, file: str, sentence: str) -> None:
    page = visit()
    panel = tab(page, "Upscale")
    give(panel, files / file)
    panel.get_by_role("alert").filter(has_text=sentence).wait_for()
    assert "Traceback" not in page.content()
    assert "/tmp" not in panel.get_by_role("alert").inner_text()


def test_work_is_stopped_and_others_wait_for_their_turn(visit: Visit) -> None:
    first, second = visit(), visit()
    panels = []
    for page in (first, second):
        panel = tab(page, "Field")
        panels.append(panel)
        panel.get_by_role("button", name="Bricks").click()
        panel.get_by_alt_text("bricks.png").wait_for()
    # All pixels with all pixels, which takes minutes.
    panels[0].get_by_label("Method").click()
    first.get_by_role("option", name="exact", exact=True).click()
    panels[0].get_by_role("button", name="Match", exact=True).click()
    panels[0].get_by_text("Matching").wait_for()
    panels[1].get_by_role("button", name="Match", exact=True).click()
    panels[1].get_by_text("Waiting: 1 other before you.").wait_for()
    panels[0].get_by_role("button", name="Stop").click()
    panels[0].get_by_text("Stopped.").wait_for()
    panels[1].locator("svg.pa-clickable").first.wait_for()
    assert not panels[0].locator("svg.pa-clickable").count()


def test_whoever_leaves_makes_room(visit: Visit) -> None:
    first, second = visit(), visit()
    for page in (first, second):
        panel = tab(page, "Field")
        panel.get_by_role("button", name="Bricks").click()
        panel.get_by_alt_text("bricks.png").wait_for()
        if page is first:
            panel.get_by_label("Method").click()
            page.get_by_role("option", name="exact", exact=True).click()
        panel.get_by_role("button", name="Match", exact=True).click()
        panel.get_by_text("Matching" if page is first else "Waiting: 1 other before you.").wait_for()
    first.close()
    panel.locator("svg.pa-clickable").first.wait_for()


def test_phones_have_nothing_to_scroll_sideways(visit: Visit) -> None:
    page = visit(is_mobile=True, has_touch=True, color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 844})
    for name in TABS:
        tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
