"""Typer's commands, made from the dataclasses that declare their options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Protocol, TypeVar

import typer

from _patchattn_command import import_package
from patchattn.cli.failures import one_sentence_errors
from patchattn.cli.options import BasicOptions, ProcessingOptions, use_threads
from patchattn.cli.stages import Stages, stages
from patchattn.cli.tools import TOOLS
from patchattn.options import Declared, check_options, declared_options

__all__ = ["Printable", "command", "tool"]

C = TypeVar("C", bound=BasicOptions)


class Printable(Protocol):
    """The outcome of a command."""

    def print(self, warned: list[str], *, as_json: bool) -> None:
        """Print it; may end the program with another exit code than 0."""


def command(
    config: type[C], *, shows_progress: bool = True
) -> Callable[[Callable[[C, Stages], Printable | None]], Callable[..., None]]:
    """Make a function a command, whose errors become sentences and whose outcome is printed.

    Args:
        config: the dataclass that declares the options.
        shows_progress: of work that takes longer than a moment.

    Raises:
        ValueError: the options are no such dataclass, or the function takes other arguments.
    """
    if not (isinstance(config, type) and issubclass(config, BasicOptions) and is_dataclass(config)):
        raise ValueError(f"config: expected a dataclass that inherits BasicOptions, got {config!r}.")

    def made(run: Callable[[C, Stages], Printable | None]) -> Callable[..., None]:
        try:
            signature(run).bind("options", "stage")
        except TypeError:
            name = f"{run.__name__}{signature(run)}"
            raise ValueError(f"run: expected a function of options and stage, got {name}.") from None

        def called(**given: Any) -> None:
            as_json = given.get("as_json", False)
            quiet = as_json or not shows_progress
            with one_sentence_errors(debug=given["debug"]) as warned, stages(quiet=quiet) as stage:
                import_package()
                options = config(**given)
                check_options(options)
                if isinstance(options, ProcessingOptions):
                    use_threads(options.threads)
                outcome = run(options, stage)
            if outcome is not None:
                outcome.print(warned, as_json=as_json)

        declared = sorted(declared_options(config), key=lambda one: not one.option.positional)
        called.__name__, called.__doc__ = run.__name__, run.__doc__
        called.__signature__ = Signature([_parameter(one) for one in declared])  # type: ignore[attr-defined]
        return called

    return made


def tool(
    config: type[C], *, shows_progress: bool = True
) -> Callable[[Callable[[C, Stages], Printable | None]], Callable[..., None]]:
    """Make a function a command as `command` does, and register it: `patchattn NAME` runs it, with the function's name.

    The first sentence of its docstring stands in `patchattn --help`, all of it in `patchattn NAME --help`.

    Raises:
        ValueError: as `command`; or there is another tool of this name.
    """
    make = command(config, shows_progress=shows_progress)

    def made(run: Callable[[C, Stages], Printable | None]) -> Callable[..., None]:
        called = make(run)
        TOOLS.add(run.__name__.replace("_", "-"), called)
        return called

    return made


def _parameter(one: Declared) -> Parameter:
    described: Any = _argument(one) if one.option.positional else _option(one)
    annotation: Any = Annotated[_type_of(one), described]
    default = Parameter.empty if one.is_required else one.default
    return Parameter(one.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _type_of(one: Declared) -> Any:
    """The type as all versions of Typer know it, which is that of the choices."""
    if not one.choices:
        return one.type
    type_: Any = type(one.choices[0])
    return type_ | None if one.is_optional else type_


def _argument(one: Declared) -> Any:
    return typer.Argument(metavar=one.option.metavar, help=one.option.help)


def _option(one: Declared) -> Any:
    option, choices = one.option, [str(choice) for choice in one.choices]
    flags = option.flags
    if not flags and one.default is False:
        flags = (f"--{one.name.replace('_', '-')}",)  # alone: without --no-...
    return typer.Option(
        *flags,
        min=option.min,
        max=option.max,
        help=option.help,
        metavar=f"[{'|'.join(choices)}]" if choices and option.metavar is None else option.metavar,
        show_default=option.shown_default or True,
        envvar=option.variable,
        show_envvar=False,
        autocompletion=(lambda: choices) if choices else None,
    )
