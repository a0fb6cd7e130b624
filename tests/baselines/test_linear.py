"""Linear attention against its dense definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from patchattn.baselines import LinearAttention, linear_attention
from tests.attention import dense
from tests.cases import TOLERANCE, mask, normals

SIZES = {"1d": ((23,), (17,)), "2d": ((6, 9), (8, 5)), "3d": ((3, 5, 4), (3, 4, 6))}
CLOSE = TOLERANCE[torch.float64]


def expected(
    query: Tensor, key: Tensor, value: Tensor, patch: tuple[int, ...], heads: int, padding: str, allowed: Tensor
) -> Tensor:
    q, k = (functional.elu(dense.patches(x, patch, padding, heads)) + 1 for x in (query, key))
    return dense.weighted(q @ k.transpose(2, 3) * allowed, value, tuple(query.shape[2:]))


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zeros"])
@pytest.mark.parametrize("name", SIZES)
def test_definition(name: str, padding: str) -> None:
    query_size, key_size = SIZES[name]
    patch = (3, 3, 1)[: len(query_size)]
    query, key, value = normals(2, 4, *query_size), normals(1, 4, *key_size, seed=1), normals(2, 6, *key_size, seed=2)
    found = linear_attention(query, key, value, patch_size=patch, num_heads=2, padding_mode=padding)
    everything = torch.ones((), dtype=torch.bool)
    torch.testing.assert_close(found, expected(query, key, value, patch, 2, padding, everything), **CLOSE)
    layer = LinearAttention(patch_size=patch, num_heads=2, padding_mode=padding)
    assert torch.equal(layer(query, key, value), found)


def test_masks() -> None:
    query, key, value = normals(2, 3, 6, 9), normals(1, 3, 8, 5, seed=1), normals(1, 2, 8, 5, seed=2)
    key_mask, query_mask = mask(2, 8, 5, share=0.4), mask(1, 6, 9, share=0.7)
    key_mask[1] = False
    value = value.masked_fill(~key_mask.any(0), torch.nan)
    found = linear_attention(query, key, value, patch_size=3, query_mask=query_mask, key_mask=key_mask)
    allowed = key_mask.flatten(1)[:, None, None]
    want = expected(query, key.expand(2, -1, -1, -1), value.nan_to_num(), (3, 3), 1, "reflect", allowed)
    torch.testing.assert_close(found, want.masked_fill(~query_mask[:, None], 0), **CLOSE)
    assert (found[1] == 0).all()


def test_valid_patches() -> None:
    query, key, value = normals(1, 3, 6, 9), normals(1, 3, 8, 5, seed=1), normals(1, 2, 8, 5, seed=2)
    found = linear_attention(query, key, value, patch_size=3, padding_mode="valid")
    inside = torch.zeros(8, 5, dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    want = expected(query, key, value, (3, 3), 1, "zeros", inside.flatten())
    torch.testing.assert_close(found[..., 1:-1, 1:-1], want[..., 1:-1, 1:-1], **CLOSE)
    assert (found[..., 0, :] == 0).all()


def test_gradients() -> None:
    images = [normals(1, 2, 3, 4, seed=n).requires_grad_() for n in range(3)]
    key_mask = mask(1, 3, 4, share=0.5)
    assert torch.autograd.gradcheck(lambda q, k, v: linear_attention(q, k, v, patch_size=3, key_mask=key_mask), images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_and_strides(dtype: torch.dtype) -> None:
    images = [normals(1, 4, 11, 9, seed=n).to(dtype).to(memory_format=torch.channels_last) for n in range(3)]
    found = linear_attention(*images, patch_size=3)
    assert found.dtype == dtype
    close = TOLERANCE[dtype]
    torch.testing.assert_close(found.double(), linear_attention(*(x.double() for x in images), patch_size=3), **close)


def test_errors() -> None:
    image = normals(1, 3, 6, 6)
    with pytest.raises(ValueError, match=r"num_heads: got 2, which does not divide the 3 channels of query"):
        linear_attention(image, image, image, patch_size=3, num_heads=2)
    with pytest.raises(ValueError, match=r"patch_size: expected odd numbers"):
        linear_attention(image, image, image, patch_size=2)
    with pytest.raises(ValueError, match=r"value: expected the key's spatial size \(6, 6\), got \(3, 3\)"):
        linear_attention(image, image, image[..., ::2, ::2], patch_size=3)
