"""Write SHA256SUMS beside the files of a folder, as `sha256sum --check SHA256SUMS` reads it.

python tools/checksums.py FOLDER
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

NAME = "SHA256SUMS"


def main(folder: Path) -> None:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != NAME]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / NAME).write_text("".join(lines), encoding="utf-8", newline="\n")
    print(f"{NAME} has {len(lines)} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
