"""Full attention against its dense definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from patchattn.baselines import FullAttention, full_attention
from tests.cases import TOLERANCE, mask, normals

HEIGHT, WIDTH, RADIUS = 4, 5, 1


def patches(image: Tensor) -> Tensor:
    """Patches 3x3, reflected at the border, one a row: (B, H W, C 9)."""
    rows = [1, *range(HEIGHT), HEIGHT - 2]
    columns = [1, *range(WIDTH), WIDTH - 2]
    padded = image[:, :, rows][..., columns]
    cut = [padded[:, :, y : y + 3, x : x + 3].flatten(1) for y in range(HEIGHT) for x in range(WIDTH)]
    return torch.stack(cut, 1)


def dense(query: Tensor, key: Tensor, value: Tensor, similarity: str, temperature: float, keep: Tensor) -> Tensor:
    q, k = patches(query)[:, :, None], patches(key)[:, None]
    scores = {
        "l2": lambda: -((q - k) ** 2).sum(-1),
        "dot": lambda: (q * k).sum(-1),
        "scaled_dot": lambda: (q * k).sum(-1) / q.shape[-1] ** 0.5,
        "cosine": lambda: (q * k).sum(-1) / (q.norm(dim=-1) * k.norm(dim=-1)),
    }[similarity]()
    scores = scores.masked_fill(~keep, -torch.inf)
    weights = (scores / temperature).softmax(-1).nan_to_num()
    return torch.einsum("bij,bcj->bci", weights, value.flatten(2)).unflatten(2, (HEIGHT, WIDTH))


@pytest.mark.parametrize("similarity", ["l2", "dot", "scaled_dot", "cosine"])
def test_dense_definition(similarity: str) -> None:
    query, key, value = normals(2, 3, HEIGHT, WIDTH), normals(2, 3, HEIGHT, WIDTH, seed=1), normals(2, 2, HEIGHT, WIDTH)
    everything = torch.ones(20, dtype=torch.bool)
    found = full_attention(query, key, value, patch_size=3, similarity=similarity, temperature=2.0)
    expected = dense(query, key, value, similarity, 2.0, everything)
    torch.testing.assert_close(found, expected, **TOLERANCE[torch.float64])
    layer = FullAttention(patch_size=3, similarity=similarity, temperature=2.0)
    assert torch.equal(layer(query, key, value), found)


def test_key_stride_and_masks() -> None:
    query, key, value = normals(2, 3, HEIGHT, WIDTH), normals(1, 3, HEIGHT, WIDTH, seed=1), normals(1, 2, HEIGHT, WIDTH)
    key_mask = mask(2, HEIGHT, WIDTH, share=0.6)
    keep = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    keep[::2, ::3] = True
    allowed = (keep & key_mask).flatten(1)[:, None] & torch.ones(20, 20, dtype=torch.bool).tril()
    settings = {"key_stride": (2, 3), "key_mask": key_mask, "is_causal": True}
    found = full_attention(query, key, value, patch_size=3, **settings)
    expected = dense(query, key.expand(2, -1, -1, -1), value.expand(2, -1, -1, -1), "l2", 1.0, allowed)
    torch.testing.assert_close(found, expected, **TOLERANCE[torch.float64])


def test_gradients() -> None:
    inputs = [normals(1, 2, 3, 4, seed=seed).requires_grad_() for seed in range(3)]
    for similarity in ("l2", "cosine"):
        assert torch.autograd.gradcheck(
            lambda q, k, v, similarity=similarity: full_attention(q, k, v, patch_size=3, similarity=similarity), inputs
        )


def test_what_is_masked_may_be_nan() -> None:
    query, key, value = (normals(1, 2, 6, 6, seed=seed) for seed in range(3))
    key_mask = torch.ones(1, 6, 6, dtype=torch.bool)
    key_mask[..., 3:] = False
    expected = full_attention(query, key, value, patch_size=1, key_mask=key_mask)
    key, value = (tensor.masked_fill(~key_mask, torch.nan) for tensor in (key, value))
    assert torch.equal(full_attention(query, key, value, patch_size=1, key_mask=key_mask), expected)


def test_similarities_without_products_are_refused() -> None:
    image = normals(1, 2, 4, 4)
    with pytest.raises(ValueError, match="similarity: got 'l1'; allowed are 'l2', 'dot'"):
        full_attention(image, image, image, patch_size=3, similarity="l1")
    with pytest.raises(ValueError, match="value: expected the key's spatial size"):
        full_attention(image, image, normals(1, 2, 8, 8), patch_size=3)


@pytest.mark.parametrize("similarity", ["l2", "dot", "cosine"])
def test_tiles_and_groups_make_one_softmax(similarity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [normals(2, 3, 7, 6, seed=seed).requires_grad_() for seed in range(3)]
    settings = {"patch_size": 3, "similarity": similarity, "key_stride": (2, 1), "key_mask": mask(2, 7, 6, share=0.6)}

    def found() -> list[Tensor]:
        output = full_attention(*inputs, **settings)
        return [output, *torch.autograd.grad(output.square().sum(), inputs)]

    expected = found()
    monkeypatch.setattr("patchattn.baselines.full.QUERIES", 4)
    monkeypatch.setattr("patchattn.baselines.full.KEYS", 10)
    for ours, theirs in zip(found(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, **TOLERANCE[torch.float64])


def test_weights_too_small_to_count_are_nothing() -> None:
    # Denormal numbers would make every product with them a hundred times slower.
    key = torch.tensor([0.0, 9.4, 50.0]).view(1, 1, 3)
    value = torch.eye(3)[None]
    weights = full_attention(key[..., :1], key, value, patch_size=1)[0, :, 0]
    assert weights.tolist() == [1.0, 0.0, 0.0]
