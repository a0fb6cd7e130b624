"""The controls of the page, made from the declarations of the tools' settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from patchattn.options import Declared, declared_options

__all__ = ["Shown", "control_arguments", "make_controls"]

Component = Any
MAX_BUTTONS = 3
"""Choices up to which all of them are shown side by side."""


@dataclass(frozen=True)
class Shown:
    """A setting that the page shows. Its name, help, limits, choices and default are those of its declaration."""

    name: str
    max: float | None = None
    """End of the slider of a number."""
    step: float = 1
    """Step of the slider."""
    initial: Any = None
    """The value at first, where the page begins with another than the command; None: the default."""


def make_controls(config: type[Any], shown: Sequence[Shown]) -> dict[str, Component]:
    """Make the components of the settings that are shown, by their names."""
    import gradio as gr

    made = {}
    for one in shown:
        kind, arguments = control_arguments(config, one)
        made[one.name] = getattr(gr, kind)(**arguments)
    return made


def control_arguments(config: type[Any], shown: Shown) -> tuple[str, dict[str, Any]]:
    """Return the name of a Gradio component and its arguments.

    Raises:
        ValueError: no setting of this name is declared.
    """
    declared = {one.name: one for one in declared_options(config)}
    if shown.name not in declared:
        raise ValueError(f"shown: got {shown.name!r}; {config.__name__} declares {', '.join(declared)}.")
    one = declared[shown.name]
    value = one.default if shown.initial is None else shown.initial
    arguments = {"value": value, "label": _label(one), "info": one.option.help}
    if one.choices:
        kind = "Radio" if len(one.choices) <= MAX_BUTTONS else "Dropdown"
        return kind, {"choices": list(one.choices), **arguments}
    if isinstance(value, bool):
        return "Checkbox", arguments
    low = one.option.min if one.option.min is not None else shown.step
    high = one.option.max if shown.max is None else shown.max
    return "Slider", {"minimum": low, "maximum": high, "step": shown.step, **arguments}


def _label(one: Declared) -> str:
    words = one.name.replace("_", " ")
    return words if len(words) == 1 else words.capitalize()
