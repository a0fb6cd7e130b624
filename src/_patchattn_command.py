"""The command `patchattn`, before anything of it is imported.

It lies outside of the package, whose import takes seconds, for PyTorch's sake: Ctrl-C is to end those quietly too.
"""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    # As yet there is nothing to clean up. Python's own handler raises an exception, and one that meets the import of a
    # large package leaves a traceback. Where interruptions are ignored (a shell's background), they stay ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from patchattn.cli import main

    main()
