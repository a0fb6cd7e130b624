"""Attention to given matches in one call comes to the same bits as the operators one after the other."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn import MatchField, PatchAttention, match, patch_attention
from tests.cases import mask, normals

steps = importlib.import_module("patchattn.ops.attend_similar")
pytestmark = pytest.mark.usefixtures("one_thread")

SIZES: dict[str, tuple[int, int, int, tuple[int, ...], tuple[int, ...]]] = {
    # Batch, channels, channels of the value, query, key.
    "pixels": (1, 3, 3, (8, 8), (8, 8)),
    "odd": (3, 6, 4, (9, 13), (11, 12)),
    "sequence": (2, 2, 40, (17,), (150,)),
    "volume": (1, 4, 2, (4, 5, 6), (6, 5, 5)),
    "channels": (1, 16, 16, (10, 11), (10, 11)),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call was taken in one step."""
    seen: list[bool] = []
    asked = steps._fused

    def fused(*arguments: Any) -> Any:
        found = asked(*arguments)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(steps, "_fused", fused)
    return seen


def images(name: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    batch, channels, values, query, key = SIZES[name]
    shapes = ((channels, *query), (channels, *key), (values, *key))
    return [normals(batch, *shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes)]


def results(inputs: list[Tensor], **settings: Any) -> list[Tensor]:
    """Output, similarities and gradients."""
    leaves = [image.clone().requires_grad_() for image in inputs]
    output, field = patch_attention(*leaves, return_field=True, **settings)
    gradients = torch.autograd.grad(output, leaves, output.detach().sin())
    return [output.detach(), field.similarity, *gradients]


def apart(run: Callable[[], list[Tensor]], calls: list[bool], monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The same by the operators one after the other, after a check that it was not so before."""
    assert calls
    assert all(calls)
    with monkeypatch.context() as patched:
        patched.setattr(steps, "_fused", lambda *arguments: None)
        return run()


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("patch_size", [1, 3])
@pytest.mark.parametrize("similarity", ["l2", "dot", "scaled_dot"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits(
    name: str, patch_size: int, similarity: Any, dtype: torch.dtype, calls: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = images(name, dtype)
    for more in ({"k": 3}, {"k": 6, "num_heads": 2, "padding_mode": "zeros", "temperature": 0.3}):
        if inputs[0].shape[1] % 2 and "num_heads" in more:
            continue
        run = lambda: results(inputs, patch_size=patch_size, similarity=similarity, **more)  # noqa: B023, E731
        for one, other in zip(run(), apart(run, calls, monkeypatch), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("content", [float("nan"), float("inf"), -1e30])
def test_what_is_masked_or_not_finite(content: float, calls: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = images("odd")
    for image in inputs:
        image[:, :, 2, 5:8] = content
    masks = {"query_mask": mask(3, 9, 13, share=0.7), "key_mask": mask(1, 11, 12, share=0.5, seed=1)}
    run = lambda: results(inputs, k=3, patch_size=3, **masks)  # noqa: E731
    for one, other in zip(run(), apart(run, calls, monkeypatch), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_many_items_and_threads() -> None:
    inputs = [normals(40, 3, 16, 16, seed=seed, dtype=torch.float32) for seed in range(3)]
    before, alone = torch.get_num_threads(), results(inputs, k=3, patch_size=3)
    torch.set_num_threads(3)
    together = results(inputs, k=3, patch_size=3)
    torch.set_num_threads(before)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)
    for one, item in zip(results([image[7:8] for image in inputs], k=3, patch_size=3), alone, strict=True):
        assert torch.equal(one, item[7:8])


@pytest.mark.parametrize("similarity", ["l2", "scaled_dot"])
def test_gradients(similarity: Any, calls: list[bool]) -> None:
    inputs = [normals(2, 2, 6, 7, seed=seed).requires_grad_() for seed in range(3)]
    field = match(inputs[0], inputs[1], k=1, patch_size=3, similarity=similarity)
    index = torch.cat([field.index, normals(2, 1, 1, 6, 7).argsort(3).int()], 2)  # far from each other too
    index[:, :, 1, :2] = -1
    held = MatchField(index, torch.zeros(index.shape, dtype=torch.float64), (6, 7))

    def attended(*images: Tensor) -> Tensor:
        return patch_attention(*images, patch_size=3, similarity=similarity, field=held)

    assert torch.autograd.gradcheck(attended, inputs)
    assert torch.autograd.gradgradcheck(attended, inputs, fast_mode=True)
    assert any(calls)


def test_one_tensor_for_all_and_gradients_of_some(calls: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    image = images("channels")[0]

    def some(*needed: bool) -> list[Tensor]:
        leaves = [image.clone().requires_grad_(need) for need in needed]
        patch_attention(*leaves, k=3, patch_size=3).square().sum().backward()
        return [leaf.grad for leaf in leaves if leaf.grad is not None]

    def twice() -> list[Tensor]:
        leaf = image.clone().requires_grad_()
        output = patch_attention(leaf, leaf, leaf, k=3, patch_size=3)
        first = torch.autograd.grad(output.square().sum(), leaf, create_graph=True)
        return [first[0].detach(), *torch.autograd.grad(first[0].square().sum(), leaf)]

    for needed in ((True, False, False), (False, True, True)):
        for one, other in zip(some(*needed), apart(lambda: some(*needed), calls, monkeypatch), strict=True):  # noqa: B023
            assert torch.equal(one, other)
    for one, other in zip(twice(), apart(twice, calls, monkeypatch), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "more",
    [
        {"aggregate": True},
        {"similarity": "cosine"},
        {"similarity": "l1"},
        {"padding_mode": "replicate"},
        {"k": 8},
        {"backend": "reference"},
    ],
)
def test_all_else_goes_by_the_operators(more: dict[str, Any], calls: list[bool]) -> None:
    results(images("pixels"), **{"k": 3, "patch_size": 3, **more})
    assert calls
    assert not any(calls)


def test_few_keys_go_by_the_operators(calls: list[bool]) -> None:
    results([normals(1, 3, 6, 6, seed=seed, dtype=torch.float32) for seed in range(3)], k=3)
    assert calls == [False]


def test_compiled_equals_eager(calls: list[bool]) -> None:
    layer = PatchAttention(k=3, patch_size=3)
    found = []
    for forward in (layer, torch.compile(layer, fullgraph=True)):
        leaves = [image.requires_grad_() for image in images("odd")]
        output = forward(*leaves)
        output.square().sum().backward()
        found.append([output, *(leaf.grad for leaf in leaves)])
    assert calls[0]
    for eager, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=0, atol=0)
