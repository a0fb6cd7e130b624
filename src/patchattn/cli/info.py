"""The command `info`: versions, backends and devices."""

from __future__ import annotations

import platform

from patchattn.cli.commands import tool
from patchattn.cli.options import CommandOptions
from patchattn.cli.printing import Summary
from patchattn.cli.stages import Stages

__all__ = ["info"]

PLURALS = {"backend": "backends", "method": "methods", "similarity": "similarities", "tool": "tools"}


@tool(CommandOptions, shows_progress=False)
def info(options: CommandOptions, stage: Stages) -> Summary:
    """Print the versions, which backends load and why one does not, which serves which device, whether machine code
    that came with the package runs here, where kernels compiled here are kept, the threads, and the search methods,
    similarities and tools with the packages that they are from.
    """
    import torch

    from patchattn import __version__
    from patchattn.cli.tools import TOOLS
    from patchattn.kernels import backend_status, cache_states, default_backend, shipped_state
    from patchattn.registry import BACKENDS, METHODS, SIMILARITIES

    versions = {"patchattn": __version__, "python": platform.python_version()}
    versions |= {name: _version_of(name) for name in ("torch", "numba", "triton", "numpy")}
    backends = backend_status()
    caches = cache_states()
    shipped = shipped_state()
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    present = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
    devices = {device: default_backend(device) for device in present}
    threads = torch.get_num_threads()
    registries = {"backend": BACKENDS, "method": METHODS, "similarity": SIMILARITIES, "tool": TOOLS}
    problems = {kind: registry.problems() for kind, registry in registries.items()}
    registered = {kind: registry.providers() for kind, registry in registries.items()}
    details = {
        "versions": versions,
        "backends": backends,
        "devices": devices,
        "caches": caches,
        "shipped_machine_code": shipped,
        "threads": threads,
        "platform": platform.platform(),
        "registered": registered,
        "problems": {kind: found for kind, found in problems.items() if found},
    }
    lines: dict[str, object] = {
        **versions,
        **{f"backend {name}": "loads" if reason is None else reason for name, reason in backends.items()},
        **{f"device {device}": f"served by backend {backend}" for device, backend in devices.items()},
        "devices": "cuda (NVIDIA, AMD) and xpu (Intel) are served by backend gpu; what has no Triton, such as Apple's "
        "mps, by reference",
        "machine code": _came_with_the_package(shipped),
        **{f"cache {name}": state["folder"] or state["problem"] for name, state in caches.items()},
        "threads": threads,
        "platform": platform.platform(),
        **{PLURALS[kind]: _listed(providers) for kind, providers in registered.items()},
        **{f"{kind} {name}": reason for kind, found in problems.items() for name, reason in found.items()},
    }
    return Summary(details, lines)


def _listed(providers: dict[str, str]) -> str:
    """Names, with their packages where these are others."""
    return ", ".join(name if package == "patchattn" else f"{name} ({package})" for name, package in providers.items())


def _came_with_the_package(state: dict[str, str | None]) -> str:
    if state["level"] is not None:
        return f"that of the package for {state['level']} runs the default calls; others compile at first use"
    return f"compiled here, at first use ({state['problem']})"


def _version_of(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
