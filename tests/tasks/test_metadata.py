"""What a photograph's file tells besides its pixels survives, as other programs read it, and stays true."""

from __future__ import annotations

import io
import itertools
import logging
import re
import struct
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, ImageCms
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from patchattn.cli.app import app
from patchattn.tasks.colorize import colorize
from patchattn.tasks.exif import Exif
from patchattn.tasks.images import Image, read_image, write_image
from patchattn.tasks.inpaint import inpaint
from patchattn.tasks.metadata import NO_METADATA, Metadata
from patchattn.tasks.reconstruct import reconstruct
from patchattn.tasks.warnings import MetadataWarning

GPS, EXIF, INTEROP, IFD1 = ExifTags.IFD.GPSInfo, ExifTags.IFD.Exif, ExifTags.IFD.Interop, ExifTags.IFD.IFD1
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
HEIGHT, WIDTH = 24, 40
THUMBNAIL = b"\xff\xd8 the old image, small \xff\xd9"
NOTE = b"Maker\0" + bytes(range(200))

FIRST = {0x10F: "Maker", 0x110: "Model 1", 0x132: "2021:02:03 04:05:06", 0x13B: "Somebody", 0x8298: "(c) Somebody"}
INSIDE = {0x829A: 0.008, 0x9003: "2021:02:03 04:05:06", 0x9204: -0.5, 0xA434: "50mm f/1.8", 0x9286: b"ASCII\0\0\0words"}
PLACE = {1: "N", 2: (48.0, 51.0, 29.5), 3: "E", 4: (2.0, 17.0, 40.25)}

XMP = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
  xmlns:exif='http://ns.adobe.com/exif/1.0/' xmp:Rating="4"@ATTRIBUTES@>@ELEMENTS@
<dc:title xmlns:dc="http://purl.org/dc/elements/1.1/">Caf\xc3\xa9</dc:title></rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
ATTRIBUTES = b""" tiff:Orientation="6" tiff:ImageWidth='9' tiff:ImageLength="7" exif:PixelXDimension = "9" """.rstrip()
ELEMENTS = b"""
<tiff:Orientation>6</tiff:Orientation><exif:PixelYDimension>7</exif:PixelYDimension>
<xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType="Resource">AAAA</rdf:li></rdf:Alt></xmp:Thumbnails>"""


def xmp(attributes: bytes = b"", elements: bytes = b"") -> bytes:
    return XMP.replace(b"@ATTRIBUTES@", attributes).replace(b"@ELEMENTS@", elements)


def pixels(depth: int, size: tuple[int, int] = (HEIGHT, WIDTH), channels: int = 3) -> np.ndarray:
    crop = skimage.data.astronaut()[60 : 60 + size[0], 180 : 180 + size[1]]
    array = crop if channels == 3 else crop[:, :, 0]
    return array.astype(np.uint16) * 257 if depth == 16 else array


def exif_of(orientation: int = 1, size: tuple[int, int] = (HEIGHT, WIDTH), note: bytes = NOTE) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    for tag, value in {**FIRST, 0x112: orientation, 0x100: size[1], 0x101: size[0]}.items():
        exif[tag] = value
    sizes = {0xA002: size[1], 0xA003: size[0]}
    exif._ifds[EXIF] = {**INSIDE, **sizes, 0x927C: note, INTEROP: {1: "R98"}}
    exif._ifds[GPS] = dict(PLACE)
    return exif


def with_thumbnail(block: bytes) -> bytes:
    """Link a second directory, of a thumbnail, to a block of EXIF in Pillow's words."""
    block, order = block.removeprefix(b"Exif\0\0"), "<" if block[6:8] == b"II" else ">"
    first = struct.unpack(order + "I", block[4:8])[0]
    count = struct.unpack(order + "H", block[first : first + 2])[0]
    link = first + 2 + 12 * count
    block += bytes(len(block) % 2)
    entries = [(0x201, 4, 1, len(block) + 30), (0x202, 4, 1, len(THUMBNAIL))]
    second = struct.pack(order + "H", 2) + b"".join(struct.pack(order + "HHII", *entry) for entry in entries) + bytes(4)
    return block[:link] + struct.pack(order + "I", len(block)) + block[link + 4 :] + second + THUMBNAIL


def save(path: Path, depth: int = 8, orientation: int = 1, dpi: tuple[float, float] = (300, 300)) -> Path:
    """Write a photograph with all that its format can hold, without any of our own code."""
    sideways = orientation > 4
    size = (WIDTH, HEIGHT) if sideways else (HEIGHT, WIDTH)
    exif = exif_of(orientation, size)
    # Pillow's PNG and TIFF of 16 bits are gray.
    image = PIL.Image.fromarray(pixels(depth, size, 3 if depth == 8 else 1))
    options: dict[str, object] = {"dpi": dpi}
    packet = xmp(b' tiff:Orientation="%d"' % orientation)
    if path.suffix == ".png":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", packet.decode())
        options["exif"] = with_thumbnail(exif.tobytes())
    elif path.suffix == ".tif":
        options["exif"] = PIL.Image.Exif()
        options["exif"].load(exif.tobytes())
        options["exif"][700] = packet
    else:
        options["xmp"] = packet
        options["exif"] = b"Exif\0\0" + with_thumbnail(exif.tobytes())
        if path.suffix == ".webp":
            del options["dpi"]
            exif[0x11A], exif[0x11B], exif[0x128] = *dpi, 2
            options |= {"lossless": True, "exif": exif}
    image.save(path, icc_profile=SRGB if depth == 8 else None, **options)
    return path


def interoperability(exif: PIL.Image.Exif) -> dict[int, object]:
    """The directory of that name; some releases of Pillow raise an error where there is none."""
    return dict(exif.get_ifd(INTEROP)) if INTEROP in exif.get_ifd(EXIF) else {}


def assert_kept(path: Path, size: tuple[int, int], dpi: tuple[float, float] = (300, 300)) -> None:
    """Pillow finds in the file what `save` wrote, and what is true of the image in it."""
    with PIL.Image.open(path) as image:
        assert image.size == size[::-1]
        exif = image.getexif()
        assert {tag: exif[tag] for tag in FIRST} == FIRST
        assert exif.get(0x112, 1) == 1
        inside, place = exif.get_ifd(EXIF), exif.get_ifd(GPS)
        assert {tag: inside[tag] for tag in INSIDE} == pytest.approx(INSIDE)
        assert (inside[0xA002], inside[0xA003]) == size[::-1]
        assert inside[0x927C] == NOTE
        assert place == PLACE
        assert interoperability(exif) in ({1: "R98"}, {})
        assert exif.get_ifd(IFD1) == {}
        if path.suffix != ".tif":
            assert 0x100 not in exif
            assert 0x101 not in exif
        found = image.info["xmp"]
        assert found == xmp()
        told = (exif[0x11A], exif[0x11B]) if path.suffix == ".webp" else image.info["dpi"]
        assert [float(number) for number in told] == pytest.approx(dpi, abs=0.02)
    assert THUMBNAIL not in path.read_bytes()


FILES = [("a.jpg", 8), ("a.png", 8), ("a.png", 16), ("a.tif", 8), ("a.tif", 16), ("a.webp", 8)]
PAIRS = [
    (source, depth, target)
    for (source, depth), target in itertools.product(FILES, [".jpg", ".png", ".tif", ".webp"])
    if depth == 8 or target in (".png", ".tif")
]


# -------------------------------------------------------------------------------------------------------------- kept


@pytest.mark.parametrize(("source", "depth", "target"), PAIRS)
def test_from_format_to_format(
    tmp_path: Path, source: str, depth: int, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = read_image(save(tmp_path / source, depth))
    out = tmp_path / f"out{target}"
    with caplog.at_level(logging.WARNING):
        write_image(out, image)
        assert_kept(out, (HEIGHT, WIDTH))
        back = read_image(out)
    with PIL.Image.open(out) as opened:
        # Pillow itself leaves a wrong offset of it in TIFF, which is no reason for a warning.
        assert interoperability(opened.getexif()) == ({} if source == "a.tif" else {1: "R98"})
    assert not caplog.records
    assert back.bit_depth == depth
    assert replace(back.metadata, exif=None) == replace(image.metadata, exif=None)
    assert back.icc_profile == (SRGB if depth == 8 else None)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_tiff_is_read_by_others(tmp_path: Path, depth: int, alpha: bool, channels: int) -> None:
    """Its directory is written a second time: the pixels must still be found, in either byte order."""
    metadata = read_image(save(tmp_path / "a.jpg")).metadata
    color = torch.rand(1, channels, 150, 170, generator=torch.Generator().manual_seed(0))
    image = Image(color, color[:, :1] if alpha else None, depth, SRGB if channels == 3 else None)
    write_image(tmp_path / "plain.tif", image)
    for order in "<>":
        exif = exif_of()
        exif.endian = order
        write_image(tmp_path / "a.tif", replace(image, metadata=replace(metadata, exif=exif.tobytes())))
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), tifffile.imread(tmp_path / "plain.tif"))
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.byteorder == order
            assert len(file.pages) == 1
            tags = file.pages[0].tags
            assert tags["Make"].value == "Maker"
            assert tags["ExifTag"].value["LensModel"] == "50mm f/1.8"
            assert tags["ExifTag"].value["ExposureBiasValue"] == -0.5
            assert tags["GPSTag"].value["GPSLatitude"] == (48, 1, 51, 1, 59, 2)
            assert tags["XMP"].value == xmp()
            assert file.pages[0].get_resolution("inch") == (300, 300)
            assert [tag.code for tag in tags] == sorted(tag.code for tag in tags)


@pytest.mark.parametrize(("file", "depth"), FILES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(tmp_path: Path, file: str, depth: int, orientation: int) -> None:
    image = read_image(save(tmp_path / file, depth, orientation, dpi=(300, 150)))
    assert image.size == (HEIGHT, WIDTH)
    dpi = (150, 300) if orientation > 4 else (300, 150)
    assert image.metadata.resolution == dpi
    for target in (".png", ".tif") if depth == 16 else (".jpg", ".png", ".tif", ".webp"):
        out = tmp_path / f"out{target}"
        write_image(out, image)
        assert_kept(out, (HEIGHT, WIDTH), dpi)
        again = read_image(out)
        assert (again.color - image.color).abs().mean() < (0.03 if target == ".jpg" else 1e-6)


def test_orientation_in_xmp_alone(tmp_path: Path) -> None:
    PIL.Image.fromarray(pixels(8)).save(tmp_path / "a.jpg", xmp=xmp(b' tiff:Orientation="6"'))
    image = read_image(tmp_path / "a.jpg")
    assert image.size == (WIDTH, HEIGHT)
    assert image.metadata.xmp == xmp()


@pytest.mark.parametrize("target", [".jpg", ".png", ".tif", ".webp"])
def test_size_is_that_of_the_image_written(tmp_path: Path, target: str) -> None:
    image = read_image(save(tmp_path / "a.jpg", orientation=6))
    # Above 65535 the number needs another type.
    for size in ((48, 80), (1, 70000)) if target in (".png", ".tif") else ((48, 80),):
        enlarged = replace(image, color=torch.rand(1, 3, *size), bit_depth=16 if target in (".png", ".tif") else 8)
        write_image(tmp_path / f"out{target}", enlarged)
        assert_kept(tmp_path / f"out{target}", size)


def test_letters_and_types_stay_as_they_are(tmp_path: Path) -> None:
    """Pillow would write question marks, and other types."""
    block = exif_of().tobytes().replace(b"(c) Somebody", "© Jörg B.".encode().ljust(12, b"!"))
    PIL.Image.fromarray(pixels(8)).save(tmp_path / "a.jpg", exif=block)
    write_image(tmp_path / "b.tif", read_image(tmp_path / "a.jpg"))
    write_image(tmp_path / "c.webp", read_image(tmp_path / "b.tif"))
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages[0].tags["Copyright"].value == "© Jörg B.!"
    with PIL.Image.open(tmp_path / "a.jpg") as given, PIL.Image.open(tmp_path / "c.webp") as written:
        kinds = []
        for image in (given, written):
            exif = image.getexif()
            assert exif[0x8298].encode("latin-1").decode() == "© Jörg B.!"
            exif.get_ifd(EXIF)
            directory = exif._info.__class__(exif.head, group=EXIF)
            exif.fp.seek(exif[EXIF])
            directory.load(exif.fp)
            kinds.append({tag: kind for tag, kind in directory.tagtype.items() if tag not in (0xA002, 0xA003)})
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("target", [".jpg", ".png", ".webp"])
def test_note_of_the_maker_keeps_its_place(tmp_path: Path, target: str) -> None:
    given = read_image(save(tmp_path / "a.jpg"))
    write_image(tmp_path / f"out{target}", given)
    blocks = []
    for name in ("a.jpg", f"out{target}"):
        with PIL.Image.open(tmp_path / name) as image:
            blocks.append(image.info["exif"].removeprefix(b"Exif\0\0"))
    assert blocks[0].index(NOTE) == blocks[1].index(NOTE)
    # Nothing grows by being read and written.
    write_image(tmp_path / f"again{target}", read_image(tmp_path / f"out{target}"))
    with PIL.Image.open(tmp_path / f"again{target}") as image:
        assert image.info["exif"].removeprefix(b"Exif\0\0") == blocks[1]


def test_properties_of_xmp_that_are_true_no_more(tmp_path: Path) -> None:
    PIL.Image.fromarray(pixels(8)).save(tmp_path / "a.webp", xmp=xmp(ATTRIBUTES, ELEMENTS) + bytes(7))
    found = read_image(tmp_path / "a.webp").metadata.xmp
    assert found is not None
    assert re.sub(rb"\s", b"", found) == re.sub(rb"\s", b"", xmp())
    renamed = xmp(ATTRIBUTES, ELEMENTS).replace(b"tiff:", b"t:").replace(b":tiff=", b":t=")
    PIL.Image.fromarray(pixels(8)).save(tmp_path / "a.webp", xmp=renamed)
    found = read_image(tmp_path / "a.webp").metadata.xmp
    assert found is not None
    assert b"Orientation" not in found
    assert b"ImageWidth" not in found


@given(
    dpi=st.tuples(st.floats(1, 20000), st.floats(1, 20000)),
    targets=st.lists(st.sampled_from([".png", ".tif", ".webp", ".bmp", ".jpg"]), min_size=1, max_size=4),
)
def test_resolution_is_kept_to_rounding(
    tmp_path_factory: pytest.TempPathFactory, dpi: tuple[float, float], targets: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    image = Image(torch.zeros(1, 3, 2, 3), metadata=Metadata(resolution=dpi))
    for target in targets:
        write_image(folder / f"dpi{target}", image)
        image = read_image(folder / f"dpi{target}")
    # To pixels per inch once, and to pixels per meter each time.
    rounding = 0.02 * len(targets) + (0.5 if ".jpg" in targets else 0)
    assert image.metadata.resolution == pytest.approx(dpi, abs=rounding, rel=1e-5)


@pytest.mark.parametrize("target", [".jpg", ".png", ".tif", ".webp", ".bmp"])
def test_whole_resolution_stays_whole(tmp_path: Path, target: str) -> None:
    for dpi in (72.0, 96.0, 240.0, 300.0, 2400.0):
        write_image(tmp_path / f"a{target}", Image(torch.zeros(1, 1, 2, 3), metadata=Metadata(resolution=(dpi, dpi))))
        assert read_image(tmp_path / f"a{target}").metadata.resolution == (dpi, dpi)


@pytest.mark.parametrize(("unit", "expected"), [(1, None), (2, (118.11, 118.11)), (3, (300, 300)), (9, None)])
def test_units_of_resolution(tmp_path: Path, unit: int, expected: tuple[float, float] | None) -> None:
    exif = exif_of()
    exif[0x11A] = exif[0x11B] = 118.11
    exif[0x128] = unit
    PIL.Image.fromarray(pixels(8)).save(tmp_path / "a.webp", exif=exif)
    assert read_image(tmp_path / "a.webp").metadata.resolution == (expected and pytest.approx(expected, abs=0.001))


def test_resolution_too_fine_for_jpeg(tmp_path: Path) -> None:
    exif = exif_of().tobytes()
    write_image(tmp_path / "a.jpg", Image(torch.zeros(1, 1, 2, 3), metadata=Metadata(exif, resolution=(1e5, 1e5))))
    assert read_image(tmp_path / "a.jpg").metadata.resolution == (1e5, 1e5)


def test_png_of_old(tmp_path: Path) -> None:
    """EXIF as text, as programs wrote it before PNG had a chunk for it."""
    block, info = exif_of(6, (WIDTH, HEIGHT)).tobytes(), PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n")
    PIL.Image.fromarray(pixels(8, (WIDTH, HEIGHT))).save(tmp_path / "a.png", pnginfo=info)
    image = read_image(tmp_path / "a.png")
    assert image.size == (HEIGHT, WIDTH)
    write_image(tmp_path / "b.jpg", replace(image, metadata=replace(image.metadata, xmp=xmp(), resolution=(300, 300))))
    assert_kept(tmp_path / "b.jpg", (HEIGHT, WIDTH))


def test_big_tiff_and_tags_about_layout(tmp_path: Path) -> None:
    """What tifffile, ImageJ and OME describe is how the pixels lie in that file."""
    tags = [(0x8298, 2, 0, "Somebody", True), (700, 1, 5, b"<a/>\0", True)]
    for name, options in {
        "shaped": {},
        "imagej": {"imagej": True},
        "ome": {"ome": True},
        "big": {"bigtiff": True, "description": "A house", "software": "Scanner 2", "resolution": (118.11, 118.11)},
    }.items():
        unit = {"resolutionunit": "CENTIMETER"} if name == "big" else {}
        tifffile.imwrite(tmp_path / "a.tif", pixels(16, channels=1), extratags=tags, **options, **unit)
        image = read_image(tmp_path / "a.tif")
        write_image(tmp_path / "b.png", image)
        with PIL.Image.open(tmp_path / "b.png") as opened:
            told = dict(opened.getexif())
        expected = {0x8298: "Somebody"}
        if name == "big":
            assert image.metadata.resolution == pytest.approx((300, 300), abs=0.001)
            expected |= {0x10E: "A house", 0x131: "Scanner 2", 0x11A: 300, 0x11B: 300, 0x128: 2}
        assert told == pytest.approx(expected)
        assert image.metadata.xmp == b"<a/>"


@pytest.mark.parametrize(("suffix", "depth"), [(".jpg", 8), (".png", 8), (".png", 16), (".tif", 8), (".tif", 16)])
def test_nothing_stays_nothing(tmp_path: Path, suffix: str, depth: int) -> None:
    if depth == 16 or suffix == ".tif":
        write = tifffile.imwrite if suffix == ".tif" else lambda path, array: PIL.Image.fromarray(array).save(path)
        write(tmp_path / f"a{suffix}", pixels(depth, channels=1))
    else:
        PIL.Image.fromarray(pixels(depth)).save(tmp_path / f"a{suffix}")
    image = read_image(tmp_path / f"a{suffix}")
    assert image.metadata == NO_METADATA
    write_image(tmp_path / "b.png", image)
    data = (tmp_path / "b.png").read_bytes()
    assert [kind for kind in (b"eXIf", b"iTXt", b"pHYs", b"iCCP") if kind in data] == []
    if depth == 8:
        write_image(tmp_path / "b.webp", image)
        assert (tmp_path / "b.webp").read_bytes()[12:16] == b"VP8L"
        write_image(tmp_path / "b.jpg", image)
        assert b"Exif" not in (tmp_path / "b.jpg").read_bytes()
    write_image(tmp_path / "b.tif", image)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert {"ExifTag", "GPSTag", "XMP", "Make"}.isdisjoint(tag.name for tag in file.pages[0].tags)


@pytest.mark.parametrize("order", ["<", ">"])
def test_big_tiff_is_written(order: str) -> None:
    """As tifffile does above 4 GB."""
    file = io.BytesIO()
    tifffile.imwrite(file, pixels(16), bigtiff=True, byteorder=order, compression="zlib", photometric="rgb")
    exif = exif_of()
    exif.endian = order
    Exif.read(io.BytesIO(exif.tobytes()[6:])).append_to(file, xmp())
    file.seek(0)
    with tifffile.TiffFile(file) as read:
        assert read.is_bigtiff
        np.testing.assert_array_equal(read.asarray(), pixels(16))
        tags = read.pages[0].tags
        assert tags["Make"].value == "Maker"
        assert tags["ExifTag"].value["LensModel"] == "50mm f/1.8"
        assert tags["GPSTag"].value["GPSLatitudeRef"] == "N"
        assert tags["XMP"].value == xmp()
    found = Exif.read(file)
    assert found.sound
    assert found.main.children[GPS] == Exif.read(io.BytesIO(exif.tobytes()[6:])).main.children[GPS]


# ------------------------------------------------------------------------------------------------------------ damaged


def some_block() -> bytes:
    return with_thumbnail(exif_of(note=NOTE[:20]).tobytes())


def read_tolerantly(path: Path) -> tuple[Image, list[str]]:
    """Read, and return our warnings; Pillow has its own."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = read_image(path)
    return image, [str(one.message) for one in caught if issubclass(one.category, MetadataWarning)]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize("block", [b"no EXIF at all", b"II*\0", b"MM\0*\0\0\0\x08", b"II*\0\xff\xff\xff\x7f\0\0\0\0"])
def test_damaged_exif_is_told_of(tmp_path: Path, name: str, block: bytes) -> None:
    PIL.Image.fromarray(pixels(8)).save(tmp_path / name, exif=b"Exif\0\0" + block, xmp=xmp())
    image, told = read_tolerantly(tmp_path / name)
    assert image.size == (HEIGHT, WIDTH)
    assert told == [f"path: the EXIF of {tmp_path / name} is damaged; what cannot be read of it is left out."]
    assert image.metadata.exif is None
    # The XMP, which Pillow writes to PNG otherwise, is another matter.
    assert name == "a.png" or image.metadata.xmp == xmp()
    write_image(tmp_path / f"out{name[1:]}", image)


def test_what_is_left_of_damaged_exif_is_kept(tmp_path: Path) -> None:
    block = exif_of().tobytes()
    PIL.Image.fromarray(pixels(8)).save(tmp_path / "a.webp", exif=block[: block.index(b"50mm")])
    image, told = read_tolerantly(tmp_path / "a.webp")
    assert len(told) == 1
    write_image(tmp_path / "b.png", image)
    with PIL.Image.open(tmp_path / "b.png") as opened:
        assert opened.getexif()[0x110] == "Model 1"


@given(data=st.data())
def test_any_damage_to_exif(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    block = bytearray(some_block())
    for _ in range(data.draw(st.integers(1, 6))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.sampled_from([0, 1, 2, 8, 127, 128, 255]))
    block = block[: data.draw(st.integers(1, len(block)))]
    folder = tmp_path_factory.getbasetemp()
    name = data.draw(st.sampled_from(["damaged.jpg", "damaged.png", "damaged.webp"]))
    PIL.Image.fromarray(pixels(8)).save(folder / name, exif=b"Exif\0\0" + bytes(block))
    image, _ = read_tolerantly(folder / name)
    for target in (".tif", ".jpg"):
        write_image(folder / f"repaired{target}", image)
        again, told = read_tolerantly(folder / f"repaired{target}")
        assert again.size == image.size
        assert not told


@pytest.mark.parametrize("packet", [b"<a", b"<a>\xff</a>", b"no XML", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'])
def test_damaged_xmp_is_told_of(tmp_path: Path, packet: bytes) -> None:
    PIL.Image.fromarray(pixels(8)).save(tmp_path / "a.jpg", xmp=packet, exif=exif_of())
    with pytest.warns(MetadataWarning, match=r"path: the XMP of .*a\.jpg is damaged"):
        image = read_image(tmp_path / "a.jpg")
    assert image.metadata.xmp is None
    assert image.metadata.exif is not None


def test_both_damaged(tmp_path: Path) -> None:
    PIL.Image.fromarray(pixels(8)).save(tmp_path / "a.webp", xmp=b"<a", exif=b"nothing")
    with pytest.warns(MetadataWarning, match=r"PHOTO: the EXIF and XMP of .*a\.webp is damaged"):
        read_image(tmp_path / "a.webp", argument="PHOTO")


def test_too_long_for_jpeg(tmp_path: Path) -> None:
    long = exif_of(note=bytes(70000)).tobytes()
    image = Image(torch.zeros(1, 3, 4, 5), metadata=Metadata(exif=long, resolution=(300, 300)))
    with pytest.warns(MetadataWarning, match=r"JPEG holds 65527 bytes of EXIF; the image's 7\d{4} are left out"):
        write_image(tmp_path / "a.jpg", image)
    assert read_image(tmp_path / "a.jpg").metadata == Metadata(resolution=(300, 300))
    packet = xmp(elements=b" " * 66000)
    with pytest.warns(MetadataWarning, match=r"JPEG holds 65504 bytes of XMP; the image's 66\d{3} are left out"):
        write_image(tmp_path / "a.jpg", Image(torch.zeros(1, 3, 4, 5), metadata=Metadata(xmp=packet)))
    # The longest that fit.
    packet = xmp(elements=b" " * (65504 - len(xmp())))
    block = exif_of(note=bytes(65527 - len(exif_of(note=b"12345678").tobytes()) - 400)).tobytes()
    write_image(tmp_path / "a.jpg", Image(torch.zeros(1, 3, 4, 5), metadata=Metadata(block, packet)))
    metadata = read_image(tmp_path / "a.jpg").metadata
    assert metadata.xmp == packet
    assert metadata.exif is not None


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (Metadata(exif=b"no EXIF"), r"metadata: the exif cannot be read \(it does not begin .*\); expected a block"),
        (Metadata(exif=b"II*\0\xff\0\0\0"), r"metadata: the exif cannot be read \(it is not whole\)"),
        (Metadata(xmp=b"no XML"), r"metadata: the xmp cannot be read \(.*\); expected XML in UTF-8"),
    ],
)
def test_what_is_no_metadata_is_refused(tmp_path: Path, metadata: Metadata, message: str) -> None:
    image = Image(torch.zeros(1, 3, 4, 5), metadata=metadata)
    with pytest.raises(ValueError, match=message):
        write_image(tmp_path / "a.png", image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resolution", [(0, 300), (300, float("nan")), (300,), (5e6, 300)])
def test_no_resolution(resolution: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"resolution: got \(.*\), expected two numbers from 0\.001 to 4000000"):
        Metadata(resolution=resolution)


# -------------------------------------------------------------------------------------------------------------- tools


def test_tools_pass_on_what_the_image_tells(tmp_path: Path) -> None:
    photo = read_image(save(tmp_path / "a.jpg"))
    other = Image(torch.rand(1, 3, 30, 30), metadata=Metadata(resolution=(72, 72)))
    hole = torch.zeros(photo.size, dtype=torch.bool)
    hole[8:12, 8:12] = True
    results = [
        inpaint(photo, hole, quality="fast").image,
        colorize(photo, other, k=1, patch_size=3).image,
        reconstruct(photo, other, k=1, patch_size=3).image,
    ]
    for result in results:
        assert result.metadata == photo.metadata


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("target", ["out.jpg", "out.png", "out.tif", "out.webp"])
def test_command_line(tmp_path: Path, target: str) -> None:
    photo, mask, out = save(tmp_path / "photo.jpg", orientation=6), tmp_path / "mask.png", tmp_path / target
    hole = np.zeros((HEIGHT, WIDTH), np.uint8)
    hole[8:14, 20:28] = 255
    PIL.Image.fromarray(hole).save(mask)
    arguments = ["inpaint", str(photo), "--mask", str(mask), "-o", str(out), "--quality", "fast", "--patch-size", "5"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert not result.stderr
    assert_kept(out, (HEIGHT, WIDTH))
    with PIL.Image.open(photo) as given, PIL.Image.open(out) as filled:
        upright = np.asarray(given.transpose(PIL.Image.Transpose.ROTATE_270)).astype(int)
        difference = np.abs(np.asarray(filled.convert("RGB")) - upright)[hole == 0]
        assert filled.info["icc_profile"] == SRGB
    assert difference.max() <= (20 if target == "out.jpg" else 0)


@pytest.mark.usefixtures("one_thread")
def test_command_line_says_in_one_sentence_what_is_damaged(tmp_path: Path) -> None:
    block = with_thumbnail(exif_of().tobytes())
    PIL.Image.fromarray(pixels(8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + block[: block.index(b"50mm")])
    arguments = [str(tmp_path / "a.jpg"), str(tmp_path / "a.jpg"), "-o", str(tmp_path / "out.png"), "--patch-size", "3"]
    result = CliRunner().invoke(app, ["reconstruct", *arguments])
    assert result.exit_code == 0, result.output
    damage = f"the EXIF of {tmp_path / 'a.jpg'} is damaged; what cannot be read of it is left out."
    assert sorted(result.stderr.splitlines()) == [f"warning: REFERENCE: {damage}", f"warning: TARGET: {damage}"]
