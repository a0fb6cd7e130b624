"""Training against critics: what is drawn, what is minimized, and that runs go on where they were stopped."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
import torch
from lightning_fabric.plugins import Precision
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from patchattn.networks.architectures import InpaintingArchitecture
from patchattn.networks.inpainting import ATTENTIONS
from patchattn.networks.weights import load_inpainting_network
from patchattn.tasks.images import read_image
from patchattn.training.adversarial import discount, gradient_penalty, wasserstein
from patchattn.training.devices import make_fabric
from patchattn.training.holes import Holes, HoleSizes, draw_holes
from patchattn.training.image_dataset import find_images
from patchattn.training.inpainting import InpaintingLosses, InpaintingTask
from patchattn.training.loop import CHECKPOINT, NETWORK, Schedule, train
from tests.training.runs import assert_same_files, step_when_killed

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = HoleSizes(72, 32, 8)
SMALL = {"patch_size": 3}
OPTIONS = (
    "--attention", "contextual", "--patch-size", "3", "--channels", "4", "--critic-channels", "2", "--size", "72",
    "--hole-size", "32", "--batch-size", "2", "--critic-steps", "2", "--threads", "1", "--json",
)  # fmt: skip


def task(data: Path, attention: str = "psal", **settings: object) -> InpaintingTask:
    architecture = InpaintingArchitecture(attention, SMALL, channels=4)
    return InpaintingTask(
        find_images(data), **{"architecture": architecture, "sizes": SIZES, "critic_channels": 2, "critic_steps": 2,
                                "batch_size": 2, **settings}
    )  # fmt: skip


def run(
    job: InpaintingTask,
    folder: Path,
    steps: int,
    *,
    resume: bool = False,
    rate: float = 1e-3,
    precision: str = "32-true",
) -> float:
    folder.mkdir(exist_ok=True)
    fabric = make_fabric(folder, accelerator="cpu", precision=precision)
    fabric.launch()
    return train(job, folder, Schedule(steps, rate, 4, 2, 100), fabric, resume=resume)


def test_holes_lie_in_their_squares(data: Path) -> None:
    holes = draw_holes(find_images(data), range(200), seed=3, sizes=HoleSizes(24, 12, 6))
    assert holes.truth.shape == (200, 3, 24, 24)
    assert -1 <= holes.truth.min() < -0.5
    assert 0.5 < holes.truth.max() <= 1
    heights, widths = (holes.hole.any(dim).sum(1) for dim in (2, 1))
    assert set(heights.tolist()) == set(widths.tolist()) == {6, 8, 10, 12}
    assert torch.equal(holes.hole.sum((1, 2)), heights * widths)
    assert torch.equal(holes.around(holes.hole[:, None]).sum((1, 2, 3)), heights * widths)
    assert {corner for corners in holes.corners for corner in corners} == set(range(13))


def test_an_item_is_the_same_wherever_it_is_drawn(data: Path) -> None:
    images = find_images(data)
    whole = draw_holes(images, range(4), seed=0, sizes=SIZES)
    for n in range(4):
        part = draw_holes(images, [n], seed=0, sizes=SIZES)
        assert torch.equal(part.truth[0], whole.truth[n])
        assert torch.equal(part.hole[0], whole.hole[n])
    assert not torch.equal(whole.truth, draw_holes(images, range(4), seed=1, sizes=SIZES).truth)


def test_small_images_are_enlarged(tmp_path: Path) -> None:
    Image.new("L", (30, 20), 100).save(tmp_path / "gray.png")
    square = find_images(tmp_path).square(np.random.default_rng(0), 64)
    assert square.shape == (3, 64, 64)
    torch.testing.assert_close(square, torch.full_like(square, 100 / 255))


def test_unreadable_images(data: Path, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no picture")
    told: list[str] = []
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"cannot read .*b\.png as an image.*With on_error 'skip'"):
        find_images(tmp_path).square(generator, 8)
    with pytest.raises(ValueError, match=r"data: no image in .* can be read"):
        find_images(tmp_path, on_error="skip", warn=told.append).square(generator, 8)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    told.clear()
    for _ in range(20):
        assert find_images(tmp_path, on_error="skip", warn=told.append).square(generator, 8).shape == (3, 8, 8)
    assert 0 < len(told) < 20
    assert "left out: data: cannot read" in told[0]
    assert find_images(data).names[:2] == ("astronaut/00000.png", "astronaut/00001.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="data: there is no image in"):
        find_images(tmp_path / "empty")
    with pytest.raises(ValueError, match="data: there is no folder"):
        find_images(tmp_path / "none")


def test_the_discount_counts_from_the_border() -> None:
    weights = discount(5, 0.9)
    torch.testing.assert_close(weights[2], torch.tensor([1, 0.9, 0.81, 0.9, 1]))
    assert torch.equal(weights, weights.T)
    assert torch.equal(discount(4, 1.0), torch.ones(4, 4))


def test_the_penalty_is_that_of_the_slope() -> None:
    """A critic whose slope is known: (s |x|)^2 has 2 s^2 x."""
    slope = torch.tensor(0.7, requires_grad=True)

    class Parabola(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (slope * x).square().flatten(1).sum(1, keepdim=True)

    real, fake, share = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4, 4), torch.tensor([0.0, 0.3, 1.0])
    between = share.view(3, 1, 1, 1) * real + (1 - share.view(3, 1, 1, 1)) * fake
    lengths = between.flatten(1).norm(dim=1)
    penalty = gradient_penalty(Parabola(), real, fake, share)
    torch.testing.assert_close(penalty, ((2 * slope**2 * lengths - 1) ** 2).mean())
    penalty.backward()
    torch.testing.assert_close(slope.grad, (2 * (2 * 0.49 * lengths - 1) * 4 * 0.7 * lengths).mean())
    torch.testing.assert_close(
        wasserstein(Parabola(), real, fake), 0.49 * (fake.square().sum() - real.square().sum()) / 3
    )


def test_the_loss_of_a_known_difference(data: Path) -> None:
    """One picture of 8x8 whose hole of 2x2 fills the middle of a square of 4x4."""
    job = task(data, sizes=HoleSizes(8, 4, 2), losses=InpaintingLosses(hole=3, known=5, coarse=7, gamma=0.5))
    hole = torch.zeros(1, 8, 8, dtype=torch.bool)
    hole[:, 3:5, 2:4] = True
    holes = Holes(torch.zeros(1, 3, 8, 8), hole, ((2, 1),), 4)
    coarse, refined = torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 8, 8), -0.25)
    # The hole's four pixels are one pixel from the square's border.
    of_hole, of_known = 0.5 * 4 / 16, 60 / 64
    expected = (7 * 0.5 + 0.25) * (3 * of_hole + 5 * of_known)
    assert float(job.reconstruction_loss(coarse, refined, holes)) == pytest.approx(expected)


def test_a_step_goes_down_both_losses(data: Path, tmp_path: Path) -> None:
    """After one step Adam's mean of the gradients is half of the gradient (beta is 0.5), here taken from the losses."""
    job = task(data, "contextual", critic_steps=1)
    model = job.build()
    run(job, tmp_path, 1)
    found = load_file(tmp_path / CHECKPOINT)
    holes = job.draw(range(2))
    mask = holes.hole[:, None].float()
    coarse, refined = model(holes.truth, holes.hole)
    filled = refined * mask + holes.truth * (1 - mask)
    share = torch.tensor([np.random.default_rng((0, n, 1)).random() for n in range(2)], dtype=torch.float32)
    seen = [(model.local_critic, holes.around(holes.truth), holes.around(filled)),
            (model.global_critic, holes.truth, filled)]  # fmt: skip
    loss = sum(
        (critic(fake.detach()) - critic(real)).mean() + 10 * gradient_penalty(critic, real, fake, share)
        for critic, real, fake in seen
    )
    for n, gradient in enumerate(torch.autograd.grad(loss, model.critic_parameters)):
        torch.testing.assert_close(
            2 * found[f"critics_optimizer.{n}.exp_avg"], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max())
        )
    # The generator meets the critics of after the step.
    for critic, name in ((model.local_critic, "local_critic"), (model.global_critic, "global_critic")):
        critic.load_state_dict({key: found[f"network.{name}.{key}"] for key in critic.state_dict()})
    loss = -0.001 * sum(critic(fake).mean() for critic, _, fake in seen)
    for result, weight in ((coarse, 1.2), (refined, 1.0)):
        missed = holes.around((result - holes.truth) * mask).abs() * discount(32, 0.9)
        loss = loss + 1.2 * weight * (missed.mean() + functional.l1_loss(result * (1 - mask), holes.truth * (1 - mask)))
    for n, gradient in enumerate(torch.autograd.grad(loss, list(model.generator.parameters()))):
        torch.testing.assert_close(
            2 * found[f"generator_optimizer.{n}.exp_avg"], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max())
        )


def test_the_generator_has_its_turn(data: Path, tmp_path: Path) -> None:
    job = task(data, critic_steps=3)
    before = job.build().state_dict()
    for steps, changed in ((2, False), (3, True)):
        run(job, tmp_path, steps, resume=True)
        after = load_file(tmp_path / CHECKPOINT)
        for name, tensor in before.items():
            if name in ("local_critic.linear.bias", "global_critic.linear.bias"):
                continue  # real and fake share it
            same = torch.equal(tensor, after[f"network.{name}"])
            assert same != (changed or not name.startswith("generator.")), name


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_both_attentions_learn(tmp_path: Path, attention: str) -> None:
    """The dark corner of a table, where hardly more than its color is to be learned."""
    Image.fromarray(skimage.data.coffee()[100:260, :200]).save(tmp_path / "table.png")
    job = task(tmp_path, attention, critic_steps=1)
    holes = job.draw(range(100, 104))

    def error(network: nn.Module) -> float:
        with torch.no_grad():
            return float(job.reconstruction_loss(*network(holes.truth, holes.hole), holes))

    before = error(job.build())
    run(job, tmp_path / "run", 30, rate=3e-3)
    network = load_inpainting_network(tmp_path / "run" / NETWORK)
    after = error(network)
    assert type(network.refinement.attention) is ATTENTIONS[attention]
    assert after < 0.5 * before
    # With its hole, filled coarsely, filled, and truth.
    assert read_image(tmp_path / "run" / "samples" / "step-0000030.png").size == (72, 4 * 72)


def test_killed_and_resumed_is_as_if_nothing_had_happened(data: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(task(data, "contextual"), whole, 12)
    command = [sys.executable, "-m", "patchattn.cli", "train", "inpainting", "--data", str(data), "-o", str(killed),
               *OPTIONS, "--learning-rate", "1e-3", "--checkpoint-every", "4", "--steps", "1000000", "--accelerator",
               "cpu"]  # fmt: skip
    stopped = step_when_killed(command, killed)
    assert stopped % 4 == 0
    steps = max(12, stopped + 3)
    run(task(data, "contextual"), whole, steps, resume=True)
    run(task(data, "contextual"), killed, steps, resume=True)
    assert_same_files(killed, whole)
    assert {name.split(".")[0] for name in load_file(killed / CHECKPOINT)} == {
        "network", "generator_optimizer", "critics_optimizer",
    }  # fmt: skip


def test_a_resumed_run_is_the_same_with_patch_attention(data: Path, tmp_path: Path) -> None:
    run(task(data), tmp_path / "whole", 4)
    run(task(data), tmp_path / "parts", 1)
    run(task(data), tmp_path / "parts", 4, resume=True)
    found, expected = (load_file(tmp_path / folder / CHECKPOINT) for folder in ("parts", "whole"))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


class Together:
    """Two processes as two threads: what training with critics asks of Fabric."""

    world_size = 2
    device = torch.device("cpu")
    strategy = SimpleNamespace(precision=Precision())

    def __init__(self) -> None:
        self.barrier, self.given = threading.Barrier(2, timeout=60), dict[int, Tensor]()

    def to_device(self, network: nn.Module) -> nn.Module:
        return network

    def all_reduce(self, tensor: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "mean"
        self.given[threading.get_ident()] = tensor
        self.barrier.wait()
        mean = torch.stack(list(self.given.values())).mean(0)
        self.barrier.wait()
        return mean


def test_two_processes_have_the_gradients_of_one(data: Path, tmp_path: Path) -> None:
    job = task(data, critic_steps=1)
    run(job, tmp_path, 1, rate=1e-4)
    expected = load_file(tmp_path / CHECKPOINT)
    fabric = Together()
    both = [job.begin(fabric, 1e-4) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda rank: both[rank].step(range(rank, rank + 1)), range(2)))
    for name, count in (("critics_optimizer", 20), ("generator_optimizer", 84)):
        found = [work.optimizers[name].state_dict()["state"] for work in both]
        assert len(found[0]) == count
        for n in range(count):
            mean = expected[f"{name}.{n}.exp_avg"]
            largest = float(mean.abs().max())
            # Real and fake share the critics' last bias.
            assert largest > 0 or (name == "critics_optimizer" and n in (9, 19))
            assert torch.equal(found[0][n]["exp_avg"], found[1][n]["exp_avg"])
            torch.testing.assert_close(found[0][n]["exp_avg"], mean, rtol=1e-3, atol=1e-5 * largest)


def test_what_differs_is_said(data: Path, tmp_path: Path) -> None:
    run(task(data), tmp_path, 1)
    other = task(data, "contextual", losses=InpaintingLosses(gamma=0.8), sizes=HoleSizes(72, 32, 6))
    with pytest.raises(
        ValueError, match=r"losses\.gamma was 0\.9 and is 0\.8; network\.attention was 'psal' and is 'con"
    ):
        run(other, tmp_path, 2, resume=True)
    fewer = replace(task(data), images=replace(find_images(data), names=("coffee/00000.png",)))
    with pytest.raises(ValueError, match="pictures was 6 and is 1"):
        run(fewer, tmp_path, 2, resume=True)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_precision(data: Path, tmp_path: Path, precision: str) -> None:
    assert run(task(data), tmp_path, 2, precision=precision) < 3
    weights = load_file(tmp_path / CHECKPOINT)["network.generator.coarse.conv1.weight"]
    assert weights.dtype == (torch.float64 if precision == "64-true" else torch.float32)


def test_numbers_that_cannot_be(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hole_size: got 33; expected at most the size of the images, 32"):
        HoleSizes(32, 33, 0)
    with pytest.raises(ValueError, match="hole_variation: got 8; expected less than hole_size, 8"):
        HoleSizes(32, 8, 8)
    with pytest.raises(ValueError, match="size: expected an integer of at least 8"):
        HoleSizes(4)
    with pytest.raises(ValueError, match="critic_steps: expected an integer of at least 1"):
        task(data, critic_steps=0)
    with pytest.raises(ValueError, match=r"gamma: got 1\.1; expected at most 1"):
        InpaintingLosses(gamma=1.1)
    with pytest.raises(ValueError, match="adversarial: expected a number above 0"):
        InpaintingLosses(adversarial=0)

    class Half:
        """What a run asks of Fabric before it refuses half precision, which needs a GPU."""

        world_size = 1

        class strategy:  # noqa: N801
            class precision:  # noqa: N801
                precision = "16-mixed"

    with pytest.raises(ValueError, match="precision: got 16-mixed; the gradient penalty is not supported with fp16"):
        train(task(data), tmp_path, Schedule(), Half())
