"""Image files: every mode and depth comes back as it was written; errors say what to do."""

from __future__ import annotations

import io
import os
import stat
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import skimage.data
import tifffile
import torch
from PIL import ImageCms, ImageOps

from patchattn.tasks import images
from patchattn.tasks.files import atomic_writer
from patchattn.tasks.images import Image, check_image_output, read_image, write_image
from patchattn.tasks.warnings import FileWarning


def photograph(channels: int, dtype: str, size: tuple[int, int] = (19, 23)) -> np.ndarray:
    """A crop of a photograph as gray (1), gray with alpha (2), RGB (3) or RGBA (4); all 16 bits in use."""
    crop = skimage.data.astronaut()[60 : 60 + size[0], 180 : 180 + size[1]]
    colors = crop if channels >= 3 else crop[:, :, :1]
    if channels in (2, 4):
        colors = np.concatenate([colors, crop[::-1, :, 1:2]], axis=2)
    if dtype == "uint16":
        noise = np.random.default_rng(0).integers(0, 256, colors.shape)
        return (colors.astype(np.uint16) * 256 + noise).astype(np.uint16)
    return colors


def as_image(array: np.ndarray, icc_profile: bytes | None = None) -> Image:
    planes = torch.from_numpy(array.astype(np.float32) / np.iinfo(array.dtype).max).permute(2, 0, 1)[None]
    colors = 1 if array.shape[2] <= 2 else 3
    alpha = planes[:, colors:] if array.shape[2] > colors else None
    return Image(planes[:, :colors], alpha, 16 if array.dtype == np.uint16 else 8, icc_profile)


def assert_same(one: Image, other: Image) -> None:
    assert one.bit_depth == other.bit_depth
    torch.testing.assert_close(one.color, other.color, rtol=0, atol=1e-7)
    assert (one.alpha is None) == (other.alpha is None)
    if one.alpha is not None:
        torch.testing.assert_close(one.alpha, other.alpha, rtol=0, atol=1e-7)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

LOSSLESS = [
    (extension, channels, dtype)
    for extension, dtypes in [(".png", ("uint8", "uint16")), (".tif", ("uint8", "uint16")), (".webp", ("uint8",))]
    for channels in (1, 2, 3, 4)
    for dtype in dtypes
] + [(".bmp", 1, "uint8"), (".bmp", 3, "uint8"), (".TIFF", 3, "uint16")]


@pytest.mark.parametrize(("extension", "channels", "dtype"), LOSSLESS)
def test_round_trip(tmp_path: Path, extension: str, channels: int, dtype: str) -> None:
    image = as_image(photograph(channels, dtype))
    path = tmp_path / f"a{extension}"
    write_image(path, image)
    back = read_image(path)
    if extension == ".webp":  # it has no gray
        image = Image(image.color.expand(-1, 3, -1, -1), image.alpha)
    assert_same(back, image)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("extension", [".jpg", ".jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_near(tmp_path: Path, extension: str, channels: int) -> None:
    image = as_image(photograph(channels, "uint8"))
    write_image(tmp_path / f"a{extension}", image)
    back = read_image(tmp_path / f"a{extension}")
    assert back.color.shape == image.color.shape
    assert (back.color - image.color).abs().mean() < 0.01


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png_is_read_by_others(tmp_path: Path, channels: int) -> None:
    array = photograph(channels, "uint16")
    write_image(tmp_path / "a.png", as_image(array, SRGB))
    np.testing.assert_array_equal(np.atleast_3d(imagecodecs.imread(tmp_path / "a.png")), array)
    with PIL.Image.open(tmp_path / "a.png") as image:
        image.load()  # the checksums of all chunks are right
        assert image.size == (23, 19)


def test_sixteen_bits_survive_reading_from_others(tmp_path: Path) -> None:
    array = photograph(3, "uint16")
    imagecodecs.imwrite(tmp_path / "a.png", array)
    assert_same(read_image(tmp_path / "a.png"), as_image(array))
    PIL.Image.fromarray(array[:, :, 0]).save(tmp_path / "gray.png")
    assert_same(read_image(tmp_path / "gray.png"), as_image(array[:, :, :1]))


def test_palette_and_few_bits(tmp_path: Path) -> None:
    source = PIL.Image.fromarray(photograph(3, "uint8"))
    palette = source.quantize(16)
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "transparent.gif", transparency=3)
    source.convert("1").save(tmp_path / "bits.png")
    expected = as_image(np.asarray(palette.convert("RGB")))
    assert_same(read_image(tmp_path / "palette.png"), expected)
    transparent = read_image(tmp_path / "transparent.gif")
    assert transparent.alpha is not None
    np.testing.assert_array_equal(transparent.alpha[0, 0] == 0, np.asarray(palette) == 3)
    bits = read_image(tmp_path / "bits.png")
    assert bits.color.shape[1] == 1
    assert set(bits.color.unique().tolist()) == {0.0, 1.0}


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    PIL.Image.fromarray(photograph(3, "uint8")).convert("CMYK").save(tmp_path / "a.jpg", icc_profile=SRGB)
    with pytest.warns(FileWarning, match=r"path: .*a\.jpg has CMYK colors with a profile that is not one of CMYK"):
        image = read_image(tmp_path / "a.jpg")
    assert image.color.shape == (1, 3, 19, 23)
    assert image.icc_profile is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file", ["a.jpg", "a.png", "deep.png", "a.tif", "deep.tif", "a.webp"])
def test_exif_orientation(tmp_path: Path, file: str, orientation: int) -> None:
    """The image is stored turned, so that a viewer that heeds the tag shows it upright."""
    upright = photograph(3, "uint16" if file.startswith("deep") else "uint8", (24, 40))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: np.rot90(upright, 2),
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright[:, ::-1], -1),
        8: np.rot90(upright, -1),
    }[orientation]
    path = tmp_path / file
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    if file == "deep.tif":
        tifffile.imwrite(path, stored, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    elif file == "deep.png":
        data, tag = imagecodecs.png_encode(np.ascontiguousarray(stored)), exif.tobytes()[6:]
        chunk = b"eXIf" + tag
        chunk = len(tag).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        path.write_bytes(data[:33] + chunk + data[33:])
    else:
        options = {"lossless": True} if file == "a.webp" else {}
        PIL.Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
        with PIL.Image.open(path) as image:  # Pillow means the same by the tag
            assert np.abs(np.asarray(ImageOps.exif_transpose(image)).astype(float) - upright).mean() < 7
    back = read_image(path)
    assert back.size == (24, 40)
    tolerance = 0.025 if file == "a.jpg" else 1e-7
    assert (back.color - as_image(upright).color).abs().mean() < tolerance
    # What is written is upright, and says nothing else.
    write_image(tmp_path / "again.png", back)
    assert_same(read_image(tmp_path / "again.png"), back)


@pytest.mark.parametrize(
    ("extension", "dtype"),
    [
        (".png", "uint8"),
        (".png", "uint16"),
        (".tif", "uint8"),
        (".tif", "uint16"),
        (".webp", "uint8"),
        (".jpg", "uint8"),
    ],
)
def test_icc_profile_is_kept(tmp_path: Path, extension: str, dtype: str) -> None:
    path = tmp_path / f"a{extension}"
    write_image(path, as_image(photograph(3, dtype), SRGB))
    assert read_image(path).icc_profile == SRGB
    # In a gray file stands what a profile of RGB says of gray; WebP has no gray.
    write_image(path, as_image(photograph(1, dtype), SRGB))
    profile = read_image(path).icc_profile
    assert profile == SRGB if extension == ".webp" else profile is not None and profile[16:20] == b"GRAY"


@pytest.mark.parametrize("name", ["planar", "white is zero", "premultiplied", "palette", "one more channel"])
def test_tiff_variants(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.tif"
    array = photograph(4, "uint16")
    if name == "planar":
        tifffile.imwrite(path, array[:, :, :3].transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
        expected = array[:, :, :3]
    elif name == "white is zero":
        tifffile.imwrite(path, 65535 - array[:, :, 0], photometric="miniswhite")
        expected = array[:, :, :1]
    elif name == "premultiplied":
        array[:, :, 3] = 32768
        half = (array[:, :, :3].astype(np.int64) * 32768 // 65535).astype(np.uint16)
        premultiplied = np.concatenate([half, array[:, :, 3:]], 2)
        tifffile.imwrite(path, premultiplied, photometric="rgb", extrasamples=["assocalpha"])
        torch.testing.assert_close(read_image(path).color, as_image(array).color, rtol=0, atol=4e-5)
        return
    elif name == "palette":
        colormap = np.random.default_rng(0).integers(0, 65536, (3, 65536)).astype(np.uint16)
        tifffile.imwrite(path, array[:, :, 0], photometric="palette", colormap=colormap)
        expected = colormap[:, array[:, :, 0]].transpose(1, 2, 0)
    else:
        tifffile.imwrite(path, array, photometric="rgb", extrasamples=["unspecified"])
        with pytest.warns(FileWarning, match=r"has 1 further channel that is no alpha, left out"):
            assert_same(read_image(path), as_image(array[:, :, :3]))
        return
    assert_same(read_image(path), as_image(expected))


def test_first_page_is_read(tmp_path: Path) -> None:
    first, second = photograph(1, "uint16")[:, :, 0], photograph(1, "uint16")[::-1, :, 0]
    tifffile.imwrite(tmp_path / "a.tif", np.stack([first, second]), photometric="minisblack")
    with pytest.warns(FileWarning, match=r"PHOTO: .*a\.tif has 2 pages; the first is read and 1 is left out\."):
        assert_same(read_image(tmp_path / "a.tif", argument="PHOTO"), as_image(first[:, :, None]))


# ----------------------------------------------------------------------------------------------------------- streams


class Pipe:
    """Takes few bytes at a time and cannot be sought in."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def read(self) -> bytes:
        return self.data

    def write(self, data: bytes) -> int:
        self.data += bytes(data[:7])
        return len(data[:7])


@pytest.mark.parametrize("format", ["png", ".tif", "WEBP", "bmp", "gif"])
def test_streams(tmp_path: Path, format: str) -> None:
    image = as_image(photograph(3, "uint8") // 64 * 64)
    pipe = Pipe()
    write_image(pipe, image, format=format)
    for source in (Pipe(pipe.data), pipe.data, io.BytesIO(pipe.data)):
        assert_same(read_image(source), image)
    # A path's extension does not count then.
    write_image(tmp_path / "a.jpg", image, format=format)
    assert (tmp_path / "a.jpg").read_bytes() == pipe.data


def test_streams_in_messages() -> None:
    image = as_image(photograph(4, "uint8"))
    with pytest.raises(ValueError, match=r"PHOTO: cannot read standard input as an image \(its format is unknown\)"):
        read_image(b"words", argument="PHOTO")
    with pytest.raises(ValueError, match=r"--output: standard output has no extension .* give a format: png, tif, .*"):
        write_image(Pipe(), image, argument="--output")
    with pytest.raises(ValueError, match=r"format: got 'xyz'; allowed are png, tif, "):
        check_image_output(Pipe(), format="xyz")
    with pytest.raises(
        ValueError, match=r"--output: standard output as \.jpg cannot hold the image's 8 bits a channel an"
    ):
        check_image_output(Pipe(), alpha=True, argument="--output", format="jpg")


# ------------------------------------------------------------------------------------------------------------ errors


def test_missing_file() -> None:
    with pytest.raises(ValueError, match=r"TARGET: there is no file no/such\.png"):
        read_image("no/such.png", argument="TARGET")


def test_folder_instead_of_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path: .* is not a file"):
        read_image(tmp_path)


@pytest.mark.parametrize("name", ["text.png", "empty.jpg"])
def test_no_image(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("words" if name == "text.png" else "")
    with pytest.raises(ValueError, match=rf"path: cannot read .*{name} as an image .*expected PNG, JPEG"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("file", ["a.png", "deep.png", "a.jpg", "a.tif", "deep.tif", "a.webp"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_damaged_file(tmp_path: Path, file: str, kept: float) -> None:
    path = tmp_path / file
    write_image(path, as_image(photograph(3, "uint16" if file.startswith("deep") else "uint8", (64, 64))))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(ValueError, match=rf"path: cannot read .*{file} as an image"):
        read_image(path)


@pytest.mark.parametrize("dtype", ["float32", "uint32"])
def test_wide_samples(tmp_path: Path, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 5), dtype))
    with pytest.raises(ValueError, match=r"its samples are 32.*of 8 and 16 bits"):
        read_image(tmp_path / "a.tif")


def test_unknown_extension(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--output: .*a\.xyz ends in \.xyz; allowed are \.png, .* and \.apng"):
        write_image(tmp_path / "a.xyz", as_image(photograph(3, "uint8")), argument="--output")
    with pytest.raises(ValueError, match=r"ends in no extension"):
        write_image(tmp_path / "a", as_image(photograph(3, "uint8")))


def test_format_too_poor(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"a\.jpg cannot hold the image's 16 bits a channel; .*\.png, \.tif, \.tiff and \.apng"
    ):
        write_image(tmp_path / "a.jpg", as_image(photograph(3, "uint16")))
    with pytest.raises(ValueError, match=r"a\.bmp cannot hold the image's 8 bits a channel and alpha"):
        write_image(tmp_path / "a.bmp", as_image(photograph(4, "uint8")))
    assert list(tmp_path.iterdir()) == []


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path: cannot write .*a\.png: there is no folder .*nowhere; create it"):
        write_image(tmp_path / "nowhere" / "a.png", as_image(photograph(3, "uint8")))


def test_folder_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not bind the superuser, whom tests may run as.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match=r"path: cannot write .*: the folder .* is not writable"):
        write_image(tmp_path / "a.png", as_image(photograph(3, "uint8")))


def test_something_else_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ValueError, match=r"a\.png: it exists and is not a file"):
        write_image(tmp_path / "a.png", as_image(photograph(3, "uint8")))


def test_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image: it holds NaN"):
        write_image(tmp_path / "a.png", Image(torch.full((1, 3, 4, 5), torch.nan)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"color": torch.rand(3, 4, 5)}, r"color: got shape \(3, 4, 5\)"),
        ({"color": torch.rand(1, 2, 4, 5)}, r"color: got shape \(1, 2, 4, 5\)"),
        ({"color": torch.ones(1, 3, 4, 5, dtype=torch.uint8)}, r"color: .*torch\.uint8; expected floats"),
        ({"color": torch.rand(1, 3, 0, 5)}, r"color: .*no pixels"),
        ({"alpha": torch.rand(1, 1, 4, 6)}, r"alpha: got shape \(1, 1, 4, 6\), expected \(1, 1, 4, 5\)"),
        ({"bit_depth": 12}, r"bit_depth: got 12, allowed are 8 and 16"),
    ],
)
def test_no_such_image(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Image(**({"color": torch.rand(1, 3, 4, 5)} | changes))


# ---------------------------------------------------------------------------------------------------- whole or not


@pytest.mark.parametrize("failure", [RuntimeError, OSError, KeyboardInterrupt])
def test_failure_in_the_middle_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    path = tmp_path / "a.png"
    write_image(path, as_image(photograph(3, "uint8")))
    before = path.read_bytes()

    def half(file: object, *_: object) -> None:
        file.write(before[:50])  # type: ignore[attr-defined]
        raise failure("in the middle")

    monkeypatch.setattr(images, "encode", half)
    with pytest.raises(ValueError if failure is OSError else failure, match="in the middle"):
        write_image(path, as_image(photograph(1, "uint8")))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_permissions(tmp_path: Path) -> None:
    fresh, existing = tmp_path / "fresh", tmp_path / "existing"
    existing.write_bytes(b"old")
    existing.chmod(0o640)
    mask = os.umask(0o022)
    try:
        for path in (fresh, existing):
            with atomic_writer(path) as file:
                file.write(b"new")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o644
    assert stat.S_IMODE(existing.stat().st_mode) == 0o640


def test_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "folder" / "real.png")
    write_image(link, as_image(photograph(3, "uint8")))
    assert link.is_symlink()
    assert (tmp_path / "folder" / "real.png").is_file()


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    write_image(tmp_path / "a.png", as_image(photograph(3, "uint8")))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RuntimeError, match=r'PIL is not installed; .*pip install "patchattn\[tools\]"'):
        read_image(tmp_path / "a.png")
