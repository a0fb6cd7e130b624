"""The command line `patchattn`."""

from __future__ import annotations

import sys

from patchattn.cli.streams import accept_any_text, finish, output_failed

__all__ = ["main"]


def main() -> None:
    """Run the command line; without the extra `tools`, say in one sentence how to install it."""
    accept_any_text()
    try:
        from patchattn.cli.app import app
    except KeyboardInterrupt:  # after the start, the commands see to it
        sys.exit(130)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit(f'patchattn: {error.name} is not installed; install it with: pip install "patchattn[tools]"')
    try:
        app(prog_name="patchattn")
    except SystemExit as ended:
        sys.exit(finish(ended.code) if isinstance(ended.code, int) else ended.code)
    except OSError as error:  # the commands see to all others
        code = output_failed(error)
        finish(code)
        sys.exit(code)
