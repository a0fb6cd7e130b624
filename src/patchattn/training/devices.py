"""Lightning Fabric as the training uses it: devices, processes, precision and the log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from patchattn.extras import extra

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["LOG", "make_fabric"]

LOG = "tensorboard"
"""The folder of the log, in that of the run."""


def make_fabric(
    folder: Path,
    *,
    accelerator: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    precision: str = "32-true",
) -> Fabric:
    """Make the Fabric that a run is trained with; call its `launch()` before anything else.

    Several processes each take a part of the batch and average their gradients (DistributedDataParallel, on gloo for
    CPUs and NCCL for GPUs).

    Args:
        folder: of the run.
        accelerator, devices, num_nodes, precision: see Lightning Fabric.

    Raises:
        RuntimeError: the extra `train` is not installed.
        ValueError: there is no such accelerator or precision.
    """
    with extra("train"):
        from lightning_fabric import Fabric
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger
        from lightning_fabric.strategies.ddp import DDPStrategy
    # Static: parameters without a gradient (query and key, where one match is not aggregated) are so in every step.
    strategy = DDPStrategy(static_graph=True) if devices * num_nodes > 1 else "auto"
    try:
        return Fabric(
            accelerator=accelerator,
            strategy=strategy,
            devices=devices,
            num_nodes=num_nodes,
            precision=precision,  # type: ignore[arg-type]  # checked by Fabric
            loggers=TensorBoardLogger(folder, name=LOG, version=""),
        )
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"accelerator, devices or precision: {error}") from error
