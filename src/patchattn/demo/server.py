"""The server of the page."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from patchattn.demo.access import is_loopback
from patchattn.demo.addresses import access_of, listen, page_url
from patchattn.demo.app_state import AppState
from patchattn.demo.authentication import Authentication
from patchattn.demo.page import build_page
from patchattn.demo.security_middleware import SecurityMiddleware
from patchattn.demo.visitor_limits import VisitorLimits
from patchattn.demo.workspace import workspace
from patchattn.extras import extra

__all__ = ["serve", "served"]

MIN_PASSWORD = 8
MAX_EVENTS = 1000
"""Events that Gradio handles at a time; they wait for the job queues, which have limits of their own."""
MAX_OPEN_CONNECTIONS = 1000
SHUTDOWN_SECONDS = 2
"""Time for which requests may go on when the server shuts down."""


def serve(
    host: str,
    port: int | None,
    limits: VisitorLimits,
    *,
    password: str | None = None,
    allowed: Sequence[str] = (),
    report: Callable[[str], None] = print,
) -> None:
    """Serve the page until the user interrupts it, the terminal is closed, or the system ends it.

    Args:
        host: the address to listen at; 127.0.0.1 is this machine alone.
        port: None: the first free one from 7860.
        limits: of visitors.
        password: None: no password if this machine alone can reach the page, else one is made, and is part of the
            address that is reported.
        allowed: more host names of the server.
        report: called with the page's address.

    Raises:
        ValueError: nothing can listen there, or the password is too short.
        RuntimeError: the extra `demo` is not installed.
    """
    with _exit_on_signals(), served(host, port, limits, password=password, allowed=allowed) as address:
        report(address)
        threading.Event().wait()


@contextmanager
def _exit_on_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into exceptions, so that the server cleans up on all of them."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    # Whoever starts it by `nohup` wants it to go on.
    changed = [number for number in numbers if before[number] != signal.SIG_IGN]

    def end(number: int, _: Any) -> None:
        for other in changed:  # a second one must not interrupt the cleaning up
            signal.signal(other, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(0)

    for number in changed:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])


@contextmanager
def served(
    host: str, port: int | None, limits: VisitorLimits, *, password: str | None = None, allowed: Sequence[str] = ()
) -> Iterator[str]:
    """Serve the page while the context lasts; yield its address. See `serve`."""
    if password is not None and len(password) < MIN_PASSWORD:
        raise ValueError(f"--password: expected at least {MIN_PASSWORD} characters, got {len(password)}.")
    token = None if password is not None or is_loopback(host) else secrets.token_urlsafe(16)
    with workspace() as folder, listen(host, port) as listening, _environment(folder / "gradio"):
        with extra("demo"):
            import gradio as gr
        port = int(listening.getsockname()[1])
        access, authentication = access_of(host, port, allowed), Authentication(port, password or token)
        files = folder / "files"
        files.mkdir()
        state = AppState.build(files, limits)
        page = build_page(state)
        app = SecurityMiddleware(_application(gr, page), access, authentication, state.storage, limits)
        with _running(app, page, state, listening):
            yield page_url(host, port) + (f"?token={token}" if token else "")


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Set the variables that Gradio reads when it is imported: no analytics, and its temporary folder."""
    wanted = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _application(gr: Any, page: Any) -> Any:
    """The ASGI application of Gradio, which `SecurityMiddleware` wraps."""
    from fastapi import FastAPI

    assets = resources.files("patchattn.demo") / "assets"
    script, style = ((assets / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    page.max_threads = MAX_EVENTS
    page.state_session_capacity = MAX_EVENTS
    page.queue(default_concurrency_limit=None, api_open=False)
    return gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        ssr_mode=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        # Details of an error in the program are for the terminal.
        show_error=False,
        theme=_theme(gr),
        css=style,
        head=f"<script>{script}</script>",
    )


@contextmanager
def _running(app: SecurityMiddleware, page: Any, state: AppState, listening: socket.socket) -> Iterator[None]:
    """Answer requests, in a thread, while the context lasts."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_OPEN_CONNECTIONS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        lifespan="on",
        ws="none",
    )
    server = uvicorn.Server(config)

    async def run() -> None:
        await server.serve(sockets=[listening])
        await state.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    page.is_running = True
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("The server did not start.")
        thread.join(0.01)
    try:
        yield
    finally:
        page.is_running = False
        app.close()
        server.should_exit = True
        thread.join(SHUTDOWN_SECONDS + 3)


def _theme(gr: Any) -> Any:
    """The theme, with fonts of the system; none is downloaded."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "Menlo", "Consolas", "monospace"]
    theme = gr.themes.Default(primary_hue="teal", neutral_hue="zinc", radius_size="md", font=sans, font_mono=mono)
    # Gradio's own is too pale to be read with ease.
    return theme.set(body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400")
