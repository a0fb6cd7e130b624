"""Super-resolution learned from pictures: what is drawn, how it is made small, and that it is learned."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from patchattn.attention.cross_scale_patch import CrossScalePatchAttention
from patchattn.networks.architectures import SuperResolutionArchitecture
from patchattn.networks.weights import load_superresolution_network
from patchattn.training.devices import make_fabric
from patchattn.training.image_dataset import find_images
from patchattn.training.loop import CHECKPOINT, NETWORK, Schedule, train
from patchattn.training.superresolution import SuperResolutionTask, draw_squares, made_small
from tests.training.runs import assert_same_files, step_when_killed

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = ("--scale", "2", "--cross-scale", "psal", "--no-alternate", "--channels", "4", "--depth", "1", "--size", "24",
           "--batch-size", "2", "--cooldown", "0", "--threads", "1", "--json")  # fmt: skip


def task(data: Path, **settings: object) -> SuperResolutionTask:
    architecture = SuperResolutionArchitecture(2, "psal", channels=4, depth=1)
    return SuperResolutionTask(
        find_images(data), **{"architecture": architecture, "size": 24, "batch_size": 2, **settings}
    )


def run(job: SuperResolutionTask, folder: Path, steps: int, *, resume: bool = False) -> float:
    folder.mkdir(exist_ok=True)
    fabric = make_fabric(folder, accelerator="cpu", precision="32-true")
    fabric.launch()
    return train(job, folder, Schedule(steps, 2e-3, 4, 20, 20), fabric, resume=resume)


def test_an_item_is_the_same_wherever_it_is_drawn(data: Path) -> None:
    images = find_images(data)
    whole = draw_squares(images, range(6), seed=0, size=20)
    assert whole.shape == (6, 3, 20, 20)
    for n in range(6):
        assert torch.equal(draw_squares(images, [n], seed=0, size=20)[0], whole[n])
    assert not torch.equal(whole, draw_squares(images, range(6), seed=1, size=20))


def test_squares_are_turned_and_mirrored(tmp_path: Path) -> None:
    """Of a picture that is one square, all eight ways to lay it down are drawn."""
    Image.frombytes("L", (2, 2), bytes([0, 50, 100, 200])).save(tmp_path / "four.png")
    drawn = draw_squares(find_images(tmp_path), range(100), seed=0, size=2)
    assert len({tuple(square[0].flatten().tolist()) for square in drawn}) == 8


def test_images_are_made_small_as_by_matlab() -> None:
    """A step of four pixels, half as large: the weights of the cubic kernel (a = -0.5), twice as wide."""
    step = torch.tensor([0.0, 0, 0, 0, 1, 1, 1, 1]).expand(1, 3, 8, 8)
    small = made_small(step, 2)

    def cubic(x: float) -> float:
        x = abs(x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else (-0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0)

    weights = [cubic((at + 0.5 - 3) / 2) for at in range(8)]
    expected = sum(weights[4:]) / sum(weights)
    assert small[0, 0, 0, 1] == pytest.approx(round(max(0, expected) * 255) / 255, abs=1e-6)
    assert torch.equal(small * 255, (small * 255).round())


def test_it_learns(data: Path, tmp_path: Path) -> None:
    job = task(data, size=32)
    truth = draw_squares(job.images, range(1000, 1008), seed=5, size=32)
    small = made_small(truth, 2)
    errors = []
    for steps in (1, 30):
        run(job, tmp_path / "run", steps, resume=True)
        network = load_superresolution_network(tmp_path / "run" / NETWORK)
        errors.append(float((network.enlarge(small) - truth).abs().mean()))
    assert errors[1] < 0.7 * errors[0]
    assert (tmp_path / "run" / "samples" / "step-0000020.png").exists()


def test_steps_alternate_between_two_attentions(data: Path) -> None:
    """Even steps take the network's own layer, odd ones the other, whichever part of a step's items is here."""
    full = SuperResolutionArchitecture(2, "full", channels=4, depth=1)
    both, network = task(data, architecture=full, alternate=CrossScalePatchAttention(k=1)), full.build()
    device = torch.device("cpu")
    for items, attention in ((range(2), None), (range(2, 4), both.alternate), (range(3, 4), both.alternate)):
        truth, small = both._draw(items, device)
        expected = (network(small, cross_scale=attention) - truth).abs().mean()
        assert torch.equal(both.loss(network, items, device), expected)
        assert torch.equal(task(data, architecture=full).loss(network, items, device), expected) == (attention is None)
    assert both.describe() != task(data, architecture=full).describe()


def test_a_run_that_was_killed_ends_as_one_that_was_not(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "patchattn.cli", "train", "superresolution", "--data", str(data), *OPTIONS,
               "--learning-rate", "0.002", "--log-every", "20", "--sample-every", "20", "--checkpoint-every", "4",
               "-o", str(tmp_path / "killed"), "--steps", "100000"]  # fmt: skip
    step = step_when_killed(command, tmp_path / "killed")
    run(task(data), tmp_path / "killed", step + 3, resume=True)
    run(task(data), tmp_path / "whole", step + 3)
    assert_same_files(tmp_path / "killed", tmp_path / "whole")
    assert (tmp_path / "whole" / CHECKPOINT).exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 4}, "size: expected an integer of at least 8"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1"),
        ({"seed": -1}, "seed: expected an integer of at least 0"),
    ],
)
def test_wrong_arguments_are_named(data: Path, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(data, **settings)
