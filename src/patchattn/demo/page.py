"""The page."""

from __future__ import annotations

from typing import Any

from patchattn.demo.house import House, owner_of
from patchattn.demo.looking import add_look
from patchattn.demo.making import add_tool
from patchattn.demo.storage import Owner
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

    async def enter(request: Any) -> Owner:
        await house.desk.prepare()
        return owner_of(request)

    # Gradio gives the request to a parameter of this type; where types are written as text it cannot tell.
    enter.__annotations__["request"] = gr.Request
    with gr.Blocks(title="patchattn", analytics_enabled=False) as page:
        owner = gr.State(None)
        page.load(enter, None, owner, api_visibility="private", show_progress="hidden")
        gr.HTML(TITLE)
        with gr.Tabs():
            for tool in TOOLS:
                with gr.Tab(tool.title, elem_id=f"pa-{tool.job}"):
                    add_tool(house, tool, owner)
            with gr.Tab("Look", elem_id="pa-look"):
                add_look(house, owner)
    return page
