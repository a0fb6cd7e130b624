"""Memory and time of one call of an attention layer, in this process; shared by memory.py, table1.py and scram.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from process import peak_beyond
from torch import Tensor
from torch.nn.functional import interpolate

Layer = Callable[[Tensor, Tensor, Tensor], Tensor]
SHORT, RUNS = 2.0, 3
"""Calls that take fewer seconds are repeated."""


def attend(layer: Callable[..., Tensor], inputs: Sequence[Tensor]) -> int:
    """Run a layer, with backward if the inputs want gradients; return the bytes of the result and the gradients."""
    output = layer(*inputs)
    outputs = output.nbytes
    if output.requires_grad:
        # A gradient that takes no memory of its own.
        output.backward(torch.ones((), dtype=output.dtype, device=output.device).expand_as(output))
        outputs += sum(tensor.grad.nbytes for tensor in inputs if tensor.grad is not None)
    return outputs


def smooth_features(side: int, channels: int, backward: bool = False) -> list[Tensor]:
    """Query, key and value: three smooth colors, mixed to more channels, as images are (the search takes another
    way through white noise).
    """
    colors = [interpolate(torch.rand(1, 3, side // 8, side // 8), (side, side), mode="bicubic") for _ in range(3)]
    mixing = torch.rand(channels, 3)
    return [torch.einsum("oc,bchw->bohw", mixing, x).contiguous().requires_grad_(backward) for x in colors]


@dataclass(frozen=True)
class Cost:
    """Of one call."""

    memory: int
    """Bytes of the peak beyond inputs and outputs."""
    outputs: int
    """Bytes of the result and, with backward, the gradients."""
    seconds: float
    """Processor time; the median of some calls if they are short."""


def cost_of(layer: Layer, side: int, channels: int, backward: bool, warm_up: int = 64) -> Cost:
    """Run a layer on features of `side` squared, after a call on small ones."""
    attend(layer, smooth_features(warm_up, channels, backward))
    inputs = smooth_features(side, channels, backward)
    times: list[float] = []

    def run() -> int:
        for tensor in inputs:
            tensor.grad = None
        start = time.process_time()
        outputs = attend(layer, inputs)
        times.append(time.process_time() - start)
        return outputs

    peak, outputs = peak_beyond(run)
    while len(times) < RUNS and times[0] < SHORT:
        run()
    return Cost(peak - outputs, outputs, median(times))
