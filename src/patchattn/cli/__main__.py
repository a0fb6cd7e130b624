"""`python -m patchattn.cli` is the same as `patchattn`."""

from patchattn.cli import main

main()
