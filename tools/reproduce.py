"""Build the packages once more from the last commit, elsewhere, and compare them with those of `make package`.

python tools/reproduce.py FOLDER

Nothing of the checkout is used but its commits: a file that was never committed shows as a difference. What must not
show is the time, the folder, what is in caches, and the order in which a disk lists its files. The machine code is
compiled again for this Python; what other Pythons have made is taken as it is, and named.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from patchattn.kernels.cpu.shipped import FOLDER, PYTHON

ROOT = Path(__file__).parents[1]


def export_commit(folder: Path) -> None:
    """Write the files of the last commit."""
    archive = folder.with_suffix(".tar")
    subprocess.run(["git", "archive", "--output", archive, "HEAD"], cwd=ROOT, check=True)
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")


def build(folder: Path) -> Path:
    """Build both packages in a folder, as `make package` does, and return where they are."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    for command in (
        ["tools/build_kernels.py"],
        ["-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", "out/dist", "."],
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"reproduce: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return folder / "out" / "dist"


def take_others(folder: Path) -> list[str]:
    """Copy the machine code of other Pythons than this one, and return the names of the files."""
    others = [path for path in FOLDER.glob("*.bin") if not path.name.startswith(f"{PYTHON}-")]
    target = folder / FOLDER.relative_to(ROOT)
    target.mkdir(exist_ok=True)
    for path in others:
        shutil.copy(path, target)
    return [path.name for path in others]


def contents(package: Path) -> dict[str, tuple[object, ...]]:
    """For each file in a wheel or sdist what is recorded of it, and a digest of its bytes."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            return {
                entry.filename: (entry.date_time, entry.external_attr, digest(archive.read(entry)))
                for entry in archive.infolist()
            }
    with tarfile.open(package) as archive:
        return {
            entry.name: (entry.mtime, entry.mode, entry.uid, entry.uname, entry.linkname, digest(file.read()))
            for entry in archive
            if (file := archive.extractfile(entry)) is not None
        }


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def differences(first: Path, second: Path) -> list[str]:
    """What differs between two packages, a line each; nothing where all bytes are the same."""
    if not second.exists():
        return [f"{first.name}: the second build has none"]
    if first.read_bytes() == second.read_bytes():
        return []
    one, other = contents(first), contents(second)
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return [f"{first.name}: {name} differs" for name in names] or [f"{first.name}: the archive itself differs"]


def main(folder: Path) -> None:
    packages = [path for path in sorted(folder.iterdir()) if path.name.endswith((".whl", ".tar.gz"))]
    if not packages:
        raise SystemExit(f"reproduce: there is no package in {folder}; make package builds them")
    with tempfile.TemporaryDirectory() as temporary:
        again = Path(temporary) / "patchattn"
        export_commit(again)
        others = take_others(again)
        built = build(again)
        wrong = [line for package in packages for line in differences(package, built / package.name)]
    if wrong:
        raise SystemExit("\n".join(["built twice, and not the same:", *wrong]))
    print(f"built twice, the same bytes: {', '.join(path.name for path in packages)}")
    for name in others:
        print(f"taken as it is, not built again: {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
