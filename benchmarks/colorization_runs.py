"""The networks of PSAL's Tables 4, 5 and 8: how each is trained, and where its run is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOLD_OUT = 3
"""Sequences, the last by name, that no network has seen."""


@dataclass(frozen=True)
class Network:
    """One row of the tables."""

    name: str
    attention: str
    settings: dict[str, Any] = field(default_factory=dict)
    explores: bool = False
    """Its first steps attend to random keys."""


def networks(size: int) -> list[Network]:
    """All rows, the quickest to train first. Strides and windows are to the frames what 3 and 50 are to 256 pixels."""
    stride, window = max(1, round(size * 3 / 256)), max(3, round(size * 50 / 256))
    return [
        Network("PSAL 3", "psal", {"k": 3}, explores=True),
        Network("PSAL 1", "psal", {"k": 1}, explores=True),
        Network("PSAL Aggreg.", "psal-aggregate", explores=True),
        Network("PSAL 3, no random matches", "psal", {"k": 3}),
        Network("Full", "full", {"key_stride": stride}, explores=True),
        Network("Full, dot", "full", {"key_stride": stride, "similarity": "dot"}, explores=True),
        Network("Linear", "linear"),
        Network("Local", "local", {"window": window}, explores=True),
        Network("PSAL 7", "psal", {"k": 7}, explores=True),
        Network("PSAL 15", "psal", {"k": 15}, explores=True),
        Network("PSAL 31", "psal", {"k": 31}, explores=True),
    ]


@dataclass(frozen=True)
class Setting:
    """What all rows share."""

    data: Path
    work: Path
    """Where the runs are kept: an interrupted benchmark goes on."""
    size: int
    steps: int
    explore: int
    """Steps with random matches, of those networks that explore."""

    def folder(self, network: Network, seed: int) -> Path:
        return self.work / f"{network.name.lower().replace(' ', '-').replace(',', '').strip('.')}-seed{seed}"

    def trained(self, network: Network, seed: int) -> bool:
        return (self.folder(network, seed) / "network.safetensors").exists()

    def command(self, network: Network, seed: int) -> list[str]:
        settings = [part for name, value in network.settings.items() for part in (_option(name), str(value))]
        explore = self.explore if network.explores else 0
        return [
            "train", "colorization", "--data", str(self.data / "davis"), "--output", str(self.folder(network, seed)),
            "--attention", network.attention, *settings, "--explore", str(explore), "--recolor",
            "--size", str(self.size), "--steps", str(self.steps), "--cooldown", str(self.steps // 4),
            "--hold-out", str(HOLD_OUT), "--seed", str(seed), "--checkpoint-every", "100", "--log-every", "50",
            "--sample-every", str(self.steps), "--threads", "1", "--resume", "--json",
        ]  # fmt: skip


def _option(setting: str) -> str:
    return "--" + setting.replace("_", "-")


def train_all(setting: Setting, chosen: Sequence[Network], seeds: Sequence[int], jobs: int) -> None:
    """Train what is not trained yet, `jobs` at a time on one thread each; the first seed of all comes first."""

    def run(network: Network, seed: int) -> None:
        if not setting.trained(network, seed):
            print(f"training {network.name}, seed {seed}", flush=True)
            subprocess.run([sys.executable, "-m", "patchattn.cli", *setting.command(network, seed)], check=True)

    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(run, network, seed) for seed in seeds for network in chosen]
        for job in waiting:
            job.result()
