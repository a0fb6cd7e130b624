"""Follow the steps of the Containerfile without a container, and try what comes of them.

python tools/container.py FOLDER

FOLDER holds the wheel of `make package`, which is what the file's first stage builds, by the same commands. The steps
of the last stage are read from the file and followed in an empty environment: variables, copies, commands, the folder
to work in. No compiler is found there, and nothing but the shell and what the steps call. Then a photograph is
inpainted, and the page is started as a container starts it, fetched without its token and with it, and stopped.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "Containerfile"
COMMANDS = ("sh", "rm")
"""What the steps call beside Python's own scripts; `useradd` is passed over, for it changes the machine."""
KEPT = re.compile(r"PIP_|SSL_|REQUESTS_|HTTPS?_PROXY|NO_PROXY", re.IGNORECASE)
"""The variables by which this machine reaches packages."""
INPAINTED = """
import sys
import numpy as np
from PIL import Image
before, mask, after = (np.asarray(Image.open(f"{name}.png")) for name in ("photo", "mask", "completed"))
assert after.shape == before.shape and (after != before)[mask > 0].any() and (after == before)[mask == 0].all()
"""
PHOTOGRAPH = """
from PIL import Image
from skimage import data
Image.fromarray(data.astronaut()[100:260, 100:300]).save("photo.png")
mask = Image.new("L", (200, 160))
mask.paste(255, (80, 60, 110, 95))
mask.save("mask.png")
"""


def stages(text: str) -> list[list[tuple[str, str]]]:
    """The instructions of each stage, in order; what stands before the first is in it."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    found: list[list[tuple[str, str]]] = [[]]
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest.strip()))
    return found[1:]


class Emulated:
    """A machine in a folder: `/` of the container is `folder`."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.folder, self.wheels = folder, wheels
        self.work = folder
        self.entry_point: list[str] = []
        self.command: list[str] = []
        venv.create(folder / "python", with_pip=True)
        home, commands = folder / "home", folder / "commands"
        home.mkdir()
        commands.mkdir()
        for name in COMMANDS:
            (commands / name).symlink_to(shutil.which(name) or sys.exit(f"container: there is no {name}"))
        (commands / "useradd").symlink_to(shutil.which("true") or sys.exit("container: there is no true"))
        self.environment = {name: value for name, value in os.environ.items() if KEPT.match(name)}
        self.environment |= {"PATH": f"{folder / 'python' / 'bin'}:{commands}", "HOME": str(home)}
        if shutil.which("gcc", path=self.environment["PATH"]) or shutil.which("cc", path=self.environment["PATH"]):
            raise SystemExit("container: a compiler is found where none should be")

    def follow(self, name: str, rest: str) -> None:
        """Follow one instruction; one that is not known here is an error, lest it be passed over."""
        if name in ("ENV", "ARG"):
            self.environment |= dict(part.partition("=")[::2] for part in shlex.split(rest) if part.partition("=")[2])
        elif name == "COPY":
            self.copy(shlex.split(rest))
        elif name == "RUN":
            subprocess.run(
                ["sh", "-euc", self.inside(rest)], env=self.environment, cwd=self.work, check=True, stdout=sys.stderr
            )
        elif name == "WORKDIR":
            self.work = Path(self.inside(rest))
            self.work.mkdir(parents=True, exist_ok=True)
        elif name == "ENTRYPOINT":
            self.entry_point = json.loads(rest)
        elif name == "CMD":
            self.command = json.loads(rest)
        elif name not in ("FROM", "USER", "EXPOSE", "STOPSIGNAL"):
            raise SystemExit(f"container: {name} is not known here")

    def copy(self, words: list[str]) -> None:
        *sources, target = [word for word in words if not word.startswith("--")]
        place = Path(self.inside(target))
        place.mkdir(parents=True, exist_ok=True)
        if any(word.startswith("--from=") for word in words):
            for wheel in self.wheels.glob("*.whl"):
                shutil.copy(wheel, place)
            return
        for source in sources:
            shutil.copy(ROOT / source, place)

    def inside(self, text: str) -> str:
        """A text with its absolute paths in the folder."""
        return re.sub(r"(?<![\w./*-])/(?=\w)", f"{self.folder}/", text)

    def run(self, *arguments: str) -> None:
        """Run the container's entry point with these arguments, or Python with code."""
        subprocess.run([self.program(arguments[0]), *arguments[1:]], env=self.environment, cwd=self.work, check=True)

    def program(self, name: str) -> str:
        return shutil.which(name, path=self.environment["PATH"]) or sys.exit(f"container: nothing installed {name}")

    @contextmanager
    def started(self) -> Iterator[str]:
        """Start what a container starts; yield the address that it prints."""
        # Any free port: this machine, unlike a container, may have another page.
        words = [word for word in self.command if word != "--port" and not word.isdigit()]
        program = [self.program(self.entry_point[0]), *self.entry_point[1:], *words]
        process = subprocess.Popen(
            program, env=self.environment, cwd=self.work, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            if found is None:
                raise SystemExit("container: the page printed no address")
            yield found[0]
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        finally:
            process.kill()


def fetch(address: str) -> tuple[int, str]:
    """Status and text of a page, with the cookies of its redirections."""
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(CookieJar())
    )
    try:
        with opener.open(address, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def main(wheels: Path) -> None:
    if not [*wheels.glob("*.whl")]:
        raise SystemExit(f"container: there is no wheel in {wheels}; make package builds one")
    with tempfile.TemporaryDirectory() as temporary:
        machine = Emulated(Path(temporary), wheels)
        for instruction in stages(FILE.read_text(encoding="utf-8"))[-1]:
            machine.follow(*instruction)
        machine.run("python", "-c", PHOTOGRAPH)
        machine.run(*machine.entry_point, "inpaint", "photo.png", "--mask", "mask.png", "-o", "completed.png")
        machine.run("python", "-c", INPAINTED)
        print("a photograph was inpainted", flush=True)
        with machine.started() as address:
            outside, _, token = address.partition("?token=")
            if not token:
                raise SystemExit(f"container: the page is open to all at {address}")
            status, text = fetch(outside)
            if "gradio" in text.lower():
                raise SystemExit(f"container: the page is shown without its token ({status})")
            status, text = fetch(address)
            if status != 200 or "gradio" not in text.lower():
                raise SystemExit(f"container: the page is not shown with its token ({status})")
        print("the page was shown with its token, and not without")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
