"""Drop-ins for other packages: modules with the functions and conventions of theirs, which run this package's code.

`patch_match` stands in for PyPatchMatch. Where a program cannot be changed, the whole package can:

    import sys
    import patchattn.compat
    sys.modules["patchmatch"] = patchattn.compat
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["patch_match"]

OF_PATCH_MATCH = ("inpaint", "inpaint_regularity", "patchmatch_available", "set_random_seed", "set_verbose")
"""Names that PyPatchMatch 2 has in its package too."""


def __getattr__(name: str) -> Any:
    # When first used: only then are the tasks imported.
    if name == "patch_match":
        return import_module("patchattn.compat.patch_match")
    if name in OF_PATCH_MATCH:
        return getattr(import_module("patchattn.compat.patch_match"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
