"""Functions of tensors and data classes as PyTorch's operators take them: by flat lists of plain arguments."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import reduce
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

from torch import Tensor

from patchattn.similarity import Similarity, resolve_similarity

__all__ = ["Schema"]

SimilarityOf = Callable[[str], Similarity]

TUPLES: dict[Any, Any] = {
    tuple[int, ...]: typing.Sequence[int],
    tuple[int, ...] | None: typing.Optional[typing.Sequence[int]],  # noqa: UP045
    tuple[float, ...]: typing.Sequence[float],
}
PLAIN = TUPLES | {Sequence[bool]: typing.Sequence[bool], Similarity: str}
"""Types of arguments and fields that schemas write differently; all others are the same there.

`typing.Sequence`, for PyTorch 2.6 reads no schema off that of `collections.abc`.
"""


@dataclass(frozen=True)
class _Leaf:
    name: str
    type: Any

    leaves = 1

    def flatten(self, value: Any, flat: list[Any]) -> None:
        flat.append(value.name if self.type is Similarity else value)

    def rebuild(self, flat: Sequence[Any], at: int, similarity_of: SimilarityOf) -> Any:
        value = flat[at]
        if self.type is Similarity:
            return similarity_of(value)
        return tuple(value) if self.type in TUPLES and value is not None else value

    def parameters(self) -> list[Parameter]:
        return [Parameter(self.name, Parameter.POSITIONAL_OR_KEYWORD, annotation=PLAIN.get(self.type, self.type))]


@dataclass(frozen=True)
class _Branch:
    type: type[Any]
    parts: tuple[tuple[str, _Leaf | _Branch], ...]
    leaves: int

    def flatten(self, value: Any, flat: list[Any]) -> None:
        for name, part in self.parts:
            part.flatten(getattr(value, name), flat)

    def rebuild(self, flat: Sequence[Any], at: int, similarity_of: SimilarityOf) -> Any:
        values = []
        for _, part in self.parts:
            values.append(part.rebuild(flat, at, similarity_of))
            at += part.leaves
        return self.type(*values)

    def parameters(self) -> list[Parameter]:
        return [parameter for _, part in self.parts for parameter in part.parameters()]


def _node(name: str, kind: Any) -> _Leaf | _Branch:
    if not is_dataclass(kind) or kind is Similarity:
        return _Leaf(name, kind)
    hints = get_type_hints(kind)
    parts = tuple((field.name, _node(field.name, hints[field.name])) for field in fields(kind))
    return _Branch(kind, parts, sum(part.leaves for _, part in parts))  # type: ignore[arg-type]


def _tensors_of(branch: _Branch) -> Iterator[str]:
    for name, part in branch.parts:
        if isinstance(part, _Branch):
            yield from (f"{name}.{inner}" for inner in _tensors_of(part))
        elif part.type == Tensor | None:
            yield name


class Schema:
    """The parameters of a function, and the flat ones that an operator has in their place.

    A data class becomes its fields, in order, and those of the data classes in it; a `Similarity` becomes its name.
    Tensors that can be differentiated come first among the parameters, so that their numbers are the same in both.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        own = signature(function, eval_str=True)
        self.nodes = tuple(_node(name, parameter.annotation) for name, parameter in own.parameters.items())
        self.returns = own.return_annotation
        self.parameters = [parameter for node in self.nodes for parameter in node.parameters()]
        self._inner = [
            (n, path.split("."))
            for n, node in enumerate(self.nodes)
            if isinstance(node, _Branch)
            for path in _tensors_of(node)
        ]
        self.names = tuple(parameter.name for parameter in self.parameters)

    @property
    def signature(self) -> Signature:
        """Signature of the flat function."""
        return Signature(self.parameters, return_annotation=self.returns)

    def inner_tensors(self, arguments: Sequence[Any]) -> list[Tensor | None]:
        """The tensors in the data classes among a function's arguments."""
        return [reduce(getattr, path, arguments[n]) for n, path in self._inner]

    def flatten(self, arguments: Sequence[Any]) -> list[Any]:
        """Arguments of the operator."""
        flat: list[Any] = []
        for node, argument in zip(self.nodes, arguments, strict=True):
            node.flatten(argument, flat)
        return flat

    def rebuild(self, flat: Sequence[Any], similarity_of: SimilarityOf = resolve_similarity) -> list[Any]:
        """Arguments of the function; `Similarity` for `similarity_of` asks nothing of a name."""
        arguments, at = [], 0
        for node in self.nodes:
            arguments.append(node.rebuild(flat, at, similarity_of))
            at += node.leaves
        return arguments

    def spread(self, gradients: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """Gradients with respect to the arguments as those with respect to the flat ones: a data class has none."""
        found: list[Tensor | None] = []
        for node, gradient in zip(self.nodes, gradients, strict=True):
            found.extend([gradient] if isinstance(node, _Leaf) else (None,) * node.leaves)
        return tuple(found)

    def tangents(self, flat: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The converse of `spread`."""
        found, at = [], 0
        for node in self.nodes:
            found.append(flat[at] if isinstance(node, _Leaf) else None)
            at += node.leaves
        return found
