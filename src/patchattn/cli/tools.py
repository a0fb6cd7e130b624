"""The tools of the command line by name, and what each does."""

from __future__ import annotations

from typing import Any

from patchattn.registry import Registry

__all__ = ["SUMMARIES", "TOOLS"]

SUMMARIES = {
    "reconstruct": "Rebuild images from the pixels of another.",
    "colorize": "Color gray images and videos after a colored image.",
    "inpaint": "Remove things from images, and complete the images.",
    "upscale": "Enlarge images 2, 3, 4, 8 or 16 times.",
    "demo": "Serve the tools as a page on this machine.",
    "match": "Find the best matches of images in another.",
    "info": "Print versions, backends and devices, and what is registered.",
    "train": "Train a network on your own images.",
}
"""The package's own tools in the order of `--help`, each in the module of its name; written here, so that the list can
be printed without importing them. Of other tools it is the first sentence of their help."""

TOOLS: Registry[Any] = Registry(
    "tool",
    "patchattn.cli.commands.tool()",
    "patchattn.tools",
    {name: f"patchattn.cli.{name}" for name in SUMMARIES},
)
