"""Deprecated name of `patchattn.tasks.membrane`."""

from patchattn.deprecation import moved_names

__getattr__ = moved_names(__name__, {"smooth_fill": "patchattn.tasks.membrane:membrane_interpolation"})
