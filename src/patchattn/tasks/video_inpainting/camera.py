"""Camera motion: homographies between frames, from features that are tracked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.extras import extra

__all__ = ["CameraPath", "Homography", "Mask", "Plane", "mapped", "refined", "tracked_motion"]

Homography = NDArray[np.float64]
"""3x3; maps (x, y, 1) of one frame to another."""
Plane = NDArray[np.uint8]
"""Luminance of a frame, (height, width)."""
Mask = NDArray[np.bool_]

MAX_FEATURES = 600
FEATURE_QUALITY, FEATURE_DISTANCE = 0.003, 6
"""Smallest corner strength in relation to the strongest, and smallest distance of two features in pixels."""
TRACKING_WINDOW = (21, 21)
MAX_LOOP_ERROR = 0.5
"""Largest distance in pixels of a feature tracked there and back from where it was."""
MAX_RESIDUAL = 1.5
"""Largest distance in pixels of a track from the homography that it supports."""
MIN_HOMOGRAPHY, MIN_SIMILARITY = 24, 8
"""Smallest number of tracks that support eight unknowns, and four: fewer extrapolate wildly into the hole."""
MIN_SUPPORT = 0.25
"""Smallest share of tracks that follow one motion; where fewer do, there is a cut."""


def tracked_motion(
    before: Plane, after: Plane, known_before: Mask, known_after: Mask, predicted: Homography | None = None
) -> Homography | None:
    """Motion of the background from one frame to another; None where no single motion explains it (a cut).

    Corners are tracked (Lucas and Kanade, pyramidal) there and back, and a homography is fitted to the tracks by
    RANSAC; to few tracks a similarity.

    Args:
        before, after: the frames.
        known_before, known_after: where they show the background; elsewhere nothing is tracked.
        predicted: a first estimate, for frames that are far apart.
    """
    with extra("video"):
        import cv2

    started = cv2.goodFeaturesToTrack(
        before, MAX_FEATURES, FEATURE_QUALITY, FEATURE_DISTANCE, mask=known_before.astype(np.uint8)
    )
    if started is None or len(started) < MIN_SIMILARITY:
        return None
    options: dict[str, Any] = {"winSize": TRACKING_WINDOW, "maxLevel": 4}
    guess = None
    if predicted is not None:
        guess = np.ascontiguousarray(mapped(predicted, started[:, 0])[:, None], np.float32)
        options |= {"flags": cv2.OPTFLOW_USE_INITIAL_FLOW, "maxLevel": 3}
    found, status, _ = cv2.calcOpticalFlowPyrLK(before, after, started, guess, **options)
    back, status_back, _ = cv2.calcOpticalFlowPyrLK(
        after, before, found, None if guess is None else started.copy(), **options
    )
    loop = np.abs(back - started).max((1, 2))
    good = (status[:, 0] > 0) & (status_back[:, 0] > 0) & (loop < MAX_LOOP_ERROR) & _inside(found[:, 0], known_after)
    start, end = started[good, 0], found[good, 0]
    if len(start) < MIN_SIMILARITY:
        return None
    return _fitted(start, end)


def refined(before: Plane, after: Plane, known_before: Mask, known_after: Mask, predicted: Homography) -> Homography:
    """A predicted motion between frames that may be far apart, refined by tracks where `known_before` is True.

    It stays as it is where too few tracks agree, or where it matches the surroundings better than what they follow.
    """
    found = tracked_motion(before, after, known_before, known_after, predicted)
    if found is None or _mismatch(before, after, known_before, known_after, predicted) < _mismatch(
        before, after, known_before, known_after, found
    ):
        return predicted
    return found


def _mismatch(before: Plane, after: Plane, known_before: Mask, known_after: Mask, motion: Homography) -> float:
    """Mean difference in luminance where both frames are known; infinite where they never are."""
    import cv2

    size, flags = before.shape[::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(after, motion, size, flags=flags)
    both = known_before & (cv2.warpPerspective(known_after.astype(np.uint8), motion, size, flags=flags) > 0)
    return float(cv2.absdiff(before, warped)[both].mean()) if both.any() else np.inf


def mapped(motion: Homography, points: NDArray[Any]) -> NDArray[np.float64]:
    """Map points (..., 2), as (x, y)."""
    ahead = np.concatenate([points, np.ones_like(points[..., :1])], -1) @ motion.T
    moved: NDArray[np.float64] = ahead[..., :2] / ahead[..., 2:]
    return moved


def _fitted(start: NDArray[np.float32], end: NDArray[np.float32]) -> Homography | None:
    import cv2

    motion, support = cv2.findHomography(start, end, cv2.RANSAC, MAX_RESIDUAL, maxIters=2000, confidence=0.999)
    if motion is not None and support.sum() >= max(MIN_HOMOGRAPHY, MIN_SUPPORT * len(start)):
        return np.asarray(motion, np.float64)
    similarity, support = cv2.estimateAffinePartial2D(start, end, ransacReprojThreshold=MAX_RESIDUAL)
    if similarity is not None and support.sum() >= max(MIN_SIMILARITY, MIN_SUPPORT * len(start)):
        return np.vstack([similarity, [0, 0, 1]])
    return None


def _inside(points: NDArray[np.float32], known: Mask) -> Mask:
    """Whether points lie on known pixels."""
    height, width = known.shape
    column, row = np.rint(points).astype(int).T
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    on_known: Mask = inside & known[row.clip(0, height - 1), column.clip(0, width - 1)]
    return on_known


@dataclass(frozen=True)
class CameraPath:
    """Motion of the camera over all frames, shot by shot."""

    shots: NDArray[np.int64]
    """Shot of each frame."""
    poses: NDArray[np.float64]
    """Homography of each frame to the first one of its shot."""

    @classmethod
    def of(cls, motions: Sequence[Homography | None]) -> CameraPath:
        """Compose the motions of every frame (but the first) from the one before it; None: a cut.

        Example:
            >>> CameraPath.of([np.eye(3), None, np.eye(3)]).shots.tolist()
            [0, 0, 1, 1]
        """
        shots, poses = [0], [np.eye(3)]
        for motion in motions:
            shots.append(shots[-1] + (motion is None))
            pose = np.eye(3) if motion is None else poses[-1] @ np.linalg.inv(motion)
            poses.append(pose / pose[2, 2])
        return cls(np.array(shots), np.stack(poses))

    def motion(self, before: int, after: int) -> Homography | None:
        """Homography from one frame to another; None between shots."""
        if self.shots[before] != self.shots[after]:
            return None
        motion = np.linalg.inv(self.poses[after]) @ self.poses[before]
        scaled: Homography = motion / motion[2, 2]
        return scaled
