"""A page that is served, and a browser that looks at it. Run by `make test-browser` alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import heed_signals

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("PATCHATTN_BROWSER") is None:
        own = [item for item in items if HERE in item.path.parents]
        config.hook.pytest_deselected(items=own)
        items[:] = [item for item in items if item not in own]


class Server:
    """`patchattn demo` in a process of its own, which is to say nothing of errors in the program."""

    def __init__(self, *options: str, folder: Path, **environment: str) -> None:
        self.folder = folder / "temporary"
        """Where it makes its folder."""
        self.folder.mkdir(exist_ok=True)
        self._log = folder / "log.txt"
        self._file = self._log.open("a+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "patchattn.cli", "demo", *options],
            stdout=subprocess.PIPE,
            stderr=self._file,
            text=True,
            env=os.environ | {"TMPDIR": str(self.folder)} | environment,
            preexec_fn=heed_signals,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().partition(" ")[0]

    @property
    def stderr(self) -> str:
        """What is on stderr by now."""
        return self._log.read_text(encoding="utf-8")

    def left(self) -> list[Path]:
        """The folders of its own that are there; PyTorch keeps some too."""
        return list(self.folder.glob("patchattn-*"))

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._file.close()
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers, whose folders for temporary files are the test's."""
    servers: list[Server] = []

    def start_one(*options: str, **environment: str) -> Server:
        server = Server(*options, folder=tmp_path, **environment)
        servers.append(server)
        return server

    yield start_one
    for server in servers:
        if server.process.poll() is None:
            server.end()
        assert "Traceback" not in server.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page that takes up to 1 megapixel and 2 megabytes."""
    folder = tmp_path_factory.mktemp("server")
    server = Server("--max-megapixels", "1", "--max-megabytes", "2", folder=folder)
    yield server
    code = server.end()
    assert server.address.startswith("http://127.0.0.1:"), server.stderr
    assert code == 0
    assert server.left() == []
    assert "Traceback" not in server.stderr


@pytest.fixture(scope="module")
def address(server: Server) -> str:
    return server.address


@pytest.fixture(autouse=True)
def nothing_went_wrong(request: pytest.FixtureRequest) -> Iterator[None]:
    """An error in the program, which the server writes to stderr, fails the test in which it happened."""
    yield
    if "server" in request.fixturenames:
        stderr = request.getfixturevalue("server").stderr
        assert "Traceback" not in stderr, stderr
        assert "Error" not in stderr, stderr


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = os.environ["PATCHATTN_BROWSER"]
    with sync_playwright() as playwright:
        # In a container, where root runs it, Chromium's own sandbox has no rights to start.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        # Names of websites that are this machine, as whoever owns a name can make it any machine.
        names = "--host-resolver-rules=MAP *.example 127.0.0.1"
        browser = playwright.chromium.launch(executable_path=path, args=[*sandbox, names])
        yield browser
        browser.close()


@pytest.fixture
def visit(server: Server, address: str, browser: Any) -> Iterator[Callable[[], Any]]:
    """Open the page as a new visitor. What leaves the machine, and what the page's scripts complain of, fails."""
    visitors: list[Any] = []
    complaints: list[str] = []

    def not_here(url: str) -> bool:
        return not url.startswith((address, "data:", "blob:"))

    def open_page(**settings: Any) -> Any:
        visitor = browser.new_context(viewport={"width": 1280, "height": 900}, **settings)
        visitors.append(visitor)
        page = visitor.new_page()
        page.set_default_timeout(120_000)  # the machine may be busy
        page.on(
            "request",
            lambda request: complaints.append(request.url) if not_here(request.url) else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.get_by_role("heading", name="patchattn").wait_for()
        return page

    yield open_page
    for visitor in visitors:
        visitor.close()
    assert complaints == []
