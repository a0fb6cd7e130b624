"""Files that programs of this kind have failed on: what is right, and what is seen.

    python benchmarks/file_cases.py --cases FOLDER

FOLDER holds the files that are named below. Every command runs in a process of its own, as a user's does. The exit code
is the number of cases that are not right.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

KINDS = ("png", "tif", "webp", "jpg", "bmp")
COMMAND = [sys.executable, "-m", "patchattn.cli"]


@dataclass(frozen=True)
class Run:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    """Of processor time."""

    @property
    def plain(self) -> bool:
        """Whether it ended without a traceback."""
        return "Traceback" not in self.stderr


def run(*arguments: str, room: int | None = None) -> Run:
    """Run a command; `room`: no file may grow beyond so many bytes."""

    def limit() -> None:
        if room is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Kernels that are not in the cache yet could not be written there, and would be compiled again.
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, errors="replace", check=False, preexec_fn=limit
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(done.returncode, done.stdout, done.stderr, used)


def pixels(path: str, mode: str | None = None) -> NDArray[np.float64]:
    with Image.open(path) as image:
        return np.asarray(image if mode is None else image.convert(mode)).astype(np.float64)


def on_white(path: str) -> NDArray[np.float64]:
    """An image with alpha as it is seen on white paper."""
    rgba = pixels(path, "RGBA")
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def in_srgb(path: str) -> NDArray[np.float64]:
    """An image as it is shown: through its profile."""
    with Image.open(path) as image:
        profile = image.info.get("icc_profile")
        if profile is None:
            return np.asarray(image.convert("RGB")).astype(np.float64)
        import io

        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        shown = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return np.asarray(shown).astype(np.float64)


def frames_of(path: str) -> list[float]:
    """The times of the frames of a video."""
    if not Path(path).exists():
        return []
    with av.open(path) as video:
        return [float(frame.time) for frame in video.decode(video=0) if frame.time is not None]


# ----------------------------------------------------------------------------------------------------------- the cases


def white_icon(*model: str) -> tuple[bool, str]:
    ended = run("upscale", "01_white_icon_on_alpha1_black.png", "-o", "o.png", "--scale", "4", *model)
    darkest = on_white("o.png").min() if ended.code == 0 else -1.0
    return darkest >= 252.5, f"darkest {darkest:.1f} on white"


def shape_in_alpha() -> tuple[bool, str]:
    ended = run("inpaint", "03_photo_96x96.png", "--mask", "03_mask_shape_in_alpha.png", "-o", "o.png")
    if ended.code:
        return False, ended.stderr
    visible = pixels("03_mask_shape_in_alpha.png", "RGBA")[..., 3] > 0
    changed = (pixels("o.png", "RGB") != pixels("03_photo_96x96.png", "RGB")).any(2)
    outside = int((changed & ~visible).sum())
    return outside == 0 and bool(changed[visible].mean() > 0.5), f"{outside} pixels changed outside of the shape"


def red_disc() -> tuple[bool, str]:
    ended = run("inpaint", "04_red_disc.png", "--mask", "04_mask_antialiased.png", "-o", "o.png")
    if ended.code:
        return False, ended.stderr
    covered = pixels("04_mask_antialiased.png", "L") > 0
    cast = pixels("o.png", "RGB") - pixels("04_truth.png", "RGB")
    red = float((cast[..., 0] - cast[..., 1:].mean(2))[covered].mean())
    return abs(red) < 3, f"a red cast of {red:+.1f} of 255 inside"


def soft_brush() -> tuple[bool, str]:
    ended, jpeg = (
        run("inpaint", "04b_erased_soft_brush.png", "-o", "o.png"),
        run("inpaint", "04b_erased_soft_brush.png", "-o", "o.jpg"),
    )
    if ended.code or jpeg.code:
        return False, ended.stderr + jpeg.stderr
    through = int((pixels("o.png", "RGBA")[..., 3] < 255).sum())
    return through == 0, f"{through} pixels that can be seen through; .jpg written"


def full_disk(kind: str) -> tuple[bool, str]:
    Path(f"o.{kind}").write_bytes(b"an older result")
    run("upscale", "09_p_96x96.png", "-o", f"again.{kind}", "--scale", "4")  # compiles what is not compiled yet
    ended = run("upscale", "09_p_96x96.png", "-o", f"o.{kind}", "--scale", "4", room=2**14)
    kept = Path(f"o.{kind}").read_bytes() == b"an older result"
    return (
        ended.code != 0 and kept and ended.plain and "cannot write" in ended.stderr,
        f"exit {ended.code}: {ended.stderr}",
    )


def tiny_disk() -> tuple[bool, str]:
    """A file system of 16 KiB, which root alone can make."""
    disk = Path("disk").resolve()
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        return True, "not tried: no right to mount"
    try:
        seen = []
        for kind in ("jpg", "bmp", "png", "tif", "webp"):
            path = disk / f"o.{kind}"
            path.write_bytes(b"old")
            ended = run("upscale", "09_p_96x96.png", "-o", str(path), "--scale", "4")
            whole = path.read_bytes() == b"old" and os.listdir(disk) == [path.name]
            seen.append(ended.code == 2 and whole and "No space left on device" in ended.stderr)
            path.unlink()
        return all(seen), f"{sum(seen)} of {len(seen)} formats keep the old file; {ended.stderr}"
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def damaged(name: str) -> tuple[bool, str]:
    ended = run("colorize", name, "10_ref.png", "-o", "o.mkv")
    frames = len(frames_of("o.mkv"))
    named = ended.plain and ended.code in (1, 2) and bool(ended.stderr or "missing" in ended.stdout)
    return named and (
        frames > 0 or ended.code == 2
    ), f"exit {ended.code}, {frames} frames; {ended.stderr or ended.stdout}"


def restarting() -> tuple[bool, str]:
    ended = run("colorize", "10_s11_times_restart.ts", "10_ref.png", "-o", "o.mkv")
    times = frames_of("o.mkv")
    ordered = all(one < other for one, other in pairwise(times))
    right = ended.plain and ((ended.code in (0, 1) and ordered and len(times) > 0) or ended.code == 2)
    return right, f"exit {ended.code}, {len(times)} frames, in order: {ordered}; {ended.stderr}"


def cover_first() -> tuple[bool, str]:
    ended = run("colorize", "10_cover_first.mkv", "10_ref.png", "-o", "o.mkv")
    frames = len(frames_of("o.mkv"))
    return ended.code == 0 and frames == 12, f"{frames} frames; {ended.stderr}"


def gamma(kind: str) -> tuple[bool, str]:
    ended = run("upscale", "11_gama1.png", "-o", f"o.{kind}")
    if ended.code:
        return False, ended.stderr
    with Image.open(f"o.{kind}") as image:
        kept = image.info.get("gamma"), image.info.get("icc_profile") is not None
    said = "sRGB" in ended.stderr or "profile" in ended.stderr
    return kept[0] == 1.0 or kept[1] or said, f"gAMA {kept[0]}, ICC profile: {kept[1]}; {ended.stderr}"


def gray_profile() -> tuple[bool, str]:
    ended = run("colorize", "11_gray_gamma18_profile.tif", "11_reference.png", "-o", "o.png")
    if ended.code:
        return False, ended.stderr
    weights = np.array([0.2126, 0.7152, 0.0722])

    def luminance(path: str) -> NDArray[np.float64]:
        encoded = in_srgb(path) / 255
        linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
        return linear @ weights

    def level(value: NDArray[np.float64]) -> NDArray[np.float64]:
        return 255 * np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)

    off = np.abs(level(luminance("o.png")) - level(luminance("11_gray_gamma18_profile.tif"))).max()
    return off <= 2, f"at most {off:.1f} levels from as bright as before"


def deep_ppm() -> tuple[bool, str]:
    import tifffile

    ended = run("upscale", "11_rgb16.ppm", "-o", "o.tif")
    if ended.code:
        return False, ended.stderr
    kind = tifffile.imread("o.tif").dtype
    return kind == np.uint16, str(kind)


def animation() -> tuple[bool, str]:
    still, every = run("upscale", "12_anim.gif", "-o", "o.png"), run("upscale", "12_anim.gif", "-o", "o.gif")
    with Image.open("12_anim.gif") as given, Image.open("o.gif") as image:
        expected, count = given.n_frames, image.n_frames
    said = f"{expected} frames" in still.stderr and f"{expected - 1} are left out" in still.stderr
    return said and every.code == 0 and count == expected, f"{still.stderr.strip()} .gif: {count} frames"


def dust() -> tuple[bool, str]:
    command = ("inpaint", "18_photo.jpg", "-o", "o.png", "--json", "--mask")
    run(*command, "18_box_mask.png")  # compiles what is not compiled yet
    box, specks = run(*command, "18_box_mask.png"), run(*command, "18_dust_mask.png")
    if box.code or specks.code:
        return False, box.stderr + specks.stderr
    ratio = specks.seconds / box.seconds
    work = json.loads(specks.stdout)["seconds"] / json.loads(box.stdout)["seconds"]
    return work <= 2, f"{ratio:.2f} times the box's processor time for the whole command, {work:.2f} times its work"


Case = Callable[[], tuple[bool, str]]
NAMED = "all that can be decoded, exit 1, what is missing named"
CASES: list[tuple[str, str, Case]] = [
    ("01_white_icon_on_alpha1_black.png, x4", "at least 253 on white", white_icon),
    ("01, --model default", "at least 253 on white", partial(white_icon, "--model", "default")),
    ("03_mask_shape_in_alpha.png", "the hole is what is visibly white", shape_in_alpha),
    ("04_red_disc.png", "no red left", red_disc),
    ("04b_erased_soft_brush.png", "no see-through pixel, .jpg works too", soft_brush),
    ("09_p_96x96.png to .jpg, no room", "an error, the old file kept", partial(full_disk, "jpg")),
    ("09_p_96x96.png to .bmp, no room", "an error, the old file kept", partial(full_disk, "bmp")),
    ("09_p_96x96.png, a disk of 16 KiB", "No space left on device, the old file kept", tiny_disk),
    ("10_corrupt.mkv", NAMED, partial(damaged, "10_corrupt.mkv")),
    ("10_trunc.mkv", NAMED, partial(damaged, "10_trunc.mkv")),
    ("10_s11_times_restart.ts", "times in order, or an error before the work", restarting),
    ("10_cover_first.mkv", "the 12 frames of the video", cover_first),
    *((f"11_gama1.png to .{kind}", "color chunks kept, or an equal profile", partial(gamma, kind)) for kind in KINDS),
    ("11_gray_gamma18_profile.tif", "as bright as before", gray_profile),
    ("11_rgb16.ppm", "16 bits", deep_ppm),
    ("12_anim.gif", "all frames but one are said to be left out; .gif has all", animation),
    ("18_dust_mask.png", "about the time of the box", dust),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, help="the folder of the files")
    parser.add_argument("--only", nargs="*", help="cases that begin so")
    asked = parser.parse_args()
    wrong, cases = 0, asked.cases.resolve()
    for name, right, case in CASES:
        if asked.only and not any(name.startswith(one) for one in asked.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(cases, folder, dirs_exist_ok=True)
            os.chdir(folder)
            try:
                good, seen = case()
            except Exception as error:
                good, seen = False, f"{type(error).__name__}: {error}"
            finally:
                os.chdir("/")
        wrong += not good
        print(
            f"{'right' if good else 'WRONG':6} {name}\n       right: {right}\n       seen:  {' '.join(seen.split())}",
            flush=True,
        )
    print(f"{wrong} wrong")
    sys.exit(min(wrong, 100))


if __name__ == "__main__":
    main()
