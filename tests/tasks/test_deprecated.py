"""Old names in `tasks` go on working, and warn."""

from __future__ import annotations

import inspect
from fractions import Fraction
from importlib import import_module

import pytest
import torch

from patchattn.deprecation import renamed_argument
from patchattn.tasks.image import Image
from patchattn.tasks.inpaint import inpaint
from patchattn.tasks.upscale import upscale
from patchattn.tasks.video import VideoReport

MOVED = {
    "images.Picture": "images.Image",
    "images.read_picture": "images.read_image",
    "images.write_picture": "images.write_image",
    "images.check_picture_output": "images.check_image_output",
    "flow_picture.flow_picture": "flow_image.flow_image",
    "smooth_fill.smooth_fill": "membrane.membrane_interpolation",
    "frames.FrameColorizer": "frame_colorizer.FrameColorizer",
    "video.map_film": "video.map_video",
    "video.Film": "video.VideoReport",
    "video.check_film_output": "video.check_video_output",
    "video.FILM_SUFFIXES": "video.VIDEO_SUFFIXES",
}


@pytest.mark.parametrize("old", MOVED)
def test_moved_names(old: str) -> None:
    module, name = old.rsplit(".", 1)
    new_module, new_name = MOVED[old].rsplit(".", 1)
    with pytest.warns(
        DeprecationWarning, match=rf"patchattn\.tasks\.{old} has moved to patchattn\.tasks\.{MOVED[old]}"
    ):
        found = getattr(import_module(f"patchattn.tasks.{module}"), name)
    assert found is getattr(import_module(f"patchattn.tasks.{new_module}"), new_name)


def test_results_keep_their_attributes() -> None:
    result = upscale(torch.rand(1, 1, 8, 8), 2)
    with pytest.warns(DeprecationWarning, match=r"Upscaling\.picture is now Upscaling\.image"):
        assert result.picture is result.image
    with pytest.warns(DeprecationWarning, match=r"Upscaling\.peak_memory is now patchattn\.tasks\.peak_memory"):
        peak = result.peak_memory
    assert peak is None or peak > 2**20
    report = VideoReport(1, (2, 2), Fraction(25), 3)
    with pytest.warns(DeprecationWarning, match=r"VideoReport\.sounds is now VideoReport\.audio_streams"):
        assert report.sounds == 3


def test_results_hold_nothing_of_the_process() -> None:
    result = upscale(torch.rand(1, 1, 8, 8), 2)
    assert set(vars(result)) == {"image", "seconds"}


def test_renamed_arguments() -> None:
    image = Image(torch.rand(1, 3, 8, 8))
    hole = torch.zeros(8, 8, dtype=torch.bool)
    with pytest.warns(DeprecationWarning, match=r"inpaint\(picture=\.\.\.\) is now inpaint\(image=\.\.\.\)") as caught:
        result = inpaint(picture=image, hole=hole)  # type: ignore[call-arg]
    assert caught[0].filename == __file__
    assert torch.equal(result.image.color, image.color)
    assert next(iter(inspect.signature(inpaint).parameters)) == "image"


def test_both_names_of_an_argument_are_an_error() -> None:
    @renamed_argument("old", "new")
    def identity(new: int) -> int:
        return new

    with pytest.raises(TypeError, match="old"):
        identity(new=1, old=2)  # type: ignore[call-arg]
