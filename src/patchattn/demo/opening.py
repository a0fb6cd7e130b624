"""Where a picture is chosen: a file, or a sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from patchattn.demo import words
from patchattn.demo.house import House
from patchattn.demo.running import steps
from patchattn.demo.tools import Source

__all__ = ["Opened", "choose_picture"]

Opened = dict[str, Any] | None
"""What `jobs.open_job` returned."""


def choose_picture(
    house: House, source: Source, shown: Any = None, show: Callable[[Opened], Any] = words.picture
) -> Any:
    """Add the chooser of a picture to the page, and return the state that holds what was opened.

    Args:
        house: where it is opened.
        source: its label and samples.
        shown: the component that shows it; None: one below the chooser.
        show: what that component's value is then.
    """
    import gradio as gr

    opened = gr.State(None)
    file = gr.File(label=source.label, file_types=["image"], height=112, elem_classes="pa-file")
    samples = {}
    if source.samples:
        with gr.Row(elem_classes="pa-samples"):
            for title, name in source.samples.items():
                samples[name] = gr.Button(title, size="sm", min_width=60)
    status = gr.HTML(elem_classes="pa-opening")
    if shown is None:
        shown = gr.HTML()
    outputs, settings = [opened, shown, status], {"show_progress": "hidden", "api_visibility": "private"}

    async def opening(job: dict[str, Any]) -> Any:
        async for step in steps(house.desk, "", job):
            if step.result is not None:
                yield step.result, show(step.result), ""
            elif step.working:
                yield gr.skip(), gr.skip(), step.status
            else:
                yield None, show(None), step.status

    async def open_file(path: str | None) -> Any:
        if path is None:
            yield None, show(None), ""
            return
        async for shown_now in opening(house.job("open", path=path, name=Path(path).name)):
            yield shown_now

    file.upload(open_file, file, outputs, **settings)
    file.clear(partial(_nothing, show), None, outputs, **settings)
    for name, button in samples.items():

        async def open_this(name: str = name) -> Any:
            async for shown_now in opening(house.job("sample", sample=name)):
                yield shown_now

        button.click(open_this, None, outputs, **settings)
    return opened


def _nothing(show: Callable[[Opened], Any]) -> tuple[None, Any, str]:
    return None, show(None), ""
