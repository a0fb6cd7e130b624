"""Type checkers find every mistake in code that uses the library, and none where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MISTAKE = "# mistake"

CODE = """
from typing_extensions import assert_type

from torch import Tensor

import patchattn
from patchattn import (
    CrossScaleAttention,
    MaskedPatchAttention,
    MatchField,
    MultiheadPatchAttention2d,
    PatchAttention,
    ScramAttention,
    ScramDiagnostics,
    masked_patch_attention,
    match,
    patch_attention,
    pointwise_similarity,
    scram_attention,
)
from patchattn.backends import register_backend
from patchattn.baselines import FullAttention, LocalAttention, full_attention, sparse_attention
from patchattn.search_methods import SearchMethod, register_method
from patchattn.similarity import register_similarity


def use(x: Tensor, flag: bool) -> None:
    field = match(x, x, k=2, patch_size=(3, 5), similarity="cosine", method="exact", is_causal="strict")
    assert_type(field, MatchField)
    match(x, x, kk=2)  # mistake
    match(x, x, k="2")  # mistake
    match(x, x, method="brute")  # mistake
    match(x, x, padding_mode="mirror")  # mistake

    assert_type(patch_attention(x, x, x), Tensor)
    assert_type(patch_attention(x, x, x, return_field=True, init=field), tuple[Tensor, MatchField])
    patch_attention(x, x, x, return_field=flag, query_mask=None, temperature=0.5, aggregate=True)
    patch_attention(x, x, x, similarity=pointwise_similarity(lambda q, k: -abs(q - k)))
    patch_attention(x, x, x, kk=3)  # mistake
    patch_attention(x, x, x, patchsize=7)  # mistake
    patch_attention(x, x, x, temperature="cold")  # mistake
    patch_attention(x, x, x, similarity="l3")  # mistake
    patch_attention(x, x, x, init=x)  # mistake

    similarity = register_similarity("absolute", pointwise_similarity(lambda q, k: -abs(q - k)))
    method = register_method("window", {"cpu": lambda *arguments: None}, iterations=3)
    backend = register_backend("items", "my_package.items", remedy="install it")
    assert_type(method, SearchMethod)
    assert_type(match(x, x, similarity=similarity, method=method, backend=backend), MatchField)
    assert_type(PatchAttention(similarity=similarity, method=method, backend=backend)(x, x, x), Tensor)
    match(x, x, method="window")  # mistake
    match(x, x, similarity="absolute")  # mistake
    match(x, x, backend="items")  # mistake
    match(x, x, method=similarity)  # mistake
    register_similarity("l2.5", "l2")  # mistake
    register_method("window", len)  # mistake
    register_backend("items", "my_package.items")  # mistake

    assert_type(scram_attention(x, x, x, k=4, expand=1), Tensor)
    assert_type(scram_attention(x, x, x, return_diagnostics=True), tuple[Tensor, ScramDiagnostics])
    scram_attention(x, x, x, selection="best")  # mistake
    scram_attention(x, x, x, min_separation=3)  # mistake

    layer = PatchAttention(k=3, patch_size=7, aggregate=True)
    assert_type(layer.k, int)
    assert_type(layer(x, x, x), Tensor)
    assert_type(layer(x, x, x, return_field=True, field=field), tuple[Tensor, MatchField])
    layer.aggregate = False
    layer.k = "3"  # mistake
    layer(x, x, x, kmask=None)  # mistake
    PatchAttention(kk=3)  # mistake
    PatchAttention(num_heads=2.5)  # mistake
    assert_type(ScramAttention(estimator="snis").samples, int)
    ScramAttention(estimator="is")  # mistake

    MultiheadPatchAttention2d(16, num_heads=4, k=4, expand=1, bias=False)
    MultiheadPatchAttention2d(16, 4, attention=FullAttention, patch_size=1)
    MultiheadPatchAttention2d(16, 4, kk=4)  # mistake
    MultiheadPatchAttention2d(16, 4, estimator="is")  # mistake
    MultiheadPatchAttention2d(16, 4, biases=False)  # mistake

    assert_type(full_attention(x, x, x, patch_size=1, key_stride=2), Tensor)
    full_attention(x, x, x, stride=2)  # mistake
    sparse_attention(x, x, x, pattern="random")  # mistake
    assert_type(LocalAttention(window=9)(x, x, x, key_mask=None), Tensor)
    FullAttention(window=9)  # mistake
    masked_patch_attention(x, x, x, mask=None)  # mistake
    MaskedPatchAttention(patch_sizes=3)  # mistake
    CrossScaleAttention(scale="10")  # mistake
    patchattn.baselines.FullAttention(similarity="l1")  # mistake
"""


def lines_of_mypy(file: Path) -> set[int]:
    command = [sys.executable, "-m", "mypy", "--strict", "--output", "json", "--config-file", "", str(file)]
    cache = Path(__file__).parents[1] / ".mypy_cache"
    done = subprocess.run([*command, "--cache-dir", str(cache)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return {found["line"] for found in map(json.loads, done.stdout.splitlines()) if found["severity"] == "error"}


def lines_of_pyright(file: Path) -> set[int]:
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=file.parent)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}


@pytest.mark.parametrize("checker", [lines_of_mypy, lines_of_pyright], ids=["mypy", "pyright"])
def test_every_mistake_is_found_and_nothing_else(checker: object, tmp_path: Path) -> None:
    file = tmp_path / "user.py"
    file.write_text(CODE)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    expected = {number for number, line in enumerate(CODE.splitlines(), 1) if line.endswith(MISTAKE)}
    assert len(expected) > 20
    assert callable(checker)
    assert checker(file) == expected
