"""What the manual and CONTRIBUTING.md show works: every block of Python runs, every command parses.

Blocks of `python` are executed, all of a page in one namespace, in a folder with the small images of
`tests/test_readme.py`. In blocks of `console`, what follows `$ patchattn` must be a command with such options; on the
pages of RUN it is run as well. A line `<!-- not run: reason -->` before a block exempts it from running.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner

import patchattn
from patchattn.cli.app import app
from tests.test_readme import images  # noqa: F401  # a fixture

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
RUN = ("docs/tutorials/photographs.md",)
BLOCK = re.compile(r"(?:^ *<!-- not run: ([^\n]*) -->\n)?^( *)```(\w+)\n(.*?)^\2```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    exempt: bool


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[Block]:
    found = [
        Block(language, dedent(text), bool(reason))
        for reason, _, language, text in BLOCK.findall(page.read_text(encoding="utf-8"))
    ]
    return [block for block in found if block.language == language]


def commands(page: Path, *, run: bool = False) -> Iterator[list[str]]:
    """The arguments of `patchattn`; run: of those that are to be run alone."""
    for block in blocks(page, "console"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.startswith("$ patchattn ") and not (run and block.exempt):
                # Brackets mean that something may be left out.
                yield shlex.split(re.sub(r"[\[\]]", "", line), comments=True)[2:]


def inpainting_names() -> dict[str, Any]:
    """What docs/inpainting_network.md takes as given: a trained network, an image and its hole."""
    from patchattn.networks.architectures import InpaintingArchitecture
    from patchattn.networks.weights import network_bytes

    architecture = InpaintingArchitecture(attention="psal", channels=4)
    Path("run").mkdir()
    Path("run/network.safetensors").write_bytes(network_bytes(architecture.build(), architecture))
    hole = torch.zeros(1, 80, 88, dtype=torch.bool)
    hole[:, 30:50, 20:60] = True
    return {"image": torch.rand(1, 3, 80, 88), "hole": hole}


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "docs/inpainting_network.md": inpainting_names,
    "docs/superresolution_network.md": lambda: {"image": torch.rand(1, 3, 24, 32)},
}
"""What stands before a page's first block."""


@pytest.mark.needs("cpu")
@pytest.mark.usefixtures("images", "registries")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = GIVEN.get(name_of(page))
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    names = vars(module)
    names.update(given() if given else {})
    with torch.random.fork_rng():
        for block in blocks(page, "python"):
            if not block.exempt:
                exec(compile(block.text, name_of(page), "exec", dont_inherit=True), names)


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))], ids=name_of)
def test_commands_parse(page: Path) -> None:
    for words in commands(page):
        command, rest = get_command(app), list(words)
        while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
            assert rest[0] in command.commands, f"patchattn {shlex.join(words)}"
            command = command.commands[rest.pop(0)]
        if not hasattr(command, "commands"):
            command.make_context("patchattn", rest)


@pytest.mark.needs("cpu")
@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("page", RUN)
def test_commands_run(page: str) -> None:
    for words in commands(ROOT / page, run=True):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{shlex.join(words)}: {result.output}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8")):
        there = target.startswith("https://") or (ROOT / target).exists()
        assert there, target


def documented() -> list[str]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "api").glob("*.md")))
    return re.findall(r"^\.\. auto\w+:: ([\w.]+)", text, re.MULTILINE)


def test_the_reference_has_every_public_name() -> None:
    names = {f"{module.__name__}.{name}" for module in (patchattn, patchattn.baselines) for name in module.__all__}
    assert names - {"patchattn.baselines"} <= set(documented())


def test_nothing_is_in_the_reference_twice() -> None:
    assert len(documented()) == len(set(documented()))


@pytest.fixture(scope="module")
def docstrings() -> ModuleType:
    """The manual's converter of docstrings; it needs no Sphinx."""
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs" / "_extensions" / "docstrings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DOCSTRING = """Do it; see `match` (docs/gpu.md).

$$a_i =
b$$

with a * b, $c_i$ and |d|.

Args:
    a, b: numbers
        or words.
    c: `d`.

Returns:
    One `match(k=1)`.

Example:
    >>> 1
    1
"""
CONVERTED = """Do it; see :py:obj:`match <patchattn.match>` (:doc:`/gpu`).

.. math::

   a_i = b

with a \\* b, :math:`c_i` and \\|d\\|.

:Arguments:
   ``a``, ``b``
      numbers
      or words.
   ``c``
      ``d``.

:Returns:
   One :py:obj:`match(k=1) <patchattn.match>`.

.. rubric:: Example

>>> 1
1
"""


def test_docstrings_become_restructured_text(docstrings: ModuleType) -> None:
    assert re.sub(r"\n{3,}", "\n\n", docstrings.to_rst(DOCSTRING, {"match": "patchattn.match"})) == CONVERTED
