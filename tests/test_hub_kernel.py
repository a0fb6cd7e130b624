"""`tools/hub_kernel.py`: the Triton part as a kernel that is imported from a path, as Hugging Face's `kernels` does."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import patchattn
from tools.hub_kernel import write

IMPORT = """
import importlib.util, json, sys
for absent in ("patchattn", "numba", "jaxtyping"):
    sys.modules[absent] = None
import torch
for name, path in (("first", "__init__.py"), ("second", "patchattn/__init__.py")):
    spec = importlib.util.spec_from_file_location(name, f"{sys.argv[1]}/{path}")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
first, second = sys.modules["first"], sys.modules["second"]
image = torch.arange(20.).view(1, 1, 4, 5).remainder(7).requires_grad_()
found = {}
for backend in (None, "gpu"):
    output = first.patch_attention(image, image, image, k=2, patch_size=3, method="exact", backend=backend)
    (gradient,) = torch.autograd.grad(output.square().sum(), image)
    found[str(backend)] = [output.flatten().tolist(), gradient.flatten().tolist()]
try:
    first.match(image, image, backend="cpu")
except RuntimeError as error:
    found["cpu"] = str(error)
found["namespaces"] = [vars(copy)["patch_attention"].__module__ for copy in (first, second)]
assert torch.ops.first.attend is not getattr(torch.ops, found["namespaces"][1].split(".")[0]).attend
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write(folder)
    return folder / "build" / "torch-universal"


def test_its_modules_import_what_a_kernel_may(variant: Path) -> None:
    allowed = sys.stdlib_module_names | {"torch", "triton", "numpy", "typing_extensions"}
    for path in variant.rglob("*.py"):
        found = re.findall(r"^ *(?:from|import) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(found) <= allowed, path


def test_its_metadata_name_every_file(variant: Path) -> None:
    metadata = json.loads((variant / "metadata.json").read_text(encoding="utf-8"))
    files = {path.relative_to(variant).as_posix(): path.read_bytes() for path in variant.rglob("*.py")}
    assert metadata["digest"]["files"] == {
        name: base64.b64encode(hashlib.sha256(data).digest()).decode() for name, data in files.items()
    }
    assert metadata["id"].isidentifier()
    assert metadata["version"] == int(patchattn.__version__.split(".")[0])


@pytest.mark.needs("gpu")
def test_two_copies_compute_as_the_package_does_without_it(variant: Path) -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT, variant], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "a kernel of the Hub has none of the CPU's compiled kernels" in found["cpu"]
    first, second = found["namespaces"]
    assert first.startswith("first.")
    assert second.startswith("_patchattn_")
    image = torch.arange(20.0).view(1, 1, 4, 5).remainder(7).requires_grad_()
    output = patchattn.patch_attention(image, image, image, k=2, patch_size=3, method="exact", backend="reference")
    (gradient,) = torch.autograd.grad(output.square().sum(), image)
    for backend in ("None", "gpu"):
        for value, expected in zip(found[backend], (output, gradient), strict=True):
            torch.testing.assert_close(torch.tensor(value), expected.flatten().detach(), rtol=1e-5, atol=1e-5)
