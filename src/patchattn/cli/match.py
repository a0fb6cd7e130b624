"""The command `match`: the best matches between two images, as a file."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchattn.cli.failures import one_sentence_errors
from patchattn.cli.options import Iterations, Json, Method, PatchSize, Seed, Similarity, Threads, use_threads
from patchattn.cli.paths import check_apart
from patchattn.cli.printing import Told, tell
from patchattn.cli.reading import read
from patchattn.cli.stages import stages
from patchattn.cli.streams import check_stdout, is_stream, write_stream

if TYPE_CHECKING:
    from patchattn.field import MatchField

__all__ = ["match"]


def match(
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
    with one_sentence_errors() as warned, stages(quiet=as_json) as stage:
        from patchattn import matching
        from patchattn.tasks import files, images

        use_threads(threads)
        check_apart({"--output": output}, {"A": a, "B": b} if a != b or is_stream(a) else {"A": a})
        if is_stream(output):
            check_stdout(argument="--output")
        else:
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
        field = matching.match(query, key, **settings)
        seconds = time.perf_counter() - began
        stage("writing")
        _write_field(output, field, settings)
    height, width = query.shape[2:]
    mean = float(field.similarity[:, :, 0].mean())
    report = Told(
        {
            "height": height,
            "width": width,
            "key_shape": list(field.key_shape),
            "mean_best_similarity": mean,
            "seconds": seconds,
        },
        {
            "wrote": f"{output} ({k} for each of {width} x {height} pixels)",
            "similarity": f"{mean:.6g} (mean of the best matches)",
            "time": f"{seconds:.2f} s",
        },
    )
    tell(report, output, None, settings, warned, as_json=as_json)


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
