"""Attention to given matches, weighted by their similarity: the operators `similarity_at` and `attend` as one step."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from patchattn.kernels import load_backend
from patchattn.ops.attend import attend
from patchattn.ops.similarity_at import similarity_at
from patchattn.ops.transforms import any_requires_grad, is_plain
from patchattn.problem import PatchGeometry

__all__ = ["attend_similar"]


def attend_similar(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    index: Tensor,
    geometry: PatchGeometry,
    window: tuple[int, ...],
    temperature: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Return the output `(B, Cv, *query)`, which can be differentiated in every mode, and the similarities at `index`.

    Backends may have a function for both operators at once, for small images, where most of the time goes by between
    calls. It comes to the same bits, so that it is taken wherever nobody looks at the operators (`is_plain`).
    """
    fused = _fused(query, key, value, index, geometry, window, backend)
    if fused is None:
        found = similarity_at(query, key, index, geometry, backend)
        return attend(found, index, value, window, temperature, backend), found.detach()
    if any_requires_grad(query, key, value):
        output, found = _AttendSimilar.apply(  # type: ignore[no-untyped-call]
            query, key, value, index, geometry, window, temperature, backend, fused
        )
    else:
        output, found, _ = fused.attend_similar(query, key, value, index, geometry, temperature)
    return output, found


def _fused(
    query: Tensor, key: Tensor, value: Tensor, index: Tensor, geometry: PatchGeometry, window: tuple[int, ...],
    backend: str,
) -> ModuleType | None:  # fmt: skip
    """The backend, if it has a function for both."""
    if max(window) > 1 or not is_plain(query, key, value, index) or 0 in index.shape:
        return None
    kernels = load_backend(backend)
    takes = getattr(kernels, "takes_similar", None)
    return kernels if takes is not None and takes(query, key, value, index, geometry) else None


class _AttendSimilar(Function):
    """Both operators with their first derivatives."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, index: Tensor, *settings: Any
    ) -> tuple[Tensor, Tensor]:
        geometry, _, temperature, _, fused = ctx.settings = settings
        output, found, ctx.normalizer = fused.attend_similar(query, key, value, index, geometry, temperature)
        ctx.save_for_backward(query, key, value, index, found, output)
        ctx.mark_non_differentiable(found)
        return output, found

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, grad_found: None) -> tuple[Tensor | None, ...]:
        geometry, window, temperature, backend, fused = ctx.settings
        query, key, value, index, *saved = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            # To be differentiated once more, which the operators can be. Views, for one tensor may be given twice.
            q, k, v = (image.view_as(image) for image in (query, key, value))
            found = similarity_at(q, k, index, geometry, backend)
            output = attend(found, index, v, window, temperature, backend)
            asked = [image for image, w in zip((q, k, v), wanted, strict=True) if w]
            rest = iter(torch.autograd.grad(output, asked, grad_output, create_graph=True))
            gradients = [next(rest) if w else None for w in wanted]
        else:
            gradients = fused.attend_similar_backward(
                grad_output, query, key, value, index, *saved, ctx.normalizer, geometry, temperature
            )
        return (*(gradient if w else None for gradient, w in zip(gradients, wanted, strict=True)), *(None,) * 6)
