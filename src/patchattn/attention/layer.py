"""Functions of query, key and value as layers: all are called alike, so that one can take another's place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from patchattn.checks import plain

__all__ = ["AttentionLayer"]


class AttentionLayer(nn.Module):
    """A function of query, key and value as a layer without parameters: `layer(query, key, value)`.

    Settings are given once, and are attributes that may be changed; what belongs to one call (masks, for some layers a
    field to start from) is given to the call.
    """

    function: ClassVar[Callable[..., Any]]
    """What is called as `function(query, key, value, **settings, **call)`."""
    shown: ClassVar[tuple[str, ...]]
    """The settings that `repr` tells."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._names = tuple(settings)
        for name, value in settings.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, plain(value))

    @property
    def settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._names}

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **call: Any) -> Any:
        """Attend from `query` to `key`; see the function of the same name for the arguments of a call.

        Raises:
            ValueError: an argument of the call is a setting of the layer.
        """
        for name in call:
            if name in self._names:
                made = f"{type(self).__name__}({name}=...)"
                raise ValueError(f"{name}: a setting of the layer, not of a call; make {made} or set layer.{name}.")
        return type(self).function(query, key, value, **self.settings, **call)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.shown)
