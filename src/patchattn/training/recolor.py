"""The old place of `patchattn.training.color_augmentation`."""

from __future__ import annotations

from patchattn.deprecation import moved_names

__all__: list[str] = []

__getattr__ = moved_names(__name__, {"recolor": "patchattn.training.color_augmentation:augment_colors"})
