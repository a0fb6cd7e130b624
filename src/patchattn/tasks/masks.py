"""Mask files as coverage maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchattn.extras import extra
from patchattn.tasks.images import Image, read_image
from patchattn.tasks.mask_tones import describe, matches, only_tone, two_tones
from patchattn.tasks.pyramid import dilated
from patchattn.tasks.sources import Source, name_of, open_source
from patchattn.tasks.thin_holes import thin_part

__all__ = ["MaskOptions", "add_jpeg_rim", "mask_coverage", "read_mask"]

JPEG_SIGNATURE = b"\xff\xd8\xff"
JPEG_RIM = 2
"""Width of the rim around an object in a JPEG that holds some of its color, in pixels."""
MIN_OBJECT_SIDE = 8
"""Side of the smallest square that fits into an object, but not into dust and scratches."""
LEVEL_TOLERANCE = 1.5 / 255
"""Largest difference between a pixel of the image and the same pixel in a mask painted over it."""
MAX_COVERED = 0.5
"""Largest share that a mask may cover unless its color or inversion is given; more is taken for an inverted mask."""
MAX_NOISE = 0.15
"""Largest coverage that may be noise of a lossy format."""
MIN_NOISE_RATIO = 2.0
"""Smallest ratio of faint to half-covered pixels at which the faint ones are noise; clean edges stay below one."""
MAX_MIXED = 0.2
"""Largest share of mixed colors in a shape on transparency; more is a cut-out object."""
MIN_LEVELS = 6
"""Smallest number of levels in noise; fewer are labels."""


@dataclass(frozen=True)
class MaskOptions:
    """Options for reading a mask, and names of arguments in error messages.

    Example:
        >>> MaskOptions(color="red").color
        'red'
    """

    color: str | None = None
    """Color of the shape, a CSS name or `#rrggbb`; None: detected."""
    invert: bool = False
    """Cover everything but the shape."""
    argument: str = "mask"
    """Name of the mask in messages."""
    color_argument: str | None = "color"
    """Name of `color` in messages; None: not mentioned."""
    invert_argument: str | None = "invert"
    """Name of `invert` in messages; None: not mentioned, and the mask may cover most of the image."""


def read_mask(
    source: Source,
    photo: Image,
    options: MaskOptions = MaskOptions(),
    *,
    photo_name: str = "the photograph",
) -> Float[Tensor, "height width"]:
    """Read a mask file as the coverage of each pixel of an image.

    Args:
        source: an image file of the same size as `photo`, or its bytes; see `mask_coverage` for the kinds of masks.
        photo: the image that the mask belongs to.
        options: how to read it.
        photo_name: name of the image in messages.

    Returns:
        Coverage from 0 to 1; fractional at soft edges.

    Raises:
        ValueError: there is no such image, it has another size, or it is not clear what it covers.

    Example:
        >>> import tempfile
        >>> from patchattn.tasks.images import write_image
        >>> shape = torch.zeros(1, 1, 8, 10)
        >>> shape[..., 2:4, 2:7] = 1
        >>> path = tempfile.mkdtemp() + "/mask.png"
        >>> write_image(path, Image(shape))
        >>> read_mask(path, Image(torch.rand(1, 3, 8, 10))).sum()
        tensor(10.)
    """
    mask, name = read_image(source, argument=options.argument), name_of(source)
    if mask.size != photo.size:
        sizes = [f"{size[1]} x {size[0]}" for size in (mask.size, photo.size)]
        turned = mask.size == photo.size[::-1]
        raise ValueError(
            f"{options.argument}: {name} has {sizes[0]} pixels, {photo_name} has {sizes[1]}; expected the same size"
            + (" (it seems to lie on its side: turn it upright, as the photograph is shown)." if turned else ".")
        )
    return mask_coverage(mask, options, photo=photo, name=name)


def add_jpeg_rim(hole: Float[Tensor, "height width"], photo: Source) -> Float[Tensor, "height width"]:
    """Widen the coverage of objects in a JPEG by the two pixels over which JPEG spreads their color.

    Dust and scratches narrower than 8 pixels are not widened: most have no color that would spread, and the two pixels
    are most of the known surroundings; see docs/inpaint.md. Holes of other formats are returned unchanged.

    Args:
        hole: coverage of each pixel, see `read_mask`.
        photo: the image's file.
    """
    with open_source(photo, argument="photo") as file:
        if file.read(len(JPEG_SIGNATURE)) != JPEG_SIGNATURE:
            return hole
    covered = (hole > 0)[None, None]
    objects = covered & ~thin_part(covered, MIN_OBJECT_SIDE, reach=MIN_OBJECT_SIDE)
    return torch.where(dilated(objects, JPEG_RIM)[0, 0] & ~covered[0, 0], 1, hole)


def mask_coverage(
    mask: Image,
    options: MaskOptions = MaskOptions(),
    *,
    photo: Image | None = None,
    name: str = "it",
) -> Float[Tensor, "height width"]:
    """Compute the coverage of each pixel by a mask image.

    Supported are a light shape on a darker background (of any two levels: 0 and 255, 0 and 1, 16 and 235), a shape of
    one color on black, gray or white, either of them on transparency, paint of one color on transparency (black too),
    and the image itself with something painted over it. Soft edges are partly covered; noise of lossy formats is
    not. With a given color all that is within 40 of 255 levels of it in each channel is covered (in a mask of at most
    32 colors: the nearest color alone); of a mask of two colors, its soft edges too.

    Args:
        mask: the mask.
        options: how to read it.
        photo: the image, to recognize it under paint.
        name: name of the mask's file in messages.

    Raises:
        ValueError: the mask covers nothing, everything, or (unless allowed by `options`) more than half; or several of
            its colors could be the shape. The message lists its colors and what to do.

    Example:
        >>> mask_coverage(Image(torch.tensor([[[[0.0, 0.0, 0.2], [0.0, 0.1, 0.2], [0.0, 0.0, 0.0]]]])))
        tensor([[0.0000, 0.0000, 1.0000],
                [0.0000, 0.5000, 1.0000],
                [0.0000, 0.0000, 0.0000]])
    """
    color = mask.color[0].float().expand(3, -1, -1).flatten(1).T
    alpha = torch.ones_like(color[:, 0]) if mask.alpha is None else mask.alpha.flatten().float()

    def error(problem: str) -> ValueError:
        return ValueError(
            f"{options.argument}: {name} {problem} (it holds: {describe(color, alpha)}); {_remedy(options)}."
        )

    if not (alpha > 0).any():
        raise error("is transparent everywhere")
    if options.color is not None:
        covered = _of_color(color, alpha, _parsed(options))
        if not covered.any():
            raise error(f"has no pixel of the color {options.color}")
    else:
        painted = None if photo is None else _painted_over(mask, photo)
        if painted is not None and not painted.any():
            raise error("is the photograph itself, with nothing painted over it")
        found = _shape(color, alpha) if painted is None else painted
        if found is None:
            raise error("holds several colors, of which none is clearly the shape")
        covered = found
    covered = _without_noise((1 - covered if options.invert else covered).view(mask.size))
    share = float((covered > 0).float().mean())
    if share in (0, 1):
        raise error("covers nothing" if share == 0 else "covers the whole image")
    explicit = options.invert or options.color is not None or options.invert_argument is None
    if share > MAX_COVERED and not explicit:
        raise error(f"covers {100 * share:.3g} % of the image and is probably inverted")
    return covered


def _shape(color: Tensor, alpha: Tensor) -> Tensor | None:
    """Coverage by the visible colors; None if ambiguous."""
    seen = alpha > 0
    shown, weight = color[seen], alpha[seen]
    opaque = bool((alpha == 1).all())
    one = only_tone(shown, weight)
    tones = None if one else two_tones(shown, weight)
    if tones is not None and (opaque or tones.mixed < MAX_MIXED):
        share = tones.share
    elif not opaque:
        # Paint, or something cut out, on transparency: what is seen is the shape, whatever its color.
        share = torch.ones_like(weight)
    elif one:
        share = shown.any(1).float()
    else:
        return None
    return torch.zeros_like(alpha).masked_scatter(seen, share * weight)


def _of_color(color: Tensor, alpha: Tensor, given: Tensor) -> Tensor:
    seen = alpha > 0
    shown, weight = color[seen], alpha[seen]
    tones = two_tones(shown, weight)
    share = None if tones is None else tones.share_of(given)
    share = matches(shown, given).float() if share is None else share
    return torch.zeros_like(alpha).masked_scatter(seen, share * weight)


def _painted_over(mask: Image, photo: Image) -> Tensor | None:
    """Mask of the changed pixels, if the mask is the image with something painted over it."""
    if mask.alpha is not None and bool((mask.alpha < 1).any()):
        return None
    differs = (mask.color - photo.color).abs().amax(1).flatten() > LEVEL_TOLERANCE
    # Black and white are no sign of it: a mask has them too.
    gray = photo.color.mean(1).flatten()
    midtones = (gray > 0.1) & (gray < 0.9)
    share = float(differs[midtones].float().mean()) if midtones.any() else 1.0
    return differs.float() if share < MAX_COVERED else None


def _without_noise(covered: Tensor) -> Tensor:
    """Remove the noise that lossy formats scatter around a shape, but not its soft edge."""
    faint = (covered > 0) & (covered < MAX_NOISE)
    half = ((covered > 0.25) & (covered < 0.75)).sum()
    if faint.sum() <= MIN_NOISE_RATIO * half or len(covered[faint].sort().values.diff().nonzero()) < MIN_LEVELS - 1:
        return covered
    beside = dilated((covered >= MAX_NOISE)[None, None], 1)[0, 0]
    return covered.masked_fill(faint & ~beside, 0)


def _parsed(options: MaskOptions) -> Tensor:
    with extra("tools"):
        from PIL import ImageColor
    assert options.color is not None
    try:
        return torch.tensor(ImageColor.getrgb(options.color)[:3]) / 255
    except ValueError as error:
        raise ValueError(
            f"{options.color_argument}: got {options.color!r}; expected a color's name, as red, or #rrggbb."
        ) from error


def _remedy(options: MaskOptions) -> str:
    ways = [
        f"{options.invert_argument} covers the rest instead" if options.invert_argument else "",
        f"{options.color_argument} says which color covers" if options.color_argument else "",
    ]
    remedy = "expected a light shape on black, or paint of one color on transparency"
    return remedy + (f"; {', '.join(filter(None, ways))}" if any(ways) else "")
