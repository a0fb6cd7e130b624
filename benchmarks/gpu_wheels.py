"""Collect the wheels that the report from a GPU needs, for a machine that has PyTorch, Triton, NumPy and no network.

They have the versions of constraints.txt, for the Python of that machine. Numba is none of them: the CPU's kernels are
not run. There, what is in the folder is installed beside the interpreter's own packages:

    python benchmarks/gpu_wheels.py wheels [--python 3.12] [--plots]
    python -m pip install --no-index --no-deps --find-links wheels --target site jaxtyping ...  # as it prints

The last line that it prints is the second command, with all names.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
NEEDED = ("jaxtyping", "wadler_lindig", "typing_extensions", "pytest", "iniconfig", "packaging", "pluggy", "Pygments")
"""The last five for the tests' cases."""
PLOTS = (
    "matplotlib", "contourpy", "cycler", "fonttools", "kiwisolver", "pillow", "pyparsing", "python-dateutil",
)  # fmt: skip
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 17, 12, 5)), "manylinux2014_x86_64")
"""pip takes these tags as they are written, and no older ones beside them."""


def download(names: list[str], folder: Path, python: str) -> None:
    """Fetch one wheel of each name; pip says what it has not found."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    command += [part for platform in PLATFORMS for part in ("--platform", platform)]
    subprocess.run([*command, "--constraint", str(CONSTRAINTS), "--dest", str(folder), *names], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="the Python of that machine (3.12)")
    parser.add_argument("--plots", action="store_true", help="Matplotlib too")
    arguments = parser.parse_args()
    names = [*NEEDED, *(PLOTS if arguments.plots else ())]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    download(names, arguments.folder, arguments.python)
    wheels = sorted(arguments.folder.glob("*.whl"))
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 2**20:6.2f} MiB  {wheel.name}")
    print(f"{sum(wheel.stat().st_size for wheel in wheels) / 2**20:6.2f} MiB in all")
    place = f"--find-links {arguments.folder} --target site"
    print(f"python -m pip install --no-index --no-deps {place} {' '.join(names)}")


if __name__ == "__main__":
    main()
