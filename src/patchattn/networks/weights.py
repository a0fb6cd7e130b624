"""Networks to and from files: safetensors with what is needed to build the network again."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from patchattn.attention.named import named_attention
from patchattn.extras import extra
from patchattn.networks.colorization import ColorizationNetwork
from patchattn.networks.contextual import ATTENTIONS, InpaintingNetwork, from_public_state
from patchattn.networks.tensors import read_tensors

__all__ = ["Architecture", "InpaintingArchitecture", "load_inpainting_network", "load_network", "network_bytes"]

SHIPPED = "shipped/colorization.safetensors"
FORMAT = "patchattn network 1"
PUBLIC_SUFFIXES = (".pt", ".pth", ".p")
"""What the names of public checkpoints end in."""


@dataclass(frozen=True)
class Architecture:
    """What a network that colours is built from.

    Example:
        >>> Architecture(attention="psal", settings={"k": 1}).build().attention
        PatchAttention(k=1, patch_size=7, similarity='l2', temperature=1.0, aggregate=False, num_heads=1, method='auto')
    """

    task: ClassVar[str] = "colorization"

    attention: str = "psal-aggregate"
    """A name of `attention.named`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The attention layer's arguments that are not its defaults."""
    channels: int = 16
    size: int | None = None
    """Side of the frames that it learns from; None: unknown."""

    def build(self) -> ColorizationNetwork:
        """The network with random weights.

        Raises:
            ValueError: there is no such layer, or it has no such setting.
        """
        attention = named_attention(self.attention, self.settings)
        return ColorizationNetwork(attention, channels=self.channels, size=self.size)


@dataclass(frozen=True)
class InpaintingArchitecture:
    """What a network that fills holes is built from.

    Example:
        >>> InpaintingArchitecture("contextual", {"rate": 1}, channels=4).build().refinement.attention
        ContextualAttention(patch_size=3, rate=1, scale=10.0, fuse=True, norm='floor')
    """

    task: ClassVar[str] = "inpainting"

    attention: str = "psal"
    """A name of `networks.contextual.ATTENTIONS`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The attention layer's arguments that are not its defaults."""
    channels: int = 32
    padding_mode: str = "reflect"

    def build(self) -> InpaintingNetwork:
        """The network with random weights.

        Raises:
            ValueError: there is no such layer, it has no such setting, or another argument is out of range.
        """
        attention = named_attention(self.attention, self.settings, ATTENTIONS)
        return InpaintingNetwork(attention, channels=self.channels, padding_mode=self.padding_mode)


AnyArchitecture = TypeVar("AnyArchitecture", Architecture, InpaintingArchitecture)


def network_bytes(network: nn.Module, architecture: Architecture | InpaintingArchitecture) -> bytes:
    """A network as the content of a file for `load_network` or `load_inpainting_network`."""
    with extra("tools"):
        from safetensors.torch import save
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    said = {"format": FORMAT, "task": architecture.task, "architecture": json.dumps(asdict(architecture))}
    return save(tensors, said)


def load_network(path: str | os.PathLike[str] | None = None) -> ColorizationNetwork:
    """Read a network that `patchattn train colorization` has written.

    Args:
        path: the file. None: the network that comes with the package (docs/colorize.md says how it was trained).

    Returns:
        The network, in evaluation mode, on the CPU.

    Raises:
        ValueError: there is no such file, or it is none of ours; the message says what was found.
        RuntimeError: safetensors is not installed.

    Example:
        >>> network = load_network()
        >>> sum(weight.numel() for weight in network.parameters())
        1491
    """
    if path is None:
        with resources.as_file(resources.files("patchattn.networks") / SHIPPED) as shipped:
            return load_network(shipped)
    tensors, architecture = _read(path, Architecture)
    network = architecture.build()
    _put(network, tensors, path)
    return network.eval()


def load_inpainting_network(
    path: str | os.PathLike[str], *, attention: str | None = None, settings: Mapping[str, Any] | None = None
) -> InpaintingNetwork:
    """Read a network that `patchattn train inpainting` has written, or a public PyTorch checkpoint of the same network.

    A public checkpoint (`.pt`, `.pth`, `.p`: see `from_public_state`) says nothing but its weights. Such networks were
    trained with zeros outside the picture, and with contextual attention whose norm is `"added"`.

    Args:
        path: the file.
        attention: attend with this one of `networks.contextual.ATTENTIONS` instead of what the network was trained
            with; it has no weights. None: as it was trained.
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
    _put(network, tensors, path)
    return network.eval()


def _read(
    path: str | os.PathLike[str], architecture: type[AnyArchitecture]
) -> tuple[dict[str, Tensor], AnyArchitecture]:
    tensors, said = read_tensors(path, FORMAT, argument="model")
    # The first files did not say, when there was one task.
    task = said.get("task", Architecture.task)
    if task != architecture.task:
        raise ValueError(f"model: {path} is a network for {task}; expected one for {architecture.task}.")
    return tensors, architecture(**json.loads(said["architecture"]))


def _read_public(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], InpaintingArchitecture]:
    if not Path(path).is_file():
        raise ValueError(f"model: there is no file {path}; expected a public checkpoint of a generator.")
    try:
        # Tensors alone: other content of a pickle could run anything.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"model: {path} is no PyTorch file of tensors ({error}).") from error
    first = "coarse_generator.conv1.conv.weight"
    if not isinstance(state, Mapping) or first not in state:
        raise ValueError(f"model: {path} holds no tensor {first!r}; expected a public checkpoint of a generator.")
    settings = {"norm": "added"}
    return from_public_state(state), InpaintingArchitecture(
        "contextual", settings, channels=len(state[first]), padding_mode="zeros"
    )


def _put(network: nn.Module, tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"model: the weights in {path} do not fit the network it describes ({error}).") from error
