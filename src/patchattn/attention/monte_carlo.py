"""Monte Carlo estimators of full attention, and how far they may be trusted; section 4.2.2 of SCRAM.

Each draws keys for every query and gives each a logarithm of its weight; a softmax over these is the estimator. Samples
are held fixed in the backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.attention.comparison import Comparison
from patchattn.attention.scoring import Scoring
from patchattn.ops.sample_chains import Chains
from patchattn.ops.sample_mixture import Mixture

__all__ = [
    "chain_estimate",
    "effective_sample_size",
    "estimator_variance",
    "importance_estimate",
    "normalized",
    "r_hat",
]


def importance_estimate(
    comparison: Comparison,
    modes: Tensor,
    scoring: Scoring,
    mixture: Mixture,
) -> tuple[Tensor, Tensor]:
    r"""Self-normalized importance sampling: keys from a mixture, weighted by target over density.

    $$\hat o_i = \frac{\sum_t w_{it} v_{j'_{it}}}{\sum_t w_{it}}, \qquad
    w_{it} = \frac{p^{(u)}_i(j'_{it})}{r_i(j'_{it})}, \qquad
    r_i(j) = \frac{\alpha}{\kappa} \sum_{m=1}^{\kappa} g(j; \theta_{im}, \phi) + \frac{1 - \alpha}{n}$$

    Equations (11) to (14) and (17) of SCRAM: p^(u)_i(j) = exp(s_ij / tau + b_ij) by our `scoring`, j'_it our t-th
    key, T, phi and alpha those of `mixture`, theta_im our `modes`, n the number of keys that the constraints allow. g
    is the Gaussian of the offset, cut off at 4 phi and at the image's edge (and at `max_offset`), in integers, so that
    it sums to 1 exactly. Draws that constraints forbid have weight 0. The logarithm is taken before anything can
    overflow.

    Returns:
        keys and log w, `(B, heads, T, *query)`; -1 and -inf where a draw does not count.
    """
    keys, log_density = comparison.sample_mixture(modes, mixture)
    return keys, scoring(comparison.similarity_at(keys), keys) - log_density


def chain_estimate(
    comparison: Comparison,
    modes: Tensor,
    chains: Chains,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Metropolis-Hastings: chains from the modes, whose states all weigh the same.

    The proposal is the Gaussian of the offset, never truncated: what lies outside the image is refused, so that there
    and back are equally likely. No burn-in, as in the paper: each chain is to explore the surroundings of its mode.

    The weight of a state is $\exp(s / \tau) / \exp(\bar s / \tau)$ with $\bar s$ the same number held fixed: it is 1,
    and its derivative makes the gradient of the mean that of the expectation,
    $\nabla \mathbb{E}_p[v] = \mathbb{E}_p[(v - \mathbb{E}_p[v]) \nabla s / \tau]$.

    Returns:
        states and log weights, `(B, heads, chains * steps, *query)`; the share of steps accepted, `(B, heads, *query)`.
    """
    states, acceptance = comparison.sample_chains(modes, chains)
    if comparison.trains:
        score = comparison.similarity_at(states) / chains.temperature
        log_weight = score - score.detach()
    else:
        dtype = torch.float64 if comparison.query.dtype == torch.float64 else torch.float32
        log_weight = torch.zeros(states.shape, dtype=dtype, device=states.device)
    return states, torch.where(states >= 0, log_weight, -torch.inf), acceptance


def normalized(log_weight: Tensor) -> Tensor:
    """Return the weights of these logarithms, summing to 1 over dimension 2; 0 for a query without any."""
    peak = log_weight.amax(2, keepdim=True)
    weight = (log_weight - torch.where(peak > -torch.inf, peak, 0)).exp()
    total = weight.sum(2, keepdim=True)
    return weight / torch.where(total > 0, total, 1)


def effective_sample_size(weight: Tensor) -> Tensor:
    r"""Effective sample size: the draws from the target itself that the samples are worth, `(B, heads, *query)`.

    $$T^{\text{ESS}}_i = \frac{(\sum_t w_{it})^2}{\sum_t w_{it}^2}$$

    Equation (16) of SCRAM. `weight`: w, `(B, heads, T, *query)`, of any scale; the result is 0 where all are 0.
    """
    squares = weight.square().sum(2)
    return torch.where(squares > 0, weight.sum(2).square() / torch.where(squares > 0, squares, 1), 0)


def estimator_variance(weight: Tensor, keys: Tensor, value: Tensor, output: Tensor) -> Tensor:
    r"""The delta method's estimate of the estimator's variance, for each query and channel: `(B, Cv, *query)`.

    $$\operatorname{Var}(\hat o_{ie}) = \sum_{t=1}^{T} \bar w_{it}^2\, (v_{j'_{it} e} - \hat o_{ie})^2, \qquad
    \bar w_{it} = \frac{w_{it}}{\sum_{t'} w_{it'}}$$

    Equation (15) of SCRAM with the weights normalized: as printed it lacks the division by the square of their sum,
    and would change with the scale of the unnormalized target.

    Args:
        weight: normalized, `(B, heads, T, *query)`.
        keys: `(B, heads, T, *query)`, -1 for none.
        value: `(B or 1, Cv, *key)`, in the precision of the result.
        output: the estimate, `(B, Cv, *query)`.
    """
    heads, queries = keys.shape[1], keys.shape[3:]
    estimate = torch.unflatten(output, 1, (heads, -1)).flatten(3)
    total = torch.zeros_like(estimate)
    for t in range(keys.shape[2]):
        difference = _values_at(value, keys[:, :, t]) - estimate
        squares = weight[:, :, t].flatten(2).unsqueeze(2).square()
        total += torch.where(squares > 0, squares * difference.square(), 0)
    return torch.unflatten(total.flatten(1, 2), 2, queries)


def r_hat(states: Tensor, value: Tensor, chains: int) -> Tensor:
    r"""Gelman and Rubin's diagnostic of the chains' values, for each query and channel: `(B, Cv, *query)`.

    $$\hat R = \sqrt{\frac{S - 1}{S} + \frac{B}{S W}}$$

    with S steps in each chain, W the mean of the chains' variances, B / S the variance of their means. Near 1: the
    chains have mixed; large: each stays around its own mode. 1 where nothing varies, infinity where only the means do,
    NaN with fewer than two chains or steps.

    Args:
        states: `(B, heads, chains * S, *query)`, chain by chain, -1 for a chain that does not exist.
        value: `(B or 1, Cv, *key)`.
        chains: How many chains each query has at most.
    """
    queries = states.shape[3:]
    steps = states.shape[2] // chains
    exists = states[:, :, ::steps].flatten(3).unsqueeze(3) >= 0  # (B, heads, chains, 1, n)
    mean, spread = [], []
    for chain in torch.split(states, steps, 2):
        count = 0
        for t in range(steps):
            one = _values_at(value, chain[:, :, t])
            count += 1
            if count == 1:
                center, squares = one, torch.zeros_like(one)
                continue
            # Welford's recurrence: no difference of large numbers.
            step = one - center
            center = center + step / count
            squares = squares + step * (one - center)
        mean.append(center)
        spread.append(squares / max(steps - 1, 1))
    means, spreads = torch.stack(mean, 2), torch.stack(spread, 2)  # (B, heads, chains, C, n)
    number = exists.sum(2)
    within = torch.where(exists, spreads, 0).sum(2) / number.clamp(min=1)
    center = torch.where(exists, means, 0).sum(2) / number.clamp(min=1)
    between = torch.where(exists, (means - center.unsqueeze(2)).square(), 0).sum(2) / (number - 1).clamp(min=1)
    ratio = torch.where(between > 0, between / within, 0)  # 0 / 0: nothing varies at all
    result = torch.where(between + within > 0, ((steps - 1) / steps + ratio).sqrt(), 1)
    defined = (number >= 2) & (steps >= 2)
    return torch.unflatten(torch.where(defined, result, torch.nan).flatten(1, 2), 2, queries)


def _values_at(value: Tensor, keys: Tensor) -> Tensor:
    """The values of one key of each query, `(B, heads, C, n)`; that of key 0 where there is none."""
    batch, heads = keys.shape[:2]
    table = torch.unflatten(value, 1, (heads, -1)).flatten(3).expand(batch, -1, -1, -1)
    place = keys.flatten(2).clamp(min=0).long().unsqueeze(2).expand(-1, -1, table.shape[2], -1)
    return table.gather(3, place)
