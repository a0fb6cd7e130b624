"""Damaged files: small valid ones of every format that is read, and random changes to them."""

from __future__ import annotations

import io
from collections.abc import Callable

import imagecodecs
import numpy as np
import PIL.Image
import pillow_heif
import skimage.data
import torch
from numpy.random import Generator
from PIL import PngImagePlugin

from patchattn.tasks.images import Image, write_image
from patchattn.tasks.metadata import Metadata
from patchattn.tasks.sequences import ImageSequence, write_frames

__all__ = ["mutated", "seeds", "videos"]

EXIF = (
    b"Exif\0\0II*\0\x08\0\0\0\x03\0\x0f\x01\x02\0\x08\0\0\0\x32\0\0\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    b"\x1a\x01\x05\0\x01\0\0\0\x3a\0\0\0\0\0\0\0Camera!\0\x48\0\0\0\x01\0\0\0"
)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    b"</x:xmpmeta>"
)


def seeds(*, mask: bool = False) -> dict[str, bytes]:
    """Return small valid files by name, of a photograph or a mask; the extension says the format."""
    photo = skimage.data.coffee()[100:124, 200:232]
    if mask:
        photo = np.zeros_like(photo)
        photo[8:14, 10:20] = 255
    image = PIL.Image.fromarray(photo)
    made: dict[str, bytes] = {}

    def save(name: str, one: PIL.Image.Image, kind: str, **settings: object) -> None:
        file = io.BytesIO()
        one.save(file, kind, **settings)
        made[name] = file.getvalue()

    profile = _srgb()
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "text " * 20, zip=True)
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    save("plain.png", image, "PNG", pnginfo=info, icc_profile=profile, exif=EXIF, dpi=(72, 72))
    save("palette.png", image.convert("P"), "PNG", transparency=3)
    save("gray.png", image.convert("LA"), "PNG")
    save("bits.png", image.convert("1"), "PNG")
    save("animated.png", image, "PNG", save_all=True, append_images=[image.rotate(90)], duration=40)
    save("baseline.jpg", image, "JPEG", exif=EXIF, icc_profile=profile, xmp=XMP)
    save("progressive.jpg", image, "JPEG", progressive=True)
    save("cmyk.jpg", image.convert("CMYK"), "JPEG")
    save("lossless.webp", image, "WEBP", lossless=True, exif=EXIF, xmp=XMP, icc_profile=profile)
    save("lossy.webp", image.convert("RGBA"), "WEBP")
    save("animated.webp", image, "WEBP", save_all=True, append_images=[image.rotate(90)], duration=40)
    save("plain.bmp", image, "BMP")
    save("palette.bmp", image.convert("P"), "BMP")
    save("animated.gif", image, "GIF", save_all=True, append_images=[image.rotate(90)], duration=40, loop=0)
    save("plain.gif", image, "GIF")
    save("plain.ppm", image, "PPM")
    save("plain.tga", image, "TGA")
    save("plain.jp2", image, "JPEG2000")
    save("plain.avif", image, "AVIF")
    save("plain.ico", image, "ICO")
    pillow_heif.register_heif_opener()  # Pillow writes with it
    save("plain.heic", image, "HEIF", exif=EXIF)
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        save(f"{compression}.tif", image, "TIFF", compression=compression)
    save("pages.tif", image, "TIFF", save_all=True, append_images=[image.convert("L")])
    color = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255
    for name in ("deep.png", "deep.tif"):
        file = io.BytesIO()
        deep = Image(color, bit_depth=16, metadata=Metadata(EXIF[6:], XMP, (72, 72)))
        write_image(file, deep, format=name.partition(".")[2])
        made[name] = file.getvalue()
    for name, kind in (("several.gif", "animation"), ("several.webp", "animation"), ("several.apng", "animation"),
                       ("several.tif", "pages")):  # fmt: skip
        file = io.BytesIO()
        images = [Image(color.roll(number, 3).round()) for number in range(3)]
        write_frames(file, images, ImageSequence(kind, "other", (0.1,) * 3), format=name.partition(".")[2])
        made[name] = file.getvalue()
    made["plain.jxl"] = bytes(imagecodecs.jpegxl_encode(photo))
    made["twelve.jp2"] = bytes(imagecodecs.jpeg2k_encode(photo.astype(np.uint16) * 16, level=0, bitspersample=12))
    return made


def videos() -> dict[str, bytes]:
    """Return small valid videos by name."""
    import av

    photo = skimage.data.coffee()[100:148, 200:264]
    made = {}
    for name, kind, codec in (
        ("clip.mp4", "mp4", "libx264"),
        ("clip.mkv", "matroska", "libx264"),
        ("clip.ts", "mpegts", "mpeg2video"),
        ("clip.avi", "avi", "mpeg4"),
    ):
        file = io.BytesIO()
        with av.open(file, "w", format=kind) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(6):
                rolled = np.ascontiguousarray(np.roll(photo, number, 1))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rolled, format="rgb24")))
            container.mux(stream.encode())
        made[name] = file.getvalue()
    return made


def _srgb() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# ----------------------------------------------------------------------------------------------------------- mutations


def flip_bits(data: bytearray, rng: Generator) -> None:
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        data[place] ^= 1 << rng.integers(8)


def random_bytes(data: bytearray, rng: Generator) -> None:
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        data[place] = rng.integers(256)


def cut(data: bytearray, rng: Generator) -> None:
    del data[rng.integers(0, len(data)) :]


def zero_block(data: bytearray, rng: Generator) -> None:
    start = rng.integers(0, len(data))
    stop = min(len(data), start + rng.integers(1, 65))
    data[start:stop] = bytes(stop - start)


def remove_block(data: bytearray, rng: Generator) -> None:
    start = rng.integers(0, len(data))
    del data[start : start + rng.integers(1, 33)]


def repeat_block(data: bytearray, rng: Generator) -> None:
    start = rng.integers(0, len(data))
    block = data[start : start + rng.integers(1, 65)]
    data[start:start] = block * int(rng.integers(1, 9))


def insert_noise(data: bytearray, rng: Generator) -> None:
    start = rng.integers(0, len(data) + 1)
    data[start:start] = rng.bytes(int(rng.integers(1, 65)))


def extreme_number(data: bytearray, rng: Generator) -> None:
    width = int(rng.choice([2, 4, 8]))
    start = int(rng.integers(0, max(1, len(data) - width)))
    value = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1])) % 256**width
    data[start : start + width] = value.to_bytes(width, str(rng.choice(["little", "big"])))  # type: ignore[arg-type]


def header_number(data: bytearray, rng: Generator) -> None:
    """As `extreme_number`, in the first bytes, where sizes stand."""
    head = bytearray(data[:64])
    extreme_number(head, rng)
    data[:64] = head


MUTATIONS: tuple[Callable[[bytearray, Generator], None], ...] = (
    flip_bits, random_bytes, cut, zero_block, remove_block, repeat_block, insert_noise, extreme_number, header_number,
)  # fmt: skip


def mutated(data: bytes, number: int) -> bytes:
    """Return a file with some random changes; the same number, the same changes."""
    rng = np.random.default_rng(number)
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if changed:
            MUTATIONS[rng.integers(len(MUTATIONS))](changed, rng)
    return bytes(changed)
