"""The command `reconstruct`: one image rebuilt from another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from patchattn.cli.failures import one_sentence_errors
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
from patchattn.cli.printing import Told, megabytes, tell
from patchattn.cli.reading import read
from patchattn.cli.stages import stages
from patchattn.cli.writing import Format, Target

__all__ = ["reconstruct"]


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
        bool, typer.Option("--aggregate", help="Let the matches of the neighboring pixels vote too: smoother, better.")
    ] = False,
    similarity: Similarity = "l2",
    temperature: Temperature = 1.0,
    method: Method = "auto",
    iterations: Iterations = None,
    seed: Seed = 0,
    format: Format = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Rebuild TARGET from the pixels of REFERENCE, and tell how good the result is.

    Prints the mean squared error (colors in [0, 1]), the PSNR in dB, the seconds that search and attention took, and
    the peak memory of the whole process.
    """
    with one_sentence_errors() as warned, stages(quiet=as_json) as stage:
        from patchattn.tasks import flow_image, reconstruct
        from patchattn.tasks.peak_memory import peak_memory

        use_threads(threads)
        check_apart({"--output": output, "--show-field": show_field}, {"TARGET": target, "REFERENCE": reference})
        target_file = Target(output, format)
        field_file = None if show_field is None else Target(show_field, argument="--show-field")
        target_file.check()
        if field_file is not None:
            field_file.check()
        stage("reading")
        target_picture = read(target, "TARGET")
        reference_picture = read(reference, "REFERENCE")
        # Before the work, not after it.
        target_file.check(bit_depth=target_picture.bit_depth, alpha=target_picture.alpha is not None)
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
        target_file.write(result.image)
        if field_file is not None:
            best = result.field.index[0, 0, 0] >= 0
            drawn = flow_image.flow_image(result.field.offsets()[0, 0, 0], matched=best)
            field_file.write(drawn)
    memory = peak_memory()
    height, width = result.image.size
    report = Told(
        {
            "show_field": None if show_field is None else str(show_field),
            "height": height,
            "width": width,
            "bit_depth": result.image.bit_depth,
            "mse": result.mse,
            "psnr": result.psnr,
            "seconds": result.seconds,
            "peak_memory_bytes": memory,
        },
        {
            "wrote": f"{output} ({width} x {height}, {result.image.bit_depth} bit)",
            "field": show_field,
            "MSE": f"{result.mse:.6f}",
            "PSNR": f"{result.psnr:.2f} dB",
            "time": f"{result.seconds:.2f} s",
            "memory": megabytes(memory),
        },
    )
    tell(report, output, None, settings, warned, as_json=as_json)
