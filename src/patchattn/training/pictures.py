"""The old place of `patchattn.training.image_dataset`."""  # deprecated name

from __future__ import annotations

from patchattn.deprecation import moved_names

__all__: list[str] = []

__getattr__ = moved_names(
    __name__,
    {
        "PictureFolder": "patchattn.training.image_dataset:ImageDataset",
        "list_pictures": "patchattn.training.image_dataset:find_images",
    },
)
