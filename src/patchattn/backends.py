"""Backends, of the package and of others: a name, a module of functions, and the devices that it serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patchattn.registry import BACKENDS

if TYPE_CHECKING:
    import torch

__all__ = ["DEVICES", "KernelBackend", "find_backend", "register_backend"]

DEVICES: dict[str, str] = {}
"""The backend that serves a type of device where none is asked for."""


@dataclass(frozen=True, repr=False)
class KernelBackend:
    """A backend that was registered; `match` and all layers take it, or its name, as `backend=`."""

    name: str
    module: str
    """The module of its functions, imported when they are first needed."""
    remedy: str
    """The way out if it does not load, for the error."""
    refuses: Callable[[torch.device], str | None] | None = None
    """A device to the reason why tensors there are not taken, or None; None: all are."""

    def __repr__(self) -> str:
        return f"KernelBackend({self.name!r})"

    def __copy__(self) -> KernelBackend:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> KernelBackend:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return find_backend, (self.name,)


def find_backend(name: str) -> KernelBackend:
    """Return a backend by its name."""
    found: KernelBackend = BACKENDS.get(name)
    return found


def register_backend(
    name: str,
    module: str,
    *,
    remedy: str,
    devices: Sequence[str] = (),
    refuses: Callable[[torch.device], str | None] | None = None,
) -> KernelBackend:
    """Register a backend, for `backend=` of every function and layer.

    Args:
        name: of the backend.
        module: the name of a module with the functions of `patchattn.kernels.FUNCTIONS`, which are those of
            `patchattn.kernels.reference`; it is imported when one of them is first needed.
        remedy: what to do if it does not load, for the error.
        devices: types of device whose tensors it serves where no backend is asked for, once it is registered.
        refuses: a device to the reason why tensors there are not taken, or None.

    Returns:
        The backend, which can be given in the place of its name; type checkers know that it is allowed.

    Raises:
        ValueError: the name is taken, or another backend serves one of the devices.
    """
    for argument, text in (("module", module), ("remedy", remedy)):
        if not isinstance(text, str) or not text:
            raise ValueError(f"{argument}: expected a text, got {text!r}.")
    for device in devices:
        if DEVICES.get(device, name) != name:
            raise ValueError(f"devices: {device!r} is served by backend {DEVICES[device]!r}; leave it out.")
    backend: KernelBackend = BACKENDS.add(name, KernelBackend(name, module, remedy, refuses))
    DEVICES.update(dict.fromkeys(devices, name))
    return backend
