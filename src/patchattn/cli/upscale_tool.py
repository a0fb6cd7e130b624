"""`patchattn upscale`, on an image or a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from patchattn.cli.image_tool import Given, ImageTool
from patchattn.cli.options import on_device

if TYPE_CHECKING:
    from patchattn.networks.superresolution import SuperResolutionNetwork
    from patchattn.tasks.images import Image
    from patchattn.tasks.upscale import Upscaling

__all__ = ["UpscaleTool"]

MAX_SIDES = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500}
"""The largest width and height of formats, in pixels."""


@dataclass(frozen=True)
class UpscaleTool(ImageTool[Given]):
    """The command `upscale`."""

    command: ClassVar[str] = "upscale"

    def complete(self, path: Path, image: Image) -> Given:
        return Given(image)

    def begin(self) -> Callable[[Given], Upscaling]:
        from patchattn.tasks.upscale import upscale

        network = self._network()
        return lambda given: upscale(given.image, network=network, progress=self.stage, **self.settings)

    def check_settings(self) -> None:
        from patchattn.tasks.upscale import check_settings

        check_settings(**self.settings)

    def check_size(self, image: Image, extension: str) -> None:
        height, width = (self.settings["scale"] * extent for extent in image.size)
        longest = MAX_SIDES.get(extension, max(height, width))
        if max(height, width) > longest:
            raise ValueError(
                f"--output: {self.output} cannot hold {width} x {height} pixels; its format ends at {longest} a side."
            )

    def _network(self) -> SuperResolutionNetwork | None:
        """Load the network; its cross-scale branch attends with PSAL unless asked otherwise, for images of any size."""
        if self.model.name is None:
            return None
        from patchattn.networks.weights import load_superresolution_network

        path = None if self.model.name == "default" else self.model.name
        attention = self.model.attention or "psal"
        network = load_superresolution_network(path, scale=self.settings["scale"], cross_scale=attention)
        return on_device(network, self.options.device)
