"""Runs: what they write, that they go on where they were stopped, and that processes share their work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from patchattn import MatchField, PatchAttention
from patchattn.baselines import FullAttention, LinearAttention
from patchattn.networks.architectures import ColorizationArchitecture
from patchattn.networks.weights import load_colorization_network
from patchattn.tasks.colors import to_gray
from patchattn.tasks.images import read_image
from patchattn.training import loop
from patchattn.training.checkpoints import read_checkpoint
from patchattn.training.colorization import ColorizationTask, colorization_errors, mean_error
from patchattn.training.devices import LOG, make_fabric
from patchattn.training.exploration import RandomMatches, draw_matches
from patchattn.training.frames import read_sequences
from patchattn.training.loop import CHECKPOINT, NETWORK, Schedule, train
from patchattn.training.pairs import draw_pairs
from tests.training.runs import assert_same_files, step_when_killed

SIZE = 16
ARCHITECTURE = ColorizationArchitecture("psal", {"k": 2, "patch_size": 3}, size=SIZE)
OPTIONS = ("--attention", "psal", "--k", "2", "--patch-size", "3", "--size", str(SIZE), "--threads", "1", "--json")


def task(data: Path, **settings: object) -> ColorizationTask:
    return ColorizationTask(read_sequences(data, size=SIZE), ARCHITECTURE, **settings)


def run(
    job: loop.Task, folder: Path, steps: int, every: int = 4, *, resume: bool = False, rate: float = 1e-3,
    precision: str = "32-true",
) -> float:  # fmt: skip
    folder.mkdir(exist_ok=True)
    fabric = make_fabric(folder, accelerator="cpu", precision=precision)
    fabric.launch()
    return train(job, folder, Schedule(steps, rate, every, 2, 100), fabric, resume=resume)


def command(data: Path, folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "patchattn.cli", "train", "colorization", "--data", str(data), "-o", str(folder),
            *OPTIONS, "--accelerator", "cpu", *options]  # fmt: skip


def test_a_run_learns_and_leaves_its_files(data: Path, tmp_path: Path) -> None:
    job = task(data)
    before = mean_error(job.build(), job.sequences)
    run(job, tmp_path, 60, 40, rate=1e-2)
    network = load_colorization_network(tmp_path / NETWORK)
    assert mean_error(network, job.sequences) < 0.7 * before
    assert read_checkpoint(tmp_path / CHECKPOINT).step == 60
    # Gray, reference, result and truth.
    assert read_image(tmp_path / "samples" / "step-0000060.png").size == (SIZE, 4 * SIZE)
    (log,) = (tmp_path / LOG).iterdir()
    assert log.name.startswith("events")
    frames = [(name, at) for name, at, _ in colorization_errors(network, job.sequences)]
    assert frames == [("astronaut", 1), ("astronaut", 2), ("coffee", 1), ("coffee", 2)]


def test_killed_and_resumed_is_as_if_nothing_had_happened(data: Path, tmp_path: Path, one_thread: None) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(task(data), whole, 40)
    stopped = step_when_killed(command(data, killed, "--steps", "1000000", "--checkpoint-every", "4"), killed)
    assert stopped % 4 == 0
    steps = max(40, stopped + 4)
    if steps > 40:
        run(task(data), whole, steps, resume=True)
    run(task(data), killed, steps, resume=True)
    assert_same_files(killed, whole)


def test_the_first_steps_attend_to_random_keys(data: Path) -> None:
    job = task(data, explore=2, batch_size=2, seed=3)
    network = job.build()
    target, reference = draw_pairs(job.sequences, range(2, 4), seed=3)
    matches = draw_matches(range(2, 4), 1, 2, (SIZE, SIZE), (SIZE, SIZE), seed=3)
    assert matches.unique().numel() > SIZE * SIZE // 2
    field = MatchField(matches, torch.zeros(matches.shape), (SIZE, SIZE))
    attention = partial(PatchAttention(k=2, patch_size=3), field=field)
    exploring = functional.mse_loss(network(to_gray(target), reference, attention), target)
    finding = functional.mse_loss(network(to_gray(target), reference), target)
    assert exploring != finding
    device = torch.device("cpu")
    assert job.loss(network, range(2, 4), device) == exploring
    # The same pairs, when exploration is over.
    assert task(data, explore=1, batch_size=2, seed=3).loss(network, range(2, 4), device) == finding
    gradient = torch.autograd.grad(exploring, network.query.weight)[0]
    assert gradient.abs().max() > 0


def test_random_matches_in_the_place_of_other_layers() -> None:
    query, key = torch.rand(2, 1, 4, 6, 6).unbind()
    layer = RandomMatches(FullAttention(patch_size=3, similarity="dot", temperature=0.5, key_stride=2)).layer
    assert layer.settings == PatchAttention(k=3, patch_size=3, similarity="dot", temperature=0.5).settings
    votes = RandomMatches(PatchAttention(k=1, aggregate=True, method="exact"))
    assert votes.layer.settings == PatchAttention(k=1, aggregate=True).settings
    # Of one key alone, all that random matches can bring is the one key's value.
    one = torch.rand(1, 4, 1, 1)
    attend = RandomMatches(PatchAttention(patch_size=1)).attention([7], seed=0)
    torch.testing.assert_close(attend(query, one, one), one.expand_as(key))
    with pytest.raises(ValueError, match="explore: LinearAttention has no similarity of patches"):
        RandomMatches(LinearAttention())


def test_random_matches_are_the_same_wherever_they_are_drawn() -> None:
    together = draw_matches(range(3), 2, 4, (5, 6), (7, 8), seed=1)
    assert together.shape == (3, 2, 4, 5, 6)
    assert together.dtype == torch.int32
    assert torch.equal(draw_matches([2], 2, 4, (5, 6), (7, 8), seed=1), together[2:])
    assert not torch.equal(together[0], together[1])
    assert together.min() == 0
    assert together.max() == 7 * 8 - 1


def test_an_interruption_leaves_a_checkpoint_of_the_last_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, taken = loop._take_step, []

    def interrupted(*arguments: object) -> Tensor:
        taken.append(usual(*arguments))
        if len(taken) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return taken[-1]

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(loop, "_take_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(task(data), tmp_path, 100, 50)
    assert len(taken) == 3
    assert read_checkpoint(tmp_path / CHECKPOINT).step == 3
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_learning_rate_falls_at_the_end(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, rates = loop._take_step, []

    def watched(state: loop.TrainState, items: range) -> object:
        rates.append(state.optimizers["optimizer"].param_groups[0]["lr"])
        return usual(state, items)

    monkeypatch.setattr(loop, "_take_step", watched)
    cooling = Schedule(6, 0.5, 3, 1, 100, cooldown=4)
    fabric = make_fabric(tmp_path, accelerator="cpu")
    fabric.launch()
    train(task(data), tmp_path, cooling, fabric)
    assert rates == [0.5, 0.5, 0.5, 0.375, 0.25, 0.125]
    # A longer run would have kept its rate until later.
    with pytest.raises(ValueError, match=r"another run: cooldown was \[4, 6\] and is \[4, 8\]"):
        train(task(data), tmp_path, replace(cooling, steps=8), fabric, resume=True)


def test_what_differs_is_said(data: Path, tmp_path: Path) -> None:
    run(task(data), tmp_path, 2)
    with pytest.raises(ValueError, match="holds a run already; go on with it"):
        run(task(data), tmp_path, 4)
    with pytest.raises(ValueError, match=r"another run: learning_rate was 0.001 and is 0.01; seed was 0 and is 1\."):
        run(task(data, seed=1), tmp_path, 4, resume=True, rate=1e-2)
    other = ColorizationTask(read_sequences(data, size=SIZE), replace(ARCHITECTURE, settings={"k": 3, "patch_size": 3}))
    with pytest.raises(ValueError, match=r"network\.settings\.k was 2 and is 3"):
        run(other, tmp_path, 4, resume=True)
    (tmp_path / CHECKPOINT).write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"resume: .* is no safetensors file"):
        run(task(data), tmp_path, 4, resume=True)


class Exploding(ColorizationTask):
    def loss(self, network: nn.Module, items: range, device: torch.device) -> Tensor:
        return super().loss(network, items, device) * (float("nan") if items.start >= 6 else 1)


def test_a_checkpoint_is_never_replaced_by_nan(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the loss became NaN at step 8; the last checkpoint is from before"):
        run(Exploding(read_sequences(data, size=SIZE), ARCHITECTURE), tmp_path, 20)
    checkpoint = read_checkpoint(tmp_path / CHECKPOINT)
    assert checkpoint.step == 4
    assert all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())


@pytest.mark.parametrize("k", [1, 2], ids=["query-and-key-do-not-learn", "all-learn"])
def test_two_processes_have_the_gradients_of_one(data: Path, tmp_path: Path, one_thread: None, k: int) -> None:
    """After one step Adam's mean of the gradients is a tenth of the gradient; in float64, where sums round little."""
    both, one = tmp_path / "both", tmp_path / "one"
    more = ("--k", str(k), "--steps", "1", "--batch-size", "2", "--devices", "2", "--precision", "64-true")
    subprocess.run(command(data, both, *more), check=True, capture_output=True)
    architecture = replace(ARCHITECTURE, settings={"k": k, "patch_size": 3})
    run(ColorizationTask(read_sequences(data, size=SIZE), architecture, batch_size=2), one, 1, precision="64-true")
    expected, found = (load_file(folder / CHECKPOINT) for folder in (one, both))
    assert found.keys() == expected.keys()
    gradients = [name for name in found if name.endswith("exp_avg")]
    assert len(gradients) == (4 if k == 1 else 8)
    for name in gradients:
        largest = float(expected[name].abs().max())
        assert largest > 0
        assert found[name].dtype == torch.float64
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-11 * largest)


def test_old_names_lead_to_new_ones() -> None:
    for module, old, new in (
        ("recolor", "recolor", "color_augmentation.augment_colors"),
        ("pictures", "PictureFolder", "image_dataset.ImageDataset"),
        ("pictures", "list_pictures", "image_dataset.find_images"),
        ("loop", "SteppedTask", "loop.Task"),
        ("loop", "Work", "loop.TrainState"),
    ):
        new_module, name = new.split(".")
        with pytest.warns(DeprecationWarning, match=f"{module}.{old} has moved to patchattn.training.{new};"):
            found = getattr(import_module(f"patchattn.training.{module}"), old)
        assert found is getattr(import_module(f"patchattn.training.{new_module}"), name)


class WithoutBegin:
    """A task as it was before `LossTask`: `build` and `loss`, and nothing that begins."""

    def __init__(self, task: ColorizationTask) -> None:
        self.batch_size = task.batch_size
        self.describe, self.build, self.loss = task.describe, task.build, task.loss
        self.sample, self.content = task.sample, task.content


def test_a_task_of_before_is_trained_as_ever(data: Path, tmp_path: Path, one_thread: None) -> None:
    run(task(data), tmp_path / "new", 2)
    with pytest.warns(DeprecationWarning, match="WithoutBegin has no method begin; derive it from"):
        run(WithoutBegin(task(data)), tmp_path / "old", 2)
    assert_same_files(tmp_path / "old", tmp_path / "new")


class Processes:
    """What `train` asks of Fabric before it refuses."""

    world_size = 2


def test_numbers_that_cannot_be(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size: got 3, which 2 processes cannot share evenly"):
        train(task(data, batch_size=3), tmp_path, Schedule(), Processes())
    with pytest.raises(ValueError, match="batch_size: "):
        task(data, batch_size=0)
    with pytest.raises(ValueError, match="crop: got 17; expected 8 to the size of the frames, 16"):
        task(data, crop=17)
    with pytest.raises(ValueError, match="start: got 'zero'; allowed are 'random', 'aligned'"):
        task(data, start="zero")
    with pytest.raises(ValueError, match="explore: "):
        task(data, explore=-1)
    with pytest.raises(ValueError, match="cooldown: "):
        Schedule(cooldown=-1)
    with pytest.raises(ValueError, match="steps: "):
        Schedule(steps=0)
    with pytest.raises(ValueError, match="accelerator, devices or precision: "):
        make_fabric(tmp_path, precision="12-bit")


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_precision(data: Path, tmp_path: Path, precision: str) -> None:
    job = task(data)
    fabric = make_fabric(tmp_path, accelerator="cpu", precision=precision)
    fabric.launch()
    assert train(job, tmp_path, Schedule(2, 1e-3, 2, 1, 2), fabric) < 1
