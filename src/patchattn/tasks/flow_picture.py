"""Deprecated name of `patchattn.tasks.flow_image`."""  # deprecated name

from patchattn.deprecation import moved_names

__getattr__ = moved_names(__name__, {"flow_picture": "patchattn.tasks.flow_image:flow_image"})
