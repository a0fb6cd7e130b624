"""The stand-in for PyPatchMatch: the recorded contract, and the package's own where that is installed."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patchattn.compat
from patchattn.compat import patch_match

pytestmark = [
    pytest.mark.usefixtures("one_thread", "defaults"),
    pytest.mark.needs("cpu"),  # the reference would take minutes
]

Array = np.ndarray[Any, Any]
HOLE = (slice(14, 24), slice(20, 32))


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    yield
    patch_match.set_random_seed(1212)
    patch_match.set_verbose(False)


@pytest.fixture(
    params=["patchattn.compat.patch_match", *(["patchmatch.patch_match"] if find_spec("patchmatch") else [])]
)
def module(request: pytest.FixtureRequest) -> ModuleType:
    """Ours, and the package where it is installed (extra `bench`): both must pass the same tests."""
    return import_module(request.param)


def mask() -> Array:
    holes = np.zeros((40, 52), np.uint8)
    holes[HOLE] = 255
    return holes


def noise(height: int = 40, width: int = 52) -> Array:
    return np.random.default_rng(0).integers(80, 120, (height, width, 3), dtype=np.uint8)


def phases(period: int = 8) -> Array:
    rows, columns = np.mgrid[:40, :52] % period / period
    return np.stack([rows, columns, np.zeros_like(rows)], -1).astype(np.float32)


def calls(module: ModuleType) -> dict[str, Callable[..., Array]]:
    def regular(image: Any, mask: Any = None, **options: Any) -> Array:
        filled: Array = module.inpaint_regularity(image, mask, phases(), **options)
        return filled

    return {"inpaint": module.inpaint, "inpaint_regularity": regular}


def test_the_package_itself_passes_these_tests_too() -> None:
    pytest.importorskip("patchmatch", reason="the extra bench is not installed: the contract is the recorded one")
    assert import_module("patchmatch.patch_match").patchmatch_available


def test_signatures(module: ModuleType) -> None:
    recorded = {
        "inpaint": [("image", 1, ...), ("mask", 1, None), ("global_mask", 3, None), ("patch_size", 3, 15)],
        "inpaint_regularity": [
            ("image", 1, ...),
            ("mask", 1, ...),
            ("ijmap", 1, ...),
            ("global_mask", 3, None),
            ("patch_size", 3, 15),
            ("guide_weight", 3, 0.25),
        ],
        "set_random_seed": [("seed", 1, ...)],
        "set_verbose": [("verbose", 1, ...)],
    }
    assert sorted(module.__all__) == sorted([*recorded, "patchmatch_available"])
    for name, expected in recorded.items():
        parameters = inspect.signature(getattr(module, name)).parameters.values()
        found = [(p.name, int(p.kind), ... if p.default is inspect.Parameter.empty else p.default) for p in parameters]
        assert found == expected, name


@pytest.mark.parametrize("call", ["inpaint", "inpaint_regularity"])
@pytest.mark.parametrize(
    "form",
    [
        mask(),
        mask() // 255,
        mask() > 0,
        mask()[:, :, None],
        PIL.Image.fromarray(mask()),
        PIL.Image.fromarray(mask()).convert("1"),
    ],
    ids=["255", "1", "bool", "3d", "L", "1-bit"],
)
def test_what_is_not_zero_is_filled_and_nothing_else(module: ModuleType, call: str, form: Any) -> None:
    image = noise()
    image[HOLE] = 0
    before = image.copy()
    filled = calls(module)[call](image, form, patch_size=3)
    assert (filled.shape, filled.dtype, filled.flags.writeable) == (image.shape, np.uint8, True)
    known = mask() == 0
    np.testing.assert_array_equal(filled[known], image[known])
    assert (np.abs(filled[HOLE].mean((0, 1)) - 100) < 10).all()
    np.testing.assert_array_equal(image, before)


def test_without_a_mask_pure_white_is_the_hole(module: ModuleType) -> None:
    image = noise()
    image[HOLE] = 255
    image[3, 3] = (255, 255, 254)
    filled = module.inpaint(image, patch_size=3)
    np.testing.assert_array_equal(filled, module.inpaint(image, mask(), patch_size=3))
    assert (filled[3, 3] == (255, 255, 254)).all()
    assert filled[HOLE].max() < 180


def test_colors_in_holes_have_no_influence(module: ModuleType) -> None:
    one, other = noise(), noise()
    one[HOLE], other[HOLE] = 0, 255
    np.testing.assert_array_equal(*(module.inpaint(image, mask(), patch_size=3) for image in (one, other)))


def test_globally_masked_pixels_stay_and_have_no_influence(module: ModuleType) -> None:
    excluded = np.zeros((40, 52), bool)
    excluded[:, 28:38] = True  # a part of the hole too
    one, other = noise(), noise()
    one[excluded], other[excluded] = (255, 0, 0), (0, 0, 255)
    filled = [module.inpaint(image, mask(), global_mask=excluded, patch_size=3) for image in (one, other)]
    for image, result in zip((one, other), filled, strict=True):
        np.testing.assert_array_equal(result[excluded | (mask() == 0)], image[excluded | (mask() == 0)])
    np.testing.assert_array_equal(filled[0][~excluded], filled[1][~excluded])
    assert filled[0][14:24, 20:28].max() < 180


def test_images_of_pillow_of_any_layout_and_read_only_arrays(module: ModuleType) -> None:
    image = noise()
    expected = module.inpaint(image, mask(), patch_size=3)
    frozen = image.copy()
    frozen.flags.writeable = False
    for form in (PIL.Image.fromarray(image), np.asfortranarray(image), frozen, image[::-1][::-1]):
        np.testing.assert_array_equal(module.inpaint(form, mask(), patch_size=3), expected)


@pytest.mark.parametrize("call", ["inpaint", "inpaint_regularity"])
def test_nothing_to_fill(module: ModuleType, call: str) -> None:
    image = noise()
    for holes, excluded in ((np.zeros_like(mask()), None), (mask(), mask())):
        result = calls(module)[call](image, holes, global_mask=excluded)
        np.testing.assert_array_equal(result, image)
        assert not np.shares_memory(result, image)
    for shape in ((0, 0, 3), (0, 9, 3), (9, 0, 3)):
        assert calls(module)[call](np.zeros(shape, np.uint8)).shape == shape


def test_nothing_to_copy_is_black(module: ModuleType) -> None:
    image = noise()
    assert not module.inpaint(image, np.ones_like(mask()), patch_size=3).any()
    filled = module.inpaint(image, mask(), global_mask=mask() == 0, patch_size=3)
    assert not filled[HOLE].any()
    np.testing.assert_array_equal(filled[mask() == 0], image[mask() == 0])


@pytest.mark.parametrize("patch_size", [15, np.int64(7), True])
def test_patches_wider_than_what_is_known(module: ModuleType, patch_size: Any) -> None:
    """Of 40 rows, ten in the middle are missing: no patch of 31 pixels is known, nor one of 15."""
    image, holes = noise(), np.zeros((40, 52), bool)
    holes[14:26] = True
    filled = module.inpaint(image, holes, patch_size=patch_size)
    assert (np.abs(filled[holes].mean(0) - 100) < 15).all()
    np.testing.assert_array_equal(filled[~holes], image[~holes])


@pytest.mark.parametrize("seeds", [(7, 7 + 2**32), (-1, 2**32 - 1)])
def test_seeds_are_modulo_the_32_bits(module: ModuleType, seeds: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    found = []
    for seed in (*seeds, 3):
        module.set_random_seed(seed)
        found.append(module.inpaint(image, mask(), patch_size=3))
    module.set_random_seed(1212)
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


REFUSED: dict[str, tuple[type[Exception], Callable[[ModuleType], Any], str]] = {
    "gray": (ValueError, lambda m: m.inpaint(noise()[..., 0]), r"image: got \(40, 52\) of uint8; expected \(height"),
    "rgba": (ValueError, lambda m: m.inpaint(np.zeros((4, 4, 4), np.uint8)), r"image: got \(4, 4, 4\) of uint8"),
    "float": (
        ValueError,
        lambda m: m.inpaint(noise() / 255),
        r"image: got .* of float64; .* a Pillow image in RGB",
    ),
    "list": (ValueError, lambda m: m.inpaint(noise().tolist()), "image: got .* of int64"),
    "mask of floats": (ValueError, lambda m: m.inpaint(noise(), mask() / 255), r"mask: got \(40, 52\) of float64"),
    "mask of color": (ValueError, lambda m: m.inpaint(noise(), noise()), r"mask: got \(40, 52, 3\) of uint8; expected"),
    "mask of one row": (ValueError, lambda m: m.inpaint(noise(), mask()[0]), r"mask: got \(52,\) of uint8"),
    "small mask": (ValueError, lambda m: m.inpaint(noise(), mask()[1:]), r"mask: got \(39, 52\); .* \(40, 52\)"),
    "small global mask": (
        ValueError,
        lambda m: m.inpaint(noise(), mask(), global_mask=mask()[1:]),
        r"global_mask: got \(39, 52\); expected the image's height and width",
    ),
    "radius 0": (ValueError, lambda m: m.inpaint(noise(), patch_size=0), "patch_size: got 0; expected a radius from 1"),
    "radius 2^30": (ValueError, lambda m: m.inpaint(noise(), patch_size=2**30), "patch_size: got 1073741824"),
    "radius 3.0": (TypeError, lambda m: m.inpaint(noise(), patch_size=3.0), "patch_size: got 3.0; expected an integer"),
    "seed": (TypeError, lambda m: m.set_random_seed(1.5), "seed: got 1.5; expected an integer"),
    "verbose": (TypeError, lambda m: m.set_verbose("yes"), "verbose: got 'yes'; expected an integer"),
    "map of two": (
        ValueError,
        lambda m: m.inpaint_regularity(noise(), mask(), phases()[..., :2]),
        r"ijmap: got \(40, 52, 2\) of float32; expected an array \(height, width, 3\)",
    ),
    "map of doubles": (
        ValueError,
        lambda m: m.inpaint_regularity(noise(), mask(), phases().astype(float)),
        r"ijmap: got \(40, 52, 3\) of float64",
    ),
    "map in a list": (ValueError, lambda m: m.inpaint_regularity(noise(), mask(), [[[0.0] * 3]]), "ijmap: got list"),
    "empty map": (ValueError, lambda m: m.inpaint_regularity(noise(), mask(), phases()[:0]), "ijmap: it has no pixels"),
    "map with NaN": (
        ValueError,
        lambda m: m.inpaint_regularity(noise(), mask(), np.full_like(phases(), np.nan)),
        "ijmap: it has NaN or infinity in it",
    ),
    "negative weight": (
        ValueError,
        lambda m: m.inpaint_regularity(noise(), mask(), phases(), guide_weight=-1),
        "guide_weight: got -1; expected a number of at least 0",
    ),
    "weight in letters": (
        ValueError,
        lambda m: m.inpaint_regularity(noise(), mask(), phases(), guide_weight="a"),
        "guide_weight: got 'a'; expected a number",
    ),
    "weight NaN": (
        ValueError,
        lambda m: m.inpaint_regularity(noise(), mask(), phases(), guide_weight=float("nan")),
        "guide_weight: got nan",
    ),
    "weight 1e39": (
        ValueError,
        lambda m: m.inpaint_regularity(noise(), mask(), phases(), guide_weight=1e39),
        r"guide_weight: got 1e\+39; .* finite in float32",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_are_refused(module: ModuleType, case: str) -> None:
    kind, call, message = REFUSED[case]
    with pytest.raises(kind, match=message if module is patch_match else None):
        call(module)


def test_a_pattern_is_continued_in_step(module: ModuleType) -> None:
    """Tiles of noise, 8 pixels wide: the filled tiles are those around, in PyPatchMatch roughly."""
    tile = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = np.tile(tile, (6, 8, 1))[:40, :52]
    filled = module.inpaint_regularity(image, mask(), phases(), patch_size=3, guide_weight=1.0)
    assert np.abs(filled[HOLE].astype(int) - image[HOLE]).mean() < (2 if module is patch_match else 25)


def test_the_map_decides_against_the_colors(module: ModuleType) -> None:
    """Blue all around the hole; the map calls the hole what it calls the red half."""
    image = noise(48, 80)
    image[:, :40, 1:] //= 4
    image[:, 40:, :2] //= 4
    holes = np.zeros((48, 80), np.uint8)
    holes[12:36, 50:74] = 1
    ijmap = np.zeros((48, 80, 3), np.float32)
    ijmap[:, 40:, :2] = 0.5
    ijmap[holes > 0] = 0
    middle = (slice(18, 30), slice(56, 68))
    free, ignored, bound = (
        module.inpaint_regularity(image, holes, ijmap * used, patch_size=2, guide_weight=weight)[middle].mean((0, 1))
        for used, weight in ((0, 100.0), (1, 0.0), (1, 100.0))
    )
    assert free.argmax() == ignored.argmax() == 2
    assert bound.argmax() == 0


@pytest.mark.parametrize("weight", [0.25, 1e4, 3e38])
def test_a_map_of_another_size_is_scaled(weight: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    halves = phases(8)[::2, ::2]
    whole = halves.repeat(2, 0).repeat(2, 1)
    one, other = (
        patch_match.inpaint_regularity(image, mask(), ijmap, patch_size=3, guide_weight=weight)
        for ijmap in (halves, whole)
    )
    np.testing.assert_array_equal(one, other)
    periods_later = patch_match.inpaint_regularity(image, mask(), whole + 3, patch_size=3, guide_weight=weight)
    np.testing.assert_array_equal(one, periods_later)


@settings(max_examples=15)
@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    share=st.floats(0, 1),
    radius=st.integers(1, 40),
    seed=st.integers(0, 2**31),
)
def test_any_image_and_mask(height: int, width: int, share: float, radius: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    holes, excluded = (rng.random((height, width)) < share for _ in range(2))
    filled = patch_match.inpaint(image, holes, global_mask=excluded, patch_size=radius)
    assert (filled.shape, filled.dtype) == (image.shape, image.dtype)
    np.testing.assert_array_equal(filled[~holes | excluded], image[~holes | excluded])


HOST = """
import numpy as np
from PIL import Image, ImageOps


class PatchMatch:
    patch_match = None
    tried_load = False

    @classmethod
    def load(cls):
        if cls.tried_load:
            return
        from patchmatch import patch_match as pm

        cls.patch_match = pm
        cls.tried_load = True

    @classmethod
    def available(cls):
        cls.load()
        return cls.patch_match and cls.patch_match.patchmatch_available

    @classmethod
    def inpaint(cls, *args, **kwargs):
        if cls.available():
            return cls.patch_match.inpaint(*args, **kwargs)


def infill(image):
    if image.mode != "RGBA" or not PatchMatch.available():
        return image
    return Image.fromarray(
        PatchMatch.inpaint(image.convert("RGB"), ImageOps.invert(image.split()[-1]), patch_size=3), mode="RGB"
    )
"""


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")  # Pillow, of how such hosts call it
def test_a_host_fills_transparent_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "patchmatch", patchattn.compat)
    host: dict[str, Any] = {}
    exec(compile(HOST, "host", "exec"), host)
    assert host["PatchMatch"].available() is True
    alpha = 255 - mask()
    image = PIL.Image.fromarray(np.dstack([noise(), alpha]))
    filled = np.asarray(host["infill"](image))
    np.testing.assert_array_equal(filled, patch_match.inpaint(noise(), mask(), patch_size=3))
    np.testing.assert_array_equal(filled[alpha > 0], noise()[alpha > 0])


def test_the_package_has_the_same_names() -> None:
    for name in patch_match.__all__:
        assert getattr(patchattn.compat, name) == getattr(patch_match, name)
    for where in (patchattn.compat, patch_match):
        with pytest.raises(AttributeError, match=f"module '{where.__name__}' has no attribute 'inpain'"):
            where.inpain  # noqa: B018  # asked for


def test_stages_are_reported_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    patch_match.inpaint(noise(), mask(), patch_size=3)
    assert capsys.readouterr() == ("", "")
    patch_match.set_verbose(True)
    patch_match.inpaint(noise(), mask(), patch_size=3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("patchattn: scale 1 of ")


def test_it_is_unavailable_without_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    assert patch_match.patchmatch_available is True

    def absent(name: str) -> None:
        raise RuntimeError(f"backend {name!r} does not load")

    monkeypatch.setattr(patch_match, "load_backend", absent)
    assert patch_match.patchmatch_available is False


def test_nothing_beyond_the_base_is_needed() -> None:
    """Arrays are filled where no package of any extra is installed; importing the modules loads no kernels."""
    code = """
import sys
extras = ["PIL", "typer", "rich", "tifffile", "imagecodecs", "kornia", "safetensors", "skimage", "scipy", "cv2"]
sys.modules.update(dict.fromkeys(extras))
import numpy as np
from patchattn import arrays
from patchattn.compat import patch_match
assert "numba" not in sys.modules
image = np.full((24, 24, 3), 90, np.uint8)
image[8:14, 8:14] = 255
filled = patch_match.inpaint(image, patch_size=3)
print(patch_match.patchmatch_available, (filled == 90).all(), (arrays.upscale(filled) == 90).all())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "True"]
