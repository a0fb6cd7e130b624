"""The image chooser: a component that opens an uploaded file or a sample."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from patchattn.demo import html_helpers
from patchattn.demo.app_state import AppState, owner_of, with_request
from patchattn.demo.job_updates import job_updates
from patchattn.demo.process import JobRequest
from patchattn.demo.storage import Owner
from patchattn.demo.tools import Source

__all__ = ["OpenedImage", "add_image_chooser", "entries_of"]

OpenedImage = dict[str, Any] | None
"""The result of `jobs.open_job`, with the `id` of its entry and the `upload` that it was made from."""


def add_image_chooser(
    state: AppState,
    source: Source,
    name: str,
    preview: Any = None,
    preview_value: Callable[[OpenedImage], Any] = html_helpers.opened_image_html,
) -> Any:
    """Add an image chooser to the page, and return the Gradio state that holds the opened image.

    Args:
        state: runs the jobs that open images.
        source: its label and samples.
        name: of the chooser, unique on the page.
        preview: the component that shows the image; None: one below the chooser.
        preview_value: makes that component's value.
    """
    import gradio as gr

    opened, uploaded = gr.State(None), gr.Textbox(visible=False)
    on_load = f"window.patchattn.chooser(element, '{name}', props, watch, trigger)"
    file = gr.HTML(value=_chooser_value(source, None), html_template="", js_on_load=on_load, elem_classes="pa-file")
    samples = {}
    if source.samples:
        with gr.Row(elem_classes="pa-samples"):
            for title, sample in source.samples.items():
                samples[sample] = gr.Button(title, size="sm", min_width=60)
    status = gr.HTML(elem_classes="pa-opening")
    if preview is None:
        preview = gr.HTML()
    outputs, settings = [opened, file, preview, status], {"show_progress": "hidden", "api_visibility": "private"}

    def values(image: OpenedImage, status_html: str) -> tuple[Any, ...]:
        return image, _chooser_value(source, image), preview_value(image), status_html

    async def run_open(owner: Owner, before: OpenedImage, job: JobRequest, upload: list[str]) -> Any:
        async for update in job_updates(state.run_job(state.quick_queue, owner, job, upload)):
            if update.result is not None:
                release(owner, before)
                yield values(update.result | {"upload": upload}, "")
            elif update.running:
                yield gr.skip(), gr.skip(), gr.skip(), update.status
            else:
                release(owner, before)
                state.release(owner, upload)
                yield values(None, update.status)

    def release(owner: Owner, before: OpenedImage) -> None:
        state.release(owner, entries_of(before))

    @with_request
    async def open_file(request: Any, uploaded: str, before: OpenedImage) -> AsyncGenerator[Any]:
        owner = owner_of(request)
        try:
            path = state.storage.claim(owner, uploaded)
        except ValueError as error:
            yield values(None, html_helpers.error_html(str(error)))
            return
        job = {"job": "open", "path": str(path), "name": path.name}
        async for changed in run_open(owner, before, job, [uploaded]):
            yield changed

    @with_request
    async def clear(request: Any, before: OpenedImage) -> Any:
        release(owner_of(request), before)
        return values(None, "")

    def open_sample(sample: str) -> Callable[..., Any]:
        @with_request
        async def open_this(request: Any, before: OpenedImage) -> AsyncGenerator[Any]:
            async for changed in run_open(owner_of(request), before, {"job": "sample", "sample": sample}, []):
                yield changed

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


def entries_of(opened: OpenedImage) -> list[str]:
    """The ids of an opened image's entries in the storage: its preview, and its upload."""
    return [] if opened is None else [opened["id"], *opened["upload"]]


def _chooser_value(source: Source, image: OpenedImage) -> dict[str, Any]:
    return {"label": source.label, "name": None if image is None else image["name"]}
