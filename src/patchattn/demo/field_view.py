"""The field view: a tab that shows the matches of each pixel, and their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from patchattn.demo import html_helpers
from patchattn.demo.app_state import AppState, owner_of, with_request
from patchattn.demo.controls import Shown, make_controls
from patchattn.demo.image_chooser import OpenedImage, add_image_chooser, entries_of
from patchattn.demo.job_updates import JobUpdate, job_updates
from patchattn.demo.tools import Source
from patchattn.tasks.settings import Matches, MatchSettings, Temperature

__all__ = ["add_field_view"]

INTRO = (
    "Every pixel finds its k best matches, anywhere, and attends to those alone. Click a pixel to see which, and with "
    "what weights. Without a key, the query is matched with itself."
)
HINT = html_helpers.done_html("Click a pixel of the query, or move it by the arrow keys.")
CLICKED_PIXEL = "(_, ...others) => [window.patchattn.clickedPixel(), ...others]"
SOURCES = (
    Source("query", "Query", {"Motorcycle, left eye": "left", "Bricks": "bricks", "Cat": "cat"}),
    Source("key", "Key", {"Motorcycle, right eye": "right", "Astronaut": "astronaut"}),
)


@dataclass(frozen=True, kw_only=True)
class FieldSettings(MatchSettings):
    """Settings of the search, and of the softmax over its matches."""

    k: Matches = 3
    temperature: Temperature = 1.0


SHOWN = (
    Shown("patch_size", max=21, step=2),
    Shown("k", max=16),
    Shown("temperature", max=5, step=0.05),
    Shown("similarity"),
    Shown("method"),
)


def add_field_view(state: AppState) -> None:
    """Add the field view's components to its tab."""
    import gradio as gr

    gr.HTML(f'<p class="pa-intro">{INTRO}</p>')
    with gr.Row(elem_classes="pa-columns"):
        sources = []
        for source in SOURCES:
            with gr.Column(min_width=280):
                sources.append(add_image_chooser(state, source, f"field-{source.name}"))
        with gr.Column(min_width=280):
            settings = make_controls(FieldSettings, SHOWN)
            with gr.Row():
                run = gr.Button("Match", variant="primary", elem_classes="pa-run")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_classes="pa-stop")
            status = gr.HTML()
    view = gr.HTML(value={}, html_template="", js_on_load="window.patchattn.fieldView(element, props, watch, trigger)")
    field, clicked = gr.State(None), gr.Textbox(visible=False)
    options = {"show_progress": "hidden", "api_visibility": "private"}

    def values(update: JobUpdate) -> tuple[Any, ...]:
        buttons = gr.update(interactive=not update.running), gr.update(visible=update.running)
        if update.result is None:
            return update.status, *buttons, gr.skip(), gr.skip()
        return HINT, *buttons, _view_value(update.result), update.result

    @with_request
    async def run_match(
        request: Any, before: dict[str, Any] | None, query: OpenedImage, key: OpenedImage, *setting_values: Any
    ) -> Any:
        owner = owner_of(request)
        if query is None:
            yield values(JobUpdate(html_helpers.error_html(f"{SOURCES[0].label}: choose a file or a sample first.")))
            return
        key = query if key is None else key
        chosen = dict(zip(settings, setting_values, strict=True))
        job = {"job": "field", "query": query["path"], "key": key["path"], "settings": chosen}
        reads = [*entries_of(query), *entries_of(key)]
        async for update in job_updates(state.run_job(state.long_queue, owner, job, reads)):
            if update.result is not None and before is not None:
                state.release(owner, [before["id"]])
            yield values(update)

    @with_request
    async def show_pixel(request: Any, clicked: str, field: dict[str, Any] | None) -> Any:
        pixel = [int(number) for number in clicked.split(",") if number.isdecimal()]
        if field is None or len(pixel) != 2:
            return
        job = {"job": "pixel", "field": field["field"], "row": pixel[0], "column": pixel[1]}
        async for update in job_updates(state.run_query(state.quick_queue, owner_of(request), job, [field["id"]])):
            if update.result is not None:
                yield _view_value(field | update.result), HINT
            elif not update.running:
                yield gr.skip(), update.status

    @with_request
    async def stop_match(request: Any) -> None:
        state.stop(state.long_queue, owner_of(request), "field")

    run.click(
        run_match,
        [field, *sources, *settings.values()],
        [status, run, stop, view, field],
        **options,
    )
    view.click(
        show_pixel,
        [clicked, field],
        [view, status],
        js=CLICKED_PIXEL,
        trigger_mode="always_last",
        **options,
    )
    stop.click(stop_match, None, None, **options)


def _view_value(field: dict[str, Any]) -> dict[str, Any]:
    """The part of a field that the browser needs: its images by their URLs, and no path."""
    urls = {name: html_helpers.file_url(field[name]) for name in ("query", "key", "flow")}
    names = ("query_size", "key_size", "patch_size", "row", "column", "matches", "votes", "mass")
    return urls | {name: field[name] for name in names if name in field}
