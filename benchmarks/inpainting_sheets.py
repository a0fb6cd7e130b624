"""Sheets that show completions of several methods without their names, in shuffled order, and the key to them."""

from __future__ import annotations

import json
import random
import string
import sys
from pathlib import Path

import numpy as np
from inpainting_plot import HOLE, around_hole
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE, STRIP = 560, 28
"""Pixels of a part's longer side on a sheet, and of the strip above it that holds its letter."""


def write_sheets(made: Path, out: Path, methods: list[str], seed: int) -> None:
    """Write a sheet for every image, and the key."""
    shuffle, key = random.Random(seed).shuffle, {}
    paths = sorted((made / "image").glob("*.png"))
    missing = [str(made / method / path.name) for method in methods for path in paths]
    missing = [path for path in missing if not Path(path).exists()]
    if missing or not paths:
        sys.exit(
            f"--made: {made} lacks {missing[0] if missing else 'image/*.png'}; write it with benchmarks/inpainting.py "
            f"--made, or name other --methods: there are {', '.join(sorted(p.name for p in made.glob('*')))}"
        )
    out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        order = list(methods)
        shuffle(order)
        key[path.stem] = order
        hole = np.asarray(Image.open(made / "hole" / path.name)) > 127
        parts = {"hole": np.where(hole[..., None], np.uint8(HOLE), read(path))}
        for letter, method in zip(string.ascii_uppercase, order, strict=False):
            parts[letter] = read(made / method / path.name)
        sheet(path.stem, parts, around_hole(hole)).save(out / path.name)
    (out / "key.json").write_text(json.dumps(key, indent=1) + "\n")
    print(f"wrote {len(paths)} sheets and key.json to {out}; leave the key closed until all are rated")


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def sheet(name: str, parts: dict[str, NDArray[np.uint8]], where: tuple[slice, slice]) -> Image.Image:
    """The same part of several images beside each other, enlarged, each below its title."""
    enlarged = {}
    for title, image in parts.items():
        part = Image.fromarray(image[where])
        zoom = SIDE / max(part.size)
        enlarged[title] = part.resize((round(zoom * part.width), round(zoom * part.height)), Image.Resampling.LANCZOS)
    width, height = enlarged["hole"].size
    whole = Image.new("RGB", (len(parts) * (width + 4), height + STRIP), "white")
    pen = ImageDraw.Draw(whole)
    for n, (title, image) in enumerate(enlarged.items()):
        whole.paste(image, (n * (width + 4), STRIP))
        text = f"{name}: {title}" if title == "hole" else title
        pen.text((n * (width + 4) + 4, 2), text, fill="black", font=ImageFont.load_default(20))
    return whole
