"""Colors mean what they meant: in every format, and where they are converted."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import skimage.data
import tifffile
import torch
from PIL import ImageCms

from patchattn.tasks.codecs import ColorChunks
from patchattn.tasks.codecs.icc import (
    SRGB_CURVE,
    SRGB_PRIMARIES,
    Curve,
    Primaries,
    apply_profiles,
    fit_profile,
    gray_profile,
    is_sound,
    rgb_profile,
    srgb_profile,
)
from patchattn.tasks.color_profiles import profile_of, to_profile, to_srgb
from patchattn.tasks.colorize import colorize
from patchattn.tasks.images import Image, read_image, write_image
from patchattn.tasks.sequences import ImageSequence, read_frames, write_frames
from patchattn.tasks.warnings import FileWarning

P3 = Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290))
GAMA = {gamma: ("gAMA", struct.pack(">I", round(gamma * 100_000))) for gamma in (1.0, 0.45455, 1 / 1.8)}
CHRM = ("cHRM", struct.pack(">8I", *(round(n * 100_000) for point in (P3.white, *P3[:3]) for n in point)))
SRGB = ("sRGB", b"\0")
CICP = {
    name: ("cICP", bytes(code)) for name, code in [("P3", (12, 13, 0, 1)), ("PQ", (9, 16, 0, 1)), ("709", (1, 1, 0, 1))]
}

FORMATS = [".tif", ".webp", ".jpg", ".bmp", ".gif"]
"""Those without chunks of color; the last two without profiles either."""


def photograph(size: tuple[int, int] = (16, 20)) -> np.ndarray:
    return skimage.data.astronaut()[60 : 60 + size[0], 180 : 180 + size[1]]


def few_colors() -> np.ndarray:
    return photograph() // 43 * 51


def png(array: np.ndarray, *chunks: tuple[str, bytes]) -> bytes:
    """A PNG file with chunks after its header."""
    data = imagecodecs.png_encode(np.ascontiguousarray(array))
    added = b""
    for name, body in chunks:
        kind = name.encode()
        added += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:33] + added + data[33:]


def iccp(profile: bytes) -> tuple[str, bytes]:
    return "iCCP", b"name\0\0" + zlib.compress(profile)


def srgb_of(data: bytes | Path) -> np.ndarray:
    """What another program shows of a file: its numbers in sRGB, by Pillow and LittleCMS, in 8 bits."""
    with PIL.Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
        profile = image.info.get("icc_profile")
        image = image if image.mode in ("L", "RGB") else image.convert("RGB")
        if profile is None:
            return np.asarray(image.convert("RGB")).astype(int)
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        shown = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
        )
        return np.asarray(shown).astype(int)


def expected(array: np.ndarray, decoding: float | None, matrix: np.ndarray | None = None) -> np.ndarray:
    """The sRGB of numbers by hand: the exponent that decodes them, and the linear light of their primaries."""
    numbers = array / np.iinfo(array.dtype).max
    linear = np.where(numbers <= 0.04045, numbers / 12.92, ((numbers + 0.055) / 1.055) ** 2.4)
    linear = linear if decoding is None else numbers**decoding
    linear = np.clip(linear if matrix is None else linear @ matrix.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


P3_TO_SRGB = np.array([[1.22494, -0.22494, 0], [-0.04206, 1.04206, 0], [-0.01964, -0.07864, 1.09827]])
"""As published for linear Display P3."""

SAID = {
    "linear": ((GAMA[1.0],), 1.0, None),
    "gamma 1.8": ((GAMA[1 / 1.8],), 1.8, None),
    "gamma and primaries": ((GAMA[0.45455], CHRM), 2.2, P3_TO_SRGB),
    "primaries alone": ((CHRM,), None, P3_TO_SRGB),
    "sRGB goes before gAMA": ((SRGB, GAMA[1.0]), None, None),
    "cICP goes before all": ((CICP["P3"], SRGB, GAMA[1.0], CHRM), None, P3_TO_SRGB),
}


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("extension", FORMATS)
def test_chunks_become_a_profile(tmp_path: Path, name: str, extension: str) -> None:
    chunks, decoding, matrix = SAID[name]
    array = few_colors()
    image = read_image(png(array, *chunks))
    path = tmp_path / f"a{extension}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_image(path, image)
    said = [str(one.message) for one in caught]
    # The chunk sRGB says what is meant anyway: nothing is converted.
    converted = extension in (".bmp", ".gif") and "sRGB goes" not in name
    assert len(said) == converted, said
    assert all("no room for a color profile; the colors are converted to sRGB" in one for one in said)
    wanted = expected(array, decoding, matrix) * 255
    difference = np.abs(srgb_of(path) - wanted)
    assert difference.mean() < 8 if extension == ".jpg" else difference.max() <= 1
    if extension not in (".bmp", ".gif"):
        assert read_image(path).icc_profile is not None


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_chunks_stay_in_png(tmp_path: Path, name: str, dtype: str) -> None:
    chunks, decoding, matrix = SAID[name]
    array = few_colors() if dtype == "uint8" else few_colors().astype(np.uint16) * 257
    write_image(tmp_path / "a.png", read_image(png(array, *chunks)))
    data = (tmp_path / "a.png").read_bytes()
    for kind, body in chunks:
        at = data.index(kind.encode())
        assert data[at + 4 : at + 4 + len(body)] == body
        assert at < data.index(b"IDAT")
    with PIL.Image.open(tmp_path / "a.png") as image:
        image.load()  # checksums
    back = read_image(tmp_path / "a.png")
    shown = to_srgb(back).color[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(shown, expected(array, decoding, matrix), atol=3e-4)
    assert to_srgb(back).bit_depth == back.bit_depth


def test_depth_survives_the_conversion() -> None:
    """Neighbors among 65,536 numbers stay apart."""
    ramp = np.arange(20_000, 20_256, dtype=np.uint16).reshape(16, 16, 1)
    shown = to_srgb(read_image(png(ramp[:, :, 0], GAMA[1 / 1.8]))).color.flatten()
    assert shown.mul(65535).round().unique().numel() == len(np.unique(np.rint(expected(ramp, 1.8) * 65535))) == 256
    np.testing.assert_allclose(shown.numpy(), expected(ramp, 1.8).ravel(), atol=2e-5)


@pytest.mark.parametrize("extension", [".png", ".tif", ".jpg", ".webp"])
def test_gray_with_gamma(tmp_path: Path, extension: str) -> None:
    array = few_colors()[:, :, 0]
    write_image(tmp_path / f"a{extension}", read_image(png(array, GAMA[1 / 1.8])))
    back = read_image(tmp_path / f"a{extension}")
    shown = to_srgb(back).color[0, 0].numpy()
    np.testing.assert_allclose(shown, expected(array, 1.8), atol=0.05 if extension == ".jpg" else 5e-4)


@pytest.mark.parametrize("extension", [".tif", ".jpg", ".webp", ".bmp"])
def test_more_light_than_white_is_said(tmp_path: Path, extension: str) -> None:
    image = read_image(png(photograph(), CICP["PQ"], ("cLLI", bytes(8))))
    with pytest.warns(FileWarning, match=r"--output: .*cICP says \(primaries 9, PQ\); .* are left as they are"):
        write_image(tmp_path / f"a{extension}", image, argument="--output")
    write_image(tmp_path / "a.png", image)
    assert read_image(tmp_path / "a.png").color_chunks == image.color_chunks
    with pytest.raises(ValueError, match=r"reference: what its file says of its colors cannot be applied .*PQ"):
        colorize(image.color[:, :1], image)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ((("gAMA", bytes(4)),), "the gamma in its chunk gAMA is 0"),
        ((("cHRM", bytes(32)),), "its primaries make no color space"),
        ((("cHRM", bytes(5)),), "its chunk cHRM is damaged"),
        ((("cICP", bytes([1, 13, 5, 1])),), "no RGB of full range"),
        ((("cICP", b"ab"),), "its chunk cICP is damaged"),
    ],
)
def test_chunks_that_make_no_sense(tmp_path: Path, chunks: tuple[tuple[str, bytes], ...], message: str) -> None:
    image = Image(torch.rand(1, 3, 4, 5), color_chunks=ColorChunks(chunks))
    with pytest.warns(FileWarning, match=message):
        write_image(tmp_path / "a.tif", image)
    with pytest.raises(ValueError, match=message):
        to_srgb(image)


# ---------------------------------------------------------------------------------------------------------- profiles


@pytest.mark.parametrize("curve", [Curve(1.0), Curve(1.8), Curve(2.2), SRGB_CURVE])
def test_profiles_mean_the_same_to_others(curve: Curve) -> None:
    array = photograph()
    for primaries, matrix in [(SRGB_PRIMARIES, None), (P3, P3_TO_SRGB)]:
        data = png(array, iccp(rgb_profile(primaries, curve, "x")))
        wanted = expected(array, None if curve == SRGB_CURVE else curve.gamma, matrix) * 255
        assert np.abs(srgb_of(data) - wanted).max() < 1.6
        shown = to_srgb(read_image(data)).color[0].permute(1, 2, 0).numpy() * 255
        np.testing.assert_allclose(shown, wanted, atol=0.1)


def test_our_srgb_is_that_of_littlecms() -> None:
    theirs = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    numbers = np.random.default_rng(0).random((20, 20, 3))
    np.testing.assert_allclose(apply_profiles(numbers, srgb_profile(), theirs), numbers, atol=1e-6)
    assert ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))).strip() == "sRGB"


@pytest.mark.parametrize("curve", [Curve(1.0), Curve(1.8), SRGB_CURVE])
def test_gray_and_rgb_profiles_of_one_gray(curve: Curve) -> None:
    ramp = np.linspace(0, 1, 101)[None, :, None]
    gray, rgb = gray_profile(curve, "gray"), rgb_profile(P3, curve, "rgb")
    shown = apply_profiles(ramp, gray, srgb_profile())
    np.testing.assert_allclose(
        apply_profiles(ramp.repeat(3, 2), fit_profile(gray, 3), srgb_profile()), shown, atol=2e-4
    )
    np.testing.assert_allclose(apply_profiles(ramp, fit_profile(rgb, 1), srgb_profile()), shown, atol=2e-4)
    assert fit_profile(gray, 1) is gray


DAMAGED = r"has a color profile that is damaged or of an unknown kind, left out"
PROFILES = {
    "damaged": (
        srgb_profile()[:200] + bytes(300),
        r"has a color profile that is damaged or of an unknown kind, left out",
    ),
    "nothing": (b"not a profile at all" * 20, r"has a color profile that is damaged"),
    "of gray": (gray_profile(Curve(1.8), "gray"), r"has a color profile of gray beside its RGB pixels; its equivalent"),
    "of L*a*b*": (
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
        r"has a color profile that is damaged or of",
    ),
}


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("file", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_profiles_that_do_not_fit_are_said(tmp_path: Path, name: str, file: str) -> None:
    profile, message = PROFILES[name]
    PIL.Image.fromarray(photograph()).save(tmp_path / file, icc_profile=profile)
    with pytest.warns(FileWarning, match=rf"PHOTO: .*{file} {message}"):
        image = read_image(tmp_path / file, argument="PHOTO")
    assert (image.icc_profile is None) == (name != "of gray")
    assert image.icc_profile is None or is_sound(image.icc_profile)


def test_gray_with_a_profile_of_rgb(tmp_path: Path) -> None:
    profile = rgb_profile(P3, Curve(1.8), "P3")
    PIL.Image.fromarray(photograph()[:, :, 0]).save(tmp_path / "a.jpg", icc_profile=profile)
    with pytest.warns(FileWarning, match=r"of RGB beside its gray pixels; its equivalent for gray takes its place"):
        image = read_image(tmp_path / "a.jpg")
    assert image.icc_profile == fit_profile(profile, 1)


def test_precedence_and_targets() -> None:
    linear, p3 = ColorChunks((GAMA[1.0],)), rgb_profile(P3, SRGB_CURVE, "P3")
    image = Image(torch.rand(1, 3, 4, 5))
    assert profile_of(image) is None
    assert profile_of(Image(image.color, icc_profile=p3, color_chunks=linear)) == p3
    assert profile_of(Image(image.color, icc_profile=p3, color_chunks=ColorChunks((CICP["709"],)))) != p3
    there = to_profile(image, p3)
    torch.testing.assert_close(to_srgb(there).color, image.color, rtol=0, atol=1e-4)
    assert not torch.allclose(there.color, image.color, atol=0.01)
    assert to_profile(there, p3).color is there.color


# ------------------------------------------------------------------------------------------------- CMYK and L*a*b*


def cmyk_profile() -> bytes:
    """An output profile whose inks are those of a table with 2 steps each, unlike the plain formula."""
    grid = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), -1).reshape(-1, 4)
    light = (1 - grid[:, :3]) * (1 - 0.9 * grid[:, 3:])  # black ink is not quite black
    lab = np.stack([light.mean(1) * 100, 60 * (light[:, 0] - light[:, 1]), 60 * (light[:, 1] - light[:, 2])], 1)
    coded = np.stack([lab[:, 0] * 65280 / 100, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256], 1)
    identity = struct.pack(">9i", *(65536 * n for n in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    curve = struct.pack(">2H", 0, 65535)
    table = b"mft2" + bytes(4) + bytes([4, 3, 2, 0]) + identity + struct.pack(">HH", 2, 2) + curve * 4
    table += np.rint(coded).astype(">u2").tobytes() + curve * 3
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    tags, body = [], b""
    for tag, data in [(b"desc", text), (b"wtpt", white), (b"A2B0", table)]:
        tags.append((tag, 128 + 4 + 36 + len(body), len(data)))
        body += data + bytes(-len(data) % 4)
    index = struct.pack(">I", 3) + b"".join(struct.pack(">4sII", *entry) for entry in tags)
    head = struct.pack(">I4sI4s4s4s", 168 + len(body), bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + white[8:] + bytes(48)
    return head + index + body


@pytest.mark.parametrize("file", ["a.jpg", "a.tif", "deep.tif"])
@pytest.mark.parametrize("tagged", [True, False])
def test_cmyk(tmp_path: Path, file: str, tagged: bool) -> None:
    profile = cmyk_profile() if tagged else None
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:8, :8] = (255, 0, 0, 0)
    inks[8:, :8] = (0, 120, 200, 30)
    inks[8:, 8:] = (0, 0, 0, 255)
    if file == "deep.tif":
        tifffile.imwrite(tmp_path / file, inks.astype(np.uint16) * 257, photometric="separated", iccprofile=profile)
    else:
        PIL.Image.fromarray(inks, "CMYK").save(tmp_path / file, icc_profile=profile, quality=100)
    said = (
        r"converted to sRGB by their profile" if tagged else r"CMYK colors without a profile; they are converted by the"
    )
    with pytest.warns(FileWarning, match=said):
        image = read_image(tmp_path / file)
    assert image.bit_depth == (16 if file == "deep.tif" else 8)
    assert image.icc_profile is None
    cmyk = PIL.Image.fromarray(inks, "CMYK")
    if tagged:
        source = ImageCms.ImageCmsProfile(io.BytesIO(cmyk_profile()))
        wanted = ImageCms.profileToProfile(
            cmyk,
            source,
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    else:
        wanted = cmyk.convert("RGB")
    shown = image.color[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(shown - np.asarray(wanted)).max() < (4 if file == "a.jpg" else 1.6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("kind", ["CIELAB", "ICCLAB"])
def test_lab(tmp_path: Path, dtype: str, kind: str) -> None:
    array = photograph()
    # From the white of sRGB to that of TIFF.
    to_d50 = np.array([[1.04788, 0.02292, -0.05022], [0.02963, 0.99048, -0.01707], [-0.00925, 0.01508, 0.75168]])
    lab = skimage.color.xyz2lab(skimage.color.rgb2xyz(array) @ to_d50.T, illuminant="D50")
    unit, bits = (1, "i1") if dtype == "uint8" else (256, "i2")
    if kind == "CIELAB":
        top = 255 if dtype == "uint8" else 65535
        stored = np.concatenate([np.rint(lab[:, :, :1] * top / 100), np.rint(lab[:, :, 1:] * unit)], 2)
        stored = np.concatenate([stored[:, :, :1].astype(dtype), stored[:, :, 1:].astype(bits).view(dtype)], 2)
    else:
        stored = np.concatenate([lab[:, :, :1] * 255 * unit / 100, (lab[:, :, 1:] + 128) * unit], 2)
        stored = np.rint(stored).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=kind.lower(), iccprofile=b"x" * 200)
    with pytest.warns(FileWarning, match=r"has L\*a\*b\* colors, which are converted to sRGB"):
        image = read_image(tmp_path / "a.tif")
    assert image.bit_depth == (8 if dtype == "uint8" else 16)
    shown = image.color[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(shown - array).max() < (6 if dtype == "uint8" else 0.5)


# ------------------------------------------------------------------------------------------------------------- tools


@pytest.mark.parametrize("decoding", [1.0, 1.8, 2.2, 2.6, 3.0])
def test_colorize_shows_gray_as_bright_as_before(tmp_path: Path, decoding: float) -> None:
    array = skimage.data.astronaut()[60:108, 180:244]
    PIL.Image.fromarray(array[:, :, 1]).save(tmp_path / "a.tif", icc_profile=gray_profile(Curve(decoding), "gray"))
    gray = read_image(tmp_path / "a.tif")
    result = colorize(gray, read_image(png(array)), patch_size=3)
    write_image(tmp_path / "b.png", result.image)
    shown = np.asarray(srgb_of(tmp_path / "b.png")) / 255
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    bright = linear @ [0.2126, 0.7152, 0.0722]
    encoded = np.where(bright <= 0.0031308, 12.92 * bright, 1.055 * bright ** (1 / 2.4) - 0.055)
    assert np.abs(encoded - expected(array[:, :, 1], decoding)).max() < 1.2 / 255


def test_animated_png_keeps_its_chunks(tmp_path: Path) -> None:
    image = read_image(png(photograph(), GAMA[1.0], CHRM))
    like = ImageSequence("animation", "png", (0.1, 0.1))
    write_frames(tmp_path / "a.png", [image, image], like)
    assert next(iter(read_frames(tmp_path / "a.png"))).color_chunks == image.color_chunks
    write_frames(tmp_path / "a.webp", [image, image], like)
    assert next(iter(read_frames(tmp_path / "a.webp"))).icc_profile == profile_of(image)


def test_a_profile_cannot_fill_the_memory() -> None:
    with pytest.warns(FileWarning, match=DAMAGED):
        assert read_image(png(photograph(), iccp(bytes(80 << 20)))).icc_profile is None


def test_large_profiles_are_read(tmp_path: Path) -> None:
    """Pillow leaves them out without a word."""
    profile = srgb_profile() + np.random.default_rng(0).bytes(2 << 20)
    profile = struct.pack(">I", len(profile)) + profile[4:]
    write_image(tmp_path / "a.png", Image(torch.rand(1, 3, 4, 5), icc_profile=profile))
    assert read_image(tmp_path / "a.png").icc_profile == profile
