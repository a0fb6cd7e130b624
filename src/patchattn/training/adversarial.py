"""WGAN-GP losses (Gulrajani et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["average_gradients", "discount", "gradient_penalty", "wasserstein"]


def wasserstein(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    r"""The critic's loss, minus the distance of both distributions as it sees it.

    $$\operatorname{E}[D(\tilde x)] - \operatorname{E}[D(x)]$$
    """
    judged_real, judged_fake = critic(torch.cat([real, fake])).split([len(real), len(fake)])
    loss: Tensor = (judged_fake.mean() - judged_real.mean()).float()
    return loss


def gradient_penalty(
    critic: nn.Module,
    real: Float[Tensor, "items channels height width"],
    fake: Float[Tensor, "items channels height width"],
    share: Float[Tensor, "items"],
) -> Tensor:
    r"""Squared deviation of the critic's gradient norm from 1, between real and fake.

    $$\operatorname{E}\big[(\lVert \nabla_{\hat x} D(\hat x) \rVert_2 - 1)^2\big], \qquad
    \hat x = \alpha x + (1 - \alpha) \tilde x$$

    Args:
        critic: D, which can be differentiated twice.
        real, fake: x and what stands for it; no gradient goes to either.
        share: alpha, in [0, 1].

    Example:
        >>> import torch
        >>> critic = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
        >>> _ = torch.nn.init.constant_(critic[1].weight, 1.0)  # a slope of 2 everywhere
        >>> real, fake = torch.rand(3, 1, 2, 2), torch.rand(3, 1, 2, 2)
        >>> gradient_penalty(critic, real, fake, torch.rand(3)).item()
        1.0
    """
    weight = share.view(-1, 1, 1, 1)
    between = (weight * real.detach() + (1 - weight) * fake.detach()).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (slope.flatten(1).float().norm(dim=1) - 1).square().mean()
    return penalty


def discount(side: int, gamma: float) -> Float[Tensor, "side side"]:
    r"""The weights of a square hole's pixels: gamma to the power of their distance from its border.

    $$w_{ij} = \gamma^{\min(i,\, n - 1 - i,\, j,\, n - 1 - j)}$$

    The nearer a pixel is to what is known, the less is there to choose.

    Example:
        >>> discount(4, 0.5)
        tensor([[1.0000, 1.0000, 1.0000, 1.0000],
                [1.0000, 0.5000, 0.5000, 1.0000],
                [1.0000, 0.5000, 0.5000, 1.0000],
                [1.0000, 1.0000, 1.0000, 1.0000]])
    """
    place = torch.arange(side)
    inwards = torch.minimum(place, side - 1 - place)
    weights: Tensor = gamma ** torch.minimum(inwards[:, None], inwards[None, :]).float()
    return weights


def average_gradients(parameters: Iterable[nn.Parameter], fabric: Fabric) -> None:
    """Give every process the mean of all processes' gradients.

    The wrapper that does so for one loss counts on one backward pass for each forward pass; a gradient penalty has two.
    """
    if fabric.world_size == 1:
        return
    for parameter in parameters:
        assert parameter.grad is not None  # or processes would wait for each other
        mean: Any = fabric.all_reduce(parameter.grad, reduce_op="mean")
        parameter.grad = mean
