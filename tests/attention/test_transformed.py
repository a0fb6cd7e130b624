"""Patch attention to rotated, scaled and mirrored matches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn import PatchAttention, attend, gather, match, patch_attention
from patchattn.attention import transformed
from tests.cases import TOLERANCE, normals, strided

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

SETTINGS: dict[str, Any] = {"k": 2, "patch_size": 3, "temperature": 0.7}
TRANSFORMS: dict[str, Any] = {"rotations": (0, 30, 180), "scales": (1, 1.3), "mirror": True, "method": "exact"}


def tensors(ratio: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    return normals(2, 2, 5, 6), normals(1, 2, 6, 5, seed=1), normals(2, 3, 6 * ratio, 5 * ratio, seed=2)


@pytest.mark.parametrize("aggregate", [False, True])
def test_what_was_turned_is_rebuilt_exactly(aggregate: bool) -> None:
    image = normals(1, 2, 9, 8)
    for key in (image.rot90(1, (2, 3)), image.flip(3), image.rot90(2, (2, 3)).flip(2)):
        output = patch_attention(
            image, key, key, k=1, patch_size=5, rotations=(0, 90, 180, 270), mirror=True, method="exact",
            aggregate=aggregate, temperature=1e-3,
        )  # fmt: skip
        torch.testing.assert_close(output, image)


@pytest.mark.parametrize("aggregate", [False, True])
def test_translations_alone_are_ordinary_attention(aggregate: bool, backend: str) -> None:
    query, key, value = tensors(2)
    settings = {**SETTINGS, "aggregate": aggregate, "method": "exact", "backend": backend}
    expected = patch_attention(query, key, value, **settings)
    output = patch_attention(query, key, value, rotations=(0,), **settings)
    torch.testing.assert_close(output, expected, **TOLERANCE[torch.float64])


@pytest.mark.parametrize("aggregate", [False, True])
def test_backends_agree(aggregate: bool, backend: str) -> None:
    query, key, value = tensors()
    # At the border, reflection makes patches that are equal but for rounding: one field for both.
    field = match(query, key, k=2, patch_size=3, backend="reference", **TRANSFORMS)
    settings = {**SETTINGS, "field": field, "aggregate": aggregate}
    found, expected = (patch_attention(query, key, value, backend=b, **settings) for b in (backend, "reference"))
    torch.testing.assert_close(found, expected, **TOLERANCE[torch.float64])


def test_votes_move_through_the_transform() -> None:
    """Equation (10), with every vote's position in the key by the match's own matrix; values are linear there."""
    query, key, _ = tensors()
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(5.0), indexing="ij")
    value = torch.stack([y, x])[None].double()
    settings = {**SETTINGS, "rotations": (0, 90), "scales": (1, 0.5), "method": "exact", "aggregate": True}
    output, field = patch_attention(query, key, value, return_field=True, **settings)
    at, matrix = field.transform.coordinates(), field.transform.matrix.double()
    for b, i_y, i_x in ((0, 2, 2), (1, 0, 3), (0, 4, 5)):
        votes: list[tuple[float, Tensor]] = []
        for n_y in range(max(i_y - 1, 0), min(i_y + 2, 5)):
            for n_x in range(max(i_x - 1, 0), min(i_x + 2, 6)):
                step = torch.tensor([i_y - n_y, i_x - n_x]).double()
                for m in range(2):
                    match_at = (b, 0, m, slice(None), n_y, n_x)
                    place = at[match_at] + matrix[(b, 0, m, slice(None), slice(None), n_y, n_x)] @ step
                    if (place >= -0.5).all() and (place <= torch.tensor([5.5, 4.5])).all():
                        inner = torch.minimum(place.clamp(min=0), torch.tensor([5.0, 4.0]))
                        votes.append((float(field.similarity[b, 0, m, n_y, n_x]) / 0.7, inner))
        weights = torch.tensor([vote[0] for vote in votes]).double().softmax(0)
        expected = sum(weight * vote[1] for weight, vote in zip(weights, votes, strict=True))
        # Interpolation at the border repeats the last pixel.
        torch.testing.assert_close(output[b, :, i_y, i_x], expected, rtol=0, atol=0.1)


@pytest.mark.parametrize("aggregate", [False, True])
def test_gradients(aggregate: bool, backend: str) -> None:
    query, key, value = (x[:1] for x in tensors(2))
    if backend == "gpu":
        query = query[..., :3, :3]
    field = match(query, key, backend=backend, k=2, patch_size=3, rotations=(0, 30), scales=(1.2,), method="exact")
    inputs = tuple(x.requires_grad_() for x in (query, key, value))

    def output(*inputs: Tensor) -> Tensor:
        return patch_attention(*inputs, field=field, aggregate=aggregate, backend=backend, **SETTINGS)

    assert torch.autograd.gradcheck(output, inputs, fast_mode=True)


def test_gradients_of_gradients() -> None:
    query, key, value = (x[:1, :1, :3, :4].detach() for x in tensors())
    field = match(query, key, k=2, patch_size=3, rotations=(0, 30), method="exact")

    def output(*inputs: Tensor) -> Tensor:
        return patch_attention(*inputs, field=field, aggregate=True, **SETTINGS)

    inputs = tuple(x.requires_grad_() for x in (query, key, value))
    assert torch.autograd.gradgradcheck(output, inputs, fast_mode=True)


def test_votes_one_by_one_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = tensors()
    settings = {**SETTINGS, **TRANSFORMS, "aggregate": True, "num_heads": 1}
    together = patch_attention(query, key, value, **settings)
    monkeypatch.setattr(transformed, "LEAST_WEIGHT", 2.0)
    torch.testing.assert_close(patch_attention(query, key, value, **settings), together, **TOLERANCE[torch.float64])


def test_votes_that_stay_count_however_much_better_those_are_that_leave() -> None:
    query, key, value = (x.float() for x in tensors())
    settings = {**SETTINGS, "temperature": 1e-4, "aggregate": True, "method": "exact"}
    expected = patch_attention(query, key, value, **settings)
    torch.testing.assert_close(patch_attention(query, key, value, scales=(1,), **settings), expected)
    assert (expected != 0).all()


def test_non_contiguous_input_masks_and_the_layer() -> None:
    query, key, value = tensors()
    masks = {"query_mask": torch.rand(1, 5, 6) < 0.7, "key_mask": torch.rand(1, 6, 5) < 0.7}
    settings = {**SETTINGS, **TRANSFORMS, "aggregate": True}
    expected = patch_attention(query, key, value, **masks, **settings)
    layer = PatchAttention(**settings)
    torch.testing.assert_close(layer(*map(strided, (query, key, value)), **masks), expected)


def test_weights_of_ones_own() -> None:
    query, key, value = tensors()
    settings = {**SETTINGS, **TRANSFORMS}
    for aggregate in (False, True):
        expected, field = patch_attention(query, key, value, aggregate=aggregate, return_field=True, **settings)
        weights = ((field.similarity - field.similarity.amax()) / 0.7).exp()
        own = attend(field, weights, value, normalize=True, aggregate=aggregate, patch_size=3)
        torch.testing.assert_close(own, expected)
    assert gather(field, value).shape == (2, 1, 2, 3, 5, 6)


def test_a_field_for_smaller_patches_is_refused() -> None:
    query, key, value = tensors()
    field = match(query, key, patch_size=3, mirror=True)
    with pytest.raises(ValueError, match=r"^field: its transformed matches were found with patch_size \(3, 3\)"):
        patch_attention(query, key, value, field=field, patch_size=5)
    place = torch.full_like(field.transform.place, 10**6)
    wrong = replace(field, transform=replace(field.transform, place=place))
    with pytest.raises(ValueError, match=r"^field: its transform's place holds 1000000"):
        patch_attention(query, key, value, field=wrong, patch_size=3)


def test_compiled() -> None:
    query, key, value = tensors()
    layer = PatchAttention(**SETTINGS, rotations=(30,), method="exact")
    torch.compiler.reset()
    found = torch.compile(layer, fullgraph=True, backend="aot_eager")(query, key, value)
    torch.testing.assert_close(found, layer(query, key, value), **TOLERANCE[torch.float64])
