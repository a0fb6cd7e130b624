"""Check what `make package` built: what wheel and sdist hold, their metadata, and that the wheel installs and computes.

python tools/package.py FOLDER
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

from numba.core.registry import cpu_target

from patchattn.kernels.cpu.levels import levels_of, supported
from patchattn.kernels.cpu.shipped import path_of

ROOT = Path(__file__).parents[1]
WEIGHTS = ("colorization", "superresolution-x2", "superresolution-x3", "superresolution-x4")
NEEDED = [
    "patchattn/py.typed",
    *(f"patchattn/networks/shipped/{name}.safetensors" for name in WEIGHTS),
    "patchattn/networks/shipped/LICENSE.md",
]
LICENSES = ("LICENSE", "src/patchattn/networks/shipped/LICENSE.md")
IN_SDIST = (
    *(f"src/{name}" for name in NEEDED),
    *LICENSES,
    "README.md",
    "hatch_build.py",
    "CHANGELOG.md",
    "CITATION.cff",
    "tests/cases.py",
)
KINDS = (".py", ".css", ".js", ".safetensors", ".md", ".bin")
"""The files of the library; anything else in the wheel has got there by mistake."""
TARGET = cpu_target.target_context.codegen().magic_tuple()
LEVELS = levels_of(TARGET[0])
MACHINE_CODE = [path_of(level).relative_to(ROOT / "src").as_posix() for level in LEVELS]
RELATIVE_LINK = re.compile(r"\]\((?!https?:|#)")
COMPILED = (".pyc", ".nbi", ".nbc", ".so", ".bin")
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
PRINT_INSTALLED = """
from importlib.metadata import entry_points, files, version
typed = [file for file in files("patchattn") if file.name == "py.typed"]
print(version("patchattn"), len(entry_points(group="console_scripts", name="patchattn")), len(typed))
"""
CALL_DEFAULTS = """
import sys, torch, patchattn
from patchattn.kernels import shipped_state
for channels in (1, 3, 5):
    axis = torch.linspace(0, 7, 67)
    image = torch.sin(axis[:50, None] * axis + torch.arange(channels).view(-1, 1, 1))[None].requires_grad_()
    patchattn.patch_attention(image, image, image).sum().backward()
    patchattn.match(image, image.roll(3, 2))
print(patchattn.__file__, shipped_state()["level"])
"""
"""Other images than `default_calls.py` has: types are the same."""


def check_wheel(wheel: Path, version: str) -> list[str]:
    """What is wrong with a wheel, a sentence each."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = message_from_bytes(archive.read(f"patchattn-{version}.dist-info/METADATA"))
    sources = (path for path in (ROOT / "src").rglob("*") if path.suffix in KINDS or path.name == "py.typed")
    expected = {path.relative_to(ROOT / "src").as_posix() for path in sources} | set(NEEDED) | set(MACHINE_CODE)
    info = f"patchattn-{version}.dist-info/"
    wrong = [f"the wheel lacks {name}" for name in sorted(expected - names)]
    wrong += [f"the wheel holds {name}" for name in sorted(names - expected) if not name.startswith(info)]
    wrong += [f"the wheel lacks the license {name}" for name in LICENSES if f"{info}licenses/{name}" not in names]
    if metadata["License-Expression"] != "MIT" or metadata["Version"] != version:
        wrong.append(f"the wheel is {metadata['Version']} under {metadata['License-Expression']}")
    description = metadata.get_payload(decode=True).decode("utf-8")
    if not description.startswith("# patchattn\n"):
        wrong.append("the wheel's description is not README.md")
    broken = [line for line in description.splitlines() if RELATIVE_LINK.search(line)]
    return wrong + [f"the wheel's description has a link that leads nowhere on an index: {line}" for line in broken]


def check_sdist(sdist: Path, version: str) -> list[str]:
    """What is wrong with an sdist, a sentence each."""
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"patchattn-{version}/") for name in archive.getnames()}
    wrong = [f"the sdist lacks {name}" for name in IN_SDIST if name not in names]
    return wrong + [f"the sdist holds {name}" for name in sorted(names) if name.endswith(COMPILED)]


def check_installation(wheel: Path, version: str) -> list[str]:
    """What is wrong with the wheel installed alone, in an environment of its own."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
        subprocess.run([python, "-m", "pip", "install", *options, wheel], check=True)
        done = subprocess.run([python, "-c", PRINT_INSTALLED], capture_output=True, text=True, check=True)
    expected = f"{version} 1 1"
    return [] if done.stdout.strip() == expected else [f"installed: expected {expected}, got {done.stdout.strip()}"]


def check_machine_code(wheel: Path) -> list[str]:
    """What is wrong with default calls of the wheel, installed before this checkout, at each level that runs here."""
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        installed = Path(folder) / "installed"
        options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--target", installed]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, wheel], check=True)
        for level in (level for level in LEVELS if supported(level, *TARGET[1:])):
            set_here = {"NUMBA_CPU_NAME": level.cpu, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": f"{folder}/cache"}
            environment = os.environ | set_here | {"PYTHONPATH": str(installed)}
            command = [sys.executable, "-c", CALL_DEFAULTS]
            done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
            expected = f"{installed / 'patchattn' / '__init__.py'} {level.name}"
            if done.returncode or done.stdout.strip() != expected:
                wrong.append(f"default calls: expected {expected}, got {done.stdout.strip()} {done.stderr.strip()}")
            elif done.stderr:
                wrong.append(f"default calls with the machine code for {level.name}: {done.stderr.strip()}")
    return wrong


def main(folder: Path) -> None:
    found = VERSION.search((ROOT / "src/patchattn/__init__.py").read_text(encoding="utf-8"))
    assert found is not None
    version = found[1]
    wheel, sdist = folder / f"patchattn-{version}-py3-none-any.whl", folder / f"patchattn-{version}.tar.gz"
    wrong = [*check_wheel(wheel, version), *check_sdist(sdist, version), *check_installation(wheel, version)]
    wrong += check_machine_code(wheel)
    if wrong:
        raise SystemExit("\n".join(wrong))
    for file in (wheel, sdist):
        print(f"{file.name} holds what it should: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
