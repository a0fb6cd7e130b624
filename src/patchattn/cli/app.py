"""The commands. Heavy packages are imported inside them, so that `--help` answers at once."""

from __future__ import annotations

import json
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchattn.cli.colorize import colorize
from patchattn.cli.demo import demo
from patchattn.cli.failures import one_sentence_errors
from patchattn.cli.inpaint import inpaint
from patchattn.cli.options import (
    Iterations,
    Json,
    Method,
    PatchSize,
    Seed,
    Similarity,
    Temperature,
    Threads,
    use_threads,
)
from patchattn.cli.paths import check_apart
from patchattn.cli.printing import megabytes, print_json, print_lines
from patchattn.cli.reading import read
from patchattn.cli.stages import stages
from patchattn.cli.train import train_app
from patchattn.cli.upscale import upscale

if TYPE_CHECKING:
    from patchattn.field import MatchField

__all__ = ["app"]

app = typer.Typer(
    help="Attention between pictures at any resolution: every pixel finds its best matches anywhere, and attends to "
    "those alone.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(train_app, name="train")


def _version(asked: bool) -> None:
    if asked:
        from patchattn import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def reconstruct(
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="The picture to rebuild: 8 or 16 bits, gray, RGB or RGBA.")
    ],
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The picture to take pixels from; any size.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Where to write the result: .png, .tif, .webp, .jpg or .bmp."),
    ],
    show_field: Annotated[
        Path | None,
        typer.Option(help="Where to write a picture of the offsets: hue is the direction, saturation the length."),
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Matches of each pixel.")] = 3,
    patch_size: PatchSize = 7,
    aggregate: Annotated[
        bool, typer.Option("--aggregate", help="Let the matches of the neighbouring pixels vote too: smoother, better.")
    ] = False,
    similarity: Similarity = "l2",
    temperature: Temperature = 1.0,
    method: Method = "auto",
    iterations: Iterations = None,
    seed: Seed = 0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Rebuild TARGET from the pixels of REFERENCE, and tell how good the result is.

    Prints the mean squared error (colours in [0, 1]), the PSNR in dB, the seconds that search and attention took, and
    the peak memory of the whole process.
    """
    with one_sentence_errors(), stages(quiet=as_json) as stage:
        from patchattn.tasks import flow_picture, images, reconstruct

        use_threads(threads)
        check_apart({"--output": output, "--show-field": show_field}, {"TARGET": target, "REFERENCE": reference})
        if show_field is not None:
            images.check_picture_output(show_field, argument="--show-field")
        images.check_picture_output(output, argument="--output")
        stage("reading")
        target_picture = read(target, "TARGET")
        reference_picture = read(reference, "REFERENCE")
        # Before the work, not after it.
        alpha, depth = target_picture.alpha is not None, target_picture.bit_depth
        images.check_picture_output(output, bit_depth=depth, alpha=alpha, argument="--output")
        settings: dict[str, Any] = {
            "k": k,
            "patch_size": patch_size,
            "aggregate": aggregate,
            "similarity": similarity,
            "temperature": temperature,
            "method": method,
            "iterations": iterations,
            "seed": seed,
        }
        result = reconstruct.reconstruct(target_picture, reference_picture, progress=stage, **settings)
        stage("writing")
        images.write_picture(output, result.picture, argument="--output")
        if show_field is not None:
            best = result.field.index[0, 0, 0] >= 0
            drawn = flow_picture.flow_picture(result.field.offsets()[0, 0, 0], matched=best)
            images.write_picture(show_field, drawn, argument="--show-field")
    height, width = result.picture.size
    if as_json:
        print_json(
            {
                "output": str(output),
                "show_field": None if show_field is None else str(show_field),
                "height": height,
                "width": width,
                "bit_depth": result.picture.bit_depth,
                "mse": result.mse,
                "psnr": result.psnr,
                "seconds": result.seconds,
                "peak_memory_bytes": result.peak_memory,
                "settings": settings,
            }
        )
        return
    print_lines(
        wrote=f"{output} ({width} x {height}, {result.picture.bit_depth} bit)",
        field=show_field,
        MSE=f"{result.mse:.6f}",
        PSNR=f"{result.psnr:.2f} dB",
        time=f"{result.seconds:.2f} s",
        memory=megabytes(result.peak_memory),
    )


app.command()(colorize)
app.command()(inpaint)
app.command()(upscale)
app.command()(demo)


@app.command("match")
def match_command(
    a: Annotated[Path, typer.Argument(metavar="A", help="The picture whose pixels look for matches.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The picture in which they look; any size.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the field: a file .npz.")],
    k: Annotated[int, typer.Option(min=1, help="Matches of each pixel.")] = 1,
    patch_size: PatchSize = 7,
    similarity: Similarity = "l2",
    method: Method = "auto",
    iterations: Iterations = None,
    seed: Seed = 0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Find for every pixel of A its best matches in B, and write them to a NumPy file.

    The file holds `index` (int32, k x height x width of A: the flat row-major position in B, best first, -1 for none),
    `similarity` (float32, the same shape), `key_shape` (height and width of B) and `settings` (a JSON text).
    """
    with one_sentence_errors(), stages(quiet=as_json) as stage:
        from patchattn.matching import match
        from patchattn.tasks import files, images

        use_threads(threads)
        if output.suffix.lower() != ".npz":
            raise ValueError(f"--output: {output} ends in {output.suffix or 'no extension'}; allowed is .npz.")
        files.check_output_file(output, argument="--output")
        stage("reading")
        query, key = images.same_channels(read(a, "A"), read(b, "B"))
        settings: dict[str, Any] = {
            "k": k,
            "patch_size": patch_size,
            "similarity": similarity,
            "method": method,
            "iterations": iterations,
            "seed": seed,
        }
        stage("matching")
        began = time.perf_counter()
        field = match(query, key, **settings)
        seconds = time.perf_counter() - began
        stage("writing")
        _write_field(output, field, settings)
    height, width = query.shape[2:]
    mean = float(field.similarity[:, :, 0].mean())
    if as_json:
        print_json(
            {
                "output": str(output),
                "height": height,
                "width": width,
                "key_shape": list(field.key_shape),
                "mean_best_similarity": mean,
                "seconds": seconds,
                "settings": settings,
            }
        )
        return
    print_lines(
        wrote=f"{output} ({k} for each of {width} x {height} pixels)",
        similarity=f"{mean:.6g} (mean of the best matches)",
        time=f"{seconds:.2f} s",
    )


@app.command()
def info(as_json: Json = False) -> None:
    """Tell the versions, which backends load and why one does not, which serves which device, and the threads."""
    with one_sentence_errors():
        import torch

        from patchattn import __version__
        from patchattn.kernels import backend_status, default_backend

        versions = {"patchattn": __version__, "python": platform.python_version()}
        versions |= {name: _version_of(name) for name in ("torch", "numba", "triton", "numpy")}
        backends = backend_status()
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        present = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
        devices = {device: default_backend(device) for device in present}
        threads = torch.get_num_threads()
    if as_json:
        print_json(
            {
                "versions": versions,
                "backends": backends,
                "devices": devices,
                "threads": threads,
                "platform": platform.platform(),
            }
        )
        return
    print_lines(
        **versions,
        **{f"backend {name}": "loads" if reason is None else reason for name, reason in backends.items()},
        **{f"device {device}": f"served by backend {backend}" for device, backend in devices.items()},
        devices="cuda (NVIDIA, AMD) and xpu (Intel) are served by backend gpu; what has no Triton, such as Apple's "
        "mps, by reference",
        threads=threads,
        platform=platform.platform(),
    )


def _write_field(path: Path, field: MatchField, settings: dict[str, Any]) -> None:
    import numpy as np

    from patchattn.tasks.files import atomic_writer

    with atomic_writer(path, argument="--output") as file:
        np.savez(
            file,
            index=field.index[0, 0].numpy(),
            similarity=field.similarity[0, 0].numpy(),
            key_shape=np.array(field.key_shape),
            settings=np.array(json.dumps(settings)),
        )


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
