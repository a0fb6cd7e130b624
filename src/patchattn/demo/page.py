"""The page: one tab for each tool, and the field view."""

from __future__ import annotations

from typing import Any

from patchattn.demo.app_state import AppState
from patchattn.demo.field_view import add_field_view
from patchattn.demo.tool_tab import add_tool_tab
from patchattn.demo.tools import TOOLS

__all__ = ["build_page"]

TITLE = """
<header class="pa-header">
<h1>patchattn</h1>
<p>Attention between pictures at any resolution. Everything happens on this machine; nothing is sent anywhere.</p>
</header>
"""


def build_page(state: AppState) -> Any:
    """Build the Gradio page, whose events run jobs in the state's queues."""
    import gradio as gr

    async def start_workers() -> None:
        await state.quick_queue.start_workers()

    with gr.Blocks(title="patchattn", analytics_enabled=False) as page:
        page.load(start_workers, None, None, api_visibility="private", show_progress="hidden")
        gr.HTML(TITLE)
        with gr.Tabs():
            for tool in TOOLS:
                with gr.Tab(tool.title, elem_id=f"pa-{tool.job}"):
                    add_tool_tab(state, tool)
            with gr.Tab("Field", elem_id="pa-field"):
                add_field_view(state)
    return page
