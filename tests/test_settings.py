"""Settings, the types of options beside them, and what users see of both."""

from __future__ import annotations

import warnings
from inspect import Parameter, signature
from typing import Any, get_type_hints

import pytest
import torch

import patchattn
from patchattn import PatchAttention, ScramAttention, baselines, match, patch_attention, scram_attention
from patchattn.attention.patch import FieldCall, PatchOptions, PatchSettings
from patchattn.attention.scram import ScramOptions, ScramSettings
from patchattn.baselines import full, local, performer, reformer, settings, sparse
from patchattn.settings import CommonOptions, CommonSettings, SearchOptions, SearchSettings

PAIRS = [
    (CommonSettings, CommonOptions),
    (SearchSettings, SearchOptions),
    (PatchSettings, PatchOptions),
    (ScramSettings, ScramOptions),
    (settings.BaselineSettings, settings.BaselineOptions),
    (settings.SoftmaxSettings, settings.SoftmaxOptions),
    (full.FullSettings, full.FullOptions),
    (local.LocalSettings, local.LocalOptions),
    (sparse.SparseSettings, sparse.SparseOptions),
    (performer.PerformerSettings, performer.PerformerOptions),
    (reformer.ReformerSettings, reformer.ReformerOptions),
]


@pytest.mark.parametrize(("declared", "options"), PAIRS, ids=lambda cls: cls.__name__)
def test_options_have_the_types_of_the_settings(declared: type[Any], options: type[Any]) -> None:
    of_a_call = get_type_hints(FieldCall)
    found = {name: kind for name, kind in get_type_hints(options).items() if name not in of_a_call}
    assert found == get_type_hints(declared)


@pytest.mark.parametrize(
    ("function", "layer"),
    [(patch_attention, PatchAttention), (scram_attention, ScramAttention)]
    + [
        (getattr(baselines, f"{name}_attention"), getattr(baselines, f"{name.capitalize()}Attention"))
        for name in ("full", "linear", "local", "performer", "reformer", "sparse")
    ],
)
def test_help_shows_every_argument_with_its_default(function: Any, layer: Any) -> None:
    shown = signature(function).parameters
    assert all(parameter.kind is not Parameter.VAR_KEYWORD for parameter in shown.values())
    of_layer = signature(layer).parameters
    assert {name: shown[name].default for name in of_layer} == {name: p.default for name, p in of_layer.items()}
    assert list(shown)[:3] == ["query", "key", "value"]


def test_help_of_match() -> None:
    shown = signature(match).parameters
    assert list(shown)[:4] == ["query", "key", "k", "patch_size"]
    assert shown["method"].default == "auto"


def test_an_unknown_argument_is_refused_with_the_one_that_was_meant() -> None:
    image = torch.rand(1, 2, 8, 8)
    with pytest.raises(TypeError, match=r"patch_attention\(\) got an unexpected keyword argument 'patchsize'; is it"):
        patch_attention(image, image, image, patchsize=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"match\(\) got an unexpected keyword argument 'colors'\."):
        match(image, image, colors=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", baselines.__all__)
def test_baselines_go_on_under_their_old_names(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"patchattn\.{name} has moved to patchattn\.baselines\.{name}"):
        found = getattr(patchattn, name)
    assert found is getattr(baselines, name)


def test_new_names_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert baselines.FullAttention(patch_size=3).patch_size == 3


def test_a_layer_is_its_settings() -> None:
    layer = PatchAttention(k=5)
    assert layer.settings["k"] == layer.k == 5
    layer.k = 2
    image = torch.rand(1, 2, 9, 9)
    expected = patch_attention(image, image, image, k=2)
    assert torch.equal(layer(image, image, image), expected)
