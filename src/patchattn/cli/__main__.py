"""`python -m patchattn.cli` is the same as `patchattn`."""

from _patchattn_command import main

main()
