"""DDP and FSDP2 on two processes: the gradients of two halves of a batch against those of the whole."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from feature_checks import CHANNELS, assert_close, images
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

PROCESSES = 2
WRAPPERS = ("DDP", "FSDP2")

Make = Callable[[], nn.Module]
Outcome = str | None


class Projected(nn.Module):
    """A layer between weights: without any there is nothing to share."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.projection, self.layer = nn.Conv2d(CHANNELS, CHANNELS, 1), layer

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        found: Tensor = self.layer(self.projection(query), self.projection(key), self.projection(value))
        return found


def run_distributed(layers: dict[str, Make], sentence: Callable[[Exception], str]) -> dict[tuple[str, str], Outcome]:
    """For each layer and wrapper: None if the gradients are right, else the sentence of what went wrong."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    torch.multiprocessing.spawn(_work, (port, layers, sentence, queue), nprocs=PROCESSES)
    return queue.get()  # type: ignore[no-any-return]


def _work(rank: int, port: int, layers: dict[str, Make], sentence: Callable[[Exception], str], queue: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    found: dict[tuple[str, str], Outcome] = {}
    for name, make in layers.items():
        for wrapper in WRAPPERS:
            try:
                _check(make, wrapper, rank)
                found[name, wrapper] = None
            except Exception as error:  # noqa: PERF203 - whatever it is, it is the result
                found[name, wrapper] = sentence(error)
    if rank == 0:
        queue.put(found)
    dist.destroy_process_group()


def _check(make: Make, wrapper: str, rank: int) -> None:
    torch.manual_seed(0)
    alone = Projected(make())
    torch.manual_seed(0)
    shared = Projected(make())
    inputs = images(batch=PROCESSES)
    alone(*inputs).square().mean().backward()
    half = [image[rank : rank + 1] for image in inputs]
    if wrapper == "DDP":
        wrapped: nn.Module = DistributedDataParallel(shared)  # which must live until gradients are averaged
    else:
        wrapped = fully_shard(shared, mesh=init_device_mesh("cpu", (PROCESSES,)))
    wrapped(*half).square().mean().backward()
    for ours, wanted in zip(shared.parameters(), alone.parameters(), strict=True):
        gradient = ours.grad.full_tensor() if isinstance(ours.grad, DTensor) else ours.grad
        assert_close(gradient, wanted.grad)
