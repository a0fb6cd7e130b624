"""Calls with default settings: the kernels that they run are compiled before a wheel is built.

They are real calls, so that they need what users' calls need when a kernel changes. A signature holds types alone:
sizes matter only where they choose another kernel, and numbers of channels and batch items only where 1 is special.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import patchattn
from patchattn.cli.app import app
from patchattn.registry import METHODS

__all__ = ["default_calls", "run_call"]

CHANNELS = (1, 3, 32, 64)
SIDES = (9, 20, 72)
"""Exact search has kernels of its own for small images and few keys; guided search is for those with structure."""


def structured(channels: int, side: int, seed: int = 0) -> Tensor:
    """An image with structure, in which guided search finds principal components."""
    axis = torch.linspace(0, 1, side)
    y, x = axis[:, None], axis
    phases = torch.arange(channels).view(-1, 1, 1) + 0.3 * seed
    return (0.5 + 0.25 * torch.sin(9 * x * y + phases) + 0.2 * torch.cos(23 * x + 7 * y * phases))[None]


def noise(channels: int, side: int) -> Tensor:
    """An image without structure, for which guided search runs PatchMatch."""
    return torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0))


def attention(query: Tensor, key: Tensor, **options: object) -> None:
    """Call `patch_attention` for its result, then for all gradients."""
    patchattn.patch_attention(query, key, key, **options)
    leaves = [tensor.clone().requires_grad_() for tensor in (query, key, key)]
    patchattn.patch_attention(*leaves, **options).sum().backward()


def layers(features: Tensor) -> None:
    """Train and run the README's layers on the features of a network, a batch of them."""
    features = features.repeat(2, 1, 1, 1).requires_grad_()
    for layer in (
        patchattn.PatchAttention(),
        patchattn.PatchAttention(similarity="cosine"),
        patchattn.ScramAttention(k=4),
        patchattn.ScramAttention(k=4, expand=1),
        patchattn.ScramAttention(k=4, estimator="snis", samples=64),
        patchattn.ScramAttention(k=4, selection="mode", num_heads=4, is_causal=True),
    ):
        layer(features, features, features).sum().backward()
        with torch.no_grad():
            layer(features, features, features)
    block = patchattn.MultiheadPatchAttention2d(features.shape[1], num_heads=4, k=4, expand=1)
    block(features).sum().backward()


def command(*arguments: str) -> Callable[[Path], None]:
    """Return a call of the command line, in a folder with images."""

    def run(folder: Path) -> None:
        paths = [str(folder / word) if "." in word else word for word in arguments]
        write_images(folder)
        app(paths, standalone_mode=False)

    return run


def write_images(folder: Path) -> None:
    """Write the images that the commands read."""
    for name, channels, side, seed in (
        ("color", 3, 96, 0),
        ("reference", 3, 96, 1),
        ("gray", 1, 96, 0),
        ("small", 3, 40, 0),
        ("small_gray", 1, 40, 0),
    ):
        levels = (255 * structured(channels, side, seed)[0].clamp(0, 1)).byte().permute(1, 2, 0).squeeze(-1).numpy()
        Image.fromarray(levels).save(folder / f"{name}.png")
    mask = Image.new("L", (96, 96))
    mask.paste(255, (40, 36, 62, 56))
    mask.save(folder / "mask.png")


def default_calls() -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Name and function of every call; the function takes a folder that it may write to."""
    for channels, side in product(CHANNELS, SIDES):
        image = structured(channels, side)
        yield f"patch_attention, {channels}x{side}x{side}", lambda _, x=image: attention(x, x)
        if channels * side < 2500:
            yield (
                f"match exactly, {channels}x{side}x{side}",
                lambda _, x=image: patchattn.match(x, x, patch_size=7, method="exact"),
            )
    pair = structured(3, 72), structured(3, 60, seed=1)
    for method in METHODS.names():
        yield f"match, {method}", lambda _, m=method: patchattn.match(*pair, method=m)
        yield f"patch_attention, {method}", lambda _, m=method: attention(*pair, method=m)
    flat = structured(1, 144)  # many patches are nearly alike, so that exact search looks twice
    yield "match exactly, 1x144x144", lambda _: patchattn.match(flat, flat, k=3, patch_size=7, method="exact")
    yield "noise", lambda _: attention(noise(3, 72), noise(3, 72))
    yield "aggregate", lambda _: attention(*pair, aggregate=True)
    yield "sequence", lambda _: attention(pair[0][:, :, 0], pair[1][:, :, 0])
    yield "layers", lambda _: layers(structured(8, 24))
    for arguments in (
        ("reconstruct", "color.png", "reference.png", "-o", "rebuilt.png"),
        ("reconstruct", "gray.png", "gray.png", "-o", "rebuilt.png"),
        ("match", "color.png", "reference.png", "-o", "field.npz"),
        ("colorize", "gray.png", "reference.png", "-o", "colored.png"),
        ("colorize", "gray.png", "reference.png", "-o", "colored.png", "--model", "default"),
        ("inpaint", "color.png", "--mask", "mask.png", "-o", "completed.png"),
        ("inpaint", "gray.png", "--mask", "mask.png", "-o", "completed.png"),
        ("upscale", "small.png", "-o", "enlarged.png"),
        ("upscale", "small_gray.png", "-o", "enlarged.png"),
        ("upscale", "small.png", "-o", "enlarged.png", "--model", "default"),
    ):
        yield f"patchattn {' '.join(arguments)}", command(*arguments)


def run_call(name: str, call: Callable[[Path], None], folder: Path) -> None:
    """Run one call; an error names it."""
    try:
        call(folder)
    except BaseException as error:
        raise RuntimeError(f"{name}: {error}") from error
