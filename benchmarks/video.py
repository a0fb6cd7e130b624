"""Inpainting of videos with a known truth, and removal of things from them.

    python benchmarks/video.py --data DIR [--results docs/results] [--sheets DIR] [--only CLIP ...] [--frames 40]

DIR holds films/CLIP/frames/*.jpg and films/CLIP/masks/*.png (255 = object). Each clip is cropped to 432x240 in its
middle. Known truth: a rectangle of 96x96 that stands still where the clip's object is least, and the object mask of the
next clip moved over this one. Rows that are in --results already are not measured again. With --sheets the object of
each clip is removed too, with its mask dilated by 5 pixels, and six frames of each are drawn there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from completion_measures import CompletionMeasures
from machine import table
from numpy.typing import NDArray
from page import machine_line, write_page
from skimage.metrics import structural_similarity

from patchattn.tasks.inpaint import inpaint
from patchattn.tasks.inpaint_video import inpaint_video
from patchattn.tasks.video_inpainting.camera import CameraPath, mapped, tracked_motion
from patchattn.tasks.video_inpainting.frame import Frame

HEIGHT, WIDTH, SIDE = 240, 432, 96
BORDER = 24
"""Smallest distance of the rectangle from the edge of the frame."""
MEASURED = 8
"""Texture is measured in every so-many-th frame."""

Frames = NDArray[np.uint8]
Holes = NDArray[np.bool_]


def read_clip(folder: Path, count: int) -> tuple[Frames, Holes]:
    """Frames and object masks, cropped."""
    frames, masks = [], []
    for path in sorted((folder / "frames").glob("*.jpg"))[:count]:
        image = cv2.imread(str(path))[..., ::-1]
        mask = cv2.imread(str(folder / "masks" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE) > 127
        top, left = (image.shape[0] - HEIGHT) // 2, (image.shape[1] - WIDTH) // 2
        frames.append(image[top : top + HEIGHT, left : left + WIDTH])
        masks.append(mask[top : top + HEIGHT, left : left + WIDTH])
    return np.stack(frames), np.stack(masks)


def rectangle(objects: Holes) -> Holes:
    """A rectangle for all frames, where the object is least; nearest to the middle."""
    sums = np.pad(objects.sum(0).astype(float), ((1, 0), (1, 0))).cumsum(0).cumsum(1)

    def cost(place: tuple[int, int]) -> tuple[float, float]:
        y, x = place
        inside = sums[y + SIDE, x + SIDE] - sums[y, x + SIDE] - sums[y + SIDE, x] + sums[y, x]
        return inside, (y - (HEIGHT - SIDE) / 2) ** 2 + (x - (WIDTH - SIDE) / 2) ** 2

    rows, columns = (range(BORDER, size - SIDE - BORDER, 8) for size in (HEIGHT, WIDTH))
    y, x = min(((y, x) for y in rows for x in columns), key=cost)
    holes = np.zeros_like(objects)
    holes[:, y : y + SIDE, x : x + SIDE] = True
    return holes


def tensor(frames: Frames) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(frames, -1, 1).copy()) / 255


def samples(frames: torch.Tensor) -> Frames:
    return (frames.movedim(1, -1).numpy() * 255 + 0.5).astype(np.uint8)


def ours(frames: Frames, holes: Holes) -> Frames:
    """The task."""
    return samples(inpaint_video(tensor(frames), torch.from_numpy(holes)))


def by_frame(frames: Frames, holes: Holes) -> Frames:
    """`inpaint`, each frame alone."""
    pairs = zip(tensor(frames).split(1), torch.from_numpy(holes), strict=True)
    return samples(torch.cat([inpaint(frame, hole).image.color for frame, hole in pairs]))


def telea(frames: Frames, holes: Holes) -> Frames:
    """OpenCV's fast marching (Telea 2004), each frame alone."""
    filled = [cv2.inpaint(f, h.astype(np.uint8), 3, cv2.INPAINT_TELEA) for f, h in zip(frames, holes, strict=True)]
    return np.stack(filled)


def median(frames: Frames, holes: Holes) -> Frames:
    """Median over all frames that show a pixel, after registration by homographies; Telea where none does."""
    read = [Frame.of(np.ascontiguousarray(frame), hole) for frame, hole in zip(frames, holes, strict=True)]
    pairs = pairwise(read)
    path = CameraPath.of([tracked_motion(a.plane, b.plane, ~a.hole, ~b.hole) for a, b in pairs])
    filled = frames.copy()
    grid = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1)
    for number, hole in enumerate(holes):
        views = list(_views(number, path, frames, holes, grid))
        values = np.ma.median(np.ma.stack(views), 0) if views else np.ma.masked_all(frames.shape[1:])
        unseen = hole & np.ma.getmaskarray(values).any(-1)
        filled[number][hole] = values.filled(0)[hole]
        filled[number] = cv2.inpaint(filled[number], unseen.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    return filled


def _views(number: int, path: CameraPath, frames: Frames, holes: Holes, grid: NDArray[Any]) -> Iterator[Any]:
    for other in range(len(frames)):
        motion = None if other == number else path.motion(number, other)
        if motion is not None:
            at = mapped(motion, grid).astype(np.float32)
            seen = (
                cv2.remap(holes[other].astype(np.uint8), at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderValue=1) == 0
            )
            color = cv2.remap(frames[other], at[..., 0], at[..., 1], cv2.INTER_LINEAR)
            yield np.ma.array(color, mask=np.repeat(~(seen & holes[number])[..., None], 3, -1))


METHODS: dict[str, Callable[[Frames, Holes], Frames]] = {
    "inpaint_video": ours,
    "median": median,
    "telea": telea,
    "inpaint": by_frame,
}


def measured(filled: Frames, truth: Frames, holes: Holes) -> dict[str, float]:
    """PSNR and SSIM in the hole, temporal error in levels of 255, sharpness and texture distance."""
    a, b = filled / 255.0, truth / 255.0
    change = np.abs(np.diff(a, axis=0) - np.diff(b, axis=0)).mean(-1)
    alike = [
        structural_similarity(one, other, channel_axis=2, data_range=1.0, full=True)[1].mean(-1)[hole]
        for one, other, hole in zip(a, b, holes, strict=True)
    ]
    texture = [CompletionMeasures(b[n], holes[n])(a[n]) for n in range(0, len(a), MEASURED) if holes[n].sum() > 200]
    return {
        "psnr": float(-10 * np.log10(((a - b) ** 2).mean(-1)[holes].mean())),
        "ssim": float(np.concatenate(alike).mean()),
        "temporal": float(255 * change[holes[1:] | holes[:-1]].mean()),
        "sharp": float(np.nanmean([one["sharp"] for one in texture])),
        "texture": float(np.nanmean([one["texture"] for one in texture])),
    }


def sheet(frames: Frames, objects: Holes, path: Path) -> float:
    """Remove the object and draw six frames before and after; returns the seconds a frame."""
    holes = np.stack([cv2.dilate(mask.astype(np.uint8), np.ones((11, 11), np.uint8)) > 0 for mask in objects])
    began = time.perf_counter()
    filled = ours(frames, holes)
    seconds = (time.perf_counter() - began) / len(frames)
    chosen = np.linspace(0, len(frames) - 1, 6).astype(int)
    tiles = [np.vstack([frames[n], filled[n]]) for n in chosen]
    drawn = np.vstack([np.hstack(tiles[:3]), np.hstack(tiles[3:])])
    cv2.imwrite(str(path), drawn[..., ::-1])
    return seconds


def page_of(rows: list[dict[str, Any]]) -> str:
    columns = ["clip", "hole", "method", "PSNR", "SSIM", "temporal error", "sharpness", "texture", "s a frame"]
    shown = [
        [
            row["clip"],
            row["hole"],
            row["method"],
            *(f"{row[name]:.{digits}f}" for name, digits in (("psnr", 2), ("ssim", 3), ("temporal", 1))),
            *(f"{row[name]:.{digits}f}" for name, digits in (("sharp", 2), ("texture", 4), ("seconds", 2))),
        ]
        for row in rows
    ]
    return table(columns, shown)


def means_of(rows: list[dict[str, Any]]) -> str:
    shown = []
    for hole in ("rectangle", "object"):
        for method in METHODS:
            of = [row for row in rows if row["hole"] == hole and row["method"] == method]
            if of:
                names = (("psnr", 2), ("ssim", 3), ("temporal", 1), ("sharp", 2), ("texture", 4))
                medians = [f"{statistics.median(row[name] for row in of):.{digits}f}" for name, digits in names]
                shown.append([hole, method, str(len(of)), *medians])
    return table(["hole", "method", "clips", "PSNR", "SSIM", "temporal error", "sharpness", "texture"], shown)


INTRODUCTION = """# Inpainting of videos

`benchmarks/video.py`: clips of DAVIS 2016 (its authors' own, CC BY 4.0), cropped to 432x240, with a known truth behind
the hole: a rectangle of 96x96 that stands still where the clip's object is least, or the object mask of the next clip
moved over this one. PSNR in dB and SSIM in the hole; temporal error: mean absolute difference of result and truth after
their frames before are subtracted, in levels of 255; sharpness: mean difference of neighbors over the truth's, 1 is
right; texture: sliced Wasserstein distance of patches of 7x7, 0 is right. `inpaint` and `telea` fill each frame alone;
`median` is that of all frames that show a pixel, after registration by homographies. Time is processor time, on a
machine with other work.

The truth is hard on all that bring the background: where a hole covers something that moves by itself, as the cyclist
or the horse, no other frame shows it in that place."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with films/CLIP/frames and masks")
    parser.add_argument("--results", type=Path, help="folder for video.md and video.json")
    parser.add_argument("--sheets", type=Path, help="folder for images of removals")
    parser.add_argument("--only", nargs="+", metavar="CLIP", help="measure these alone")
    parser.add_argument("--frames", type=int, default=40, help="of each clip")
    arguments = parser.parse_args()
    if not (arguments.data / "films").is_dir():
        sys.exit(f"--data: there is no folder {arguments.data / 'films'}")
    names = sorted(path.name for path in (arguments.data / "films").iterdir())
    kept = None if arguments.results is None else arguments.results / "video.json"
    rows: list[dict[str, Any]] = json.loads(kept.read_text())["results"] if kept and kept.is_file() else []
    known = {(row["clip"], row["hole"], row["method"]) for row in rows}
    clips = {name: read_clip(arguments.data / "films" / name, arguments.frames) for name in names}
    for method, function in METHODS.items():
        for place, name in enumerate(names):
            frames, objects = clips[name]
            other = clips[names[(place + 1) % len(names)]][1]
            length = min(len(frames), len(other))
            for hole, holes in {"rectangle": rectangle(objects), "object": other}.items():
                if (name, hole, method) in known or (arguments.only and name not in arguments.only):
                    continue
                began = time.process_time()
                filled = function(frames[:length], holes[:length])
                seconds = (time.process_time() - began) / length
                found = measured(filled, frames[:length], holes[:length])
                rows.append({"clip": name, "hole": hole, "method": method, **found, "seconds": seconds})
                print(rows[-1], file=sys.stderr, flush=True)
                if arguments.results is not None:
                    ordered = sorted(
                        rows, key=lambda row: (row["clip"], row["hole"], list(METHODS).index(row["method"]))
                    )
                    parts = [
                        INTRODUCTION,
                        machine_line(),
                        "Medians over the clips:",
                        means_of(ordered),
                        page_of(ordered),
                    ]
                    write_page(arguments.results, "video", parts, ordered)
    if arguments.sheets is not None:
        arguments.sheets.mkdir(parents=True, exist_ok=True)
        for name in arguments.only or names:
            seconds = sheet(*clips[name], arguments.sheets / f"{name}.png")
            print(f"{name}: {seconds:.2f} s a frame")


if __name__ == "__main__":
    main()
