"""What features.py tries: each check computes a value in two ways, and fails if they differ."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from patchattn.baselines import PerformerAttention, ReformerAttention

Layer = Callable[..., Tensor]

CHANNELS, SIZE, OTHER_SIZE = 4, 8, (10, 12)


def images(dtype: torch.dtype = torch.float32, size: tuple[int, int] = (SIZE, SIZE), batch: int = 1) -> list[Tensor]:
    """Query, key and value, the same every time."""
    numbers = torch.Generator().manual_seed(0)
    return [torch.randn(batch, CHANNELS, *size, generator=numbers, dtype=torch.float64).to(dtype) for _ in range(3)]


def tiny() -> list[Tensor]:
    """So small that all derivatives can be taken by differences."""
    return [image.requires_grad_() for image in images(torch.float64, (4, 4))]


def other_tiny() -> list[Tensor]:
    """Directions to go from there."""
    return [image.flip(2, 3) for image in images(torch.float64, (4, 4))]


def loss(layer: Layer, *inputs: Tensor) -> Tensor:
    return layer(*inputs).square().sum()


def gradients(layer: Layer, inputs: list[Tensor]) -> list[Tensor]:
    inputs = [image.detach().clone().requires_grad_() for image in inputs]
    return list(torch.autograd.grad(loss(layer, *inputs), inputs, materialize_grads=True))


def assert_close(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def compiles(layer: Layer) -> None:
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*images()), layer(*images()))
    assert_close(gradients(compiled, images()), gradients(layer, images()))


def exports(layer: nn.Module) -> None:
    sides = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(layer, tuple(images()), dynamic_shapes=(sides,) * 3)
    assert_close(program.module()(*images()), layer(*images()))
    assert_close(program.module()(*images(size=OTHER_SIZE)), layer(*images(size=OTHER_SIZE)))


def traces(layer: nn.Module) -> None:
    traced = torch.jit.trace(layer, tuple(images()), check_trace=False)
    others = [image.flip(3) for image in images()]
    assert_close(traced(*others), layer(*others))


def holds_something_fixed(layer: Layer) -> bool:
    """Whether derivatives are not those of what comes out: samples, or a largest exponent, are held fixed."""
    return isinstance(layer, PerformerAttention) or getattr(layer, "estimator", None) == "mh"


def doubled(layer: Layer) -> Layer:
    """With weights, if it has any, of the precision of `tiny`."""
    return copy.deepcopy(layer).double() if isinstance(layer, nn.Module) else layer


def slope(layer: Layer, inputs: list[Tensor], directions: list[Tensor]) -> Tensor:
    """The derivative of the loss along a direction, from gradients; it can be differentiated again."""
    found = torch.autograd.grad(loss(layer, *inputs), inputs, create_graph=True, materialize_grads=True)
    return torch.stack([(one * by).sum() for one, by in zip(found, directions, strict=True)]).sum()


def double_backward(layer: Layer) -> None:
    layer, inputs, directions = doubled(layer), tiny(), other_tiny()
    found = torch.autograd.grad(slope(layer, inputs, directions), inputs, materialize_grads=True)

    def again(*x: Tensor) -> Tensor:
        first = torch.func.grad(lambda *y: loss(layer, *y), argnums=(0, 1, 2))(*x)
        return torch.stack([(one * by).sum() for one, by in zip(first, directions, strict=True)]).sum()

    assert_close(found, torch.func.grad(again, argnums=(0, 1, 2))(*inputs))
    if not holds_something_fixed(layer):
        assert torch.autograd.gradgradcheck(layer, inputs, fast_mode=True)


def forward_mode(layer: Layer) -> None:
    layer, inputs, directions = doubled(layer), [image.detach() for image in tiny()], other_tiny()
    _, found = torch.func.jvp(lambda *x: loss(layer, *x), tuple(inputs), tuple(directions))
    assert_close(found, slope(layer, tiny(), directions).detach())
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(inputs, directions, strict=True)]
        assert_close(forward_ad.unpack_dual(loss(layer, *duals)).tangent, found)
    if not holds_something_fixed(layer):
        assert torch.autograd.gradcheck(layer, tiny(), check_forward_ad=True, fast_mode=True)


def func_grad(layer: Layer) -> None:
    found = torch.func.grad(lambda *inputs: loss(layer, *inputs), argnums=(0, 1, 2))(*images())
    assert_close(list(found), gradients(layer, images()))


def jacrev(layer: Layer) -> None:
    layer, inputs = doubled(layer), [image.detach() for image in tiny()]
    found = torch.func.jacrev(layer, argnums=(0, 1, 2))(*inputs)
    assert_close(found, torch.autograd.functional.jacobian(layer, tuple(inputs)))


def vmap(layer: Layer) -> None:
    several = [torch.stack([image, image.roll(1, 2), image.flip(3)]) for image in images()]
    found = torch.func.vmap(layer, randomness="same")(*several)
    assert_close(found, torch.stack([layer(*one) for one in zip(*several, strict=True)]))


def per_sample(layer: Layer) -> None:
    inputs = images(batch=3)
    of_one = torch.func.grad(lambda *one: loss(layer, *(image[None] for image in one)), argnums=(0, 1, 2))
    wanted = [gradients(layer, [image[b : b + 1] for image in inputs]) for b in range(3)]
    assert_close(
        list(torch.func.vmap(of_one, randomness="same")(*inputs)),
        [torch.cat(parts) for parts in zip(*wanted, strict=True)],
    )


def autocast(layer: Layer) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(*images())
    # Weights stay as they are; and random numbers of another precision are others.
    precise = not _parameters(layer) and not isinstance(layer, ReformerAttention)
    wanted = layer(*images(torch.float64 if precise else torch.float32))
    error = (found.double() - wanted.double()).abs().mean() / wanted.double().std()
    assert error < 0.05, f"the mean error is {error:.3f} standard deviations"


def _parameters(layer: Layer) -> bool:
    return isinstance(layer, nn.Module) and any(True for _ in layer.parameters())


def meta(layer: nn.Module) -> None:
    there = copy.deepcopy(layer).to("meta")
    found, wanted = there(*(image.to("meta") for image in images())), layer(*images())
    assert (found.device.type, found.shape, found.dtype) == ("meta", wanted.shape, wanted.dtype)


def inference(layer: Layer) -> None:
    with torch.inference_mode():
        found = layer(*images())
    assert_close(found.clone(), layer(*images()))


def recomputes(layer: Layer) -> None:
    kept = lambda *inputs: checkpoint(layer, *inputs, use_reentrant=False)  # noqa: E731
    assert_close(gradients(kept, images()), gradients(layer, images()))


def copies(layer: nn.Module) -> None:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    wanted = layer(*images())
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)):
        assert torch.equal(again(*images()), wanted)


def counts(layer: Layer) -> None:
    found = []
    for batch in (1, 2):
        with FlopCounterMode(display=False) as counter:
            layer(*images(batch=batch))
        found.append(counter.get_total_flops())
    assert 0 < found[0] < found[1] <= 2 * found[0], f"{found[0]} for one image, {found[1]} for two"


def defaults(layer: Layer) -> None:
    wanted, before = layer(*images()), torch.get_default_dtype()
    inputs = images()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            found = layer(*inputs)
    finally:
        torch.set_default_dtype(before)
    assert_close(found, wanted)


CHECKS: dict[str, Callable[[Any], None]] = {
    "compile": compiles,
    "export": exports,
    "trace": traces,
    "double backward": double_backward,
    "forward mode": forward_mode,
    "func.grad": func_grad,
    "jacrev": jacrev,
    "vmap": vmap,
    "vmap of grad": per_sample,
    "autocast": autocast,
    "meta": meta,
    "inference mode": inference,
    "checkpoint": recomputes,
    "copy and pickle": copies,
    "FlopCounterMode": counts,
    "other defaults": defaults,
}
"""Features that are tried in this process."""
