"""The page."""

from __future__ import annotations

from typing import Any

from patchattn.demo.house import House
from patchattn.demo.looking import add_look
from patchattn.demo.making import add_tool
from patchattn.demo.tools import TOOLS

__all__ = ["build_page"]

TITLE = """
<header class="pa-header">
<h1>patchattn</h1>
<p>Attention between pictures at any resolution. Everything happens on this machine; nothing is sent anywhere.</p>
</header>
"""


def build_page(house: House) -> Any:
    """Make the page; its events work in the house's lanes."""
    import gradio as gr

    async def enter() -> None:
        await house.desk.prepare()

    with gr.Blocks(title="patchattn", analytics_enabled=False) as page:
        page.load(enter, None, None, api_visibility="private", show_progress="hidden")
        gr.HTML(TITLE)
        with gr.Tabs():
            for tool in TOOLS:
                with gr.Tab(tool.title, elem_id=f"pa-{tool.job}"):
                    add_tool(house, tool)
            with gr.Tab("Look", elem_id="pa-look"):
                add_look(house)
    return page
