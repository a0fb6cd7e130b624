"""Rebuild one photograph of a stereo pair from the other, by the command line, into the folder out/.

The photographs are those of a motorcycle that ship inside scikit-image. The left one is the target; every one of its
pixels is made from pixels of the right one alone.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import skimage.data
from PIL import Image

OUT = Path("out")


def main() -> int:
    """Write the pair, run `patchattn reconstruct`, and say where everything lies."""
    OUT.mkdir(exist_ok=True)
    left, right, _ = skimage.data.stereo_motorcycle()
    target, reference, rebuilt, field = (
        str(OUT / name) for name in ("target.png", "reference.png", "rebuilt.png", "field.png")
    )
    Image.fromarray(left).save(target)
    Image.fromarray(right).save(reference)

    arguments = ["reconstruct", target, reference, "-o", rebuilt, "--aggregate", "--show-field", field]
    print(f"$ {shlex.join(['patchattn', *arguments])}", flush=True)
    finished = subprocess.run([sys.executable, "-m", "patchattn.cli", *arguments], check=False)
    if finished.returncode != 0:
        return finished.returncode

    print()
    print(f"{target}     the photograph to rebuild")
    print(f"{reference}  the other eye's view, from which every pixel is taken")
    print(f"{rebuilt}    the rebuilt photograph; the higher the PSNR above, the nearer it is to the target")
    print(f"{field}      where each pixel was found: hue is the direction, saturation the distance")
    return 0


if __name__ == "__main__":
    sys.exit(main())
