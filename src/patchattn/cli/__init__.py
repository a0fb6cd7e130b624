"""The command line `patchattn`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; without the extra `tools`, say in one sentence how to install it."""
    try:
        from patchattn.cli.app import app
    except KeyboardInterrupt:  # after the start, the commands see to it
        sys.exit(130)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit(f'patchattn: {error.name} is not installed; install it with: pip install "patchattn[tools]"')
    app(prog_name="patchattn")
