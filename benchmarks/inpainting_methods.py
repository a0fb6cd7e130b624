"""Programs that benchmarks/inpainting.py compares: each completes the hole of one image, with as many threads."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from patchattn.tasks.inpaint import QUALITIES, inpaint

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Method = Callable[[Bytes, Mask], Bytes]
"""From RGB (height, width, 3) and the hole to RGB."""


def ours(image: Bytes, hole: Mask, *, quality: str) -> Bytes:
    return to_bytes(inpaint(to_tensor(image), torch.from_numpy(hole), quality=quality).image.color)


def py_patch_match(image: Bytes, hole: Mask, *, patch_size: int) -> Bytes:
    from patchmatch import patch_match

    filled: Bytes = patch_match.inpaint(image, to_gray(hole)[..., None], patch_size=patch_size)
    return filled


def gmic(image: Bytes, hole: Mask) -> Bytes:
    with tempfile.TemporaryDirectory() as folder:
        image_path, mask_path, output = (Path(folder, name) for name in ("image.png", "mask.png", "output.png"))
        Image.fromarray(image).save(image_path)
        Image.fromarray(to_gray(hole)).save(mask_path)
        fill = ["inpaint_matchpatch[0]", "[1]", "keep[0]"]
        ran = subprocess.run(["gmic", image_path, mask_path, *fill, "-o", output], capture_output=True, text=True)
        if ran.returncode != 0 or not output.exists():
            raise RuntimeError(f"gmic ended with status {ran.returncode} and wrote this:\n{ran.stderr}")
        return np.asarray(Image.open(output).convert("RGB"))


def telea(image: Bytes, hole: Mask) -> Bytes:
    import cv2

    return np.asarray(cv2.inpaint(image, to_gray(hole), 5, cv2.INPAINT_TELEA), np.uint8)


REFERENCE = "PyPatchMatch 11"
"""The method that others are preferred to or not."""
GMIC = "G'MIC"
METHODS: dict[str, Method] = {
    **{f"patchattn, {quality}": partial(ours, quality=quality) for quality in QUALITIES},
    "PyPatchMatch 5": partial(py_patch_match, patch_size=5),
    REFERENCE: partial(py_patch_match, patch_size=11),
    GMIC: gmic,
    "OpenCV, Telea": telea,
}
NOTES = (
    "PyPatchMatch N: `patch_size=N`, which is a radius there (patches of 2 N + 1 pixels).",
    "G'MIC: `inpaint_matchpatch` of the program `gmic`; its time includes starting the process, and its files. "
    "It takes no seed, and its completions differ from run to run.",
    "OpenCV, Telea: radius 5.",
)
MODULES = {"PyPatchMatch": "patchmatch", "OpenCV": "cv2"}
"""What methods import, by the beginnings of their names."""


def choose(names: list[str] | None) -> tuple[dict[str, Method], list[str]]:
    """Return the methods of these names (None: all) that can run, and a sentence for each that is skipped.

    Raises:
        ValueError: a method does not exist, or its package is not installed.
    """
    unknown = set(names or ()) - METHODS.keys()
    if unknown:
        raise ValueError(f"got {'; '.join(sorted(unknown))}; there are {'; '.join(METHODS)}")
    chosen = {name: method for name, method in METHODS.items() if names is None or name in names}
    for beginning, module in MODULES.items():
        if any(name.startswith(beginning) for name in chosen) and importlib.util.find_spec(module) is None:
            raise ValueError(f'{beginning} is not installed; install it with: pip install "patchattn[bench]"')
    skipped = []
    if GMIC in chosen and shutil.which("gmic") is None:
        del chosen[GMIC]
        skipped.append("G'MIC is left out: there is no `gmic` on PATH; the Debian package is called `gmic`.")
    return chosen, skipped


def limit_threads(count: int) -> None:
    """Let every method take at most so many threads; to be called before PyPatchMatch and OpenCV are imported."""
    torch.set_num_threads(count)
    # OpenMP in the process of G'MIC; PyPatchMatch holds an OpenCV of its own, whose threads only a variable sets.
    os.environ.update({"OMP_NUM_THREADS": str(count), "OPENCV_FOR_THREADS_NUM": str(count)})
    if importlib.util.find_spec("cv2") is not None:
        import cv2

        cv2.setNumThreads(count)


def folder_name(method: str) -> str:
    """A method's name as that of a folder."""
    return re.sub(r"[^A-Za-z0-9]+", "-", method.replace("'", "")).strip("-")


def to_tensor(image: Bytes) -> Tensor:
    return torch.from_numpy(image).movedim(2, 0)[None] / 255


def to_bytes(image: Tensor) -> Bytes:
    rounded: Bytes = (image[0].movedim(0, 2) * 255).round().byte().numpy()
    return rounded


def to_gray(hole: Mask) -> Bytes:
    """White in the hole, black elsewhere."""
    return np.where(hole, np.uint8(255), np.uint8(0))
