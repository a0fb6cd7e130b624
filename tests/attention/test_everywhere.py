"""The layers wherever PyTorch runs them: autocast, device "meta", inference tensors, traces, graphs, empty batches."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import EagerAndRecordGraphs
from torch.utils.checkpoint import checkpoint

import patchattn
from patchattn import (
    ContextualAttention,
    CrossScaleAttention,
    CrossScalePatchAttention,
    MaskedPatchAttention,
    MultiheadPatchAttention2d,
    PatchAttention,
    ScramAttention,
    match,
    patch_attention,
    scram_attention,
)
from patchattn.attention import cross_scale_patch
from patchattn.baselines import (
    FullAttention,
    LinearAttention,
    LocalAttention,
    PerformerAttention,
    ReformerAttention,
    SparseAttention,
)
from tests.cases import normals

pytestmark = pytest.mark.usefixtures("one_thread")

TILED: dict[str, Callable[[], nn.Module]] = {
    "contextual": ContextualAttention,
    "cross_scale": CrossScaleAttention,
    "full": lambda: FullAttention(patch_size=3, num_heads=2),
    "linear": lambda: LinearAttention(patch_size=3),
    "local": lambda: LocalAttention(patch_size=3, window=5),
    "performer": lambda: PerformerAttention(patch_size=3, features=16),
    "reformer": lambda: ReformerAttention(patch_size=3, bucket_size=16, hashes=2),
    "sparse": lambda: SparseAttention(patch_size=3, pattern="fixed"),
    "valid": lambda: FullAttention(patch_size=3, padding_mode="valid", is_causal=True),
}
SEARCHING: dict[str, Callable[[], nn.Module]] = {
    "cross_scale_patch": lambda: CrossScalePatchAttention(k=2),
    "masked": lambda: MaskedPatchAttention(patch_size=3),
    "mh": lambda: ScramAttention(k=2, estimator="mh", samples=4),
    "modes": lambda: ScramAttention(k=2, selection="mode", expand=1, is_causal=True),
    "patch": lambda: PatchAttention(k=2, patch_size=3, aggregate=True, padding_mode="valid"),
    "scram": lambda: ScramAttention(k=2, expand=1),
    "snis": lambda: ScramAttention(k=2, estimator="snis", samples=4),
}
LAYERS = TILED | SEARCHING
MASKED = [name for name in LAYERS if not name.startswith("cross_scale")]


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> nn.Module:
    return LAYERS[request.param]()


@pytest.fixture(params=TILED)
def tiled(request: pytest.FixtureRequest) -> nn.Module:
    return TILED[request.param]()


def images(*size: int, batch: int = 2) -> list[Tensor]:
    return [normals(batch, 4, *size, seed=seed, dtype=torch.float32) for seed in range(3)]


def results(forward: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor | None]:
    """The output and the gradients with respect to all inputs."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    output = forward(*leaves)
    output.square().sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def assert_same(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(layer: nn.Module, dtype: torch.dtype) -> None:
    expected = results(layer, images(7, 8))
    with torch.autocast("cpu", dtype=dtype):
        assert_same(results(layer, images(7, 8)), expected)  # the backward pass too
        leaves = [tensor.requires_grad_() for tensor in images(7, 8)]
        output = checkpoint(layer, *leaves, use_reentrant=False).float()
    output.square().sum().backward()
    assert_same([output.detach(), *(leaf.grad for leaf in leaves)], expected)


def test_sums_of_half_precision_are_taken_in_float32(tiled: nn.Module) -> None:
    inputs = [image.half() for image in images(7, 8)]
    assert torch.equal(tiled(*inputs), tiled(*(image.float() for image in inputs)).half())


@pytest.mark.parametrize("name", LAYERS)
def test_on_device_meta_shapes_alone_are_computed(name: str) -> None:
    inputs = [image.to("meta").requires_grad_() for image in images(9, 10)]
    inputs[0].requires_grad_(False)
    call = {"key_mask": torch.ones(1, 9, 10, dtype=torch.bool, device="meta")} if name in MASKED else {}
    output = LAYERS[name]()(*inputs, **call)
    assert output.is_meta
    assert output.shape == (2, 4, 9, 10)
    output.sum().backward()
    assert inputs[2].grad is not None
    assert inputs[2].grad.shape == inputs[2].shape


def test_fields_and_blocks_on_device_meta() -> None:
    query, key, value = (image.to("meta") for image in images(9, 10))
    field = match(query, key, k=3)
    assert field.index.shape == (2, 1, 3, 9, 10)
    _, found = patch_attention(query, key, value, field=field, return_field=True)
    assert found.similarity.is_meta
    block = MultiheadPatchAttention2d(4, 2).to("meta")
    assert block(query).shape == (2, 4, 9, 10)
    assert match(query, key, init=field).index.is_meta


def test_defaults_of_the_process_are_about_other_tensors(layer: nn.Module) -> None:
    inputs = images(7, 8)
    expected = layer(*inputs)
    with torch.device("meta"):
        assert torch.equal(layer(*inputs), expected)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(layer(*inputs), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_inference_tensors(layer: nn.Module) -> None:
    with torch.inference_mode():
        inputs = images(7, 8)
    assert torch.equal(layer(*inputs), layer(*images(7, 8)))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_serves_other_sizes(layer: nn.Module) -> None:
    traced = torch.jit.trace(layer, images(7, 8), check_trace=False)
    inputs = images(9, 6)
    assert_same(results(traced, inputs), results(layer, inputs))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_gradient_of_a_traced_gradient() -> None:
    image = normals(1, 2, 3, 3, dtype=torch.float64).requires_grad_()
    traced = torch.jit.trace(FullAttention(patch_size=1, temperature=3.0), (image.detach(),) * 3, check_trace=False)
    assert torch.autograd.gradgradcheck(lambda image: traced(image, image, image), (image,))


@pytest.fixture
def recorded() -> Any:
    torch._dynamo.reset()
    return EagerAndRecordGraphs()


def test_a_layer_of_tiles_is_one_node_of_a_graph(tiled: nn.Module, recorded: Any) -> None:
    compiled = torch.compile(tiled, backend=recorded, fullgraph=True, dynamic=True)
    for size in ((9, 11), (12, 10)):
        assert torch.equal(compiled(*images(*size)), tiled(*images(*size)))
    assert len(recorded.graphs) == 1
    operators = [node for node in recorded.graphs[0].graph.nodes if "patchattn" in str(node.target)]
    assert len(operators) == 1


def test_gradients_of_a_compiled_layer_of_tiles() -> None:
    layer = LocalAttention(window=5, patch_size=3)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in ((20, 11), (9, 30)):
        assert_same(results(compiled, images(*size)), results(layer, images(*size)))


def test_a_compiled_layer_refuses_what_takes_too_much_memory() -> None:
    compiled = torch.compile(ContextualAttention(memory_limit=100), backend="eager", fullgraph=True)
    with pytest.raises(RuntimeError, match="the limit is 100 bytes"):
        compiled(*images(8, 8))


class Called(nn.Module):
    """A layer whose arguments have names, as `torch.export` asks."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Any:
        return self.layer(query, key, value)


@pytest.mark.parametrize("name", ["cross_scale_patch", "local", "masked", "modes", "patch", "scram"])
def test_an_exported_layer_chooses_its_method_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_scale_patch, "EXACT_PAIRS", 200**2)
    layer = LAYERS[name]()
    height, width = (torch.export.Dim(axis, min=8, max=512) for axis in ("height", "width"))
    shapes = {name: {2: height, 3: width} for name in ("query", "key", "value")}
    exported = torch.export.export(Called(layer), tuple(images(12, 12, batch=1)), dynamic_shapes=shapes).module()
    for size in ((12, 12), (9, 13), (34, 33)):  # more than 1,024 keys: no longer exact
        assert torch.equal(exported(*images(*size, batch=1)), layer(*images(*size, batch=1)))


def test_errors_of_the_method_come_before_the_graph() -> None:
    layer = PatchAttention(method="near")
    with pytest.raises(ValueError, match="method: got 'near'"):
        layer(*images(8, 8))
    with pytest.raises(ValueError, match="method: got 'near'"):
        torch.export.export(Called(layer), tuple(images(8, 8)))


@pytest.mark.parametrize("batch", [0, 2])
def test_nothing_to_do(layer: nn.Module, batch: int) -> None:
    query, key, value = images(7, 8, batch=batch)
    alike = getattr(layer, "is_causal", False) or isinstance(layer, (SparseAttention, MaskedPatchAttention))
    query = query[:, :, :0] if batch else query
    key, value = (query, query) if batch and alike else (key, value)
    output, *gradients = results(layer, [query, key, value])
    assert output is not None
    assert output.shape == (batch, 4, *query.shape[2:])
    for gradient in gradients:
        assert gradient is not None
        assert not gradient.any()


def test_no_queries_and_no_keys() -> None:
    query, key = torch.ones(1, 4, 0), torch.ones(1, 4, 5)
    assert match(query, key, k=2).index.shape == (1, 1, 2, 0)
    assert match(torch.ones(1, 4, 0, 5), torch.ones(1, 4, 5, 5)).similarity.shape == (1, 1, 1, 0, 5)
    block = MultiheadPatchAttention2d(4, 2)
    assert_same(results(block, [torch.ones(1, 4, 0, 5)] * 3)[1:2], [torch.zeros(1, 4, 0, 5)])
    with pytest.raises(ValueError, match=r"key: expected at least one channel and one position .* got shape \(1, 4, 0"):
        match(key, query)
    with pytest.raises(ValueError, match=r"query: expected at least one channel, got shape \(1, 0, 5\)"):
        match(key[:, :0], key[:, :0])


NUMPY: dict[str, Any] = {
    "k": np.int64(2),
    "patch_size": np.array([3, 3]),
    "temperature": np.float32(2),
    "num_heads": np.int32(2),
    "seed": np.uint8(1),
    "iterations": np.int64(4),
    "max_offset": (np.int64(3), 4),
}
PYTHON = {"k": 2, "patch_size": (3, 3), "temperature": 2.0, "num_heads": 2, "seed": 1, "iterations": 4}


@pytest.mark.parametrize("make", [PatchAttention, ScramAttention])
def test_numbers_of_numpy_are_numbers(make: Callable[..., nn.Module]) -> None:
    function: Any = patch_attention if make is PatchAttention else scram_attention
    expected = make(**PYTHON, max_offset=(3, 4))(*images(7, 8))
    assert torch.equal(function(*images(7, 8), **NUMPY), expected)
    assert torch.equal(make(**NUMPY)(*images(7, 8)), expected)


@pytest.mark.parametrize(
    "layer",
    [
        FullAttention(key_stride=np.int64(2), patch_size=np.int64(3), temperature=np.float64(2)),
        LocalAttention(window=np.array(5), patch_size=3),
        SparseAttention(patch_size=1, pattern="fixed", summary=np.int8(2)),
        CrossScaleAttention(patch_size=np.int64(3), scale=np.float32(3), divisor=np.int32(4)),
        CrossScalePatchAttention(k=np.int64(3), scale=np.float32(3)),
        ContextualAttention(rate=np.int64(2), scale=np.float16(3), memory_limit=np.int64(10**9)),
        PerformerAttention(features=np.int64(8), patch_size=3, seed=np.int64(1)),
        ReformerAttention(hashes=np.int64(2), bucket_size=np.int64(16), patch_size=1),
        ScramAttention(estimator="snis", samples=np.int64(4), alpha=np.float32(0.5), scale=np.array([2.0, 1.0])),
        MultiheadPatchAttention2d(np.int64(4), np.int64(2)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_numbers_of_numpy_in_all_layers(layer: nn.Module) -> None:
    assert layer(*images(8, 8)).shape == (2, 4, 8, 8)
    assert "np." not in repr(layer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": torch.tensor(3)}, r"k: expected an integer .* got a tensor of shape \(\); use .item\(\)"),
        ({"k": np.bool_(True)}, "k: expected an integer"),
        ({"temperature": True}, "temperature: expected a number above 0, got True"),
        ({"temperature": np.float32("nan")}, "temperature: expected a number above 0"),
        ({"patch_size": torch.tensor(3)}, "patch_size: expected an integer"),
        ({"patch_size": np.float32(3)}, "patch_size: expected an integer"),
    ],
    ids=str,
)
def test_what_is_no_number_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patch_attention(*images(8, 8), **settings)


@pytest.mark.parametrize("call", [PatchAttention(), ScramAttention(), LinearAttention()])
def test_an_image_without_batch_is_not_silently_a_sequence(call: nn.Module) -> None:
    picture = normals(3, 20, 24, dtype=torch.float32)
    with pytest.warns(UserWarning, match=r"3 sequence\(s\) of 24 positions with 20 channels.*unsqueeze\(0\)"):
        call(picture, picture, picture)


def test_sequences_give_no_warning() -> None:
    long, short = normals(2, 16, 64, dtype=torch.float32), normals(3, 20, 24, dtype=torch.float32)
    match(long, long, patch_size=7)
    match(short, short, patch_size=(7,))
    patchattn.baselines.full_attention(short, short, short, patch_size=[3])


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_copied_and_saved(name: str) -> None:
    layer, file = LAYERS[name](), io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    expected = layer(*images(7, 8))
    copies = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)
    for other in copies:
        assert repr(other) == repr(layer)
        assert torch.equal(other(*images(7, 8)), expected)
        other.load_state_dict(layer.state_dict())
