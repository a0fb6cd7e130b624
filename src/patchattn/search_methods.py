"""Search methods, of the package and of others: a name, its functions by backend, and its default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from types import ModuleType
from typing import Any

from patchattn.registry import METHODS

__all__ = ["SearchMethod", "find_method", "method_name", "register_method"]

ARGUMENTS = ("query", "key", "k", "geometry", "constraints")
MORE_ARGUMENTS = ("iterations", "seed", "init")
"""Arguments that are given to a method with iterations only."""


@dataclass(frozen=True, repr=False)
class SearchMethod:
    """A search method that was registered; `match` and all layers take it, or its name, as `method=`."""

    name: str
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """The search by backend; a backend that is not in it must have a function `search_NAME` of its own."""
    iterations: int | None = None
    """Default number of iterations; None: it has none, and is not given seed and `init` either."""
    compared: Callable[..., int] | None = None
    """`(problem, query_size, key_size, iterations)` to the number of keys that a query is compared with, for PyTorch's
    `FlopCounterMode`."""

    def function(self, backend: str, kernels: ModuleType) -> Callable[..., Any]:
        """Return the search for a backend.

        Raises:
            ValueError: there is none.
        """
        found = self.functions.get(backend) or getattr(kernels, f"search_{self.name}", None)
        if found is None:
            allowed = ", ".join(map(repr, self.functions)) or "backends that define it"
            raise ValueError(
                f"backend: {backend!r} has no method {self.name!r}, which is there for {allowed}; pass one of these, "
                f"or register the method with a function for {backend!r}."
            )
        function: Callable[..., Any] = found
        return function

    def __repr__(self) -> str:
        return f"SearchMethod({self.name!r})"

    def __copy__(self) -> SearchMethod:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SearchMethod:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return find_method, (self.name,)


def register_method(
    name: str,
    functions: Mapping[str, Callable[..., Any]],
    *,
    iterations: int | None = None,
    compared: Callable[..., int] | None = None,
    replace: bool = False,
) -> SearchMethod:
    """Register a search method, for `method=` of `match`, of all layers and of the command line.

    A function of it is called as `function(query, key, k, geometry, constraints, iterations, seed, init)` and returns
    index (int32, best first, -1 for no match) and similarity (-inf there), both `(B, heads, k, *query_spatial)`, where
    masks, causality, separation and offsets hold.

    Args:
        name: of the method.
        functions: the search by the name of the backend.
        iterations: the default; None: it has none, and its functions end with `constraints`.
        compared: `(problem, query_size, key_size, iterations)` to the number of keys that a query is compared with, for
            PyTorch's `FlopCounterMode`.
        replace: take the place of a method of this name that was registered before.

    Returns:
        The method, which can be given in the place of its name; type checkers know that it is allowed.

    Raises:
        ValueError: the name is taken, or a function takes other arguments.
    """
    expected = ARGUMENTS if iterations is None else (*ARGUMENTS, *MORE_ARGUMENTS)
    if not isinstance(functions, Mapping):
        raise ValueError(f"functions: expected a function for each backend, by its name, got {functions!r}.")
    if iterations is not None and (not isinstance(iterations, int) or iterations < 0):
        raise ValueError(f"iterations: expected an integer of at least 0, or None, got {iterations!r}.")
    for backend, function in functions.items():
        _check_function(backend, function, expected)
    method: SearchMethod = METHODS.add(name, SearchMethod(name, dict(functions), iterations, compared), replace=replace)
    return method


def find_method(name: str) -> SearchMethod:
    """Return a method by its name."""
    found: SearchMethod = METHODS.get(name)
    return found


def method_name(method: str | SearchMethod) -> str:
    """Return the name of a method that is there.

    Raises:
        ValueError: there is none of this name.
    """
    return method.name if isinstance(method, SearchMethod) else find_method(method).name


def _check_function(backend: str, function: Any, expected: tuple[str, ...]) -> None:
    if not callable(function):
        raise ValueError(f"functions: {backend!r}: expected a function of {', '.join(expected)}, got {function!r}.")
    given = signature(function)
    try:
        given.bind(*expected)
    except TypeError:
        raise ValueError(
            f"functions: {backend!r}: expected a function of {', '.join(expected)}, got one of {given}."
        ) from None
