"""Networks to and from files: safetensors with what is needed to build the network again."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any

from torch import nn

from patchattn.attention.named import named_attention
from patchattn.extras import extra
from patchattn.networks.colorization import ColorizationNetwork
from patchattn.networks.tensors import read_tensors

__all__ = ["Architecture", "load_network", "network_bytes"]

SHIPPED = "shipped/colorization.safetensors"
FORMAT = "patchattn network 1"


@dataclass(frozen=True)
class Architecture:
    """What a network is built from.

    Example:
        >>> Architecture(attention="psal", settings={"k": 1}).build().attention
        PatchAttention(k=1, patch_size=7, similarity='l2', temperature=1.0, aggregate=False, num_heads=1, method='auto')
    """

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


def network_bytes(network: nn.Module, architecture: Architecture) -> bytes:
    """A network as the content of a file for `load_network`."""
    with extra("tools"):
        from safetensors.torch import save
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return save(tensors, {"format": FORMAT, "architecture": json.dumps(asdict(architecture))})


def load_network(path: str | os.PathLike[str] | None = None) -> ColorizationNetwork:
    """Read a network that `patchattn train` has written.

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
    tensors, said = read_tensors(path, FORMAT, argument="model")
    network = Architecture(**json.loads(said["architecture"])).build()
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"model: the weights in {path} do not fit the network it describes ({error}).") from error
    return network.eval()
