"""A drop-in for `patchmatch.patch_match` of PyPatchMatch 2: the same functions, filling with `patchattn.tasks.inpaint`.

Nothing but what `patchattn` itself needs is imported: no compiler, no OpenCV, no Pillow, though its images are taken.
How results differ from PyPatchMatch's: docs/compat.md.
"""

from __future__ import annotations

import operator
import sys
from dataclasses import dataclass
from math import pi, sqrt
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray

from patchattn.kernels import default_backend, load_backend
from patchattn.tasks.image import Image
from patchattn.tasks.inpaint import inpaint as fill
from patchattn.tasks.pyramid import dilated

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["inpaint", "inpaint_regularity", "patchmatch_available", "set_random_seed", "set_verbose"]

MAX_PATCH_SIZE = (2**31 - 2) // 2
"""Largest radius of patches that PyPatchMatch takes."""
MAX_GUIDE_WEIGHT = 1e4
"""Largest weight of a regularity map that makes a difference: there, a hundredth of a period costs more than any color.
Squares of far larger ones would leave the range of float32."""

patchmatch_available: bool
"""Whether `inpaint` can run: whether the backend for the CPU loads."""


@dataclass
class Settings:
    """Settings of the module, for all calls that follow."""

    seed: int = 1212
    verbose: bool = False


_settings = Settings()


def __getattr__(name: str) -> Any:
    if name != "patchmatch_available":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # When asked: importing the module loads no kernels.
    try:
        load_backend(default_backend("cpu"))
    except RuntimeError:
        return False
    return True


def set_random_seed(seed: int) -> None:
    """Set the seed of the search in all calls that follow, modulo 2^32; 1212 before the first.

    Every call starts from this seed, so that equal inputs give equal results.

    Raises:
        TypeError: the seed is not an integer.
    """
    _settings.seed = _integer("seed", seed) % 2**32


def set_verbose(verbose: bool) -> None:
    """Report the stages of all calls that follow on standard error.

    Raises:
        TypeError: `verbose` is neither a bool nor an integer.
    """
    _settings.verbose = bool(_integer("verbose", verbose))


def inpaint(
    image: NDArray[np.uint8] | PIL.Image.Image,
    mask: NDArray[Any] | PIL.Image.Image | None = None,
    *,
    global_mask: NDArray[Any] | PIL.Image.Image | None = None,
    patch_size: SupportsIndex = 15,
) -> NDArray[np.uint8]:
    """Fill holes with patches from the rest of the image: `patchmatch.patch_match.inpaint`.

    Args:
        image: `(height, width, 3)` of uint8, in any order of colors, or a Pillow image of mode RGB.
        mask: the pixels to fill, where it is not 0: `(height, width)` or `(height, width, 1)` of uint8 or bool, or a
            Pillow image of mode L or 1. None: all pixels that are pure white (255, 255, 255).
        global_mask: like `mask`: pixels that are neither filled nor copied, and whose colors have no influence. They
            are filled as well, since what is next to the hole must be compared with something, and then put back:
            that takes as long as filling them.
        patch_size: radius of the patches, which are `2 * patch_size + 1` pixels wide; at most 7 pixels at full size,
            if there are other sizes, and in thin parts, see `patchattn.tasks.inpaint.inpaint`. Where no patch of
            that width is known everywhere, the width is halved until one is. PyPatchMatch's default is kept; 5 takes
            an eighth of the time, and is as good for most images.

    Returns:
        A new array like the image. All pixels outside of `mask`, and those in `global_mask`, are as they were. Holes
        are black where no pixel of the image may be copied, as PyPatchMatch leaves them.

    Raises:
        ValueError: a shape, a dtype or the patch size is none of those.
        TypeError: `patch_size` is not an integer.
        RuntimeError: the backend does not load, see `patchmatch_available`.

    Example:
        >>> stripes = np.tile(np.repeat([50, 200], 4), 6)[:, None].astype(np.uint8)
        >>> image = np.broadcast_to(stripes, (48, 48, 3))
        >>> mask = np.zeros((48, 48), bool)
        >>> mask[16:30, 20:30] = True
        >>> missed = np.abs(inpaint(image, mask, patch_size=3).astype(int) - image)
        >>> bool(missed[mask].mean() < 5), int(missed[~mask].max())
        (True, 0)
    """
    radius = _checked_radius(patch_size)
    pixels, hole, excluded = _checked(image, mask, global_mask)
    return _filled(pixels, hole, excluded, radius, None)


def inpaint_regularity(
    image: NDArray[np.uint8] | PIL.Image.Image,
    mask: NDArray[Any] | PIL.Image.Image | None,
    ijmap: NDArray[np.float32],
    *,
    global_mask: NDArray[Any] | PIL.Image.Image | None = None,
    patch_size: SupportsIndex = 15,
    guide_weight: float = 0.25,
) -> NDArray[np.uint8]:
    r"""Fill holes in a pattern that repeats, in step with it: `patchmatch.patch_match.inpaint_regularity`.

    The map says for every pixel, in the hole too, where in the period of the pattern it is: two phases from 0 to 1,
    such as y / period mod 1 and x / period mod 1. Patches are compared by the mean squared difference of their colors
    in [0, 1], summed over the channels, plus

    $$\frac{9 w}{2} \left( \sin^2 \pi \Delta_i + \sin^2 \pi \Delta_j \right)$$

    where w is `guide_weight` and the differences of the two phases are averaged over the patch like those of colors.

    PyPatchMatch, whose difference of colors is a ninth of that (with gradients), adds the distance of the phases of
    the two centers, $w \sqrt{\Delta_i^2 + \Delta_j^2} / 0.707$ with differences of at most 0.5 around the circle. Both
    terms are 0 in step, weigh the same against color where both phases are opposite, and grow in between. The squared
    sine is flatter near 0, and all of the patch is asked to be in step, not its center alone. Phases beyond [0, 1] are
    read modulo 1 here; there, differences above 1.5 count as farther and farther.

    Args:
        image, mask, global_mask, patch_size: see `patchattn.compat.patch_match.inpaint`.
        ijmap: `(rows, columns, 3)` of float32 with the two phases; the third channel is not used. A map of another
            size is scaled to the image by nearest neighbors.
        guide_weight: w above. 0: the map has no influence. Above 10,000 it counts as 10,000, where colors decide
            between patches in step alone.

    Returns:
        A new array like the image, as `patchattn.compat.patch_match.inpaint` returns it.

    Raises:
        ValueError: the map has another shape or dtype, no pixels, or NaN or infinity in it, the weight is negative or
            not finite in float32, or an argument is none that `inpaint` takes.
        TypeError: `patch_size` is not an integer.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> image = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
        >>> mask = np.zeros((48, 48), np.uint8)
        >>> mask[20:30, 20:30] = 255
        >>> rows, columns = np.mgrid[:48, :48] % 8 / 8
        >>> ijmap = np.stack([rows, columns, 0 * rows], -1).astype(np.float32)
        >>> filled = inpaint_regularity(image, mask, ijmap, patch_size=3)
        >>> bool((filled[mask == 0] == image[mask == 0]).all())
        True
    """
    radius = _checked_radius(patch_size)
    pixels, hole, excluded = _checked(image, mask, global_mask)
    if not isinstance(ijmap, np.ndarray) or ijmap.ndim != 3 or ijmap.shape[2] != 3 or ijmap.dtype != np.float32:
        raise ValueError(f"ijmap: got {_came(ijmap)}; expected an array (height, width, 3) of float32.")
    if ijmap.size == 0 or not np.isfinite(ijmap).all():
        what = "no pixels" if ijmap.size == 0 else "NaN or infinity in it"
        raise ValueError(f"ijmap: it has {what}; expected finite phases from 0 to 1.")
    try:
        weight = float(guide_weight)
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight <= float(np.finfo(np.float32).max):
        raise ValueError(f"guide_weight: got {guide_weight!r}; expected a number of at least 0, finite in float32.")
    return _filled(pixels, hole, excluded, radius, _guide(ijmap, pixels.shape[:2], weight))


def _filled(
    image: NDArray[np.uint8],
    hole: NDArray[np.bool_],
    excluded: NDArray[np.bool_],
    radius: int,
    guide: torch.Tensor | None,
) -> NDArray[np.uint8]:
    result = image.copy()
    filled = hole & ~excluded
    if not filled.any():
        return result
    unknown = torch.from_numpy(hole | excluded)
    side = _largest_side(unknown, 2 * radius + 1)
    if side is None:
        result[filled] = 0
        return result
    completed = fill(
        Image.from_numpy(image),
        unknown,
        guide=guide,
        patch_size=side,
        seed=_settings.seed,
        progress=_report if _settings.verbose else None,
    )
    result[filled] = completed.image.to_numpy(np.uint8)[filled]
    return result


def _largest_side(unknown: torch.Tensor, side: int) -> int | None:
    """Largest odd side of the patches, halved from the given one, at which a patch is known everywhere; None: at none.

    PyPatchMatch compares what is known of a patch; here only wholly known patches are copied.
    """
    side = min(side, 2 * max(unknown.shape) + 1)
    while dilated(unknown[None, None], side // 2).all():
        if side == 1:
            return None
        side = side // 2 | 1
    return side


def _guide(ijmap: NDArray[np.float32], size: tuple[int, ...], weight: float) -> torch.Tensor:
    """Phases as points on circles, whose squared distance is 4 sin^2: (4, height, width)."""
    rows, columns = (np.arange(n) * of // n for n, of in zip(size, ijmap.shape, strict=False))
    # In double precision: a phase may be many periods, and is none of them.
    phases = ijmap[rows[:, None], columns, :2].astype(np.float64) % 1
    angles = torch.from_numpy(2 * pi * phases).movedim(2, 0)
    radius = sqrt(9 / 8 * min(weight, MAX_GUIDE_WEIGHT))
    return radius * torch.cat([angles.cos(), angles.sin()]).float()


def _checked_radius(patch_size: SupportsIndex) -> int:
    radius = _integer("patch_size", patch_size)
    if not 1 <= radius <= MAX_PATCH_SIZE:
        raise ValueError(f"patch_size: got {radius}; expected a radius from 1 to {MAX_PATCH_SIZE}.")
    return radius


def _checked(image: Any, mask: Any, global_mask: Any) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """Image, hole and excluded pixels as arrays."""
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"image: got {_came(pixels)}; expected (height, width, 3) of uint8, or a Pillow image in RGB.")
    size = pixels.shape[:2]
    hole = (pixels == 255).all(2) if mask is None else _checked_mask("mask", mask, size)
    excluded = np.zeros(size, bool) if global_mask is None else _checked_mask("global_mask", global_mask, size)
    return pixels, hole, excluded


def _checked_mask(name: str, mask: Any, size: tuple[int, ...]) -> NDArray[np.bool_]:
    array = np.asarray(mask)
    plane = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if plane.ndim != 2 or plane.dtype not in (np.uint8, np.bool_):
        raise ValueError(
            f"{name}: got {_came(array)}; expected (height, width) or (height, width, 1) of uint8 or bool, or a Pillow "
            "image of mode L or 1."
        )
    if plane.shape != size:
        raise ValueError(f"{name}: got {plane.shape}; expected the image's height and width, {size}.")
    hole: NDArray[np.bool_] = plane != 0
    return hole


def _integer(name: str, value: SupportsIndex) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: got {value!r}; expected an integer.") from None


def _came(value: Any) -> str:
    return f"{value.shape} of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__


def _report(stage: str) -> None:
    print(f"patchattn: {stage}", file=sys.stderr)
