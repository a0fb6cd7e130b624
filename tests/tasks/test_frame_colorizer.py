"""Images colored one after another, and what is carried from one to the next."""

from __future__ import annotations

import pytest
import skimage.data
import torch

from patchattn.tasks.color_profiles import srgb_profile
from patchattn.tasks.frame_colorizer import SOURCES, FrameColorizer
from patchattn.tasks.images import Image

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("source", SOURCES)
def test_another_one_goes_on_alike(source: str) -> None:
    """From the numbers that the first has carried, and not without them."""
    left, right, _ = skimage.data.stereo_motorcycle()
    frames = [torch.tensor(left[200:232, 300 + n : 340 + n]).permute(2, 0, 1)[None] / 255 for n in range(4)]
    reference = Image(torch.tensor(right[196:236, 270:320]).permute(2, 0, 1)[None] / 255, icc_profile=srgb_profile())
    settings = {"source": source, "k": 2, "patch_size": 5, "method": "patchmatch"}
    first = FrameColorizer(reference, **settings)
    results = [first(Image(frame)).image for frame in frames[:2]]
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    results += [first(Image(frame)).image for frame in frames[2:]]
    second, fresh = FrameColorizer(reference, **settings), FrameColorizer(reference, **settings)
    assert second.state_dict().keys() <= {"reference", "profile"}
    second.load_state_dict(state)
    for frame, expected in zip(frames[2:], results[2:], strict=True):
        again = second(Image(frame)).image
        assert torch.equal(again.color, expected.color)
        assert again.icc_profile == expected.icc_profile == srgb_profile()
    assert not torch.equal(fresh(Image(frames[2])).image.color, results[2].color)
