"""XMP metadata (XML)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

__all__ = ["orientation_of", "without_layout"]

TIFF = b"http://ns.adobe.com/tiff/1.0/"
ABOUT_LAYOUT = {
    TIFF: b"Orientation|ImageWidth|ImageLength",
    b"http://ns.adobe.com/exif/1.0/": b"PixelXDimension|PixelYDimension",
    b"http://ns.adobe.com/xap/1.0/": b"Thumbnails",
    b"http://ns.adobe.com/xmp/note/": b"HasExtendedXMP",
}
"""Properties of the source file only, by namespace: orientation, size, thumbnails, and the marker of extended XMP."""


def without_layout(xmp: bytes) -> bytes:
    """Remove the properties that hold only for the source file; every other byte is kept.

    Raises:
        ValueError: it is no XML in UTF-8.

    Example:
        >>> without_layout(b'<a xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" tiff:Make="A"/>')
        b'<a xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Make="A"/>'
    """
    xmp.decode()
    # Entities, which XMP has not, can make a text grow without bounds.
    if b"<!DOCTYPE" in xmp:
        raise ValueError("it declares a document type")
    try:
        ElementTree.fromstring(xmp)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error
    for namespace, names in ABOUT_LAYOUT.items():
        for prefix in _prefixes(xmp, namespace):
            name = prefix + b":(?:" + names + b")"
            xmp = re.sub(rb"\s" + name + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')", b"", xmp)
            xmp = re.sub(rb"<(" + name + rb")(?:\s[^>]*?)?(?:/>|>.*?</\1\s*>)", b"", xmp, flags=re.DOTALL)
    return xmp


def orientation_of(xmp: bytes) -> int | None:
    """Return the EXIF orientation stored in XMP; None if there is none.

    Example:
        >>> orientation_of(b'<a xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>')
        6
    """
    for prefix in _prefixes(xmp, TIFF):
        found = re.search(prefix + rb":Orientation(?:\s*=\s*[\"']|\s*>\s*)([1-8])\b", xmp)
        if found:
            return int(found[1])
    return None


def _prefixes(xmp: bytes, namespace: bytes) -> Iterator[bytes]:
    declared = re.findall(rb"\sxmlns:([\w.-]+)\s*=\s*[\"']" + re.escape(namespace) + rb"[\"']", xmp)
    return map(re.escape, sorted(set(declared)))
