"""The ComfyUI nodes, loaded and called as ComfyUI does."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.cases import photograph

FOLDER = Path(__file__).parents[1] / "integrations" / "comfyui"

pytestmark = pytest.mark.needs("cpu")


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The host's loader: the folder is a module whose name is its path, and has two tables."""
    name = str(FOLDER).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    assert set(module.NODE_DISPLAY_NAME_MAPPINGS) == set(module.NODE_CLASS_MAPPINGS)
    yield module.NODE_CLASS_MAPPINGS
    for loaded in [one for one in sys.modules if one.startswith(name + ".")]:
        del sys.modules[loaded]


def call(node: type[Any], **given: Any) -> tuple[Tensor, ...]:
    """Call a node with what is given, and for the rest the first choice or the default, as the host does."""
    declared = node.INPUT_TYPES()["required"]
    values = {
        name: given[name] if name in given else kind[0][0] if isinstance(kind[0], list) else kind[1]["default"]
        for name, kind in declared.items()
    }
    assert set(given) <= set(declared)
    result: tuple[Tensor, ...] = getattr(node(), node.FUNCTION)(**values)
    assert len(result) == len(node.RETURN_TYPES)
    for output, kind in zip(result, node.RETURN_TYPES, strict=True):
        assert (output.dim(), output.dtype) == (4 if kind == "IMAGE" else 3, torch.float32)
    return result


def image(size: int = 48, left: int = 100) -> Tensor:
    return photograph("coffee", slice(100, 100 + size), slice(left, left + size)).permute(0, 2, 3, 1)


def test_what_nodes_declare(nodes: dict[str, Any]) -> None:
    for node in nodes.values():
        declared = node.INPUT_TYPES()["required"]
        assert list(inspect.signature(getattr(node, node.FUNCTION)).parameters) == ["self", *declared]
        assert node.DESCRIPTION


def test_inpaint(nodes: dict[str, Any]) -> None:
    batch = torch.cat([image(), image(left=200)])
    mask = torch.zeros(1, 48, 48)
    mask[:, 20:30, 20:30] = 1
    (filled,) = call(nodes["PatchattnInpaint"], image=batch, mask=mask, quality="fast")
    known = mask[0] == 0
    assert torch.equal(filled[:, known], batch[:, known])
    assert not torch.equal(filled[:, ~known], batch[:, ~known])


def test_upscale(nodes: dict[str, Any]) -> None:
    (large,) = call(nodes["PatchattnUpscale"], image=image(24), scale=3)
    assert large.shape == (1, 72, 72, 3)


def test_colorize(nodes: dict[str, Any]) -> None:
    gray = image().mean(3, keepdim=True).expand(-1, -1, -1, 3)
    (colored,) = call(nodes["PatchattnColorize"], image=gray, reference=image())
    assert colored.std(3).mean() > 0.02


def test_match(nodes: dict[str, Any]) -> None:
    one = image()
    matched, distance = call(nodes["PatchattnMatch"], image=one, reference=one.roll(5, 2))
    torch.testing.assert_close(matched[:, 8:-8, 8:-8], one[:, 8:-8, 8:-8])
    assert distance[:, 8:-8, 8:-8].max() < 1e-3
    assert 0 < distance.max() <= 1


def test_batches_that_do_not_go_together(nodes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="reference: got a batch of 2; expected 1 or 3, as another input has"):
        call(nodes["PatchattnMatch"], image=image().expand(3, -1, -1, -1), reference=image().expand(2, -1, -1, -1))
