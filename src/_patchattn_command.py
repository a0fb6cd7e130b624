"""The command `patchattn`, before anything of it is imported.

It lies outside of the package, whose import takes seconds for PyTorch's sake: `--help`, `--version` and shell
completion are to answer at once, and Ctrl-C is to end those seconds quietly too.
"""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec, module_from_spec

__all__ = ["import_package", "main"]

PACKAGE = "patchattn"


def main() -> None:
    """Run the command line."""
    # As yet there is nothing to clean up. Python's own handler raises an exception, and one that meets the import of a
    # large package leaves a traceback. Where interruptions are ignored (a shell's background), they stay ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _put_off_import()
    from patchattn.cli import main

    main()


def import_package() -> None:
    """Run the package's `__init__`, if that was put off; commands do so before their work."""
    package = sys.modules[PACKAGE]
    if not hasattr(package, "__all__"):
        assert package.__spec__ is not None
        assert package.__spec__.loader is not None
        package.__spec__.loader.exec_module(package)


def _put_off_import() -> None:
    """Let the package's modules be imported without its `__init__`, which imports PyTorch."""
    spec = find_spec(PACKAGE)
    if spec is not None and PACKAGE not in sys.modules:
        sys.modules[PACKAGE] = module_from_spec(spec)
