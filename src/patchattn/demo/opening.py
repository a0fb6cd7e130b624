"""Where a picture is chosen: a file, or a sample."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from patchattn.demo import words
from patchattn.demo.house import House, owner_of, with_request
from patchattn.demo.running import steps
from patchattn.demo.storage import Owner
from patchattn.demo.tools import Source

__all__ = ["Opened", "choose_picture", "entries"]

Opened = dict[str, Any] | None
"""What `jobs.open_job` returned: with the `id` of what is shown, and the `upload` it was made from."""


def choose_picture(
    house: House,
    source: Source,
    name: str,
    shown: Any = None,
    show: Callable[[Opened], Any] = words.picture,
) -> Any:
    """Add the chooser of a picture to the page, and return the state that holds what was opened.

    Args:
        house: where it is opened.
        source: its label and samples.
        name: of the chooser, that no other one has.
        shown: the component that shows it; None: one below the chooser.
        show: what that component's value is then.
    """
    import gradio as gr

    opened, uploaded = gr.State(None), gr.Textbox(visible=False)
    start = f"window.patchattn.chooser(element, '{name}', props, watch, trigger)"
    file = gr.HTML(value=_chosen(source, None), html_template="", js_on_load=start, elem_classes="pa-file")
    samples = {}
    if source.samples:
        with gr.Row(elem_classes="pa-samples"):
            for title, sample in source.samples.items():
                samples[sample] = gr.Button(title, size="sm", min_width=60)
    status = gr.HTML(elem_classes="pa-opening")
    if shown is None:
        shown = gr.HTML()
    outputs, settings = [opened, file, shown, status], {"show_progress": "hidden", "api_visibility": "private"}

    def showing(picture: Opened, told: str) -> tuple[Any, ...]:
        return picture, _chosen(source, picture), show(picture), told

    async def opening(owner: Owner, before: Opened, job: dict[str, Any], upload: list[str]) -> Any:
        async for step in steps(house.work(house.desk, owner, job, upload)):
            if step.result is not None:
                forget(owner, before)
                yield showing(step.result | {"upload": upload}, "")
            elif step.working:
                yield gr.skip(), gr.skip(), gr.skip(), step.status
            else:
                forget(owner, before)
                house.release(owner, upload)
                yield showing(None, step.status)

    def forget(owner: Owner, before: Opened) -> None:
        house.release(owner, entries(before))

    @with_request
    async def open_file(request: Any, uploaded: str, before: Opened) -> AsyncGenerator[Any]:
        owner = owner_of(request)
        try:
            path = house.storage.claim(owner, uploaded)
        except ValueError as why:
            yield showing(None, words.failed(str(why)))
            return
        job = {"job": "open", "path": str(path), "name": path.name}
        async for shown_now in opening(owner, before, job, [uploaded]):
            yield shown_now

    @with_request
    async def clear(request: Any, before: Opened) -> Any:
        forget(owner_of(request), before)
        return showing(None, "")

    def open_sample(sample: str) -> Callable[..., Any]:
        @with_request
        async def open_this(request: Any, before: Opened) -> AsyncGenerator[Any]:
            async for shown_now in opening(owner_of(request), before, {"job": "sample", "sample": sample}, []):
                yield shown_now

        return open_this

    file.upload(
        open_file,
        [uploaded, opened],
        outputs,
        js=f"(_, ...others) => [window.patchattn.uploaded('{name}'), ...others]",
        **settings,
    )
    file.clear(clear, opened, outputs, **settings)
    for sample, button in samples.items():
        button.click(open_sample(sample), opened, outputs, **settings)
    return opened


def entries(opened: Opened) -> list[str]:
    """What is kept for a picture: its upload, and what is shown of it."""
    return [] if opened is None else [opened["id"], *opened["upload"]]


def _chosen(source: Source, picture: Opened) -> dict[str, Any]:
    return {"label": source.label, "name": None if picture is None else picture["name"]}
