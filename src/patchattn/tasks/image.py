"""Images as tensors, converted from and to NumPy arrays and Pillow images."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from patchattn.tasks.codecs import NO_COLOR_CHUNKS, ColorChunks, Samples, from_pillow, to_pillow
from patchattn.tasks.metadata import NO_METADATA, Metadata, fit_metadata
from patchattn.tasks.warnings import FileWarning

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["Image", "from_samples", "same_channels", "to_samples"]

FLOATS = (np.float16, np.float32, np.float64)


@dataclass(frozen=True)
class Image:
    """An image as a tensor, with alpha, bit depth, color profile and metadata.

    Raises:
        ValueError: the shapes, the dtype or the bit depth are none of those below.

    Example:
        >>> image = Image(torch.rand(1, 3, 48, 64))
        >>> image.size, image.bit_depth
        ((48, 64), 8)
    """

    color: Float[Tensor, "1 channels height width"]
    """Gray (1 channel) or RGB (3) in [0, 1], encoded as in the file (not linearized, not converted)."""
    alpha: Float[Tensor, "1 1 height width"] | None = None
    """Opacity in [0, 1]; the colors are not premultiplied. None: opaque."""
    bit_depth: Literal[8, 16] = 8
    """Bits per channel in a file."""
    icc_profile: bytes | None = None
    """ICC profile of the colors; kept, not applied (`color_profiles.to_srgb` applies it)."""
    metadata: Metadata = NO_METADATA
    """EXIF, XMP and resolution; kept."""
    color_chunks: ColorChunks = NO_COLOR_CHUNKS
    """Color chunks of a PNG file (gAMA, cHRM, sRGB, cICP); kept, not applied. Other formats get an equivalent
    profile."""

    def __post_init__(self) -> None:
        shape = tuple(self.color.shape)
        if len(shape) != 4 or shape[0] != 1 or shape[1] not in (1, 3) or not self.color.is_floating_point():
            raise ValueError(
                f"color: got shape {shape} of {self.color.dtype}; "
                "expected floats of shape (1, 1, height, width) or (1, 3, height, width)."
            )
        if 0 in shape:
            raise ValueError(f"color: got shape {shape}, which has no pixels.")
        if self.alpha is not None and tuple(self.alpha.shape) != (1, 1, *shape[2:]):
            raise ValueError(f"alpha: got shape {tuple(self.alpha.shape)}, expected {(1, 1, *shape[2:])}.")
        if self.bit_depth not in (8, 16):
            raise ValueError(f"bit_depth: got {self.bit_depth}, allowed are 8 and 16.")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.color.shape[2], self.color.shape[3]

    @classmethod
    def from_numpy(
        cls,
        array: NDArray[Any],
        *,
        bit_depth: Literal[8, 16] | None = None,
        icc_profile: bytes | None = None,
        argument: str = "array",
    ) -> Image:
        """Make an image of an array, as Pillow, scikit-image and imageio lay them out.

        Args:
            array: (height, width) or (height, width, channels), with 1 channel: gray, 2: gray and alpha, 3: RGB, 4: RGB
                and alpha (not premultiplied). uint8 and uint16 use their whole range, floats are in [0, 1] and keep
                their dtype. The array is copied.
            bit_depth: bits per channel in a file. None: 16 for uint16, else 8.
            icc_profile: color profile of the array. None: sRGB.
            argument: name of `array` in error messages.

        Raises:
            ValueError: the array has another shape or dtype, or floats outside [0, 1].

        Example:
            >>> image = Image.from_numpy(np.zeros((48, 64, 4), np.uint16))
            >>> image.color.shape, image.alpha.shape, image.bit_depth
            (torch.Size([1, 3, 48, 64]), torch.Size([1, 1, 48, 64]), 16)
        """
        array = np.asarray(array)
        kinds, native = (np.uint8, np.uint16, *FLOATS), array.dtype.newbyteorder("=")
        if array.ndim not in (2, 3) or (array.ndim == 3 and not 1 <= array.shape[2] <= 4) or native not in kinds:
            raise ValueError(
                f"{argument}: got shape {array.shape} of {array.dtype}; expected (height, width) or (height, width, "
                "1 to 4 channels) of uint8, uint16 or floats."
            )
        array = array[:, :, None] if array.ndim == 2 else array
        if native in FLOATS:
            if not (array.size == 0 or (array.min() >= 0 and array.max() <= 1)):
                raise ValueError(
                    f"{argument}: it holds NaN or floats outside [0, 1]; scale it by its largest value, or clip it."
                )
            planes = torch.from_numpy(array.transpose(2, 0, 1).astype(native, order="C"))[None]
        else:
            planes = _to_tensor(array.astype(native, copy=False))
        colors = 1 if array.shape[2] <= 2 else 3
        depth = bit_depth if bit_depth is not None else 16 if native == np.uint16 else 8
        return cls(planes[:, :colors], planes[:, colors:] if array.shape[2] > colors else None, depth, icc_profile)

    def to_numpy(self, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """Return an array, (height, width) for opaque gray, else (height, width, channels) with alpha last.

        Args:
            dtype: uint8 or uint16: clipped to [0, 1], scaled to the whole range and rounded. float16, float32 or
                float64: as they are, in [0, 1]. None: uint8 or uint16, by the bit depth.

        Raises:
            ValueError: the dtype is another one, or the image holds NaN, which integers cannot.

        Example:
            >>> Image(torch.full((1, 3, 4, 6), 0.5)).to_numpy()[0, 0]
            array([128, 128, 128], dtype=uint8)
        """
        kind = np.dtype(dtype if dtype is not None else np.uint16 if self.bit_depth == 16 else np.uint8)
        if kind in FLOATS:
            planes = self._planes()[0].detach().cpu().permute(1, 2, 0)
            planes = planes.float() if planes.dtype == torch.bfloat16 else planes
            array: NDArray[Any] = np.ascontiguousarray(planes.numpy(), dtype=kind)
        elif kind in (np.uint8, np.uint16):
            array = _to_array(self._planes(), 8 * kind.itemsize)
        else:
            raise ValueError(f"dtype: got {kind}; allowed are uint8, uint16, float16, float32 and float64.")
        return array[:, :, 0] if array.shape[2] == 1 else array

    @classmethod
    def from_pil(cls, image: PIL.Image.Image) -> Image:
        """Make an image of a Pillow image, with its color profile, EXIF, XMP and resolution.

        Modes are converted as by `read_image`: palettes become RGB, CMYK becomes sRGB (with a `FileWarning`), "I;16"
        becomes gray of 16 bits. An orientation in the EXIF is applied.

        Args:
            image: of any mode but 32-bit ones with values that 16 bits cannot hold.

        Raises:
            ValueError: the image has samples of more than 16 bits.
            RuntimeError: the extra `tools` is not installed.

        Example:
            >>> import PIL.Image
            >>> image = Image.from_pil(PIL.Image.new("LA", (64, 48)))
            >>> image.size, image.color.shape[1], image.alpha is None
            ((48, 64), 1, False)
        """
        samples = from_pillow(image)
        for note in samples.notes:
            warnings.warn(f"image: it {note}.", FileWarning, stacklevel=2)
        return from_samples(samples)

    def to_pil(self) -> PIL.Image.Image:
        """Return a Pillow image, with color profile, EXIF, XMP and resolution in its `info`.

        Pillow writes them where they are passed on: `pil.save("photo.jpg", **pil.info)`.

        The mode is "L", "LA", "RGB" or "RGBA", or "I;16" for opaque gray of 16 bits. The colors are not converted; the
        color chunks of a PNG become an equivalent profile.

        Raises:
            ValueError: the image has 16 bits and color or alpha, which Pillow cannot hold, or it holds NaN.
            RuntimeError: the extra `tools` is not installed.

        Example:
            >>> Image(torch.rand(1, 3, 48, 64)).to_pil().size
            (64, 48)
        """
        if self.bit_depth == 16 and (self.color.shape[1] == 3 or self.alpha is not None):
            raise ValueError(
                "bit_depth: got 16, and Pillow has no 16-bit images with color or alpha; reduce it first, "
                "dataclasses.replace(image, bit_depth=8), or use to_numpy()."
            )
        image: PIL.Image.Image
        image, notes = to_pillow(to_samples(self))
        for note in notes:
            warnings.warn(f"image: {note}.", FileWarning, stacklevel=2)
        return image

    def _planes(self) -> Tensor:
        return self.color if self.alpha is None else torch.cat([self.color, self.alpha], 1)


def from_samples(samples: Samples) -> Image:
    """Convert samples of a file to an image."""
    array = samples.array
    colors = 1 if array.shape[2] <= 2 else 3
    return Image(
        color=_to_tensor(array[:, :, :colors]),
        alpha=_to_tensor(array[:, :, colors:]) if array.shape[2] > colors else None,
        bit_depth=16 if array.dtype == np.uint16 else 8,
        icc_profile=samples.icc_profile,
        metadata=samples.metadata,
        color_chunks=samples.color_chunks,
    )


def to_samples(image: Image) -> Samples:
    """Convert an image to samples of a file, clipped and rounded.

    Raises:
        ValueError: the image holds NaN, or its metadata are invalid.
    """
    array = image.to_numpy()
    metadata = fit_metadata(image.metadata, image.size)
    return Samples(array[:, :, None] if array.ndim == 2 else array, image.icc_profile, metadata, image.color_chunks)


def same_channels(
    one: Image, other: Image
) -> tuple[Float[Tensor, "1 channels height width"], Float[Tensor, "1 channels height2 width2"]]:
    """Return the colors of two images with the same number of channels: gray becomes R = G = B if either has color.

    Example:
        >>> gray, rgb = same_channels(Image(torch.rand(1, 1, 4, 6)), Image(torch.rand(1, 3, 5, 7)))
        >>> gray.shape, rgb.shape
        (torch.Size([1, 3, 4, 6]), torch.Size([1, 3, 5, 7]))
    """
    channels = max(one.color.shape[1], other.color.shape[1])
    return one.color.expand(-1, channels, -1, -1), other.color.expand(-1, channels, -1, -1)


def _to_tensor(array: NDArray[np.uint8] | NDArray[np.uint16]) -> Tensor:
    largest = np.iinfo(array.dtype).max
    planes = np.ascontiguousarray(array.transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(planes).div_(largest)[None]


def _to_array(planes: Tensor, bit_depth: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if planes.isnan().any():
        raise ValueError("image: it holds NaN; expected numbers in [0, 1].")
    largest = 2**bit_depth - 1
    # float32 holds every 16-bit sample exactly; half precision would not.
    values = planes[0].detach().cpu().float().clamp(0, 1).mul(largest).round().permute(1, 2, 0)
    array = np.ascontiguousarray(values.numpy())
    return array.astype(np.uint16) if bit_depth == 16 else array.astype(np.uint8)
