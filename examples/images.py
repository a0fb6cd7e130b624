"""Make the images of the manual's first page, by the command line, from the photographs inside scikit-image.

Each is a strip: what a command was given, and what it made of it. `python examples/images.py [FOLDER]` writes them to
docs/images/, or to the folder named.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import skimage.data
from PIL import Image, ImageDraw

GAP = 6
HEIGHT = 230


def main() -> int:
    """Make all strips in the folder named on the command line."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as name:
        work = Path(name)
        for task in (inpaint, colorize, reconstruct, upscale):
            strip = join(task(work))
            strip.save(folder / f"{task.__name__}.jpg", quality=80, optimize=True)
            print(folder / f"{task.__name__}.jpg", f"{strip.width} x {strip.height}")
    return 0


def inpaint(work: Path) -> list[Image.Image]:
    """Two towers removed: the photograph, the mask over it, the completion."""
    photo = Image.fromarray(skimage.data.rocket())
    mask = Image.new("L", photo.size)
    for tower in ([(190, 112), (210, 112), (218, 378), (160, 378)], [(434, 112), (456, 112), (484, 390), (428, 390)]):
        ImageDraw.Draw(mask).polygon(tower, fill=255)
    photo.save(work / "photo.png")
    mask.save(work / "mask.png")
    run("inpaint", work / "photo.png", "--mask", work / "mask.png", "-o", work / "completed.png")
    covered = photo.copy()
    covered.paste((255, 255, 255), mask=mask)
    return [photo, covered, Image.open(work / "completed.png")]


def colorize(work: Path) -> list[Image.Image]:
    """One eye's view in gray, the other eye's in color, and the first one colored after the second."""
    left, right, _ = skimage.data.stereo_motorcycle()
    gray, reference = Image.fromarray(left).convert("L"), Image.fromarray(right)
    gray.save(work / "gray.png")
    reference.save(work / "reference.png")
    run("colorize", work / "gray.png", work / "reference.png", "-o", work / "colored.png")
    return [gray, reference, Image.open(work / "colored.png")]


def reconstruct(work: Path) -> list[Image.Image]:
    """One eye's view made of the other's pixels alone, and where each of them was found."""
    left, right, _ = skimage.data.stereo_motorcycle()
    Image.fromarray(left).save(work / "target.png")
    Image.fromarray(right).save(work / "reference.png")
    run(
        "reconstruct", work / "target.png", work / "reference.png", "-o", work / "rebuilt.png", "--aggregate",
        "--show-field", work / "field.png",
    )  # fmt: skip
    return [Image.fromarray(left), Image.open(work / "rebuilt.png"), Image.open(work / "field.png")]


def upscale(work: Path) -> list[Image.Image]:
    """A detail of a small photograph, three times as large: its pixels, bicubic interpolation, and ours."""
    photo = Image.fromarray(skimage.data.stereo_motorcycle()[0])
    small = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.BICUBIC)
    small.save(work / "small.png")
    run("upscale", work / "small.png", "--scale", "3", "-o", work / "large.png")
    size = (3 * small.width, 3 * small.height)
    detail = (420, 180, 615, 330)
    enlarged = [small.resize(size, method) for method in (Image.Resampling.NEAREST, Image.Resampling.BICUBIC)]
    return [image.crop(detail) for image in (*enlarged, Image.open(work / "large.png"))]


def run(*arguments: object) -> None:
    """Run the command line."""
    subprocess.run([sys.executable, "-m", "patchattn.cli", *map(str, arguments)], check=True)


def join(images: list[Image.Image]) -> Image.Image:
    """Put images side by side at one height."""
    scaled = [
        image.convert("RGB").resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS)
        for image in images
    ]
    strip = Image.new("RGB", (sum(image.width + GAP for image in scaled) - GAP, HEIGHT), (255, 255, 255))
    left = 0
    for image in scaled:
        strip.paste(image, (left, 0))
        left += image.width + GAP
    return strip


if __name__ == "__main__":
    sys.exit(main())
