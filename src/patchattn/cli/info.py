"""The command `info`: versions, backends and devices."""

from __future__ import annotations

import platform

from patchattn.cli.commands import command
from patchattn.cli.options import CommandOptions
from patchattn.cli.printing import Summary
from patchattn.cli.stages import Stages

__all__ = ["info"]


@command(CommandOptions, shows_progress=False)
def info(options: CommandOptions, stage: Stages) -> Summary:
    """Print the versions, which backends load and why one does not, which serves which device, where compiled kernels
    are kept, and the threads.
    """
    import torch

    from patchattn import __version__
    from patchattn.kernels import backend_status, cache_states, default_backend

    versions = {"patchattn": __version__, "python": platform.python_version()}
    versions |= {name: _version_of(name) for name in ("torch", "numba", "triton", "numpy")}
    backends = backend_status()
    caches = cache_states()
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    present = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
    devices = {device: default_backend(device) for device in present}
    threads = torch.get_num_threads()
    details = {
        "versions": versions,
        "backends": backends,
        "devices": devices,
        "caches": caches,
        "threads": threads,
        "platform": platform.platform(),
    }
    lines: dict[str, object] = {
        **versions,
        **{f"backend {name}": "loads" if reason is None else reason for name, reason in backends.items()},
        **{f"device {device}": f"served by backend {backend}" for device, backend in devices.items()},
        "devices": "cuda (NVIDIA, AMD) and xpu (Intel) are served by backend gpu; what has no Triton, such as Apple's "
        "mps, by reference",
        **{f"cache {name}": state["folder"] or state["problem"] for name, state in caches.items()},
        "threads": threads,
        "platform": platform.platform(),
    }
    return Summary(details, lines)


def _version_of(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
