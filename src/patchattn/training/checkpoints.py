"""Checkpoints: the state of a run in one file, written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from patchattn.networks.tensors import read_tensors, tensor_bytes
from patchattn.tasks.files import atomic_writer

__all__ = ["Checkpoint", "read_checkpoint", "restore", "write_checkpoint"]

FORMAT = "patchattn checkpoint 1"


@dataclass(frozen=True)
class Checkpoint:
    """The state that a run goes on from."""

    step: int
    """Number of steps that have been taken."""
    description: dict[str, Any]
    """Settings that a resumed run must share."""
    precision: dict[str, Any]
    """The state of the loss's scale in half precision."""
    tensors: dict[str, Tensor]


def write_checkpoint(
    path: Path,
    network: nn.Module,
    optimizers: Mapping[str, Optimizer],
    *,
    step: int,
    description: Mapping[str, Any],
    precision: Mapping[str, Any],
) -> None:
    """Replace the checkpoint at `path` (safetensors) by the state after `step` steps.

    Args:
        optimizers: by the first word of their tensors' names.
        path, network, step, description, precision: see `Checkpoint`.
    """
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for word, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{word}.{index}.{name}": tensor for name, tensor in state.items()}
    metadata = {
        "format": FORMAT,
        "step": str(step),
        "description": json.dumps(description),
        "precision": json.dumps(precision),
    }
    with atomic_writer(path, argument="checkpoint") as file:
        file.write(tensor_bytes(tensors, metadata))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Raises:
        ValueError: it is no checkpoint of ours.
    """
    tensors, metadata = read_tensors(path, FORMAT, argument="resume")
    return Checkpoint(
        int(metadata["step"]), json.loads(metadata["description"]), json.loads(metadata["precision"]), tensors
    )


def restore(
    checkpoint: Checkpoint, network: nn.Module, optimizers: Mapping[str, Optimizer], description: Mapping[str, Any]
) -> None:
    """Put a checkpoint's state into a network and its optimizers, by the names that were given to `write_checkpoint`.

    Raises:
        ValueError: the checkpoint is one of another run; the message says what differs.
    """
    differences = _differences(checkpoint.description, json.loads(json.dumps(description)))
    if differences:
        raise ValueError(
            "resume: the checkpoint belongs to another run: "
            + "; ".join(differences)
            + ". Resume with the same settings, or write to another folder."
        )
    network.load_state_dict(_after("network", checkpoint.tensors))
    for word, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _after(word, checkpoint.tensors).items():
            index, entry = name.split(".", 1)
            state.setdefault(int(index), {})[entry] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _after(word: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a word, by the rest of their names."""
    return {name.removeprefix(f"{word}."): tensor for name, tensor in tensors.items() if name.startswith(f"{word}.")}


def _differences(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name in sorted(then.keys() | now.keys()):
        before, after = then.get(name), now.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name} was {before!r} and is {after!r}")
    return found
