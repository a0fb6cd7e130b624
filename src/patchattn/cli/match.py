"""The command `match`: the best matches of an image, or of each image in a folder, in another, as files."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from patchattn.cli.commands import tool
from patchattn.cli.folders import prepare_folders, report_folder
from patchattn.cli.options import ToolOptions, on_device
from patchattn.cli.paths import check_apart
from patchattn.cli.printing import Report
from patchattn.cli.reading import read
from patchattn.cli.stages import Stages
from patchattn.cli.streams import check_stdout, is_stream, write_stream
from patchattn.options import Option, values_of
from patchattn.tasks.settings import MatchSettings

if TYPE_CHECKING:
    from patchattn.field import MatchField
    from patchattn.tasks.folders import FolderImage
    from patchattn.tasks.images import Image

__all__ = ["match"]


@dataclass(frozen=True, kw_only=True)
class MatchOptions(MatchSettings, ToolOptions):
    """Options of the command."""

    a: Annotated[
        Path, Option("The image whose pixels look for matches, or a folder of images.", metavar="A", positional=True)
    ]
    b: Annotated[Path, Option("The image in which they look; any size.", metavar="B", positional=True)]
    output: Annotated[
        Path,
        Option(
            "Where to write the field: a file .npz, or a folder, made if it is not there.", flags=("--output", "-o")
        ),
    ]


@tool(MatchOptions)
def match(options: MatchOptions, stage: Stages) -> Report:
    """Find for every pixel of A its best matches in B, and write them to a NumPy file.

    The file holds `index` (int32, k x height x width of A: the flat row-major position in B, best first, -1 for none),
    `similarity` (float32, the same shape), `key_shape` (height and width of B) and `settings` (a JSON text).

    The files of a folder's images are written as NAME.npz, each as soon as it is done.
    """
    work = MatchTool(options, values_of(options, MatchSettings), stage)
    read_files = (
        {"A": options.a, "B": options.b} if options.a != options.b or is_stream(options.a) else {"A": options.a}
    )
    check_apart({"--output": options.output}, read_files)
    if options.a.is_dir():
        return work.folder()
    options.refuse_for_one(options.a)
    return work.one()


@dataclass(frozen=True)
class MatchTool:
    """The command, on an image or a folder."""

    options: MatchOptions
    settings: dict[str, Any]
    stage: Stages

    def one(self) -> Report:
        """Match one image."""
        from patchattn.tasks.files import check_output_file
        from patchattn.tasks.peak_memory import peak_memory

        output = self.options.output
        if is_stream(output):
            check_stdout(argument="--output")
        else:
            if output.suffix.lower() != ".npz":
                raise ValueError(f"--output: {output} ends in {output.suffix or 'no extension'}; allowed is .npz.")
            check_output_file(output, argument="--output")
        self.stage("reading")
        query = read(self.options.a, "A")
        field, seconds = self.field(query, read(self.options.b, "B"))
        self.stage("writing")
        _write_field(output, field, self.settings)
        height, width = query.size
        mean = float(field.similarity[:, :, 0].mean())
        return Report(
            output=output,
            done=[str(self.options.a)],
            seconds=seconds,
            peak_memory=peak_memory(),
            settings=self.settings,
            details={
                "height": height,
                "width": width,
                "key_shape": list(field.key_shape),
                "mean_best_similarity": mean,
            },
            lines={
                "wrote": f"{output} ({self.settings['k']} for each of {width} x {height} pixels)",
                "similarity": f"{mean:.6g} (mean of the best matches)",
            },
        )

    def folder(self) -> Report:
        """Match every image in a folder."""
        from patchattn.tasks.folders import map_folder
        from patchattn.tasks.peak_memory import peak_memory

        options = self.options
        listing = prepare_folders(options.a, options.output, options, argument="A")
        work = MatchFolder(self)
        options.output.mkdir(exist_ok=True)
        began = time.perf_counter()
        report = map_folder(
            listing.images,
            options.output,
            work,
            resume=options.resume,
            on_error=options.on_error,
            progress=self.stage,
        )
        return report_folder(
            report,
            listing,
            options,
            output=options.output,
            seconds=time.perf_counter() - began,
            peak_memory=peak_memory(),
            settings=self.settings,
        )

    def field(self, query: Image, key: Image) -> tuple[MatchField, float]:
        """Return the matches of one image in another, and the seconds that the search took."""
        from patchattn import matching
        from patchattn.tasks.images import same_channels

        tensors = (on_device(tensor, self.options.device) for tensor in same_channels(query, key))
        self.stage("matching")
        began = time.perf_counter()
        field = matching.match(*tensors, **self.settings).cpu()
        return field, time.perf_counter() - began


class MatchFolder:
    """The images of a folder, each matched alone."""

    ordered = False

    def __init__(self, tool: MatchTool) -> None:
        from patchattn import __version__
        from patchattn.tasks.journal import digest_of, digest_of_file

        self._tool = tool
        self._key = read(tool.options.b, "B")
        settings = json.dumps(tool.settings, sort_keys=True)
        self._base = digest_of("match", __version__, settings, digest_of_file(tool.options.b))

    def key(self, source: FolderImage) -> str:
        from patchattn.tasks.journal import digest_of, digest_of_file

        return digest_of(self._base, digest_of_file(source.path))

    def make(self, source: FolderImage, target: Path) -> Path:
        path = Path(f"{target}.npz")
        check_apart({"--output": path}, {"A": source.path, "B": self._tool.options.b})
        field, _ = self._tool.field(read(source.path, "A"), self._key)
        _write_field(path, field, self._tool.settings)
        return path

    def recorded(self, source: FolderImage, key: str, result: Path) -> None:
        """Do nothing: no image depends on another."""


def _write_field(path: Path, field: MatchField, settings: dict[str, Any]) -> None:
    import numpy as np

    from patchattn.tasks.files import atomic_writer

    content = io.BytesIO()
    np.savez(
        content,
        index=field.index[0, 0].numpy(),
        similarity=field.similarity[0, 0].numpy(),
        key_shape=np.array(field.key_shape),
        settings=np.array(json.dumps(settings)),
    )
    if is_stream(path):
        write_stream(content.getvalue(), argument="--output")
        return
    with atomic_writer(path, argument="--output") as file:
        file.write(content.getbuffer())
