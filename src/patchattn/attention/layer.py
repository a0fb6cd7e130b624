"""Functions of query, key and value as layers: all are called alike, so that one can take another's place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor, nn

from patchattn.checks import plain

__all__ = ["AttentionLayer", "learnable"]

Settings = TypeVar("Settings")


def learnable(*names: str) -> Callable[[type[Settings]], type[Settings]]:
    """Let fields of a data class of settings hold parameters in its layers.

    A module looks for its parameters after the attributes of its class, and a data class keeps defaults there, which
    would hide them. Each object has all of its fields, so that nothing else reads them.
    """

    def decorate(settings: type[Settings]) -> type[Settings]:
        for name in names:
            delattr(settings, name)
        return settings

    return decorate


class AttentionLayer(nn.Module):
    """A function of query, key and value as a layer without parameters: `layer(query, key, value)`.

    A layer is a data class of its function's settings and this class. Settings are given once, by keyword, and are
    attributes that may be changed; what belongs to one call (masks, for some layers a field to start from) is given to
    the call. Where a setting may be a tensor, a `torch.nn.Parameter` is one of the layer's parameters, another tensor
    one of its buffers, and a `torch.nn.Module` one of its modules.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    function: ClassVar[Callable[..., Any]]
    """The function of the layer, called as `function(query, key, value, **settings, **call)`."""
    shown: ClassVar[tuple[str, ...]]
    """The settings that `repr` shows."""

    def __post_init__(self) -> None:
        self._prepare()

    def _prepare(self) -> None:
        if "_parameters" not in self.__dict__:
            super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        self._prepare()  # a data class sets its fields first
        if name in type(self).__dataclass_fields__:
            for held in (self._parameters, self._buffers, self._modules):
                held.pop(name, None)
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.__dict__.pop(name, None)
                self.register_buffer(name, value)
                return
        super().__setattr__(name, plain(value))

    @property
    def settings(self) -> dict[str, Any]:
        # Not by `fields(self)`, into which the compiler of PyTorch 2.6 cannot look.
        return {name: getattr(self, name) for name in type(self).__dataclass_fields__}

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **call: Any) -> Any:
        """Attend from `query` to `key`; see the function of the same name for the arguments of a call.

        Raises:
            ValueError: an argument of the call is a setting of the layer.
        """
        settings = self.settings
        for name in call:
            if name in settings:
                made = f"{type(self).__name__}({name}=...)"
                raise ValueError(f"{name}: a setting of the layer, not of a call; make {made} or set layer.{name}.")
        return type(self).function(query, key, value, **settings, **call)

    if TYPE_CHECKING:

        def __call__(
            self,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            *,
            query_mask: Tensor | None = None,
            key_mask: Tensor | None = None,
        ) -> Tensor: ...

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={_shown(getattr(self, name))}" for name in self.shown)


def _shown(value: Any) -> str:
    return f"tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
