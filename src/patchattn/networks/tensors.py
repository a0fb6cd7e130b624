"""Safetensors files with a format name in their metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from patchattn.extras import extra

__all__ = ["read_tensors", "tensor_bytes"]


def read_tensors(path: str | os.PathLike[str], form: str, *, argument: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    Args:
        path: the file.
        form: its entry `format` in the metadata.
        argument: name of `path` in errors.

    Raises:
        ValueError: there is no such file, it is damaged, or it has another format.
        RuntimeError: the extra `tools` is not installed.
    """
    with extra("tools"):
        from safetensors import SafetensorError, safe_open
    if not Path(path).is_file():
        raise ValueError(f"{argument}: there is no file {path}; expected a {form!r} written by `patchattn train`.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{argument}: {path} is no safetensors file ({error}).") from error
    if metadata.get("format") != form:
        raise ValueError(
            f"{argument}: {path} has the format {metadata.get('format')!r}; expected a {form!r} written by "
            "`patchattn train`."
        )
    return tensors, metadata


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the content of a safetensors file, the same bytes for the same tensors and metadata.

    safetensors writes the entries of the metadata in an order that differs from process to process; here they are
    sorted.

    Args:
        tensors: on any device.
        metadata: read back by `read_tensors`.

    Raises:
        RuntimeError: the extra `tools` is not installed.
    """
    with extra("tools"):
        from safetensors.torch import save
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(metadata))
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    # The header ends in spaces, so that the tensors stay where they are.
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size)
    if len(encoded) != size:
        raise RuntimeError(f"the header of a safetensors file became {len(encoded)} bytes long, expected {size}.")
    return content[:8] + encoded + content[8 + size :]
