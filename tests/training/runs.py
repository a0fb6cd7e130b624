"""Runs that are killed, and what is the same in two of them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from patchattn.training.checkpoints import read_checkpoint
from patchattn.training.loop import CHECKPOINT, NETWORK


def step_when_killed(command: Sequence[str], folder: Path) -> int:
    """Start a run, kill it (kill -9) when it has written a checkpoint, and return the step of that."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not (folder / CHECKPOINT).exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    return read_checkpoint(folder / CHECKPOINT).step


def assert_same_files(found: Path, expected: Path) -> None:
    """Checkpoint and network of two runs have the same bits."""
    for name in (CHECKPOINT, NETWORK):
        torch.testing.assert_close(*(load_file(folder / name) for folder in (found, expected)), rtol=0, atol=0)
