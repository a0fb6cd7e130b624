"""Attention to matches inside networks of other libraries: what they compute stays, with k = all keys."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from patchattn.plugs import TokenAttention, mass_of_best, replace_sdpa, swap_modules
from patchattn.plugs.diffusers import swap as swap_diffusers
from patchattn.plugs.timm import swap as swap_timm
from patchattn.plugs.transformers import register

pytestmark = pytest.mark.needs("cpu")


@pytest.fixture(autouse=True)
def seed_() -> None:
    torch.manual_seed(0)


def tokens(n: int = 64, heads: int = 4, kv_heads: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (torch.randn(2, kv_heads or heads, n, 8) for _ in range(3))
    return torch.randn(2, heads, n, 8) if kv_heads else query, key, value


@pytest.mark.parametrize(
    ("n", "settings", "kv_heads", "is_causal"),
    [
        (64, {}, None, False),
        (60, {}, None, False),
        (60, {"size": (6, 10)}, 2, False),
        (65, {"prefix": 1}, None, False),
        (53, {"prefix": 5, "size": (4, 12)}, 1, False),
        (40, {}, None, True),
    ],
)
def test_all_keys_give_dense_attention(n: int, settings: dict[str, Any], kv_heads: int | None, is_causal: bool) -> None:
    query, key, value = tokens(n, kv_heads=kv_heads)
    leaves = [x.requires_grad_() for x in (query, key, value)]
    expected = functional.scaled_dot_product_attention(
        query, key, value, is_causal=is_causal, scale=0.7, enable_gqa=kv_heads is not None
    )
    gradients = torch.autograd.grad(expected.square().sum(), leaves)
    found = TokenAttention(k=n, min_tokens=1, **settings)(query, key, value, is_causal=is_causal, scale=0.7)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(torch.autograd.grad(found.square().sum(), leaves), gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_few_keys_are_those_of_largest_product() -> None:
    query, key, value = tokens()
    products = query @ key.transpose(2, 3) / 8**0.5
    best = products.topk(5, 3)
    weights = torch.full_like(products, -torch.inf).scatter(3, best.indices, best.values).softmax(3)
    found = TokenAttention(k=5, method="exact")(query, key, value)
    torch.testing.assert_close(found, weights @ value, rtol=1e-5, atol=1e-5)


def test_calls_that_are_left_alone() -> None:
    query, key, value = tokens()
    attend = functional.scaled_dot_product_attention
    with replace_sdpa(TokenAttention(k=3, min_tokens=64)) as attention:
        attend(query, key[:, :, :20], value[:, :, :20])
        attend(query[:, :, :20], key[:, :, :20], value[:, :, :20])
        masked = attend(query, key, value, attn_mask=torch.eye(64, dtype=torch.bool))
        attend(query[0], key[0], value[0])
        attend(query, key, value, dropout_p=0.5)
        attend(query, key, value)
    assert torch.equal(masked, value)
    assert attention.replaced == 1
    assert attention.left == {
        "cross-attention": 1,
        "fewer than 64 tokens": 1,
        "a mask": 1,
        "other dimensions than (batch, heads, tokens, channels)": 1,
        "dropout": 1,
    }


def test_nothing_is_replaced_after_the_block() -> None:
    query, key, value = tokens()
    with replace_sdpa(TokenAttention(k=1, min_tokens=1)) as attention:
        pass
    functional.scaled_dot_product_attention(query, key, value)
    assert attention.replaced == 0


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="k: expected an integer of at least 1"):
        TokenAttention(k=0)
    with pytest.raises(ValueError, match=r"size: \(4, 4\) makes 16 tokens, got 63 \(prefix=1 apart\)"):
        TokenAttention(size=(4, 4), prefix=1)(*tokens())
    with pytest.raises(ValueError, match="select: it chose none of the modules of Linear"):
        swap_modules(nn.Linear(2, 2), TokenAttention(), lambda name, module: False)
    with pytest.raises(ValueError, match="expected a diffusers model with attention processors, got Linear"):
        swap_diffusers(nn.Linear(2, 2))


def test_the_mass_of_the_best() -> None:
    query, key, _ = tokens()
    weights = (query @ key.transpose(2, 3) / 8**0.5).softmax(3)
    expected = weights.topk(7, 3).values.sum(3).mean((0, 2))
    torch.testing.assert_close(mass_of_best(query, key, 7), expected)
    torch.testing.assert_close(mass_of_best(query, key, 100), torch.ones(4))


class Attention(nn.Module):
    """As timm's, which `timm` needs torchvision for."""

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        self.qkv, self.fused_attn = nn.Linear(16, 48), fused

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        if self.fused_attn:
            output = functional.scaled_dot_product_attention(query, key, value)
        else:
            output = (query @ key.transpose(2, 3) * 8**-0.5).softmax(3) @ value
        return output.transpose(1, 2).flatten(2)


def test_a_swap_in_a_vision_transformer_and_back() -> None:
    model = nn.Sequential(Attention(), Attention())
    images = torch.randn(1, 65, 16)
    expected = model(images)
    swapped = swap_timm(model, TokenAttention(k=64, min_tokens=16, prefix=1))
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(copy.deepcopy(model)(images), expected, rtol=1e-5, atol=1e-5)
    assert repr(swapped) == "Swap(2 layers, replaced=4, left={})"  # a copy counts in the same place
    assert list(model.state_dict()) == list(nn.Sequential(Attention(), Attention()).state_dict())
    swapped.attention.k = 1
    assert not torch.allclose(model(images), expected, atol=1e-3)
    swapped.undo()
    assert torch.equal(model(images), expected)
    assert not model[0].fused_attn


def test_timm() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, embed_dim=32, depth=2, num_heads=2).eval()
    images = torch.randn(1, 3, 64, 64)
    expected = model(images)
    swapped = swap_timm(model)
    swapped.attention.k = swapped.attention.min_tokens = 16
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    assert (swapped.attention.replaced, swapped.attention.prefix) == (2, 1)


@pytest.fixture
def registered() -> TokenAttention:
    pytest.importorskip("transformers")
    return register(TokenAttention(k=1000, min_tokens=10))


def test_transformers_vision(registered: TokenAttention) -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    model = ViTModel(config).eval()
    images = torch.randn(2, 3, 32, 32)
    expected = model(images).last_hidden_state
    registered.prefix = 1
    model.set_attn_implementation("patchattn")
    torch.testing.assert_close(model(images).last_hidden_state, expected, rtol=1e-5, atol=1e-5)
    assert registered.replaced == 2


def test_transformers_causal_language_model_with_grouped_heads(registered: TokenAttention) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    words = torch.randint(0, 50, (2, 24))
    expected = model(words).logits
    model.set_attn_implementation("patchattn")
    torch.testing.assert_close(model(words).logits, expected, rtol=1e-5, atol=1e-5)
    assert registered.replaced == 2
    padded = torch.ones_like(words)
    padded[0, :5] = 0
    model(words, attention_mask=padded)
    assert registered.left == {"a mask": 2}
    model(words, labels=words).loss.backward()
    assert model.model.layers[0].self_attn.q_proj.weight.grad.abs().max() > 0


def test_diffusers_unet_with_text() -> None:
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    ).eval()  # fmt: skip
    arguments = torch.randn(1, 4, 16, 16), 5, torch.randn(1, 7, 8)
    expected = model(*arguments).sample
    swapped = swap_diffusers(model, TokenAttention(k=256, min_tokens=256))
    torch.testing.assert_close(model(*arguments).sample, expected, rtol=1e-5, atol=1e-5)
    assert swapped.attention.replaced == 3
    assert set(swapped.attention.left) == {"cross-attention", "fewer than 256 tokens"}
    swapped.attention.k = 2
    model(*arguments).sample.square().sum().backward()
    assert not torch.allclose(model(*arguments).sample, expected, atol=1e-4)
    swapped.undo()
    assert torch.equal(model(*arguments).sample, expected)


def test_diffusers_transformer() -> None:
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, num_layers=2, norm_num_groups=4,
        sample_size=16, patch_size=2, num_embeds_ada_norm=10,
    ).eval()  # fmt: skip
    arguments = {
        "hidden_states": torch.randn(1, 4, 16, 16), "timestep": torch.tensor([3]), "class_labels": torch.tensor([1])
    }  # fmt: skip
    expected = model(**arguments).sample
    swapped = swap_diffusers(model, TokenAttention(k=64, min_tokens=64))
    torch.testing.assert_close(model(**arguments).sample, expected, rtol=1e-5, atol=1e-5)
    assert (len(swapped.names), swapped.attention.replaced) == (2, 2)
