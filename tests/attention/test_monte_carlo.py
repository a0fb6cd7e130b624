"""The Monte Carlo estimators: against their equations written out, and against what they estimate."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn import MatchField, scram_attention
from patchattn.attention.monte_carlo import effective_sample_size, estimator_variance, normalized, r_hat
from patchattn.baselines import full_attention
from patchattn.field import home_coordinates
from patchattn.kernels.gaussian import gaussian_weights
from tests.cases import TOLERANCE, fewer, gradcheck, mask, normals, photograph

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

EXACT = TOLERANCE[torch.float64]
ESTIMATORS = ("snis", "mh")


def features(*size: int, key_batch: int = 2, channels: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    return (
        normals(2, channels, *size),
        normals(key_batch, channels, *size, seed=1),
        normals(key_batch, 6, *size, seed=2),
    )


def full(query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Tensor:
    return full_attention(query, key, value, patch_size=1, similarity="scaled_dot", **settings)


def density(field: MatchField, scale: tuple[float, ...], alpha: float, allowed: Tensor) -> Tensor:
    """r of equation (17) for all keys, `(modes' queries, keys)`, of one head of one item; `allowed` as its result."""
    size = field.key_shape
    place = home_coordinates(size, size, torch.device("cpu")).flatten(1)
    total = torch.zeros(allowed.shape, dtype=torch.float64)
    for mode in field.coordinates()[0, 0].flatten(2):
        local = torch.ones(allowed.shape, dtype=torch.float64)
        for axis, phi in enumerate(scale):
            # The Gaussian in whole numbers, as it is drawn from: its tails have three digits.
            radius = math.ceil(4 * phi)
            bell = torch.zeros(2 * size[axis] + 2 * radius + 1, dtype=torch.float64)
            bell[size[axis] : size[axis] + 2 * radius + 1] = torch.from_numpy(gaussian_weights(phi))

            def at(offset: Tensor, bell: Tensor = bell, middle: int = size[axis] + radius) -> Tensor:
                return bell[offset + middle]

            inside = at(torch.arange(size[axis]) - mode[axis][:, None]).sum(1, keepdim=True)
            local = local * at(place[axis] - mode[axis][:, None]) / inside
        total += local
    return alpha * total / field.k + (1 - alpha) * allowed / allowed.sum(1, keepdim=True)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("size", "scale"), [((30,), (1.5,)), ((6, 7), (2.0, 0.7)), ((3, 4, 5), (1.0, 1.0, 2.0))])
def test_importance_sampling_is_equations_11_to_17(
    size: tuple[int, ...], scale: tuple[float, ...], alpha: float, backend: str
) -> None:
    query, key, value = (x[:1] for x in features(*size))
    allowed = mask(1, *size, share=0.7)
    output, field, diagnostics = scram_attention(
        query, key, value, k=2, separation=2, estimator="snis", samples=40, scale=scale, alpha=alpha, temperature=0.8,
        key_mask=allowed, return_field=True, return_diagnostics=True, seed=3, backend=backend,
    )  # fmt: skip
    count = math.prod(size)
    r = density(field, scale, alpha, allowed.flatten().expand(count, -1).double())
    target = torch.exp(query[0].flatten(1).T @ key[0].flatten(1) / 2 / 0.8)
    keys = diagnostics.samples[0, 0].flatten(1).long().T
    assert (allowed.flatten()[keys] | (keys < 0)).all()
    assert alpha > 0 or (keys >= 0).all()
    w = torch.where(keys >= 0, (target / r).gather(1, keys.clamp(min=0)), 0)
    drawn = value[0].flatten(1)[:, keys.clamp(min=0)]
    expected = (drawn * w).sum(2) / w.sum(1)
    torch.testing.assert_close(output[0].flatten(1), expected, **EXACT)
    torch.testing.assert_close(diagnostics.weights[0, 0].flatten(1).T, w / w.sum(1, keepdim=True), **EXACT)
    variance = ((w / w.sum(1, keepdim=True)) ** 2 * (drawn - expected[:, :, None]) ** 2).sum(2)
    torch.testing.assert_close(diagnostics.variance[0].flatten(1), variance, **EXACT)
    worth = w.sum(1) ** 2 / (w**2).sum(1)
    torch.testing.assert_close(diagnostics.effective_sample_size[0, 0].flatten(), worth, **EXACT)


def relative_error(output: Tensor, expected: Tensor) -> float:
    return float((output - expected).norm() / expected.norm())


def test_importance_sampling_converges_at_the_monte_carlo_rate() -> None:
    query, key, value = features(16, 15)
    expected = full(query, key, value)
    settings: dict[str, Any] = {"k": 2, "estimator": "snis"}
    errors = [
        sum(
            relative_error(scram_attention(query, key, value, samples=samples, seed=seed, **settings), expected)
            for seed in range(4)
        )
        for samples in (64, 1024)
    ]
    slope = math.log(errors[1] / errors[0]) / math.log(1024 / 64)
    assert slope == pytest.approx(-0.5, abs=0.1)


def test_chains_converge(backend: str) -> None:
    query, key, value = (x[..., :4] for x in features(5, 4))
    expected = full(query, key, value)
    settings: dict[str, Any] = {"k": 2, "estimator": "mh", "selection": "max", "backend": backend}
    errors = [
        relative_error(scram_attention(query, key, value, samples=samples, **settings), expected)
        for samples in (fewer(backend, 600, 60), fewer(backend, 6000, 400))
    ]
    assert errors[1] < (0.5 if backend == "gpu" else 0.15)
    assert errors[1] < errors[0] / 2


def test_the_mixture_is_worth_more_samples_than_a_uniform_proposal() -> None:
    """On a spatially coherent map at least five times as many."""
    picture = photograph("coffee", slice(0, 256), slice(120, 376))
    smooth = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(picture, 16), (64, 64), mode="bicubic")
    deviation, mean = torch.std_mean(smooth, (2, 3), keepdim=True)
    query = 16 * (smooth - mean) / deviation
    settings: dict[str, Any] = {"estimator": "snis", "similarity": "l2", "samples": 128, "return_diagnostics": True}
    worth = []
    for more in ({}, {"alpha": 0.0}):
        _, diagnostics = scram_attention(query, query, query, k=4, **more, **settings)
        worth.append(float(diagnostics.effective_sample_size.mean()))
    assert worth[0] >= 5 * worth[1]


def test_the_variance_is_that_over_seeds() -> None:
    query, key, value = (x[:1] for x in features(9, 8))
    runs = [
        scram_attention(query, key, value, estimator="snis", samples=400, seed=seed, return_diagnostics=True)
        for seed in range(60)
    ]
    seen = torch.stack([output for output, _ in runs]).var(0).mean()
    said = torch.stack([diagnostics.variance for _, diagnostics in runs]).mean()
    assert float(said / seen) == pytest.approx(1, abs=0.1)


def test_effective_sample_size_and_normalization() -> None:
    weight = torch.tensor([[1.0, 1, 1, 1], [0, 5, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).T[None, None]
    assert effective_sample_size(weight)[0, 0].tolist() == [4, 1, 2, 0]
    torch.testing.assert_close(effective_sample_size(1e-3 * weight), effective_sample_size(weight))
    log_weight = torch.tensor([[1e30, -torch.inf], [0, 0], [-torch.inf, -torch.inf], [-3e38, -3e38]]).T[None, None]
    assert normalized(log_weight)[0, 0].T.tolist() == [[1, 0], [0.5, 0.5], [0, 0], [0.5, 0.5]]


def test_the_variance_does_not_cancel() -> None:
    # A large mean must not drown a small spread.
    weight = torch.full((1, 1, 2, 1), 0.5)
    keys = torch.tensor([[[[0], [1]]]], dtype=torch.int32)
    value = torch.tensor([[[4096.0, 4096.5]]])
    variance = estimator_variance(weight, keys, value, torch.tensor([[[4096.25]]]))
    assert variance.item() == 0.25 * 2 * 0.0625


def test_r_hat_is_gelman_and_rubins() -> None:
    chains, steps = 3, 5
    states = torch.randint(
        0, 20, (2, 2, chains * steps, 4), dtype=torch.int32, generator=torch.Generator().manual_seed(0)
    )
    value = normals(2, 6, 20)
    found = r_hat(states, value, chains)
    for b in range(2):
        for channel in range(6):
            for i in range(4):
                drawn = value[b, channel][states[b, channel // 3, :, i].long()].view(chains, steps)
                within = drawn.var(1).mean()
                between = drawn.mean(1).var()
                expected = ((steps - 1) / steps + between / within).sqrt()
                torch.testing.assert_close(found[b, channel, i], expected, **EXACT)


def test_r_hat_at_the_edges_of_its_definition() -> None:
    value = torch.tensor([[[0.0, 1.0, 5.0]]])

    def of(*states: int, chains: int = 2) -> float:
        return float(r_hat(torch.tensor(states, dtype=torch.int32).view(1, 1, -1, 1), value, chains))

    assert of(1, 1, 1, 1) == 1  # nothing varies
    assert of(0, 0, 1, 1) == math.inf  # each chain keeps to its own
    assert math.isnan(of(0, 1, chains=1))  # one chain
    assert math.isnan(of(0, 1))  # one step
    assert of(0, 1, 0, 1, -1, -1, chains=3) == pytest.approx(of(0, 1, 0, 1))  # a mode that was not found


def test_diagnostics_of_chains(backend: str) -> None:
    query, key, value = features(6, 7)
    output, diagnostics = scram_attention(
        query, key, value, k=3, estimator="mh", chains=2, samples=20, num_heads=2, separation=2,
        return_diagnostics=True, backend=backend,
    )  # fmt: skip
    assert diagnostics.samples.shape == diagnostics.weights.shape == (2, 2, 24, 6, 7)  # 6 chains of 4 steps
    assert diagnostics.acceptance_rate.shape == (2, 2, 6, 7)
    assert ((diagnostics.acceptance_rate >= 0) & (diagnostics.acceptance_rate <= 1)).all()
    assert diagnostics.r_hat.shape == output.shape
    assert diagnostics.variance is None
    # The estimate is the plain mean of the states' values.
    table = value.unflatten(1, (2, 3)).flatten(3)
    states = diagnostics.samples.flatten(3).long()
    drawn = table.unsqueeze(3).expand(-1, -1, -1, 24, -1).gather(4, states.unsqueeze(2).expand(-1, -1, 3, -1, -1))
    torch.testing.assert_close(output.flatten(2), drawn.mean(3).flatten(1, 2), **EXACT)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_value_at_a_multiple_of_the_keys_size(estimator: str, backend: str) -> None:
    query, key, _ = features(5, 6)
    value = normals(2, 4, 10, 12)
    output, diagnostics = scram_attention(
        query, key, value, estimator=estimator, samples=12, return_diagnostics=True, backend=backend
    )
    assert output.shape == (2, 4, 10, 12)
    assert (diagnostics.variance if estimator == "snis" else diagnostics.r_hat).shape == output.shape


@pytest.mark.parametrize("settings", [{}, {"num_heads": 2, "alpha": 0.9}, {"similarity": "l2", "temperature": 3.0}])
def test_gradients_of_importance_sampling(settings: dict[str, Any], backend: str) -> None:
    query, key, value = (x[..., :3, :4].requires_grad_() for x in features(3, 4, key_batch=1, channels=2))
    settings = {"estimator": "snis", "samples": 6, "backend": backend} | settings
    _, field = scram_attention(query, key, value, k=2, return_field=True, **settings)
    assert gradcheck(
        backend, lambda q, k, v: scram_attention(q, k, v, field=field, **settings), (query, key, value), atol=1e-6
    )


def test_gradients_of_chains_hold_the_states_fixed(backend: str) -> None:
    """The gradient of sum_t w_t v_t / sum_t w_t, w = exp(s - s_0), with the states and s_0 held fixed."""
    query, key, value = (x[..., :3, :4].requires_grad_() for x in features(3, 4, key_batch=1, channels=2))
    output, diagnostics = scram_attention(
        query,
        key,
        value,
        k=2,
        estimator="mh",
        samples=8,
        separation=2,
        temperature=0.7,
        return_diagnostics=True,
        backend=backend,
    )
    states = diagnostics.samples[:, 0].flatten(2).long()
    start = [x.detach().clone() for x in (query, key, value)]

    def surrogate(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        def score(q: Tensor, k: Tensor) -> Tensor:
            product = torch.einsum("bci,bcj->bij", q.flatten(2), k.expand(2, -1, -1, -1).flatten(2))
            return product.gather(2, states.transpose(1, 2)) / 2**0.5 / 0.7

        weight = (score(q, k) - score(*start[:2])).softmax(2)
        drawn = v.expand(2, -1, -1, -1).flatten(2)[..., None].expand(-1, -1, -1, states.shape[1])
        drawn = drawn.gather(2, states.transpose(1, 2).unsqueeze(1).expand(-1, drawn.shape[1], -1, -1))
        return (weight.unsqueeze(1) * drawn).sum(3)

    weight = normals(*output.shape, seed=9)
    expected = torch.autograd.grad((surrogate(query, key, value) * weight.flatten(2)).sum(), (query, key, value))
    found = torch.autograd.grad((output * weight).sum(), (query, key, value))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **EXACT)
    assert torch.autograd.gradcheck(surrogate, (query, key, value))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_approach_those_of_full_attention(estimator: str) -> None:
    inputs = [x.requires_grad_() for x in features(5, 4)]
    weight = normals(2, 6, 5, 4, seed=9)
    expected = torch.autograd.grad((full(*inputs) * weight).sum(), inputs)
    output = scram_attention(*inputs, estimator=estimator, selection="max", samples=6000)
    for one, other in zip(torch.autograd.grad((output * weight).sum(), inputs), expected, strict=True):
        assert relative_error(one, other) < 0.15


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_seed_decides(estimator: str, backend: str) -> None:
    inputs = features(8, 9)
    settings: dict[str, Any] = {"estimator": estimator, "samples": 10, "method": "exact", "backend": backend}
    one, same, other = (scram_attention(*inputs, seed=seed, **settings) for seed in (2**40, 2**40, 7))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_threads_do_not_decide(estimator: str) -> None:
    query, key, value = features(50, 60)
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(scram_attention(query, key, value, estimator=estimator, samples=8))
    torch.set_num_threads(1)
    assert torch.equal(*results)
