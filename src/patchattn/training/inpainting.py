"""Inpainting, learned from images with random holes against two critics (Yu et al. 2018, section 4.4.2 of PSAL)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from patchattn.checks import check_count, check_positive
from patchattn.networks.architectures import InpaintingArchitecture
from patchattn.networks.inpainting import Critic, InpaintingNetwork
from patchattn.networks.weights import network_bytes
from patchattn.training.adversarial import average_gradients, discount, gradient_penalty, wasserstein
from patchattn.training.holes import Holes, HoleSizes, draw_holes
from patchattn.training.image_dataset import ImageDataset

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["InpaintingLosses", "InpaintingModel", "InpaintingTask"]

BETAS = (0.5, 0.9)
"""Adam's betas."""


@dataclass(frozen=True)
class InpaintingLosses:
    r"""Weights of the losses of the generator and its critics.

    $$L_G = \lambda_h \big(\lambda_c \lVert w \odot m \odot (x_1 - x) \rVert_1
    + \lVert w \odot m \odot (x_2 - x) \rVert_1\big)
    + \lambda_k \big(\lambda_c \lVert (1 - m) \odot (x_1 - x) \rVert_1 + \lVert (1 - m) \odot (x_2 - x) \rVert_1\big)
    - \lambda_a \big(D_l(x_2) + D_g(x_2)\big)$$

    $$L_D = \sum_{D \in \{D_l, D_g\}} D(x_2) - D(x) + \lambda_p (\lVert \nabla D \rVert_2 - 1)^2$$

    with m the hole, x_1 the coarse and x_2 the refined image, w the weights of `discount`; the first two norms are
    means over the square around the hole, the next two over the image. D_l sees the square around the hole, D_g the
    image, both with known pixels as they were. The numbers are those of the published programs.

    Raises:
        ValueError: a number is out of range.
    """

    hole: float = 1.2
    known: float = 1.2
    coarse: float = 1.2
    adversarial: float = 0.001
    penalty: float = 10.0
    gamma: float = 0.9
    """Base of the discount; at most 1."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            check_positive(name, value)
        if self.gamma > 1:
            raise ValueError(f"gamma: got {self.gamma}; expected at most 1.")


class InpaintingModel(nn.Module):
    """A generator and its critics; called as the generator is."""

    def __init__(self, generator: InpaintingNetwork, sizes: HoleSizes, critic_channels: int) -> None:
        super().__init__()
        self.generator = generator
        self.local_critic = Critic(sizes.hole, channels=critic_channels)
        self.global_critic = Critic(sizes.image, channels=critic_channels)

    @property
    def critic_parameters(self) -> list[nn.Parameter]:
        return [*self.local_critic.parameters(), *self.global_critic.parameters()]

    def forward(self, image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        coarse, refined = self.generator(image, hole)
        return coarse, refined


@dataclass(frozen=True)
class InpaintingTask:
    """A generator that fills random square holes, and the two critics that it has to convince.

    Every step trains the critics; every `critic_steps`-th one the generator too. The log's `loss` is the part of the
    generator's that compares with the truth.

    Raises:
        ValueError: a number is out of range.
    """

    images: ImageDataset
    architecture: InpaintingArchitecture = field(default_factory=InpaintingArchitecture)
    sizes: HoleSizes = field(default_factory=HoleSizes)
    losses: InpaintingLosses = field(default_factory=InpaintingLosses)
    critic_channels: int = 64
    critic_steps: int = 5
    batch_size: int = 16
    seed: int = 0
    """Seed of the first weights, of the images and of the holes."""

    def __post_init__(self) -> None:
        for name in ("critic_channels", "critic_steps", "batch_size"):
            check_count(name, getattr(self, name), 1)
        check_count("seed", self.seed, 0)

    def describe(self) -> dict[str, Any]:
        names = "\n".join(self.images.names)
        return {
            "network": asdict(self.architecture),
            "pictures": len(self.images),
            # Millions of names would be most of the checkpoint.
            "names": hashlib.sha256(names.encode()).hexdigest(),
            "sizes": {"picture": self.sizes.image, "hole": self.sizes.hole, "variation": self.sizes.variation},
            "losses": asdict(self.losses),
            "critic_channels": self.critic_channels,
            "critic_steps": self.critic_steps,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }

    def build(self) -> InpaintingModel:
        """Return generator and critics before training."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return InpaintingModel(self.architecture.build(), self.sizes, self.critic_channels)

    def draw(self, items: range) -> Holes:
        return draw_holes(self.images, items, seed=self.seed, sizes=self.sizes)

    def begin(self, fabric: Fabric, learning_rate: float) -> InpaintingState:
        return InpaintingState(self, fabric, learning_rate)

    def reconstruction_loss(self, coarse: Tensor, refined: Tensor, holes: Holes) -> Tensor:
        """Return the part of the generator's loss that compares with the truth."""
        weights = discount(self.sizes.hole, self.losses.gamma).to(holes.truth)
        known = ~holes.hole.unsqueeze(1)
        total = torch.zeros((), device=holes.truth.device)
        for result, share in ((coarse, self.losses.coarse), (refined, 1.0)):
            difference = (result - holes.truth).abs()
            missed = holes.around(difference.masked_fill(known, 0)) * weights
            kept = difference * known
            total = total + share * (self.losses.hole * missed.mean() + self.losses.known * kept.mean())
        return total

    def sample(self, network: Callable[..., Any], device: torch.device) -> Tensor:
        """Return the first item with a gray hole, filled coarsely, filled, and its truth, side by side."""
        holes = self.draw(range(1)).to(device, torch.float32)
        hole = holes.hole.unsqueeze(1)
        filled = [torch.where(hole, result.float(), holes.truth) for result in network(holes.truth, holes.hole)]
        return (torch.cat([holes.truth.masked_fill(hole, 0), *filled, holes.truth], 3) + 1) / 2

    def content(self, network: nn.Module) -> bytes:
        assert isinstance(network, InpaintingModel)
        return network_bytes(network.generator, self.architecture)


class InpaintingState:
    """A generator and its critics, each with its own Adam."""

    def __init__(self, task: InpaintingTask, fabric: Fabric, learning_rate: float) -> None:
        self._task, self._fabric = task, fabric
        self._precision: Any = fabric.strategy.precision
        if str(self._precision.precision).startswith("16"):
            raise ValueError(
                f"precision: got {self._precision.precision}; the gradient penalty is not supported with fp16 loss "
                "scaling. Use bf16-mixed or 32-true."
            )
        model: Any = fabric.to_device(self._precision.convert_module(task.build()))
        self.network: InpaintingModel = model
        self._generator = torch.optim.Adam(self.network.generator.parameters(), learning_rate, BETAS)
        self._critics = torch.optim.Adam(self.network.critic_parameters, learning_rate, BETAS)

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        return {"generator_optimizer": self._generator, "critics_optimizer": self._critics}

    def step(self, items: range) -> Mapping[str, Tensor]:
        task, network = self._task, self.network
        dtype = next(network.parameters()).dtype
        holes = task.draw(items).to(self._fabric.device, dtype)
        # Items are numbered through the run, so that a step knows its turn without a state.
        turn = (items.start // task.batch_size + 1) % task.critic_steps == 0
        with torch.set_grad_enabled(turn), self._precision.forward_context():
            coarse, refined = network(holes.truth, holes.hole)
            loss = task.reconstruction_loss(coarse, refined, holes)
            filled = torch.where(holes.hole.unsqueeze(1), refined, holes.truth)
        numbers = {"loss": loss.detach(), **self._train_critics(holes, filled.detach(), items)}
        return {**numbers, "adversarial_loss": self._train_generator(holes, filled, loss)} if turn else numbers

    def _train_critics(self, holes: Holes, filled: Tensor, items: range) -> dict[str, Tensor]:
        # The share of the real image in what the penalty looks at; an item's own, whatever process has it.
        drawn = [np.random.default_rng((self._task.seed, number, 1)).random() for number in items]
        share = torch.tensor(drawn).to(filled)
        critic_loss, penalty = (torch.zeros((), device=filled.device) for _ in range(2))
        with self._precision.forward_context():
            for critic, real, fake in self._judged(holes, filled):
                critic_loss = critic_loss + wasserstein(critic, real, fake)
                penalty = penalty + gradient_penalty(critic, real, fake, share)
        self._descend(self._critics, critic_loss + self._task.losses.penalty * penalty)
        return {"critic_loss": critic_loss.detach(), "gradient_penalty": penalty.detach()}

    def _train_generator(self, holes: Holes, filled: Tensor, loss: Tensor) -> Tensor:
        # The critics hand gradients on here, and need none of their own.
        for parameter in self.network.critic_parameters:
            parameter.requires_grad_(False)
        with self._precision.forward_context():
            judged = [critic(fake).float().mean() for critic, _, fake in self._judged(holes, filled)]
            adversarial = -torch.stack(judged).sum()
        self._descend(self._generator, loss + self._task.losses.adversarial * adversarial)
        for parameter in self.network.critic_parameters:
            parameter.requires_grad_(True)
        return adversarial.detach()

    def _judged(self, holes: Holes, filled: Tensor) -> list[tuple[Critic, Tensor, Tensor]]:
        """Each critic with what it sees of the truth and of the filled images."""
        return [
            (self.network.local_critic, holes.around(holes.truth), holes.around(filled)),
            (self.network.global_critic, holes.truth, filled),
        ]

    def _descend(self, optimizer: Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients((p for group in optimizer.param_groups for p in group["params"]), self._fabric)
        optimizer.step()
