"""Serving the page."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from patchattn.demo.guard import Guard
from patchattn.demo.house import House
from patchattn.demo.lane import Lane
from patchattn.demo.limits import Limits
from patchattn.demo.page import build_page
from patchattn.extras import extra

__all__ = ["serve", "served"]


def serve(host: str, port: int | None, limits: Limits, tell: Any = print) -> None:
    """Serve the page until the user interrupts it.

    Args:
        host: the address to listen at; 127.0.0.1 is this machine alone.
        port: None: the first free one from 7860.
        limits: what a visitor may have.
        tell: called with the page's address.

    Raises:
        ValueError: nothing can listen there.
        RuntimeError: the extra `demo` is not installed.
    """
    with _exit_on_sigterm(), served(host, port, limits) as address:
        tell(address)
        threading.Event().wait()


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Ended by the system, the page leaves as little behind as when it is interrupted."""
    usual = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)


@contextmanager
def served(host: str, port: int | None, limits: Limits) -> Iterator[str]:
    """Serve the page as long as the context lasts; yield its address."""
    # Read when Gradio is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with extra("demo"):
        import gradio as gr
    with tempfile.TemporaryDirectory(prefix="patchattn-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
        results = folder / "results"
        results.mkdir()
        house = House(results, limits, Lane(limits.waiting), Lane(limits.waiting))
        page = build_page(house)
        try:
            yield _launch(gr, page, host, port, limits, results)
        finally:
            page.close(verbose=False)
            house.close()


def _launch(gr: Any, page: Any, host: str, port: int | None, limits: Limits, results: Path) -> str:
    from starlette.middleware import Middleware

    assets = resources.files("patchattn.demo") / "assets"
    script, style = ((assets / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            mcp_server=False,
            run_history=False,
            footer_links=[],
            allowed_paths=[str(results)],
            max_file_size=int(limits.megabytes * 1e6),
            state_session_capacity=200,
            app_kwargs={"middleware": [Middleware(Guard)]},
            theme=_theme(gr),
            css=style,
            head=f"<script>{script}</script>",
        )
    except OSError as error:
        raise ValueError(f"--port: nothing can listen at {host}:{port or 7860} ({error}); choose another.") from error
    return str(address)


def _theme(gr: Any) -> Any:
    """Fonts that are there already; none is fetched."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "Menlo", "Consolas", "monospace"]
    theme = gr.themes.Default(primary_hue="teal", neutral_hue="zinc", radius_size="md", font=sans, font_mono=mono)
    # Gradio's own is too pale to be read with ease.
    return theme.set(body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400")
