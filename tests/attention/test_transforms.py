"""Every layer under PyTorch's transforms: torch.func, vmap, forward mode, and gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

from patchattn import (
    ContextualAttention,
    CrossScaleAttention,
    CrossScalePatchAttention,
    MaskedPatchAttention,
    MultiheadPatchAttention2d,
    PatchAttention,
    ScramAttention,
    match,
    patch_attention,
)
from patchattn.baselines import (
    FullAttention,
    LinearAttention,
    LocalAttention,
    PerformerAttention,
    ReformerAttention,
    SparseAttention,
)
from tests.cases import normals

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # What PyTorch says of its own unfold.
    pytest.mark.filterwarnings("ignore:There is a performance drop because we have not yet implemented the batching"),
]

SIZE = (6, 7)
KNOWN = torch.ones(1, *SIZE, dtype=torch.bool)
KNOWN[:, 2:4, 3:5] = False

LAYERS: dict[str, Callable[..., Tensor]] = {
    "patch": PatchAttention(k=2, patch_size=3),
    "patch_aggregate": PatchAttention(k=2, patch_size=3, aggregate=True, temperature=5.0),
    "patch_cosine": PatchAttention(k=2, patch_size=3, similarity="cosine", num_heads=2),
    "patch_l1_reference": PatchAttention(k=2, patch_size=(1, 3), similarity="l1", backend="reference"),
    "patchmatch": PatchAttention(k=2, patch_size=3, method="patchmatch"),
    "guided": PatchAttention(k=2, patch_size=3, method="guided", num_heads=2, aggregate=True),
    "causal": PatchAttention(k=2, patch_size=1, is_causal=True),
    "masked": lambda q, k, v: MaskedPatchAttention(patch_size=3)(q, k, v, key_mask=KNOWN),
    "scram": ScramAttention(k=2, expand=1),
    "scram_mode_count": ScramAttention(
        k=2, selection="mode", separation=2, weighting=torch.sigmoid, normalization="count"
    ),
    "scram_snis": ScramAttention(k=2, estimator="snis", samples=8),
    "scram_mh": ScramAttention(k=2, estimator="mh", samples=8),
    "full": FullAttention(patch_size=3, temperature=5.0),
    "local": LocalAttention(window=5, patch_size=3, temperature=5.0),
    "sparse": SparseAttention(patch_size=3, temperature=5.0),
    "sparse_fixed": SparseAttention(patch_size=1, pattern="fixed"),
    "linear": LinearAttention(patch_size=3),
    "performer": PerformerAttention(patch_size=1),
    "reformer": ReformerAttention(patch_size=1, bucket_size=3),
    "cross_scale": CrossScaleAttention(),
    "cross_scale_patch": CrossScalePatchAttention(k=3),
    "contextual": ContextualAttention(fuse=True),
}
RANDOM = "reformer"
"""Its package draws random numbers, which vmap refuses unless it is told how."""
HELD = ("scram_mh", "performer")
"""Whose derivative is not that of the numbers that come out: the samples, and the largest exponent, are held fixed."""


def images(seed: int = 0, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (normals(batch, 4, *SIZE, seed=3 * seed + n) for n in range(3))
    return query, key, value


def loss_of(layer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda query, key, value: layer(query, key, value).square().sum()


def gradients(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], **settings: Any) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    found = torch.autograd.grad(function(*leaves), leaves, allow_unused=True, **settings)
    return [torch.zeros_like(x) if by is None else by for by, x in zip(found, leaves, strict=True)]


@pytest.mark.parametrize("name", LAYERS)
def test_func_grad(name: str) -> None:
    loss, inputs = loss_of(LAYERS[name]), images()
    found = grad(loss, argnums=(0, 1, 2))(*inputs)
    assert any(x.abs().max() > 0 for x in found)
    for one, expected in zip(found, gradients(loss, inputs), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in LAYERS if name != RANDOM])
@pytest.mark.parametrize("shared", [False, True])
def test_vmap(name: str, shared: bool) -> None:
    layer, entries = LAYERS[name], [images(n) for n in range(3)]
    query, key, value = map(torch.stack, zip(*entries, strict=True))
    if shared:
        key, value = key[0, :1], value[0, :1]
        found = vmap(layer, in_dims=(0, None, None))(query, key, value)
        expected = torch.stack([layer(one, key, value) for one, _, _ in entries])
    else:
        found = vmap(layer, in_dims=(1, 0, 2))(query.movedim(0, 1), key, value.movedim(0, 2))
        expected = torch.stack([layer(*entry) for entry in entries])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in LAYERS if name != RANDOM])
def test_gradients_of_each_sample(name: str) -> None:
    loss, entries = loss_of(LAYERS[name]), [images(n, batch=1) for n in range(3)]
    found = vmap(grad(loss, argnums=(0, 1, 2)))(*map(torch.stack, zip(*entries, strict=True)))
    for n, entry in enumerate(entries):
        for one, expected in zip(found, gradients(loss, entry), strict=True):
            torch.testing.assert_close(one[n], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_forward_mode(name: str) -> None:
    """It agrees with the gradient, and with finite differences."""
    layer, inputs = LAYERS[name], images()
    along, weight = images(5), normals(2, 4, *layer(*inputs).shape[2:], seed=9)
    output, found = jvp(layer, inputs, along)
    torch.testing.assert_close(output, layer(*inputs), rtol=1e-10, atol=1e-10)
    by = gradients(lambda *x: (layer(*x) * weight).sum(), inputs)
    expected = sum((one * direction).sum() for one, direction in zip(by, along, strict=True))
    torch.testing.assert_close((found * weight).sum(), expected, rtol=1e-9, atol=1e-9)
    with forward_ad.dual_level():
        dual = layer(*(forward_ad.make_dual(x, direction) for x, direction in zip(inputs, along, strict=True)))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, found, rtol=1e-10, atol=1e-10)
    if name not in HELD:
        ahead, back = (layer(*(x + step * d for x, d in zip(inputs, along, strict=True))) for step in (1e-6, -1e-6))
        torch.testing.assert_close(found, (ahead - back) / 2e-6, rtol=1e-5, atol=1e-6 * float(found.abs().max()))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_gradients(name: str) -> None:
    """A gradient penalty by autograd, by torch.func, forward over reverse, and by finite differences."""
    loss, inputs, along = loss_of(LAYERS[name]), images(), images(5)

    def slope(*x: Tensor) -> Tensor:
        return sum((one * d).sum() for one, d in zip(gradients_of(*x), along, strict=True))

    def gradients_of(*x: Tensor) -> tuple[Tensor, ...]:
        return grad(loss, argnums=(0, 1, 2))(*x)

    found = grad(slope, argnums=(0, 1, 2))(*inputs)
    leaves = [x.clone().requires_grad_() for x in inputs]
    first = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
    second = torch.autograd.grad(sum((one * d).sum() for one, d in zip(first, along, strict=True)), leaves)
    curvature = jvp(gradients_of, inputs, along)[1]
    for one, two, three in zip(found, second, curvature, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(two, three, rtol=1e-8, atol=1e-8)
    if name not in HELD:
        ahead, back = (
            gradients(loss, tuple(x + s * d for x, d in zip(inputs, along, strict=True))) for s in (1e-6, -1e-6)
        )
        for two, high, low in zip(second, ahead, back, strict=True):
            difference = (high - low) / 2e-6
            torch.testing.assert_close(two, difference, rtol=1e-4, atol=1e-6 * float(difference.abs().max()))


def test_parameters_of_a_network_sample_by_sample() -> None:
    layer = MultiheadPatchAttention2d(8, 2, k=2, patch_size=3).double()
    parameters = dict(layer.named_parameters())
    pictures = normals(3, 8, *SIZE)

    def loss(parameters: dict[str, Tensor], picture: Tensor) -> Tensor:
        output: Tensor = functional_call(layer, parameters, (picture[None],))
        return output.square().sum()

    found = vmap(grad(loss), in_dims=(None, 0))(parameters, pictures)
    for n, picture in enumerate(pictures):
        expected = torch.autograd.grad(layer(picture[None]).square().sum(), list(parameters.values()))
        for name, by in zip(parameters, expected, strict=True):
            torch.testing.assert_close(found[name][n], by, rtol=1e-9, atol=1e-9)


def test_a_gradient_penalty_trains_what_comes_before_the_layer(backend: str) -> None:
    query, key, value = images()
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def penalty(weight: Tensor) -> Tensor:
        x = value.clone().requires_grad_()
        output = patch_attention(query * weight, key, x * weight, k=2, patch_size=3, method="exact", backend=backend)
        (by,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
        return by.square().sum()

    (found,) = torch.autograd.grad(penalty(weight), weight)
    step = 1e-6
    expected = (penalty(weight.detach() + step) - penalty(weight.detach() - step)) / (2 * step)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_field_given_and_returned_under_vmap() -> None:
    query, key, value = (torch.stack(x) for x in zip(*(images(n) for n in range(3)), strict=True))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        field = match(q, k, k=2, patch_size=3)
        output, same = patch_attention(q, k, v, patch_size=3, field=field, return_field=True)
        return output, same.index

    output, index = vmap(attend)(query, key, value)
    for n in range(3):
        expected, field = attend(query[n], key[n], value[n])
        torch.testing.assert_close(output[n], expected)
        assert torch.equal(index[n], field)
