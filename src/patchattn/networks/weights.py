"""Loading and saving networks: safetensors files with the architecture of the network."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from patchattn.checks import check_choice
from patchattn.deprecation import moved_names
from patchattn.networks.architectures import (
    AnyArchitecture,
    ColorizationArchitecture,
    InpaintingArchitecture,
    SuperResolutionArchitecture,
)
from patchattn.networks.colorization import ColorizationNetwork
from patchattn.networks.inpainting import InpaintingNetwork, from_public_inpainting_state
from patchattn.networks.superresolution import SCALES, SuperResolutionNetwork, from_public_superresolution_state
from patchattn.networks.tensors import read_tensors, tensor_bytes

__all__ = ["load_colorization_network", "load_inpainting_network", "load_superresolution_network", "network_bytes"]

__getattr__ = moved_names(__name__, {"load_network": f"{__name__}:load_colorization_network"})

SHIPPED = "shipped/colorization.safetensors"
SHIPPED_SUPERRESOLUTION = "shipped/superresolution-x{scale}.safetensors"
FORMAT = "patchattn network 1"
PUBLIC_SUFFIXES = (".pt", ".pth", ".p")
"""Suffixes of public checkpoints."""

OneArchitecture = TypeVar(
    "OneArchitecture", ColorizationArchitecture, InpaintingArchitecture, SuperResolutionArchitecture
)


def network_bytes(network: nn.Module, architecture: AnyArchitecture) -> bytes:
    """Return a network as the bytes of a file, which the function below for its task loads."""
    metadata = {"format": FORMAT, "task": architecture.task, "architecture": json.dumps(asdict(architecture))}
    return tensor_bytes(network.state_dict(), metadata)


def load_colorization_network(path: str | os.PathLike[str] | None = None) -> ColorizationNetwork:
    """Load a colorization network that `patchattn train colorization` has written.

    Args:
        path: the file. None: the network that comes with the package (docs/colorize.md says how it was trained).

    Returns:
        The network, in evaluation mode, on the CPU.

    Raises:
        ValueError: there is no such file, or it is no network of ours; the message says what was found.
        RuntimeError: safetensors is not installed.

    Example:
        >>> network = load_colorization_network()
        >>> sum(weight.numel() for weight in network.parameters())
        1491
    """
    if path is None:
        with resources.as_file(resources.files("patchattn.networks") / SHIPPED) as shipped:
            return load_colorization_network(shipped)
    tensors, architecture = _read(path, ColorizationArchitecture)
    network = architecture.build()
    _load_state(network, tensors, path)
    return network.eval()


def load_inpainting_network(
    path: str | os.PathLike[str], *, attention: str | None = None, settings: Mapping[str, Any] | None = None
) -> InpaintingNetwork:
    """Load an inpainting network of `patchattn train inpainting`, or a public PyTorch checkpoint of the same network.

    A public checkpoint (`.pt`, `.pth`, `.p`: see `from_public_inpainting_state`) holds its weights alone. Such
    networks were trained with zero padding, and with contextual attention whose norm is `"added"`.

    Args:
        path: the file.
        attention: attention layer in the place of the one that the network was trained with, which has no weights: a
            name of `networks.inpainting.ATTENTIONS`. None: as it was trained.
        settings: the arguments of `attention` that are not its defaults.

    Returns:
        The network, in evaluation mode, on the CPU.

    Raises:
        ValueError: there is no such file, it is no such network, or there is no such attention; the message says what
            was found.
        RuntimeError: safetensors is not installed.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> architecture = InpaintingArchitecture("contextual", channels=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "network.safetensors")
        ...     _ = path.write_bytes(network_bytes(architecture.build(), architecture))
        ...     load_inpainting_network(path, attention="psal", settings={"k": 1}).refinement.attention
        MaskedPatchAttention(k=1, patch_size=7, similarity='l2', temperature=1.0, aggregate=False, method='patchmatch',
        iterations=5)
    """
    if attention is None and settings is not None:
        raise ValueError(f"settings: got {settings!r} without an attention that they belong to.")
    if Path(path).suffix in PUBLIC_SUFFIXES:
        tensors, architecture = _read_public(path)
    else:
        tensors, architecture = _read(path, InpaintingArchitecture)
    if attention is not None:
        architecture = replace(architecture, attention=attention, settings=dict(settings or {}))
    network = architecture.build()
    _load_state(network, tensors, path)
    return network.eval()


def load_superresolution_network(
    path: str | os.PathLike[str] | None = None,
    *,
    scale: int = 2,
    cross_scale: str | None = None,
    cross_scale_settings: Mapping[str, Any] | None = None,
    in_scale: str | None = None,
    in_scale_settings: Mapping[str, Any] | None = None,
) -> SuperResolutionNetwork:
    """Load a super-resolution network of `patchattn train superresolution`, or a published checkpoint of CSNLN.

    A published checkpoint (`.pt`, `.pth`, `.p`: see `from_public_superresolution_state`) holds its weights
    alone, from which channels, depth and scale are found. Both branches have full attention there.

    Args:
        path: the file. None: the compact network that comes with the package for `scale`;
            docs/superresolution_network.md says how it was trained.
        scale: of the network that comes with the package; a file says its own.
        cross_scale, in_scale: attention layers in the place of those that the network was trained with, which have no
            weights: names of `networks.superresolution.CROSS_SCALE` and `IN_SCALE`. None: as it was trained.
        cross_scale_settings, in_scale_settings: their arguments that are not their defaults.

    Returns:
        The network, in evaluation mode, on the CPU.

    Raises:
        ValueError: there is no such file, it is no such network, or there is no such attention; the message says what
            was found.
        RuntimeError: safetensors is not installed.

    Example:
        >>> network = load_superresolution_network(scale=3, cross_scale="psal", cross_scale_settings={"k": 5})
        >>> network.cross_scale_attention
        CrossScalePatchAttention(k=5, patch_size=3, scale=10.0, divisor=6.0, method='auto')
    """
    _check_settings("cross_scale", cross_scale, cross_scale_settings)
    _check_settings("in_scale", in_scale, in_scale_settings)
    if path is None:
        check_choice("scale", scale, SCALES)
        with resources.as_file(
            resources.files("patchattn.networks") / SHIPPED_SUPERRESOLUTION.format(scale=scale)
        ) as at:
            tensors, architecture = _read(at, SuperResolutionArchitecture)
    elif Path(path).suffix in PUBLIC_SUFFIXES:
        tensors, architecture = _read_public_superresolution(path)
    else:
        tensors, architecture = _read(path, SuperResolutionArchitecture)
    if cross_scale is not None:
        settings = dict(cross_scale_settings or {})
        architecture = replace(architecture, cross_scale=cross_scale, cross_scale_settings=settings)
    if in_scale is not None:
        architecture = replace(architecture, in_scale=in_scale, in_scale_settings=dict(in_scale_settings or {}))
    network = architecture.build()
    _load_state(network, tensors, path or "the package")
    return network.eval()


def _check_settings(branch: str, name: str | None, settings: Mapping[str, Any] | None) -> None:
    if name is None and settings is not None:
        raise ValueError(f"{branch}_settings: got {settings!r} without an attention that they belong to.")


def _read(
    path: str | os.PathLike[str], architecture: type[OneArchitecture]
) -> tuple[dict[str, Tensor], OneArchitecture]:
    tensors, metadata = read_tensors(path, FORMAT, argument="model")
    # The first files had no task, when there was one alone.
    task = metadata.get("task", ColorizationArchitecture.task)
    if task != architecture.task:
        raise ValueError(f"model: {path} is a network for {task}; expected one for {architecture.task}.")
    return tensors, architecture(**json.loads(metadata["architecture"]))


def _read_public_state(path: str | os.PathLike[str], first: str, kind: str) -> Mapping[str, Any]:
    """Read the tensors of a public PyTorch checkpoint, of which `first` must be one."""
    if not Path(path).is_file():
        raise ValueError(f"model: there is no file {path}; expected a public checkpoint of {kind}.")
    try:
        # Tensors alone: other content of a pickle could run any code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"model: {path} is no PyTorch file of tensors ({error}).") from error
    if not isinstance(state, Mapping) or first not in state:
        raise ValueError(f"model: {path} holds no tensor {first!r}; expected a public checkpoint of {kind}.")
    return state


def _read_public(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], InpaintingArchitecture]:
    first = "coarse_generator.conv1.conv.weight"
    state = _read_public_state(path, first, "a generator")
    settings = {"norm": "added"}
    return from_public_inpainting_state(state), InpaintingArchitecture(
        "contextual", settings, channels=len(state[first]), padding_mode="zeros"
    )


def _read_public_superresolution(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Tensor], SuperResolutionArchitecture]:
    first = "head.0.0.weight"
    state = from_public_superresolution_state(_read_public_state(path, first, "CSNLN"))
    channels = len(state["head.0.weight"])
    twice = any(name.startswith("cell.projection_2.") for name in state)
    scale = 4 if twice else {6: 2, 9: 3}[state["cell.down.0.weight"].shape[2]]
    depth = state["tail.weight"].shape[1] // channels
    return state, SuperResolutionArchitecture(
        scale, "full", in_scale="full", channels=channels, depth=depth, skip=False
    )


def _load_state(network: nn.Module, tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"model: the weights in {path} do not fit the network it describes ({error}).") from error
