"""Reformer: attention among the patches that fall into one bucket of a random hash, by the package reformer-pytorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional
from typing_extensions import Unpack

from patchattn.attention.images import Images
from patchattn.attention.layer import AttentionLayer
from patchattn.attention.whole import as_operator
from patchattn.baselines.packages import load_baseline_package
from patchattn.baselines.settings import BaselineOptions, BaselineSettings, images_of
from patchattn.checks import check_count, check_positive
from patchattn.settings import settings_from, shows

__all__ = ["ReformerAttention", "reformer_attention"]


@dataclass(kw_only=True, eq=False, repr=False)
class ReformerSettings(BaselineSettings):
    """Defaults of `reformer_attention`."""

    bucket_size: int = 64
    hashes: int = 8
    temperature: float = 1.0
    seed: int = 0


class ReformerOptions(BaselineOptions, total=False):
    """The types of `ReformerSettings`."""

    bucket_size: int
    hashes: int
    temperature: float
    seed: int


@shows(ReformerSettings)
def reformer_attention(
    query: Float[Tensor, "batch channels *query"],
    key: Float[Tensor, "key_batch channels *key"],
    value: Float[Tensor, "value_batch value_channels *key"],
    *,
    query_mask: Bool[Tensor, "mask_batch *query"] | None = None,
    key_mask: Bool[Tensor, "mask_batch2 *key"] | None = None,
    **options: Unpack[ReformerOptions],
) -> Tensor:
    r"""Attend from every query patch to the key patches near it in an order by random hashes (Kitaev et al. 2020).

    $$O_i = \frac{\sum_r \sum_{j \in C_r(i)} \exp(S_{ij})\, V_j}{\sum_r \sum_{j \in C_r(i)} \exp(S_{ij})}, \qquad
    S_{ij} = \frac{Q_i \cdot K_j}{\tau \lVert K_j \rVert \sqrt d}$$

    with d the numbers of a patch and C_r(i) the keys that the r-th of the `hashes` rounds puts into the chunk of query
    i or the one before. The paper's attention is of a sequence to itself, with queries for keys. Between two images, as
    PSAL compares it, queries and keys are hashed as one sequence, and what a query gives to other queries is left out
    of its mean; a chunk may hold none of the other kind, which is what PSAL observes of it. The attention is that of
    the package reformer-pytorch, on unfolded patches. There is no other similarity.

    Args:
        bucket_size: of a chunk, on average of a bucket; the paper's 64.
        hashes: rounds; the paper's 8.
        seed: of the random rotations; they are the same in every call.
        query, key, value, patch_size, temperature, num_heads, query_mask, key_mask, padding_mode: see
            `patch_attention`; value has the key's size.

    Returns:
        `(B, Cv, *query)` in the dtype of value; 0 where a query meets no key.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.
        RuntimeError: the package reformer-pytorch does not load; it comes with `pip install "patchattn[baselines]"`.

    Example:
        >>> import torch
        >>> from patchattn.baselines import reformer_attention
        >>> features = torch.rand(1, 4, 16, 16)
        >>> reformer_attention(features, features, features, patch_size=3).shape
        torch.Size([1, 4, 16, 16])
    """
    settings = settings_from(ReformerSettings, options, "reformer_attention")
    bucket_size = check_count("bucket_size", settings.bucket_size, 1)
    hashes = check_count("hashes", settings.hashes, 1)
    images = images_of(query, key, value, settings, query_mask, key_mask)
    temperature, seed = check_positive("temperature", settings.temperature), check_count("seed", settings.seed, 0)
    return _attend(images, temperature, bucket_size, hashes, seed)


@as_operator("reformer_attention")
def _attend(images: Images, temperature: float, bucket_size: int, hashes: int, seed: int) -> Tensor:
    package = load_baseline_package("reformer_pytorch.reformer_pytorch", "reformer-pytorch")
    q, k, v = images.unfolded()
    batch, heads, queries, elements = q.shape
    if v.shape[-1] >= elements:
        # The package keeps values as long as keys; zeros change no product (the scale is put right below).
        q, k = (functional.pad(x, (0, v.shape[-1] + 1 - elements)) for x in (q, k))
    width = q.shape[-1]
    q = q * (width / elements) ** 0.5 / temperature
    sequence = torch.cat([q, k.expand(batch, -1, -1, -1)], 2).flatten(0, 1)
    # A channel of ones for keys, and none for queries: what part of the weights went to keys.
    v = torch.cat([v, torch.ones_like(v[..., :1])], -1).expand(batch, -1, -1, -1)
    values = functional.pad(v, (0, width - v.shape[-1], queries, 0)).flatten(0, 1)
    known = torch.ones(sequence.shape[:2], dtype=torch.bool, device=q.device)
    if images.key_mask is not None:
        held = images.key_mask.flatten(1).expand(batch, -1).repeat_interleave(heads, 0)
        known[:, queries:] = held
        sequence, values = (x.masked_fill(~known[..., None], 0) for x in (sequence, values))
    missing = -sequence.shape[1] % (2 * bucket_size)
    sequence, values = (functional.pad(x, (0, 0, 0, missing)) for x in (sequence, values))
    known = functional.pad(known, (0, missing))
    attend = package.LSHAttention(bucket_size=bucket_size, n_hashes=hashes, causal=False).eval()
    devices = [q.device] if q.device.type != "cpu" else []
    with torch.random.fork_rng(devices=devices, device_type=q.device.type if devices else "cuda"):
        torch.manual_seed(seed)
        out = attend(sequence, values, input_mask=known)[0]
    out = out[:, :queries].unflatten(0, (batch, heads))
    share, out = out[..., v.shape[-1] - 1 : v.shape[-1]], out[..., : v.shape[-1] - 1]
    some = share > 0
    return images.finished((torch.where(some, out, 0) / torch.where(some, share, 1)).transpose(2, 3))


@dataclass(kw_only=True, eq=False, repr=False)
class ReformerAttention(ReformerSettings, AttentionLayer):
    """`reformer_attention` as a layer without parameters: `layer(query, key, value)`.

    Example:
        >>> import torch
        >>> from patchattn.baselines import ReformerAttention
        >>> features = torch.rand(1, 4, 16, 16)
        >>> ReformerAttention(patch_size=3)(features, features, features).shape
        torch.Size([1, 4, 16, 16])
    """

    function = staticmethod(reformer_attention)
    shown = ("bucket_size", "hashes", "patch_size", "temperature", "num_heads", "seed")
