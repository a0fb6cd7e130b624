"""ICC profiles: made, fitted to gray or RGB, and applied."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.extras import extra

__all__ = [
    "D50",
    "SRGB_CURVE",
    "SRGB_PRIMARIES",
    "Curve",
    "Primaries",
    "apply_profiles",
    "fit_profile",
    "gray_profile",
    "is_sound",
    "rgb_profile",
    "space_of",
    "srgb_profile",
    "xyz_of_rgb",
]

D50 = np.array([0.9642, 1.0, 0.8249])
"""White point of the profile connection space."""
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
SPACES = {"gray": b"GRAY", "rgb": b"RGB ", "cmyk": b"CMYK"}
RELATIVE_COLORIMETRIC, BLACK_POINT_COMPENSATION = 1, 0x2000
SAMPLES = 4096
"""Number of samples of a measured tone curve."""


class Curve(NamedTuple):
    """Transfer function from encoded values to linear light: (a x + b) ** gamma from d on, and c x below."""

    gamma: float
    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0


class Primaries(NamedTuple):
    """Chromaticities (x, y) of red, green, blue and white."""

    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]
    white: tuple[float, float]


SRGB_CURVE = Curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
SRGB_PRIMARIES = Primaries((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.3127, 0.3290))


@lru_cache
def srgb_profile(channels: int = 3) -> bytes:
    """Return a profile of sRGB, or (1 channel) of its gray."""
    return rgb_profile(SRGB_PRIMARIES, SRGB_CURVE, "sRGB") if channels == 3 else gray_profile(SRGB_CURVE, "sRGB gray")


def rgb_profile(primaries: Primaries, curve: Curve | NDArray[np.float64], name: str) -> bytes:
    """Return an ICC profile of RGB by its primaries and one curve for all three channels.

    Args:
        primaries: as seen under their own white.
        curve: a formula, or the linear light of evenly spaced numbers from 0 to 1.
        name: what programs show.

    Raises:
        ValueError: the primaries make no color space.
    """
    to_d50 = xyz_of_rgb(primaries)
    light = _curve(curve)
    tags = {b"chad": _fixed(b"sf32", _adaptation(_xyz(primaries.white)))}
    for number, letter in enumerate((b"r", b"g", b"b")):
        tags[letter + b"XYZ"] = _fixed(b"XYZ ", to_d50[:, number])
        tags[letter + b"TRC"] = light
    return _profile("rgb", tags, name)


def gray_profile(curve: Curve | NDArray[np.float64], name: str) -> bytes:
    """Return an ICC profile of gray by its curve; see `rgb_profile`."""
    return _profile("gray", {b"kTRC": _curve(curve)}, name)


def xyz_of_rgb(primaries: Primaries) -> NDArray[np.float64]:
    """Matrix from linear RGB to XYZ under D50, (3, 3).

    Raises:
        ValueError: the primaries make no color space.
    """
    try:
        columns = np.array([_xyz(point) for point in primaries[:3]]).T
        white = _xyz(primaries.white)
        to_d50: NDArray[np.float64] = _adaptation(white) @ (columns * np.linalg.solve(columns, white))
    except np.linalg.LinAlgError as error:
        raise ValueError("its primaries make no color space") from error
    if not np.isfinite(to_d50).all() or (np.abs(to_d50) > 100).any() or abs(np.linalg.det(to_d50)) < 1e-6:
        raise ValueError("its primaries make no color space")
    return to_d50


def _xyz(point: tuple[float, float]) -> NDArray[np.float64]:
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y]) if y else np.array([x, 0.0, 1 - x])


def _adaptation(white: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chromatic adaptation matrix (Bradford) from a white point to D50."""
    gains = (BRADFORD @ D50) / (BRADFORD @ white)
    adaptation: NDArray[np.float64] = np.linalg.inv(BRADFORD) @ np.diag(gains) @ BRADFORD
    return adaptation


def _fixed(kind: bytes, numbers: NDArray[np.float64]) -> bytes:
    values = np.rint(np.asarray(numbers).ravel() * 65536).astype(">i4")
    return kind + bytes(4) + values.tobytes()


def _curve(curve: Curve | NDArray[np.float64]) -> bytes:
    if isinstance(curve, Curve):
        formula = 0 if curve == Curve(curve.gamma) else 3
        numbers = np.array(curve[:1] if formula == 0 else curve)
        return b"para" + bytes(4) + struct.pack(">HH", formula, 0) + _fixed(b"", numbers)[4:]
    samples = np.rint(np.clip(curve, 0, 1) * 65535).astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", len(samples)) + samples.tobytes()


def _profile(space: str, tags: dict[bytes, bytes], name: str) -> bytes:
    tags = {b"desc": _text(name), b"cprt": _text("Public domain"), b"wtpt": _fixed(b"XYZ ", D50)} | tags
    places: dict[bytes, int] = {}
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        # What is the same lies in the file once.
        if data not in places:
            places[data] = 128 + 4 + 12 * len(tags) + len(body)
            body += data + bytes(-len(data) % 4)
        table += struct.pack(">4sII", tag, places[data], len(data))
    head = struct.pack(
        ">I4sI4s4s4s6H4s4sIIIQI12sI44s",
        128 + len(table) + len(body),
        bytes(4),
        0x04300000,
        b"mntr",
        SPACES[space],
        b"XYZ ",
        *(2000, 1, 1, 0, 0, 0),
        b"acsp",
        bytes(4),
        *(0, 0, 0, 0, 0),
        _fixed(b"", D50)[4:],
        0,
        bytes(44),
    )
    return head + table + body


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data


def space_of(profile: bytes) -> str | None:
    """Return a profile's color space: "gray", "rgb" or "cmyk"; None for others.

    Example:
        >>> space_of(srgb_profile())
        'rgb'
    """
    return next((name for name, code in SPACES.items() if profile[16:20] == code), None)


def is_sound(profile: bytes) -> bool:
    """Return whether LittleCMS can read a profile and convert from it."""
    channels = {"gray": 1, "rgb": 3, "cmyk": 4}.get(space_of(profile) or "")
    if channels is None:
        return False
    try:
        apply_profiles(np.zeros((1, 1, channels)), profile, srgb_profile())
    except ValueError:
        return False
    return True


def apply_profiles(numbers: NDArray[np.floating], source: bytes, target: bytes) -> NDArray[np.float32]:
    """Convert colors from one profile to another, relative to white and with black to black.

    Args:
        numbers: (height, width, channels), in [0, 1]; 1 of CMYK: full ink.
        source: the profile of the input.
        target: of gray or RGB.

    Returns:
        (height, width, 1 or 3), in [0, 1]; what the target cannot hold is clipped.

    Raises:
        ValueError: LittleCMS does not understand a profile.
    """
    with extra("tools"):
        from imagecodecs import cms_transform
    given, made = space_of(source), space_of(target)
    if given is None or made is None:
        raise ValueError("it is neither of gray nor of RGB nor of CMYK")
    data: NDArray[np.generic] = np.ascontiguousarray(numbers, dtype=np.float32)
    if given == "cmyk":  # LittleCMS counts it in percent where it is no integer
        data = np.rint(np.asarray(numbers) * 65535).astype(np.uint16)
    try:
        result = cms_transform(
            data[:, :, 0] if given == "gray" else data,
            source,
            target,
            colorspace=given,
            outcolorspace=made,
            outdtype="float32",
            intent=RELATIVE_COLORIMETRIC,
            flags=BLACK_POINT_COMPENSATION,
        )
    except Exception as error:
        raise ValueError(f"LittleCMS cannot use it ({error})") from error
    converted: NDArray[np.float32] = np.clip(result.reshape(*data.shape[:2], -1), 0, 1)
    return converted


def fit_profile(profile: bytes, channels: int) -> bytes:
    """Return a profile for the given channels: a gray one with an RGB profile's tone curve, or the other way round.

    Raises:
        ValueError: the profile is neither of gray nor of RGB, or damaged.

    Example:
        >>> space_of(fit_profile(srgb_profile(), 1))
        'gray'
    """
    wanted, given = {1: "gray", 3: "rgb"}[channels], space_of(profile)
    if given == wanted:
        return profile
    if given not in ("gray", "rgb"):
        raise ValueError("it is neither of gray nor of RGB")
    ramp = np.linspace(0, 1, SAMPLES)[None, :, None].repeat(3 if given == "rgb" else 1, axis=2)
    light = apply_profiles(ramp, profile, gray_profile(Curve(1.0), "linear light"))[0, :, 0].astype(np.float64)
    if wanted == "gray":
        return gray_profile(light, "Gray of an RGB profile")
    return rgb_profile(SRGB_PRIMARIES, light, "RGB of a gray profile")
