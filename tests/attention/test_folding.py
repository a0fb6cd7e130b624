"""Patches of any stride, size and dilation: `unfold` and `fold` are those of PyTorch, around a search."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from patchattn import MatchField, fold, match, unfold
from tests.cases import gradcheck, normals

pytestmark = pytest.mark.usefixtures("one_thread")


def lists(field_shape: tuple[int, ...], keys: int, seed: int = 0) -> Tensor:
    """Random matches, some of them none."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, keys, field_shape, generator=generator, dtype=torch.int32)


def dense_fold(index: Tensor, weights: Tensor, value: Tensor, size: tuple[int, ...], **of: Any) -> Tensor:
    """By the definition, for two dimensions: `torch.nn.functional.fold` of the matches' patches."""
    key_stride = of.pop("key_stride")
    stride = of.pop("stride")
    batch, heads, k = index.shape[:3]
    patches = functional.unfold(value.expand(batch, *value.shape[1:]), stride=key_stride, **of)
    patches = patches.unflatten(1, (heads, -1))
    flat = index.flatten(3).long()
    there = flat >= 0
    counted = torch.where(there, weights.expand(index.shape).flatten(3), 0)
    chosen = patches.unsqueeze(2).expand(-1, -1, k, -1, -1)
    chosen = chosen.gather(4, flat.clamp(min=0).unsqueeze(3).expand(-1, -1, -1, patches.shape[2], -1))
    summed, total = (
        (chosen * counted.unsqueeze(3)).sum(2),
        counted.sum(2, keepdim=True).expand(-1, -1, patches.shape[2], -1),
    )
    summed, total = (functional.fold(x.flatten(1, 2), size, stride=stride, **of) for x in (summed, total))
    return torch.where(total != 0, summed / torch.where(total != 0, total, 1), 0)


@st.composite
def lattices(draw: st.DrawFn) -> dict[str, Any]:
    pair = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(2))  # noqa: E731
    patch, dilation = pair(1, 4), pair(1, 3)
    spans = [d * (p - 1) + 1 for p, d in zip(patch, dilation, strict=True)]
    return {
        "kernel_size": patch, "dilation": dilation, "stride": pair(1, 5), "key_stride": pair(1, 3),
        "size": tuple(n + span for n, span in zip(pair(0, 8), spans, strict=True)),
        "key_size": tuple(n + span for n, span in zip(pair(0, 6), spans, strict=True)),
        "k": draw(st.integers(1, 3)), "heads": draw(st.integers(1, 2)), "more": draw(st.integers(0, 2)),
    }  # fmt: skip


@settings(max_examples=40)
@given(case=lattices())
def test_are_those_of_pytorch(case: dict[str, Any]) -> None:
    patch, dilation, stride, key_stride = (case[n] for n in ("kernel_size", "dilation", "stride", "key_stride"))
    query, value = normals(2, 2, *case["size"]), normals(1, 4, *case["key_size"], seed=1)
    cut = unfold(query, patch, stride=stride, dilation=dilation)
    assert torch.equal(cut.flatten(2), functional.unfold(query, patch, stride=stride, dilation=dilation))
    keys = tuple(unfold(value, patch, stride=key_stride, dilation=dilation).shape[2:])
    index = lists((2, case["heads"], case["k"], *cut.shape[2:]), keys[0] * keys[1])
    field = MatchField(index, index.float(), keys)
    weights = normals(2, 1, case["k"], *cut.shape[2:], seed=2).abs() + 0.1
    size = tuple(n + case["more"] for n in case["size"])
    found = fold(
        field, value, patch, stride=stride, key_stride=key_stride, dilation=dilation, weights=weights, output_size=size
    )
    of = {"kernel_size": patch, "dilation": dilation, "stride": stride, "key_stride": key_stride}
    if case["more"]:  # PyTorch's wants as many blocks as there are
        of_whole = dense_fold(index, weights, value, case["size"], **of)
        expected = functional.pad(of_whole, (0, case["more"]) * 2)
    else:
        expected = dense_fold(index, weights, value, size, **of)
    torch.testing.assert_close(found, expected)


def test_matches_of_patches_at_every_position_are_those_of_match(backend: str) -> None:
    query, key = normals(1, 2, 8, 7), normals(1, 2, 7, 8, seed=1)
    more: dict[str, Any] = {"k": 2, "method": "exact", "backend": backend}
    whole = match(query, key, patch_size=3, padding_mode="valid", **more)
    cut = match(unfold(query, 3), unfold(key, 3), **more)
    assert torch.equal(cut.coordinates() + 1, whole.coordinates()[..., 1:-1, 1:-1])


@pytest.mark.parametrize("size", [(9,), (5, 6), (4, 5, 4)])
def test_folding_patches_to_themselves_is_the_image(backend: str, size: tuple[int, ...]) -> None:
    image = normals(2, 2, *size).float()
    cut = unfold(image, 2, stride=1, dilation=2)
    field = match(cut, cut, method="exact", backend=backend)
    found = fold(field, image, 2, dilation=2, backend=backend)
    torch.testing.assert_close(found, image.where(fold(field, torch.ones_like(image), 2, dilation=2) > 0, 0))


def test_gradients(backend: str) -> None:
    value = normals(1, 2, 5, 6).transpose(2, 3).requires_grad_()  # not contiguous
    index = lists((2, 2, 2, 2, 2), 3 * 2)
    index[0, 0, :, 0, 0] = -1
    weights = (normals(2, 2, 2, 2, 2, seed=1).abs() + 0.2).requires_grad_()
    field = MatchField(index, index.float(), (3, 2))

    def folded(weights: Tensor, value: Tensor) -> Tensor:
        return fold(field, value, (2, 3), stride=2, weights=weights, backend=backend)

    assert gradcheck(backend, folded, (weights, value))
    if backend == "cpu":
        assert torch.autograd.gradgradcheck(folded, (weights, value))


def test_gradients_of_patches() -> None:
    assert torch.autograd.gradcheck(
        lambda x: unfold(x, (2, 3), stride=2, dilation=(1, 2)), normals(1, 2, 5, 7).requires_grad_()
    )


def test_half_precision_is_rounded_once() -> None:
    value = normals(1, 2, 8, 8).bfloat16()
    field = MatchField(lists((1, 1, 2, 3, 3), 9), torch.zeros(1, 1, 2, 3, 3), (3, 3))
    found = fold(field, value, 4, stride=2)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, fold(field, value.float(), 4, stride=2).bfloat16())


def test_nothing() -> None:
    field = MatchField(torch.full((1, 1, 1, 2, 2), -1, dtype=torch.int32), torch.zeros(1, 1, 1, 2, 2), (2, 2))
    value = normals(1, 2, 4, 4).requires_grad_()
    assert (fold(field, value, 2, stride=2) == 0).all()
    none = MatchField(field.index[:, :, :0], field.similarity[:, :, :0], (2, 2))
    found = fold(none, value, 2, stride=2)
    assert found.shape == (1, 2, 4, 4)
    found.sum().backward()
    assert value.grad is not None
    assert (value.grad == 0).all()
    assert unfold(value[:0], 2, stride=2).shape == (0, 8, 2, 2)


def test_compiles() -> None:
    image = normals(1, 2, 8, 8).float()

    def denoise(image: Tensor) -> Tensor:
        cut = unfold(image, 4, stride=2)
        field = match(cut, cut, k=2, method="exact")
        return fold(field, image, 4, stride=2, weights=field.similarity.softmax(2))

    compiled = torch.compile(denoise, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), denoise(image))


def test_errors() -> None:
    image = normals(1, 2, 8, 8)
    cut = unfold(image, 4, stride=2)
    field = match(cut, cut, method="exact")
    with pytest.raises(
        ValueError, match=r"patch_size: got \(5, 5\), with dilation \(2, 2\), which spans \(9, 9\) pixels"
    ):
        unfold(image, 5, dilation=2)
    with pytest.raises(ValueError, match="stride: expected an integer of at least 1"):
        unfold(image, 4, stride=0)
    with pytest.raises(ValueError, match=r"value: of size \(8, 8\) it has \(5, 5\) patches of size \(4, 4\) at stride"):
        fold(field, image, 4)
    with pytest.raises(ValueError, match=r"output_size: expected at least the \(8, 8\) that the patches cover"):
        fold(field, image, 4, stride=2, output_size=7)
    with pytest.raises(ValueError, match="weights: expected a shape that can be broadcast"):
        fold(field, image, 4, stride=2, weights=torch.ones(1, 1, 2, 3, 3))
    with pytest.raises(ValueError, match="field: expected a MatchField"):
        fold(field.index, image, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="value: expected batch size 1 as field has"):
        fold(field, normals(2, 2, 8, 8), 4, stride=2)
