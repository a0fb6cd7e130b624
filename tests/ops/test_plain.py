"""Whether an operator may be called without PyTorch's dispatcher."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from patchattn import patch_attention
from patchattn.ops.transforms import is_plain


class Subclass(torch.Tensor):
    """A tensor that might do anything."""


def test_plain_tensors() -> None:
    x = torch.rand(3)
    assert is_plain(x, None, torch.nn.Parameter(x), x.clone().requires_grad_(), 7)
    with torch.inference_mode():
        assert is_plain(torch.rand(3), x)
    with torch.no_grad(), torch.autocast("cpu"):
        assert is_plain(x)


def test_others() -> None:
    x = torch.rand(3)
    assert not is_plain(x, x.as_subclass(Subclass))
    assert not is_plain(x.to("meta"))
    assert not is_plain(torch.rand(3, dtype=torch.complex64).conj())
    with FakeTensorMode():
        assert not is_plain(torch.rand(3))
    with FlopCounterMode(display=False):
        assert not is_plain(x)
    with forward_ad.dual_level():
        assert not is_plain(x)
    with torch.device("cpu"):
        assert not is_plain(x)
    seen: list[bool] = []
    torch.func.vmap(lambda row: (seen.append(is_plain(x)), row)[1])(x)
    torch.jit.trace(lambda row: (seen.append(is_plain(x)), row * 2)[1], x, check_trace=False)
    assert seen
    assert not any(seen)


def test_a_profiler_sees_operators() -> None:
    x = torch.rand(1, 3, 8, 8)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        patch_attention(x, x, x, patch_size=3)
    assert {"patchattn::search", "patchattn::attend"} <= {event.key for event in recorded.key_averages()}
