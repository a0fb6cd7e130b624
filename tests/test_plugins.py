"""Backends, methods, similarities and tools of other packages: found by entry points, loaded when asked for."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.main import get_command
from typer.testing import CliRunner, Result

import patchattn
from patchattn import PatchAttention, match, patch_attention, pointwise_similarity
from patchattn.backends import DEVICES, register_backend
from patchattn.cli.app import app
from patchattn.cli.commands import command, tool
from patchattn.cli.options import BasicOptions
from patchattn.kernels import FUNCTIONS, SHORTCUTS, backend_status, default_backend, load_backend
from patchattn.registry import BACKENDS, METHODS, SIMILARITIES
from patchattn.search_methods import SearchMethod, register_method
from patchattn.similarity import register_similarity

pytestmark = pytest.mark.usefixtures("one_thread", "registries")

MODULES = {
    "similarities": """
        from patchattn import pointwise_similarity
        from patchattn.similarity import register_similarity

        def root(q, k):
            return -(abs(q - k) ** 0.5)

        def root_derivative(q, k):
            by_k = 0.5 * (1.0 * (q > k) - 1.0 * (q < k)) / (1e-3 + abs(q - k)) ** 0.5
            return -by_k, by_k

        similarity = register_similarity("root", pointwise_similarity(root, root_derivative))
    """,
    "methods": """
        from dataclasses import replace
        from patchattn.kernels import load_backend
        from patchattn.search_methods import register_method

        def search_in(backend):
            def search_window(query, key, k, geometry, constraints, iterations, seed, init):
                nearby = replace(constraints, max_offset=(iterations,) * len(geometry.patch_size))
                return load_backend(backend).search_exact(query, key, k, geometry, nearby)

            return search_window

        window = register_method(
            "window", {name: search_in(name) for name in ("reference", "cpu")}, iterations=3,
            compared=lambda problem, query, key, iterations: (2 * iterations + 1) ** len(key),
        )
    """,
    "backends": """
        from patchattn.backends import register_backend

        items = register_backend("items", "fancy.kernels", remedy="install fancy again", devices=("meta",))
    """,
    "kernels": """
        from patchattn.kernels import reference
        from patchattn.kernels.reference import *

        calls = []

        def search_exact(*arguments):
            calls.append(arguments)
            return reference.search_exact(*arguments)
    """,
    "tools": """
        from dataclasses import dataclass
        from pathlib import Path
        from typing import Annotated

        from patchattn.cli.commands import tool
        from patchattn.cli.image_tool import Given, ImageTool
        from patchattn.cli.options import ImageToolOptions, Output
        from patchattn.options import Option, values_of

        @dataclass(frozen=True, kw_only=True)
        class InvertSettings:
            strength: Annotated[float, Option("Share of the inverse.", min=0, max=1)] = 1.0

        @dataclass(frozen=True, kw_only=True)
        class InvertOptions(InvertSettings, ImageToolOptions):
            photo: Annotated[Path, Option("The image, or a folder.", metavar="PHOTO", positional=True)]
            output: Output

        class Inversion:
            pass

        class InvertTool(ImageTool):
            command = "invert-colors"

            def complete(self, path, image):
                return Given(image)

            def begin(self):
                from dataclasses import make_dataclass, replace

                result = make_dataclass("Inversion", ["image"])
                s = self.settings["strength"]
                return lambda given: result(
                    replace(given.image, color=(1 - s) * given.image.color + s * (1 - given.image.color))
                )

        @tool(InvertOptions)
        def invert_colors(options, stage):
            \"\"\"Invert the colors of PHOTO. More is written here.\"\"\"
            settings = values_of(options, InvertSettings)
            return InvertTool(options.photo, options.output, options, settings, stage).run()
    """,
    "broken": "import a_package_that_is_not_there",
    "empty": "",
}
ENTRIES = {
    "similarities": {"root": "similarities", "faulty": "broken", "l2": "similarities"},
    "methods": {"window": "methods", "absent": "empty"},
    "backends": {"items": "backends"},
    "tools": {"invert-colors": "tools", "faulty-tool": "broken"},
}


def install(folder: Path, name: str, entries: dict[str, dict[str, str]], modules: dict[str, str]) -> None:
    """Write a distribution as an installer leaves it."""
    package, metadata = folder / name, folder / f"{name}-1.2.dist-info"
    package.mkdir()
    metadata.mkdir()
    (package / "__init__.py").write_text("")
    for module, text in modules.items():
        (package / f"{module}.py").write_text(dedent(text))
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    sections = (
        f"[patchattn.{group}]\n" + "".join(f"{entry} = {name}.{module}\n" for entry, module in offered.items())
        for group, offered in entries.items()
    )
    (metadata / "entry_points.txt").write_text("\n".join(sections))


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an installed package that offers one thing of each kind, and some that do not load."""
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder, "fancy", ENTRIES, MODULES)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in ("fancy", "other")]:
        del sys.modules[name]


@pytest.fixture
def features() -> torch.Tensor:
    return torch.rand(1, 3, 12, 14, generator=torch.Generator().manual_seed(0))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


# ------------------------------------------------------------------------------------------------------------ by name


def test_a_name_is_known_before_its_package_is_imported(plugin: Path, features: torch.Tensor) -> None:
    assert "root" in SIMILARITIES.names()
    assert "window" in METHODS.names()
    match(features, features, similarity="l2", method="exact")
    assert "fancy" not in sys.modules
    with pytest.raises(ValueError, match=r"method: got 'brute'; allowed are 'auto', .*, 'window'"):
        match(features, features, method="brute")
    assert "fancy.methods" not in sys.modules


def test_without_the_package_its_names_are_unknown(features: torch.Tensor) -> None:
    for argument, name in (("similarity", "root"), ("method", "window"), ("backend", "items")):
        with pytest.raises(ValueError, match=rf"^{argument}: got '{name}'; allowed are "):
            match(features, features, **{argument: name})  # type: ignore[arg-type]


@pytest.mark.needs("cpu")
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_similarity(plugin: Path, features: torch.Tensor, backend: Any) -> None:
    by_name: Any = {"similarity": "root", "backend": backend, "patch_size": 3}
    features.requires_grad_()
    output = patch_attention(features, features, features.detach(), **by_name)
    (gradient,) = torch.autograd.grad(output.square().sum(), features)
    own = sys.modules["fancy.similarities"].similarity
    again = patch_attention(features, features, features.detach(), **{**by_name, "similarity": own})
    assert torch.equal(output, again)
    assert gradient.abs().sum() > 0
    other = patch_attention(features, features, features.detach(), **{**by_name, "similarity": "l2"})
    assert not torch.equal(output, other)


@pytest.mark.needs("cpu")
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_method(plugin: Path, features: torch.Tensor, backend: Any) -> None:
    found = match(features, features.flip(3), method="window", k=2, backend=backend)  # type: ignore[arg-type]
    expected = match(features, features.flip(3), method="exact", k=2, max_offset=3, backend=backend)
    assert torch.equal(found.index, expected.index)
    wider = match(features, features.flip(3), method="window", k=2, iterations=5, backend=backend)  # type: ignore[arg-type]
    assert int(wider.offsets().abs().max()) in (4, 5)
    window: SearchMethod = sys.modules["fancy.methods"].window
    assert torch.equal(match(features, features.flip(3), method=window, k=2, backend=backend).index, found.index)
    with pytest.raises(ValueError, match=r"backend: 'gpu' has no method 'window', which is there for 'ref"):
        window.function("gpu", load_backend("reference"))


def test_a_backend(plugin: Path, features: torch.Tensor) -> None:
    found = match(features, features, method="exact", backend="items")  # type: ignore[arg-type]
    assert torch.equal(found.index.flatten(), torch.arange(12 * 14, dtype=torch.int32))
    assert len(sys.modules["fancy.kernels"].calls) == 1
    items = sys.modules["fancy.backends"].items
    match(features, features, method="exact", backend=items)
    assert len(sys.modules["fancy.kernels"].calls) == 2
    assert backend_status()["items"] is None
    assert default_backend("meta") == "items"


def test_a_method_has_operations(plugin: Path, features: torch.Tensor) -> None:
    with FlopCounterMode(display=False) as counter:
        match(features, features, method="window", iterations=2, patch_size=3)  # type: ignore[arg-type]
    assert counter.get_total_flops() == 2 * (12 * 14) * 25 * (3 * 9)


# ------------------------------------------------------------------------------------------------------------- layers


NAMES: dict[str, Any] = {"similarity": "root", "method": "window", "backend": "items", "patch_size": 3}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("as_objects", [False, True])
def test_layers_are_copied_and_saved(
    plugin: Path, features: torch.Tensor, copied: Callable[[Any], Any], as_objects: bool
) -> None:
    registered = SIMILARITIES.get("root"), METHODS.get("window"), BACKENDS.get("items")
    settings = dict(zip(("similarity", "method", "backend"), registered, strict=True)) if as_objects else {}
    layer = PatchAttention(**{**NAMES, "backend": "reference", "method": "window"})
    if as_objects:
        layer = PatchAttention(**{**NAMES, **settings, "backend": "reference"})
        assert "SearchMethod('window')" in repr(layer)
    again = copied(layer)
    assert torch.equal(again(features, features, features), layer(features, features, features))
    if as_objects:
        assert again.method is registered[1]
        assert copied(registered[2]) is registered[2]
    assert layer.state_dict() == {}


@pytest.mark.needs("cpu")
def test_layers_are_compiled_and_exported(plugin: Path, features: torch.Tensor) -> None:
    METHODS.get("window")
    SIMILARITIES.get("root")
    layer = PatchAttention(**{**NAMES, "backend": "cpu"})
    expected = layer(features, features, features)
    assert torch.equal(torch.compile(layer, fullgraph=True, backend="eager")(features, features, features), expected)
    exported, file = torch.export.export(layer, (features, features, features)), io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    assert torch.equal(torch.export.load(file).module()(features, features, features), expected)


def test_what_was_exported_finds_its_similarity(plugin: Path) -> None:
    name = SIMILARITIES.get("root").name
    path = os.pathsep.join(entry for entry in sys.path if entry)
    code = f"from patchattn.similarity import resolve_similarity; print(resolve_similarity({name!r}).name)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == name


# ------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray[Any, Any]:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 14, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save("a.png")
    return pixels


def test_a_tool(plugin: Path, image: np.ndarray[Any, Any]) -> None:
    result = run("invert-colors", "a.png", "-o", "b.png", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["settings"] == {"strength": 1.0}
    assert np.array_equal(np.asarray(PIL.Image.open("b.png")), 255 - image)
    refused = run("invert-colors", "a.png", "-o", "b.png", "--strength", "2")
    assert refused.exit_code == 2
    assert "--strength" in run("invert-colors", "--help").stdout


def test_the_command_line_takes_registered_names(plugin: Path, image: np.ndarray[Any, Any]) -> None:
    result = run("match", "a.png", "a.png", "-o", "f.npz", "--similarity", "root", "--method", "window", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["settings"]["method"] == "window"
    refused = run("match", "a.png", "a.png", "-o", "f.npz", "--method", "brute")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("--method: got 'brute'; allowed are 'auto', ")


def process(plugin: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that says by its exit code whether it imported PyTorch."""
    code = (
        "import atexit, os, sys\n"
        "atexit.register(lambda: 'torch' in sys.modules and os._exit(99))\n"
        f"sys.argv = {['patchattn', *arguments]!r}\n"
        "from _patchattn_command import main\n"
        "main()\n"
    )
    path = os.pathsep.join([str(plugin), *(entry for entry in sys.path if entry)])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_lists_the_tools_of_other_packages(plugin: Path) -> None:
    found = process(plugin, "--help")
    assert found.returncode == 0, found.stderr
    text = " ".join(found.stdout.split())
    assert "invert-colors Invert the colors of PHOTO." in text
    assert "faulty-tool tool: 'faulty-tool' is offered by fancy 1.2, whose module fancy.broken does not load" in text
    listed = process(plugin, "match", "--help")
    assert listed.returncode == 0, listed.stderr
    assert "[auto|exact|guided|patchmatch|repeated|absent|window]" in "".join(listed.stdout.split())


def test_a_tool_that_does_not_load_is_a_sentence(plugin: Path) -> None:
    refused = run("faulty-tool")
    assert refused.exit_code == 2
    text = " ".join(refused.stderr.split())
    assert "offered by fancy 1.2" in text
    assert "No module named 'a_package_that_is_not_there'" in text
    assert run("no-such-tool").exit_code == 2
    command_group: Any = get_command(app)
    assert "no-such-tool" not in command_group.commands
    assert list(command_group.commands)[:2] == ["reconstruct", "colorize"]


def test_info_lists_what_is_registered(plugin: Path) -> None:
    report = json.loads(run("info", "--json").stdout)
    assert report["registered"]["method"]["guided"] == "patchattn"
    assert report["registered"]["method"]["window"] == "fancy 1.2"
    assert report["registered"]["similarity"]["root"] == "fancy 1.2"
    assert report["registered"]["tool"]["invert-colors"] == "fancy 1.2"
    assert report["backends"]["items"] is None
    assert "does not register it" in report["problems"]["method"]["absent"]
    assert "does not load" in report["problems"]["similarity"]["faulty"]
    assert "a name of patchattn's own" in report["problems"]["similarity"]["l2"]
    lines = run("info").stdout
    assert "window (fancy 1.2)" in lines
    assert "invert-colors (fancy 1.2)" in lines


# ------------------------------------------------------------------------------------------------------------- faults


def test_packages_that_do_not_load_are_named(plugin: Path, features: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"similarity: 'faulty' is offered by fancy 1\.2, whose module fancy"):
        match(features, features, similarity="faulty")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'absent' is offered by .*; it must call patchattn\.search_methods\.reg"):
        match(features, features, method="absent")  # type: ignore[arg-type]


def test_two_packages_with_one_name_are_both_named(plugin: Path, features: torch.Tensor) -> None:
    install(plugin, "other", {"methods": {"window": "methods"}}, {"methods": MODULES["methods"]})
    sys.path_importer_cache.clear()
    with pytest.raises(ValueError, match=r"'window' is offered by (fancy|other) 1\.2 and (fancy|other) 1\.2; un"):
        match(features, features, method="window")  # type: ignore[arg-type]


def search(query: Any, key: Any, k: Any, geometry: Any, constraints: Any, iterations: Any, seed: Any, init: Any) -> Any:
    return torch.zeros(1), torch.zeros(1)


def test_names_are_taken_once() -> None:
    similarity, other = (pointwise_similarity(lambda q, k, power=power: -(abs(q - k) ** power)) for power in (2, 4))
    assert register_similarity("powered", similarity) is similarity
    assert register_similarity("powered", similarity) is similarity
    with pytest.raises(ValueError, match=r"name: 'powered' is the name of another similarity; choose another, or pass"):
        register_similarity("powered", other)
    assert register_similarity("powered", other, replace=True) is other
    for name in ("l2", "cosine"):
        with pytest.raises(ValueError, match=rf"name: '{name}' is the name of another similarity; choose another\."):
            register_similarity(name, other, replace=True)
    with pytest.raises(ValueError, match=r"name: 'exact' is the name of another method"):
        register_method("exact", {"reference": search}, iterations=1)
    with pytest.raises(ValueError, match=r"name: 'cpu' is the name of another backend"):
        register_backend("cpu", "somewhere", remedy="none")
    for wrong in ("", "a b", "1st", "a|b", 3):
        with pytest.raises(ValueError, match=r"name: expected a letter"):
            register_similarity(wrong, similarity)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"name: got 'pointwise_mine'"):
        register_similarity("pointwise_mine", similarity)


@pytest.mark.needs("cpu")
def test_wrong_things_are_not_registered(features: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"similarity: expected an object made by pointwise_similarity"):
        register_similarity("mine", max)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"functions: 'cpu': expected a function of query, .*, init, got one"):
        register_method("mine", {"cpu": lambda query, key: None}, iterations=2)
    with pytest.raises(ValueError, match=r"functions: 'cpu': expected a function of query, key, k, geometry"):
        register_method("mine", {"cpu": search})
    with pytest.raises(ValueError, match=r"functions: expected a function for each backend"):
        register_method("mine", search, iterations=2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"iterations: expected an integer of at least 0"):
        register_method("mine", {"reference": search}, iterations=-1)
    with pytest.raises(ValueError, match=r"devices: 'cpu' is served by backend"):
        register_backend("mine", "json", remedy="none", devices=("cpu",))
    with pytest.raises(ValueError, match=r"module: expected a text"):
        register_backend("mine", "", remedy="none")
    assert "mine" not in (*METHODS.names(), *BACKENDS.names(), *DEVICES.values())
    register_backend("mine", "json", remedy="none")
    with pytest.raises(RuntimeError, match=r"backend 'mine' does not load .json has no attend, .*: take what"):
        match(features, features, backend="mine")  # type: ignore[arg-type]
    register_backend("gone", "a_package_that_is_not_there", remedy="install it")
    with pytest.raises(RuntimeError, match=r"backend 'gone' does not load .*: install it"):
        match(features, features, backend="gone")  # type: ignore[arg-type]
    register_method("zeros", {"reference": search}, iterations=1)
    with pytest.raises(ValueError, match=r"method: 'zeros' must return an index \(int32\) and a similarity \(torch"):
        match(features, features, method="zeros", backend="reference")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"config: expected a dataclass that inherits BasicOptions, got"):
        command(int)  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"run: expected a function of options and stage, got wrong\(options\)"):

        @tool(BasicOptions)  # type: ignore[arg-type]
        def wrong(options):  # type: ignore[no-untyped-def]
            pass


@pytest.mark.needs("cpu", "gpu")
def test_the_package_itself_is_registered() -> None:
    assert all(
        set(load_backend(name).__all__) - set(SHORTCUTS) == set(FUNCTIONS) for name in ("cpu", "gpu", "reference")
    )
    assert METHODS.get("guided").iterations == 2
    assert SIMILARITIES.get("l2") == patchattn.Similarity("l2")
