"""Arguments by the names that the user types."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Any

from typer.core import TyperCommand, TyperGroup

__all__ = ["Command", "Commands", "as_typed", "has_option"]

SYNONYMS = {"hole": ("mask", "photo"), "image": ("photo",), "network": ("model",)}
"""Arguments of the functions of `tasks`, and those of the commands that they come from: the first that was given."""

_typed: ContextVar[dict[str, str] | None] = ContextVar("patchattn_typed", default=None)


class Command(TyperCommand):
    """A command whose errors name its options as they are typed: `--patch-size`, not `patch_size`."""

    def invoke(self, ctx: Any) -> Any:
        typed = {
            str(parameter.name): str(parameter.metavar)
            if parameter.param_type_name == "argument"
            else max(parameter.opts, key=len)
            for parameter in self.params
        }
        for ours, names in SYNONYMS.items():
            given = next((name for name in names if ctx.params.get(name) is not None), None)
            if given is not None:
                typed[ours] = typed[given]
        token = _typed.set(typed)
        try:
            return super().invoke(ctx)
        finally:
            _typed.reset(token)


class Commands(TyperGroup):
    """A command of commands."""

    def get_params(self, ctx: Any) -> Any:
        """Return the options. Typer's own flags are None by default; it would import Pydantic to look at that."""
        parameters = super().get_params(ctx)
        for one in parameters:
            if getattr(one, "is_flag", False) and one.default is None:
                one.default = False
        return parameters


def as_typed(message: str) -> str:
    """Return an error of a function with the names of arguments that the command has for them."""
    typed = _typed.get() or {}
    message = re.sub(r"^(\w+)(?=: )", lambda found: typed.get(found[1], found[1]), message)
    # Within a sentence, only what can be no English word.
    return re.sub(r"(?<![\w-])[a-z]+_[a-z_]+\b", lambda found: typed.get(found[0], found[0]), message)


def has_option(name: str) -> bool:
    """Whether the command has an argument of this name."""
    return name in (_typed.get() or {})
