"""The loop that trains any of the networks, on one process or many, and goes on where it was stopped."""

from __future__ import annotations

import logging
import math
import signal
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from patchattn.deprecation import moved_names
from patchattn.progress import watch_progress
from patchattn.tasks.files import atomic_writer
from patchattn.tasks.images import Image, write_image
from patchattn.training.checkpoints import read_checkpoint, restore, write_checkpoint
from patchattn.training.config import Schedule

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["CHECKPOINT", "NETWORK", "LossTask", "Schedule", "Task", "TrainState", "train"]

__getattr__ = moved_names(
    __name__,
    {"SteppedTask": "patchattn.training.loop:Task", "Work": "patchattn.training.loop:TrainState"},
)

logger = logging.getLogger(__name__)


CHECKPOINT, NETWORK, SAMPLES = "checkpoint.safetensors", "network.safetensors", "samples"
"""Names of the files in a run's folder; `tensorboard/` lies beside them."""


class TrainState(Protocol):
    """Network and optimizers of a run, and the step that changes them."""

    @property
    def network(self) -> nn.Module:
        """All modules that are trained, on their device."""

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimizers, by the first word of their tensors' names in a checkpoint (any but `network`)."""

    def step(self, items: range) -> Mapping[str, Tensor]:
        """Learn from these items, this process's part of a step; returns numbers for the log, `loss` among them."""


class Task(Protocol):
    """A network that can be trained, with its data and its losses."""

    @property
    def batch_size(self) -> int:
        """Items of a step, of all processes together."""

    def describe(self) -> Mapping[str, Any]:
        """Settings of network and data that a resumed run must share."""

    def begin(self, fabric: Fabric, learning_rate: float) -> TrainState:
        """Return network and optimizers before the first step.

        A step may depend on the state of network and optimizers and on its items' numbers alone: then a run that goes
        on ends where it would have ended. `LossTask` does this for one loss.
        """

    def sample(self, network: Callable[..., Any], device: torch.device) -> Tensor:
        """Return an image to look at: (1, 3, height, width)."""

    def content(self, network: nn.Module) -> bytes:
        """Return the file of the finished network."""


class LossTask(ABC):
    """Base class of tasks with one network and one loss, which Adam minimizes."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the network before training."""

    @abstractmethod
    def loss(self, network: nn.Module, items: range, device: torch.device) -> Tensor:
        """Return the mean loss of these items, which are numbered through the whole run."""

    def begin(self, fabric: Fabric, learning_rate: float) -> TrainState:
        """Return the network before training, and its Adam."""
        return LossState(self, fabric, learning_rate)


class LossState:
    """The network of a `LossTask` and its Adam, in as many processes as there are."""

    def __init__(self, task: LossTask, fabric: Fabric, learning_rate: float) -> None:
        self._task, self._fabric = task, fabric
        self._shared: Any = fabric.setup_module(task.build())
        adam = torch.optim.Adam(self._shared.parameters(), lr=learning_rate)
        self._adam = cast(Optimizer, fabric.setup_optimizers(adam))
        self.network: nn.Module = self._shared.module
        self.optimizers: Mapping[str, Optimizer] = {"optimizer": self._adam}

    def step(self, items: range) -> Mapping[str, Tensor]:
        """Take one step of Adam."""
        self._adam.zero_grad()
        loss = self._task.loss(self._shared, items, self._fabric.device)
        self._fabric.backward(loss)
        self._adam.step()
        return {"loss": loss.detach()}


def train(
    task: Task,
    folder: Path,
    schedule: Schedule,
    fabric: Fabric,
    *,
    resume: bool = False,
    progress: Callable[[int, int, float], None] | None = None,
) -> float:
    """Train until `schedule.steps` steps are taken, and write the network to `folder / NETWORK`.

    Every step depends on the state before it and its number alone, so a run that was killed and resumed ends where one
    ends that was not. Files are replaced whole; the first interruption (Ctrl-C, or the signal of a batch system) lets
    the step finish and writes a checkpoint. Losses and samples go to TensorBoard if `fabric` has a logger.

    Args:
        task: what is trained.
        folder: where the run's files are.
        schedule: how long, and what is kept when.
        fabric: on which devices, in what precision; launched.
        resume: go on from the checkpoint in `folder`, if there is one.
        progress: called with (steps taken, steps in all, mean loss since the last time).

    Returns:
        The mean loss of the last `log_every` steps, or of those that were left.

    Raises:
        ValueError: the folder holds another run, or the batch cannot be divided among the processes.
        RuntimeError: the loss became NaN or infinite; the last checkpoint is from before.
        KeyboardInterrupt: the run was interrupted; its state is in the checkpoint.
    """
    if task.batch_size % fabric.world_size:
        raise ValueError(
            f"batch_size: got {task.batch_size}, which {fabric.world_size} processes cannot share evenly; "
            "expected a multiple of their number."
        )
    path = folder / CHECKPOINT
    rate = schedule.learning_rate
    state = _begin_of(task)(fabric, rate)
    description = {**task.describe(), **schedule.describe(), "precision": _precision_name(fabric)}
    first = _restored(path, state, description, fabric, resume)
    own = task.batch_size // fabric.world_size
    losses: list[Mapping[str, Tensor]] = []
    mean = math.nan

    def save(step: int) -> None:
        if fabric.is_global_zero:
            scale = fabric.strategy.precision.state_dict()
            write_checkpoint(path, state.network, state.optimizers, step=step, description=description, precision=scale)
            logger.debug("checkpoint after step %d: %s", step, path)

    with _interruption() as asked:
        for step in range(first, schedule.steps):
            for optimizer in state.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = schedule.rate(step)
            items = range(step * task.batch_size + fabric.global_rank * own, (step + 1) * task.batch_size)[:own]
            losses.append(_take_step(state, items))
            done = step + 1
            last = done == schedule.steps
            stop = _anywhere(asked(), fabric)
            keep = last or stop or done % schedule.checkpoint_every == 0
            if keep or done % schedule.log_every == 0:
                means = _means(losses, fabric, done)
                losses.clear()
                mean = means["loss"]
                fabric.log_dict(means, done)
                if progress is not None:
                    progress(done, schedule.steps, mean)
            if last or done % schedule.sample_every == 0:
                _sample(task, state.network, folder, done, fabric)
            if keep:
                save(done)
            if stop and not last:
                raise KeyboardInterrupt
    if fabric.is_global_zero:
        with atomic_writer(folder / NETWORK, argument="network") as file:
            file.write(task.content(state.network))
    fabric.barrier()
    return mean


def _begin_of(task: Task) -> Callable[[Fabric, float], TrainState]:
    """The task's `begin`; tasks of before 0.2 have `build` and `loss` instead, as `LossTask` has."""
    if hasattr(task, "begin"):
        return task.begin
    warnings.warn(
        f"{type(task).__name__} has no method begin; derive it from patchattn.training.loop.LossTask. Without, it is "
        "trained until 1.0.",
        DeprecationWarning,
        stacklevel=3,
    )
    return partial(LossState, cast(LossTask, task))


def _restored(path: Path, state: TrainState, description: Mapping[str, Any], fabric: Fabric, resume: bool) -> int:
    """Restore the checkpoint, if there is one to go on from; returns the steps taken."""
    if not path.exists():
        return 0
    if not resume:
        raise ValueError(
            f"output: {path.parent} holds a run already; go on with it (resume), or write to another folder."
        )
    checkpoint = read_checkpoint(path)
    restore(checkpoint, state.network, state.optimizers, description)
    fabric.strategy.precision.load_state_dict(checkpoint.precision)
    logger.info("going on after step %d of %s", checkpoint.step, path)
    return checkpoint.step


def _precision_name(fabric: Fabric) -> str:
    return str(fabric.strategy.precision.precision)


def _take_step(state: TrainState, items: range) -> Mapping[str, Tensor]:
    # The progress of a single search is not that of the training.
    with watch_progress(lambda done, total: None):
        return state.step(items)


def _means(losses: list[Mapping[str, Tensor]], fabric: Fabric, step: int) -> dict[str, float]:
    """The means over processes and over those steps that have them."""
    means: dict[str, float] = {}
    for name in sorted({name for of_step in losses for name in of_step}):
        own = torch.stack([of_step[name] for of_step in losses if name in of_step]).mean()
        reduced: Any = fabric.all_reduce(own, reduce_op="mean")
        means[name] = float(reduced)
        if not math.isfinite(means[name]):
            raise RuntimeError(
                f"the {name} became {_spelled(means[name])} at step {step}; the last checkpoint is from before. "
                "Try a smaller learning rate."
            )
    return means


def _spelled(value: float) -> str:
    return "NaN" if math.isnan(value) else "infinite"


def _sample(task: Task, network: nn.Module, folder: Path, step: int, fabric: Fabric) -> None:
    precision = fabric.strategy.precision

    def alone(*inputs: Tensor) -> Any:
        """Call the network in this process; in the wrapper of many all would have to take part."""
        with torch.no_grad(), precision.forward_context():
            return network(*precision.convert_input(inputs))

    if fabric.is_global_zero:
        image = task.sample(alone, fabric.device).float().clamp(0, 1).cpu()
        (folder / SAMPLES).mkdir(exist_ok=True)
        write_image(folder / SAMPLES / f"step-{step:07d}.png", Image(image))
        for logger in fabric.loggers:
            writer: Any = logger
            writer.experiment.add_image("sample", image[0], step)
    fabric.barrier()


def _anywhere(asked: bool, fabric: Fabric) -> bool:
    """Whether any process has been asked to stop: all stop after the same step."""
    if fabric.world_size == 1:
        return asked
    return bool(fabric.strategy.reduce_boolean_decision(asked, all=False))


@contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Note the first SIGINT or SIGTERM instead of dying of it; a second one has its usual effect."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        asked.set()
        signal.signal(number, usual[signal.Signals(number)])

    for number in usual:
        signal.signal(number, note)
    try:
        yield asked.is_set
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
