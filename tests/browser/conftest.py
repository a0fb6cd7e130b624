"""A page that is served, and a browser that looks at it. Run by `make test-browser` alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("PATCHATTN_BROWSER") is None:
        own = [item for item in items if HERE in item.path.parents]
        config.hook.pytest_deselected(items=own)
        items[:] = [item for item in items if item not in own]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A page that takes up to 1 megapixel and 2 megabytes."""
    command = [sys.executable, "-m", "patchattn.cli", "demo", "--max-megapixels", "1", "--max-megabytes", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().partition(" ")[0]
        yield address
        server.terminate()
        _, said = server.communicate(timeout=30)
    assert address.startswith("http://127.0.0.1:"), said
    assert server.returncode == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = os.environ["PATCHATTN_BROWSER"]
    with sync_playwright() as playwright:
        # In a container, where root runs it, Chromium's own sandbox has no rights to start.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield browser
        browser.close()


@pytest.fixture
def visit(address: str, browser: Any) -> Iterator[Callable[[], Any]]:
    """Open the page as a new visitor. What leaves the machine, and what the page's scripts complain of, fails."""
    visitors: list[Any] = []
    complaints: list[str] = []

    def not_here(url: str) -> bool:
        return not url.startswith((address, "data:", "blob:"))

    def open_page(**settings: Any) -> Any:
        visitor = browser.new_context(viewport={"width": 1280, "height": 900}, **settings)
        visitors.append(visitor)
        page = visitor.new_page()
        page.set_default_timeout(30_000)
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
