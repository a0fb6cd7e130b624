"""`tasks.inpaint_video`: films made of a photograph over which a window moves, with a known truth."""

from __future__ import annotations

import pytest
import skimage.data
import torch
from torch import Tensor

from patchattn.tasks.inpaint import inpaint
from patchattn.tasks.inpaint_video import inpaint_video

pytest.importorskip("cv2", reason="needs the extra video")
pytestmark = pytest.mark.usefixtures("one_thread")

HEIGHT, WIDTH, FRAMES = 96, 128, 8


@pytest.fixture(scope="module")
def pan() -> Tensor:
    """A camera that moves 4 pixels a frame."""
    photograph = torch.from_numpy(skimage.data.coffee()[100:196, 150:340].copy()).permute(2, 0, 1) / 255
    return torch.stack([photograph[:, :, 4 * n : 4 * n + WIDTH] for n in range(FRAMES)])


def moving_square(step: int) -> Tensor:
    holes = torch.zeros(FRAMES, HEIGHT, WIDTH, dtype=torch.bool)
    for n in range(FRAMES):
        holes[n, 36:60, 50 + step * n : 74 + step * n] = True
    return holes


def psnr(filled: Tensor, truth: Tensor, holes: Tensor) -> float:
    error = (filled - truth).square().mean(1)[holes].mean()
    return float(-10 * error.log10())


def test_what_other_frames_show_comes_from_there(pan: Tensor) -> None:
    holes = moving_square(0)
    shown = pan.masked_fill(holes[:, None], 0.5)
    filled = inpaint_video(shown, holes)
    assert torch.equal(filled.permute(0, 2, 3, 1)[~holes], pan.permute(0, 2, 3, 1)[~holes])
    assert psnr(filled, pan, holes) > 32
    alone = torch.cat([inpaint(shown[n : n + 1], holes[n], quality="fast").image.color for n in (2, 5)])
    assert psnr(filled[[2, 5]], pan[[2, 5]], holes[[2, 5]]) > psnr(alone, pan[[2, 5]], holes[[2, 5]]) + 3


def test_what_no_frame_shows_stays_the_same(pan: Tensor) -> None:
    still = pan[:1].expand(4, -1, -1, -1)
    hole = moving_square(0)[0]
    filled = inpaint_video(still, hole, quality="fast")
    assert (filled[1:] - filled[:1]).abs().max() < 2 / 255
    assert not torch.equal(filled[0], still[0])


def test_nothing_comes_over_a_cut(pan: Tensor) -> None:
    other = torch.from_numpy(skimage.data.astronaut()[:HEIGHT, :WIDTH].copy()).permute(2, 0, 1) / 255
    frames = torch.stack([pan[0], pan[0], other, other])
    holes = moving_square(0)[:4]
    filled = inpaint_video(frames, holes, quality="fast")
    assert torch.equal(filled[2], inpaint_video(frames[2:], holes[2:], quality="fast")[0])


def test_frames_without_a_hole_and_gray_ones(pan: Tensor) -> None:
    holes = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    assert torch.equal(inpaint_video(pan[:2], holes), pan[:2])
    holes[0, 40:50, 40:50] = True
    filled = inpaint_video(pan[:2, :1], holes)
    assert psnr(filled, pan[:2, :1], holes) > 30


def test_bad_input(pan: Tensor) -> None:
    hole = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"frames: got shape \(3, 96, 128\)"):
        inpaint_video(pan[0], hole)
    with pytest.raises(ValueError, match=r"frames: got values beside \[0, 1\]"):
        inpaint_video(pan * 2, hole)
    with pytest.raises(ValueError, match=r"holes: got shape \(96, 127\) of torch.bool; expected .* \(96, 128\)"):
        inpaint_video(pan, hole[:, :-1])
    with pytest.raises(ValueError, match="grow: expected"):
        inpaint_video(pan, hole, grow=-1)
