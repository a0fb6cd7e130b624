"""Deprecated name of `patchattn.tasks.frame_colorizer`."""

from patchattn.deprecation import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "FrameColorizer": "patchattn.tasks.frame_colorizer:FrameColorizer",
        "SOURCES": "patchattn.tasks.frame_colorizer:SOURCES",
    },
)
