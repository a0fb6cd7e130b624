"""`patchattn colorize`, on an image, a folder or a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from patchattn.cli.image_tool import FolderOfImages, Given, ImageTool, Result, image_on_device
from patchattn.cli.options import on_device
from patchattn.cli.ordered_folder import OrderedFolder
from patchattn.cli.printing import Report
from patchattn.cli.reading import read
from patchattn.cli.video_tool import run_video
from patchattn.cli.writing import Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from patchattn.tasks.colorize import Colorization
    from patchattn.tasks.frame_colorizer import FrameColorizer
    from patchattn.tasks.images import Image

__all__ = ["ColorizeTool", "color_video"]


@dataclass(frozen=True)
class ColorizeTool(ImageTool[Given]):
    """The command `colorize`."""

    reference: Path
    colors_from: str
    """The value of --from."""
    show_field: Path | None

    command: ClassVar[str] = "colorize"
    argument: ClassVar[str] = "GRAY"

    def complete(self, path: Path, image: Image) -> Given:
        return Given(image)

    def also_read(self) -> Mapping[str, Path | None]:
        return {"REFERENCE": self.reference}

    def also_written(self) -> Mapping[str, Path | None]:
        return {"--show-field": self.show_field}

    def begin(self) -> FrameProcessor:
        from patchattn.tasks.frame_colorizer import FrameColorizer

        self.stage("reading")
        reference = read(self.reference, "REFERENCE")
        if reference.color.shape[1] == 1:
            raise ValueError(f"REFERENCE: {self.reference} has one channel, gray; expected colors to take.")
        colorizer = FrameColorizer(
            image_on_device(reference, self.options.device),
            source=self.colors_from,
            network=self._network(),
            progress=self.stage,
            **self.settings,
        )
        return FrameProcessor(colorizer, self.options.device)

    def folder_work(self, work: Callable[[Given], Result]) -> FolderOfImages[Given]:
        assert isinstance(work, FrameProcessor)
        return OrderedFolder(self, work)

    def write_more(self, result: Result) -> dict[str, Any]:
        field = getattr(result, "field", None)
        if self.show_field is not None and field is not None:
            from patchattn.tasks.flow_image import flow_image

            drawn = flow_image(field.offsets()[0, 0, 0].cpu())
            Target(self.show_field, argument="--show-field").write(drawn)
        return {"show_field": None if self.show_field is None else str(self.show_field)}

    def summary(self, result: Result) -> dict[str, object]:
        return {"field": self.show_field}

    def key(self) -> str:
        from patchattn.tasks.journal import digest_of

        return digest_of(super().key(), self.colors_from)

    def key_with_files(self) -> str:
        """Return a digest of all that the result depends on but the video."""
        from patchattn.tasks.journal import digest_of, digest_of_file

        return digest_of(self.key(), digest_of_file(self.reference))

    def _network(self) -> nn.Module | None:
        """Load the network that was asked for, if one was."""
        if self.model.name is None:
            return None
        from patchattn.networks.weights import load_colorization_network

        network: nn.Module = load_colorization_network(None if self.model.name == "default" else self.model.name)
        return on_device(network, self.options.device)


@dataclass(frozen=True)
class FrameProcessor:
    """A colorizer, called with all that is read for one result; its state is read and written on any device."""

    colorizer: FrameColorizer
    device: str

    def __call__(self, given: Given) -> Colorization:
        return self.colorizer(given.image)

    def follow(self, result: Image) -> None:
        """Go on from a result that was read from its file."""
        self.colorizer.follow(image_on_device(result, self.device))

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that is carried from image to image."""
        return self.colorizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from such a state."""
        self.colorizer.load_state_dict({name: on_device(tensor, self.device) for name, tensor in state.items()})


def color_video(tool: ColorizeTool) -> Report:
    """Color a video."""
    from patchattn.tasks.video import check_video_output

    check_video_output(tool.output, argument="--output")
    work = tool.begin()
    return run_video(
        tool, lambda image: tool.worked(work, Given(image)).image, state=work, settings=tool.key_with_files()
    )
