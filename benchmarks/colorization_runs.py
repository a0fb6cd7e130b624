"""The networks of PSAL's Tables 4, 5 and 8: how each is trained, and where its run is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HOLD_OUT = 3
"""Sequences, the last by name, that no network has seen."""


@dataclass(frozen=True)
class Network:
    """One row of the tables."""

    name: str
    options: tuple[str, ...]
    """Of `patchattn train colorization`."""


def networks(size: int) -> list[Network]:
    """All rows, the quickest to train first; the local window covers as much of the frames as 50 of 256 pixels do."""
    window = max(3, round(size * 50 / 256))
    return [
        Network("PSAL 3", ("--attention", "psal", "--k", "3")),
        Network("PSAL 1", ("--attention", "psal", "--k", "1")),
        Network("PSAL Aggreg.", ("--attention", "psal-aggregate")),
        Network("Full", ("--attention", "full", "--key-stride", "3")),
        Network("Full, dot", ("--attention", "full", "--key-stride", "3", "--similarity", "dot")),
        Network("Linear", ("--attention", "linear")),
        Network("PSAL 7", ("--attention", "psal", "--k", "7")),
        Network("PSAL 15", ("--attention", "psal", "--k", "15")),
        Network("PSAL 31", ("--attention", "psal", "--k", "31")),
        Network("Local", ("--attention", "local", "--window", str(window))),
    ]


@dataclass(frozen=True)
class Setting:
    """What all rows share."""

    data: Path
    work: Path
    """Where the runs are kept: an interrupted benchmark goes on."""
    size: int
    steps: int

    def folder(self, network: Network, seed: int) -> Path:
        return self.work / f"{network.name.lower().replace(' ', '-').replace(',', '').strip('.')}-seed{seed}"

    def command(self, network: Network, seed: int) -> list[str]:
        return [
            "train", "colorization", "--data", str(self.data / "davis"), "--output", str(self.folder(network, seed)),
            *network.options, "--size", str(self.size), "--steps", str(self.steps), "--hold-out", str(HOLD_OUT),
            "--seed", str(seed), "--checkpoint-every", "100", "--log-every", "50", "--sample-every", str(self.steps),
            "--threads", "1", "--resume", "--json",
        ]  # fmt: skip


def train_all(setting: Setting, chosen: Sequence[Network], seeds: Sequence[int], jobs: int) -> None:
    """Train what is not trained yet, `jobs` at a time on one thread each; the first seed of all comes first."""

    def run(network: Network, seed: int) -> None:
        folder = setting.folder(network, seed)
        if not (folder / "network.safetensors").exists():
            print(f"training {network.name}, seed {seed}", flush=True)
            subprocess.run([sys.executable, "-m", "patchattn.cli", *setting.command(network, seed)], check=True)

    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(run, network, seed) for seed in seeds for network in chosen]
        for job in waiting:
            job.result()
