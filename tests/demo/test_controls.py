"""Controls of the page: what the tools' settings declare is what it shows, and what its jobs are given."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Annotated, Any, Literal

import pytest
from typer.main import get_command

from patchattn.cli.app import app
from patchattn.demo.controls import Shown, control_arguments
from patchattn.demo.field_view import SHOWN, FieldSettings
from patchattn.demo.tools import TOOLS
from patchattn.options import Option
from patchattn.tasks.colorize import colorize
from patchattn.tasks.inpaint import inpaint
from patchattn.tasks.reconstruct import reconstruct
from patchattn.tasks.upscale import upscale

FUNCTIONS: dict[str, Any] = {
    "inpaint": inpaint,
    "colorize": colorize,
    "upscale": upscale,
    "reconstruct": reconstruct,
}


@dataclass(frozen=True)
class Settings:
    mode: Annotated[Literal["a", "b"], Option("How it is done.")] = "b"
    kind: Annotated[Literal[1, 2, 3, 4], Option("Which kind.")] = 3
    patch_size: Annotated[int, Option("Side.", min=3, max=9)] = 5
    k: Annotated[int, Option("Matches.", min=1)] = 2
    votes: Annotated[bool, Option("Whether neighbors vote.")] = False


@pytest.mark.parametrize(("shown", "kind", "expected"), [
    (Shown("mode"), "Radio", {"choices": ["a", "b"], "value": "b", "label": "Mode", "info": "How it is done."}),
    (Shown("kind"), "Dropdown", {"choices": [1, 2, 3, 4], "value": 3, "label": "Kind", "info": "Which kind."}),
    (
        Shown("patch_size", step=2),
        "Slider",
        {"minimum": 3, "maximum": 9, "step": 2, "value": 5, "label": "Patch size", "info": "Side."},
    ),
    (
        Shown("k", max=8),
        "Slider",
        {"minimum": 1, "maximum": 8, "step": 1, "value": 2, "label": "k", "info": "Matches."},
    ),
    (
        Shown("votes", initial=True),
        "Checkbox",
        {"value": True, "label": "Votes", "info": "Whether neighbors vote."},
    ),
])  # fmt: skip
def test_a_control_is_made_of_a_declaration(shown: Shown, kind: str, expected: dict[str, Any]) -> None:
    assert control_arguments(Settings, shown) == (kind, expected)


def test_a_setting_that_is_not_declared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shown: got 'size'; Settings declares mode, kind, patch_size, k, votes\."):
        control_arguments(Settings, Shown("size"))


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.job)
def test_the_page_says_what_the_command_says(tool: Any) -> None:
    command: Any = get_command(app)
    options = {one.name: one for one in command.commands[tool.job].params}
    for shown in tool.shown:
        _, arguments = control_arguments(tool.settings, shown)
        option = options[shown.name]
        assert arguments["info"] == option.help
        assert arguments["value"] == (option.default if shown.initial is None else shown.initial)
        assert shown.name in signature(FUNCTIONS[tool.job]).parameters


def test_the_field_view_shows_every_search() -> None:
    controls = {shown.name: control_arguments(FieldSettings, shown)[1] for shown in SHOWN}
    assert controls["method"]["choices"] == ["auto", "exact", "guided", "patchmatch", "repeated"]
    assert controls["similarity"]["choices"] == ["l2", "dot", "scaled_dot", "cosine", "l1"]
    assert controls["temperature"]["minimum"] == 0.05
    assert (controls["k"]["value"], controls["patch_size"]["value"]) == (3, 7)
