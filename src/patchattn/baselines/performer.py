"""Performer: the softmax as a product of random features, by the package performer-pytorch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from typing_extensions import Unpack

from patchattn.attention.images import Images
from patchattn.attention.layer import AttentionLayer
from patchattn.attention.whole import as_operator
from patchattn.baselines.packages import load_baseline_package
from patchattn.baselines.settings import BaselineOptions, BaselineSettings, images_of
from patchattn.checks import check_count, check_positive
from patchattn.settings import settings_from, shows

__all__ = ["PerformerAttention", "performer_attention"]


@dataclass(kw_only=True, eq=False, repr=False)
class PerformerSettings(BaselineSettings):
    """Defaults of `performer_attention`."""

    features: int | None = None
    temperature: float = 1.0
    seed: int = 0


class PerformerOptions(BaselineOptions, total=False):
    """The types of `PerformerSettings`."""

    features: int | None
    temperature: float
    seed: int


@shows(PerformerSettings)
def performer_attention(
    query: Float[Tensor, "batch channels *query"],
    key: Float[Tensor, "key_batch channels *key"],
    value: Float[Tensor, "value_batch value_channels *key"],
    *,
    query_mask: Bool[Tensor, "mask_batch *query"] | None = None,
    key_mask: Bool[Tensor, "mask_batch2 *key"] | None = None,
    **options: Unpack[PerformerOptions],
) -> Tensor:
    r"""Attend from every query patch to every key patch by random features (Choromanski et al. 2020).

    $$O_i = \frac{\phi(Q_i) \cdot \sum_j \phi(K_j) \otimes V_j}{\phi(Q_i) \cdot \sum_j \phi(K_j)}, \qquad
    \operatorname{E}[\phi(q) \cdot \phi(k)] \propto \exp(q \cdot k / (\tau \sqrt{d}))$$

    with d the numbers of a patch and phi the m positive orthogonal random features of FAVOR+ (the paper's M and PSAL's
    Table 1 are our `features`). The features are those of the package performer-pytorch, on unfolded patches: memory
    and time grow with n m. The similarity is that of `"scaled_dot"`; there is no other.

    Args:
        features: m; None: d log d, as PSAL has it.
        seed: of the random directions; they are the same in every call.
        query, key, value, patch_size, temperature, num_heads, query_mask, key_mask, padding_mode: see
            `patch_attention`; value has the key's size.

    Returns:
        `(B, Cv, *query)` in the dtype of value; 0 where a query has no key.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.
        RuntimeError: the package performer-pytorch does not load; it comes with `pip install "patchattn[baselines]"`.

    Example:
        >>> import torch
        >>> from patchattn.baselines import performer_attention
        >>> features = torch.rand(1, 4, 16, 16)
        >>> performer_attention(features, features, features, patch_size=3).shape
        torch.Size([1, 4, 16, 16])
    """
    settings = settings_from(PerformerSettings, options, "performer_attention")
    images = images_of(query, key, value, settings, query_mask, key_mask)
    features = None if settings.features is None else check_count("features", settings.features, 1)
    temperature, seed = check_positive("temperature", settings.temperature), check_count("seed", settings.seed, 0)
    return _attend(images, temperature, features, seed)


@as_operator("performer_attention")
def _attend(images: Images, temperature: float, features: int | None, seed: int) -> Tensor:
    package = load_baseline_package("performer_pytorch.performer_pytorch", "performer-pytorch")
    q, k, v = images.unfolded()
    elements = q.shape[-1]
    if features is None:
        features = max(1, ceil(elements * log(elements)))
    directions = _directions(package, features, elements, seed).to(q.device, q.dtype)
    # The package divides both by the fourth root of d; its similarity has no temperature.
    q, k = (
        package.softmax_kernel(x / temperature**0.5, projection_matrix=directions, is_query=is_query)
        for x, is_query in ((q, True), (k, False))
    )
    if images.key_mask is None:
        return images.finished(package.linear_attention(q, k, v).transpose(2, 3))
    held = images.key_mask.flatten(1)[:, None, :, None]
    none = ~held.any(2, keepdim=True)
    out = package.linear_attention(q, k.masked_fill(~held, 0).masked_fill(none, 1), v)
    return images.finished(out.masked_fill(none, 0).transpose(2, 3))


@lru_cache(maxsize=8)
def _directions(package: Any, features: int, elements: int, seed: int) -> Tensor:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # the package's numbers have no other, whatever the tensors have
    try:
        # Outside of transforms: vmap refuses random numbers, which are the same for all here.
        with temporarily_clear_interpreter_stack(), torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(seed)
            directions: Tensor = package.gaussian_orthogonal_random_matrix(features, elements)
    finally:
        torch.set_default_dtype(default)
    return directions


@dataclass(kw_only=True, eq=False, repr=False)
class PerformerAttention(PerformerSettings, AttentionLayer):
    """`performer_attention` as a layer without parameters: `layer(query, key, value)`.

    Example:
        >>> import torch
        >>> from patchattn.baselines import PerformerAttention
        >>> features = torch.rand(1, 4, 16, 16)
        >>> PerformerAttention(patch_size=3)(features, features, features).shape
        torch.Size([1, 4, 16, 16])
    """

    function = staticmethod(performer_attention)
    shown = ("features", "patch_size", "temperature", "num_heads", "seed")
