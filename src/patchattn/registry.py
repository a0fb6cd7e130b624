"""Tables of what can be added from outside, by name: backends, search methods, similarities and tools.

A name is known before what it stands for is imported: the package's own names with the module that registers each, and
those of installed packages by their entry points, which say the same. So lists of names cost nothing, and nothing of
another package is imported before its name is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

from patchattn.names import PACKAGE, Backend, Method, SimilarityName

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["BACKENDS", "METHODS", "SIMILARITIES", "Registry"]

Item = TypeVar("Item")

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class Registry(Generic[Item]):
    """A table from names to what was registered under them.

    Args:
        kind: of what is in it; the argument's name in errors.
        function: the function that registers, for errors.
        group: of the entry points by which other packages offer more: name = module that registers it when imported.
        own: the package's own names, each with the module that registers it.
        also: what is allowed beside names, for errors.
    """

    def __init__(self, kind: str, function: str, group: str, own: Mapping[str, str], also: str = "") -> None:
        self.kind, self.function, self.group, self.also = kind, function, group, also
        self.own = dict(own)
        self._items: dict[str, Item] = {}

    def add(self, name: str, item: Item, *, replace: bool = False) -> Item:
        """Register something under a name that is free, or that it has already.

        Args:
            name: a letter, then letters, digits, `_` and `-`.
            item: what it stands for.
            replace: take the place of what was registered under it; the package's own stay.

        Raises:
            ValueError: the name is taken, or none.
        """
        if not isinstance(name, str) or NAME.fullmatch(name) is None:
            raise ValueError(f"name: expected a letter, then letters, digits, '_' or '-', got {name!r}.")
        known = self._items.get(name)
        if known is not None and known != item and (name in self.own or not replace):
            way_out = "choose another" if name in self.own else "choose another, or pass replace=True"
            raise ValueError(f"name: {name!r} is the name of another {self.kind}; {way_out}.")
        if known is None or replace:
            self._items[name] = item
        return self._items[name]

    def get(self, name: str) -> Item:
        """Return what a name stands for, after importing what registers it.

        Raises:
            ValueError: there is no such name, or the package that offers it does not register it.
        """
        item = self._items.get(name) if isinstance(name, str) else None
        return self._load(name) if item is None else item

    def names(self) -> tuple[str, ...]:
        """Return all names: the package's own, those that were registered, and those that other packages offer."""
        return tuple(dict.fromkeys((*self.own, *self._items, *(entry.name for entry in self._entries()))))

    def providers(self) -> dict[str, str]:
        """Return for each name which package brings it."""
        offered = {entry.name: _package_of(entry) for entry in self._entries()}
        return {
            name: "patchattn" if name in self.own else offered.get(name, "registered in this process")
            for name in self.names()
        }

    def problems(self) -> dict[str, str]:
        """Load what other packages offer, and return for each name that does not load the reason."""
        found = {}
        for entry in self._entries():
            if entry.name in self.own:
                found[entry.name] = (
                    f"{self.kind}: {_package_of(entry)} offers {entry.name!r}, which is a name of patchattn's own."
                )
                continue
            try:
                self.get(entry.name)
            except ValueError as error:
                found[entry.name] = str(error)
        return found

    def refusal(self, name: object) -> ValueError:
        """Return the error that names what is allowed."""
        allowed = ", ".join(map(repr, self.names()))
        return ValueError(f"{self.kind}: got {name!r}; allowed are {allowed}{self.also}.")

    def _load(self, name: str) -> Item:
        if not isinstance(name, str):
            raise self.refusal(name)
        module = self.own.get(name)
        if module is not None:
            import_module(module)
            return self._items[name]
        offers = [entry for entry in self._entries() if entry.name == name]
        if not offers:
            raise self.refusal(name)
        packages = " and ".join(map(_package_of, offers))
        if len(offers) > 1:
            raise ValueError(f"{self.kind}: {name!r} is offered by {packages}; uninstall all but one of them.")
        (entry,) = offers
        try:
            import_module(entry.value)
        except Exception as error:  # whatever the code of another package raises
            raise ValueError(
                f"{self.kind}: {name!r} is offered by {packages}, whose module {entry.value} does not load "
                f"({type(error).__name__}: {error}); repair that package, or uninstall it."
            ) from error
        if name not in self._items:
            raise ValueError(
                f"{self.kind}: {name!r} is offered by {packages}, whose module {entry.value} does not register it; it "
                f"must call {self.function} with that name."
            )
        return self._items[name]

    def _entries(self) -> list[EntryPoint]:
        from importlib.metadata import entry_points

        return sorted(entry_points(group=self.group), key=lambda entry: entry.name)


def _package_of(entry: EntryPoint) -> str:
    return "a package without a name" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _names(literal: Any, module: str) -> dict[str, str]:
    return dict.fromkeys(get_args(literal), f"{PACKAGE}.{module}")


SIMILARITIES: Registry[Any] = Registry(
    "similarity",
    "patchattn.similarity.register_similarity()",
    "patchattn.similarities",
    _names(SimilarityName, "similarity"),
    " and an object made by pointwise_similarity()",
)
METHODS: Registry[Any] = Registry(
    "method",
    "patchattn.search_methods.register_method()",
    "patchattn.methods",
    _names(Method, "ops.methods"),
)
BACKENDS: Registry[Any] = Registry(
    "backend",
    "patchattn.backends.register_backend()",
    "patchattn.backends",
    _names(Backend, "kernels"),
    " and None (by device)",
)
