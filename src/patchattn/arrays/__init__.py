"""Functions from NumPy arrays to NumPy arrays, with the conventions of scikit-image; no tensors.

Images are `(height, width)` or `(height, width, channels)`, 1 channel: gray, 2: gray and alpha, 3: RGB, 4: RGB and
alpha; uint8 and uint16 use their whole range, floats are in [0, 1] and computed with in single precision. A result has
the dtype of the first image.

The module is not called `numpy`, since `from patchattn import numpy` would hide the package that its users have
imported.
"""

from patchattn.arrays.images import colorize, inpaint, reconstruct, upscale
from patchattn.arrays.patches import NearestPatches, nearest_patches

__all__ = ["NearestPatches", "colorize", "inpaint", "nearest_patches", "reconstruct", "upscale"]
