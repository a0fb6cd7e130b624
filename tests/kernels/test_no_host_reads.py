"""Nothing waits for the GPU: its backend, and all that lies above it, read no number that a kernel has computed.

Such a read stops the host until all work under way is done. The wait cannot be seen on the CPU, where these tests run;
but the operators that read, or whose result has a size that only the numbers tell, can.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from patchattn import MatchField, match, patch_attention, scram_attention
from patchattn.kernels import load_backend
from tests.cases import CAUSAL, CONSTRAINTS, PAIRS, SIMILARITIES, constraints_of, mask, normals, random_index

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.needs("gpu")]

READING = re.compile(
    r"aten::(_local_scalar_dense|item|is_nonzero|equal|allclose|nonzero\w*|argwhere|masked_select\w*|\w*unique\w*|bincount|"
    r"lift_fresh\w*|_to_cpu|histc|histogram\w*|_pin_memory|pin_memory)"
)
"""`lift_fresh` is `torch.tensor`: numbers of the host that go to the device."""


class NothingIsRead(TorchDispatchMode):
    """Refuses operators that read. Kernels are not run, since nothing may depend on what they write: it is 0."""

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        name, named = operator.name().partition(".")[0], named or {}
        if operator.namespace == "patchattn":
            with self:  # what it is made of is looked at too
                return operator.redispatch(DispatchKeySet(DispatchKey.CPU), *arguments, **named)
        reads = READING.fullmatch(name) is not None
        reads |= operator.name() == "aten::repeat_interleave.Tensor" and named.get("output_size") is None
        assert not reads, f"{operator.name()} reads from the device"
        if name in ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"):
            indices = [index for index in arguments[1] if index is not None]
            assert not any(index.dtype in (torch.bool, torch.uint8) for index in indices), f"{name} by a mask"
        if name in ("aten::_to_copy", "aten::copy_"):
            devices = {x.device for x in arguments if isinstance(x, Tensor)} | {named.get("device")} - {None}
            assert len(devices) == 1, f"{name} between {devices}"
        result = operator(*arguments, **named)
        return result.zero_() if name in ("aten::empty", "aten::empty_like", "aten::new_empty") else result


@pytest.fixture
def gpu() -> ModuleType:
    return load_backend("gpu")


@pytest.fixture
def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> NothingIsRead:
    from triton.runtime.interpreter import GridExecutor

    monkeypatch.setattr(GridExecutor, "__call__", lambda self, *arguments, **named: None)
    # As if these were tensors on a GPU.
    for module in ("patchattn.ops.search", "patchattn.matching.indices"):
        monkeypatch.setattr(importlib.import_module(module), "on_host", lambda tensor: False)
    # The one thing that goes from the host to a device: a table of weights, when its scale is first used there.
    gaussian = importlib.import_module("patchattn.kernels.gpu.gaussian")
    table = gaussian._cumulated

    def table_of_earlier(*arguments: Any) -> Any:
        with _disable_current_modes():
            return table(*arguments)

    monkeypatch.setattr(gaussian, "_cumulated", table_of_earlier)
    return NothingIsRead()


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.max().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: torch.tensor([1, 2]),
        lambda x: x.masked_select(x > 0),
        lambda x: torch.where(x > 0),
        lambda x: x.repeat_interleave(x.long().abs()),
        lambda x: x.index_put_((x > 0,), x[:1]),
    ],
)
def test_reads_are_seen(nothing_is_read: NothingIsRead, read: Any) -> None:
    x = normals(9)
    with nothing_is_read, pytest.raises(AssertionError, match=r"reads from the device|by a mask"):
        read(x)


def test_every_backend_has_the_same_functions(gpu: ModuleType) -> None:
    assert set(gpu.__all__) == set(load_backend("reference").__all__)


@pytest.mark.parametrize("constraints", [*CONSTRAINTS, *CAUSAL])
@pytest.mark.parametrize("function", ["search_exact", "search_guided", "search_patchmatch", "search_repeated"])
def test_searches(gpu: ModuleType, nothing_is_read: NothingIsRead, function: str, constraints: str) -> None:
    pair = PAIRS["3d" if constraints == "offset" else "2d"]
    query, key = pair.features(normals)
    arguments: list[Any] = [query, key, 2, pair.geometry(), constraints_of(constraints, pair)]
    if function != "search_exact":
        arguments += [1, 3, random_index(pair, 1) if constraints == "separation" else None]
    with nothing_is_read:
        getattr(gpu, function)(*arguments)


@pytest.mark.parametrize("constraints", [*CONSTRAINTS, *CAUSAL])
def test_windows_samples_and_chains(gpu: ModuleType, nothing_is_read: NothingIsRead, constraints: str) -> None:
    pair = PAIRS["2d"]
    (query, key), modes, limits = pair.features(normals), random_index(pair, 2), constraints_of(constraints, pair)
    with nothing_is_read:
        gpu.expand(modes, pair.key, (1, 1), limits)
        gpu.sample_mixture(modes, pair.key, limits, (1.0, 2.0), 0.5, 3, 0, torch.float32)
        gpu.sample_chains(query, key, modes, pair.geometry(), limits, (1.0, 2.0), 1.0, 1, 2, 0)


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_similarity_and_its_gradient(
    gpu: ModuleType, nothing_is_read: NothingIsRead, similarity: str, padding: str
) -> None:
    pair = PAIRS["2d_sizes"]
    (query, key), index = pair.features(normals), random_index(pair, 2)
    geometry = pair.geometry(SIMILARITIES[similarity], padding)
    with nothing_is_read:
        found = gpu.similarity_at(query, key, index, geometry)
        gpu.similarity_at_backward(torch.ones_like(found), query, key, index, geometry)


@pytest.mark.parametrize("window", [(1, 1), (3, 3)])
def test_sums_and_their_gradients(gpu: ModuleType, nothing_is_read: NothingIsRead, window: tuple[int, int]) -> None:
    pair = PAIRS["2d_shared"]
    index = random_index(pair, 2)
    weight, value = normals(*index.shape), normals(1, 8, *pair.key)
    with nothing_is_read:
        output, normalizer = gpu.attend(weight, index, value, window, 0.7)
        gpu.attend_backward(torch.ones_like(output), weight, index, value, output, normalizer, window, 0.7)
        gpu.weighted_sum(weight, index, value)
        gpu.weighted_sum_backward(torch.ones_like(output), weight, index, value)


def features() -> list[Tensor]:
    return [normals(2, 4, 6, 7, seed=seed, dtype=torch.float32).requires_grad_() for seed in range(3)]


LIMITED: list[dict[str, Any]] = [
    {},
    {"query_mask": mask(1, 6, 7, share=0.6), "key_mask": mask(2, 6, 7, share=0.6, seed=1), "padding_mode": "valid"},
    {"is_causal": "strict", "max_offset": 3},
]


@pytest.mark.parametrize("limits", LIMITED)
@pytest.mark.parametrize("method", ["exact", "guided", "patchmatch", "repeated"])
def test_match(nothing_is_read: NothingIsRead, method: str, limits: dict[str, Any]) -> None:
    query, key, _ = features()
    settings: dict[str, Any] = {"k": 2, "patch_size": 3, "num_heads": 2, "method": method, "iterations": 1, **limits}
    with nothing_is_read:
        field = match(query, key, backend="gpu", **settings)
        field.offsets()
        match(query, key, backend="gpu", init=field, min_separation=2, **settings)


@pytest.mark.parametrize("limits", LIMITED)
@pytest.mark.parametrize("aggregate", [False, True])
def test_patch_attention(nothing_is_read: NothingIsRead, aggregate: bool, limits: dict[str, Any]) -> None:
    inputs = features()
    settings: dict[str, Any] = {"k": 2, "patch_size": 3, "aggregate": aggregate, "backend": "gpu", **limits}
    with nothing_is_read:
        output, field = patch_attention(*inputs, return_field=True, **settings)
        (output + patch_attention(*inputs, field=field, **settings)).square().sum().backward()


def test_temperature_and_bias(nothing_is_read: NothingIsRead) -> None:
    inputs = features()
    learned: dict[str, Any] = {
        "temperature": torch.ones(2, requires_grad=True),
        "bias": torch.zeros(1, 11, 13, requires_grad=True),
    }
    with nothing_is_read:
        _, field = patch_attention(
            *inputs, k=2, candidates=4, num_heads=2, patch_size=3, return_field=True, backend="gpu", **learned
        )
        output = patch_attention(*inputs, field=field.best(1), num_heads=2, patch_size=3, backend="gpu", **learned)
        output.square().sum().backward()
        MatchField.around(next(iter(field)), 1, (6, 7))
        # Nothing was run: every index is 0.
        with pytest.raises(RuntimeError, match=r"bias: a table .* but field holds larger ones"):
            patch_attention(*inputs, field=field, bias=torch.zeros(1, 3, 3), num_heads=2, patch_size=3, backend="gpu")


@pytest.mark.parametrize("limits", LIMITED)
@pytest.mark.parametrize(
    "settings",
    [
        {"expand": 1},
        {"selection": "mode", "weighting": torch.sigmoid, "normalization": "count"},
        {"estimator": "snis", "samples": 4},
        {"estimator": "mh", "samples": 4},
    ],
    ids=["softmax", "weighting", "snis", "mh"],
)
def test_scram_attention(nothing_is_read: NothingIsRead, settings: dict[str, Any], limits: dict[str, Any]) -> None:
    inputs = features()
    with nothing_is_read:
        output, *_ = scram_attention(
            *inputs, k=2, num_heads=2, return_diagnostics=True, backend="gpu", **settings, **limits
        )
        output.square().sum().backward()


def test_a_field_that_leaves_the_key_is_refused_on_the_device(nothing_is_read: NothingIsRead) -> None:
    query, key, value = features()
    field = MatchField(torch.full((2, 1, 2, 6, 7), 42, dtype=torch.int32), torch.zeros(2, 1, 2, 6, 7), (6, 7))
    with nothing_is_read, pytest.raises(RuntimeError, match="field: its index holds what is neither -1 nor one of"):
        patch_attention(query, key, value, patch_size=3, field=field, backend="gpu")


ALLOWED = {"gaussian.py": 1, "guided.py": 1}
"""By file: how many of these statements make a table of constants once, and keep it; or read the scale of a prepared
key, where a tree is kept for each."""


def test_no_statement_reads(gpu: ModuleType) -> None:
    statement = re.compile(r"torch\.(?:as_)?tensor\(|from_numpy\(|\.(?:item|cpu|tolist|numpy)\(")
    assert gpu.__file__ is not None
    found = {file.name: len(statement.findall(file.read_text())) for file in Path(gpu.__file__).parent.glob("*.py")}
    assert {name: count for name, count in found.items() if count} == ALLOWED
