"""The tab of a tool, which makes an image from one or two others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchattn.demo import html_helpers
from patchattn.demo.app_state import AppState, owner_of, with_request
from patchattn.demo.controls import make_controls
from patchattn.demo.image_chooser import OpenedImage, add_image_chooser, entries_of
from patchattn.demo.job_updates import JobUpdate, job_updates
from patchattn.demo.process import JobRequest
from patchattn.demo.storage import Owner
from patchattn.demo.tools import Source, Tool
from patchattn.options import check_options

__all__ = ["add_tool_tab"]

FORMATS = ["png", "tif", "webp", "jpg"]
UPLOAD_MASK = "async (_, ...others) => [await window.patchattn.uploadMask(), ...others]"
ERROR_PREFIX = "error: "
"""Comes before the message where the browser could not upload the painted mask."""
NO_RESULT: dict[str, str] = {}


def add_tool_tab(state: AppState, tool: Tool) -> None:
    """Add a tool's components to its tab: images and settings on the left, the result on the right."""
    import gradio as gr

    gr.HTML(f'<p class="pa-intro">{tool.intro}</p>')
    painted = gr.Textbox(visible=False)
    names = {source.name: f"{tool.job}-{source.name}" for source in tool.sources}
    with gr.Row(elem_classes="pa-columns"):
        with gr.Column(min_width=320):
            painter = gr.HTML(js_on_load="window.patchattn.painter(element, props, watch)", render=False)
            if tool.paints:
                (source,) = tool.sources
                sources = [add_image_chooser(state, source, names[source.name], painter, _painter_value)]
                painter.render()
                sources.append(_add_mask_chooser(state))
            else:
                sources = [add_image_chooser(state, source, names[source.name]) for source in tool.sources]
        with gr.Column(min_width=320):
            settings = make_controls(tool.settings, tool.shown)
            file_format = gr.Radio(FORMATS, value="png", label="File", info="All but jpg keep every pixel exactly.")
            with gr.Row():
                run = gr.Button(tool.verb, variant="primary", elem_classes="pa-run")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_classes="pa-stop")
            status = gr.HTML()
            comparison = gr.HTML(
                value=NO_RESULT, html_template="", js_on_load="window.patchattn.comparison(element, props, watch)"
            )
    result_id = gr.State(None)

    def values(update: JobUpdate) -> tuple[Any, ...]:
        buttons = gr.update(interactive=not update.running), gr.update(visible=update.running)
        if update.result is None:
            return update.status, *buttons, gr.skip(), gr.skip()
        return update.status, *buttons, _comparison_value(update.result), update.result["id"]

    @with_request
    async def run_tool(request: Any, painted: str, before: str | None, file_format: str, *inputs: Any) -> Any:
        owner = owner_of(request)
        opened, setting_values = inputs[: len(sources)], inputs[len(sources) :]
        try:
            job = _job(state, tool, owner, painted, opened, dict(zip(settings, setting_values, strict=True)))
            reads = [entry for image in opened for entry in entries_of(image)] + ([painted] if painted else [])
            async for update in job_updates(
                state.run_job(state.long_queue, owner, job | {"format": file_format}, reads)
            ):
                if update.result is not None and before is not None:
                    state.release(owner, [before])
                yield values(update)
        except ValueError as error:
            yield values(JobUpdate(html_helpers.error_html(str(error))))
        finally:
            state.release(owner, [painted])

    @with_request
    async def stop_tool(request: Any) -> None:
        state.stop(state.long_queue, owner_of(request), tool.job)

    @with_request
    async def clear_result(request: Any, result_id: str | None) -> tuple[Any, ...]:
        """Remove the result of the image that was there before."""
        if result_id is None:
            return gr.skip(), gr.skip(), gr.skip()
        state.release(owner_of(request), [result_id])
        return "", NO_RESULT, None

    options = {"show_progress": "hidden", "api_visibility": "private"}
    run.click(
        run_tool,
        [painted, result_id, file_format, *sources, *settings.values()],
        [status, run, stop, comparison, result_id],
        js=UPLOAD_MASK if tool.paints else None,
        **options,
    )
    for opened in sources:
        opened.change(clear_result, result_id, [status, comparison, result_id], **options)
    stop.click(stop_tool, None, None, **options)


def _job(
    state: AppState, tool: Tool, owner: Owner, painted: str, opened: tuple[OpenedImage, ...], settings: dict[str, Any]
) -> JobRequest:
    """The job for a tool with these inputs; a `ValueError` says what is missing."""
    images = dict(zip([source.name for source in tool.sources], opened, strict=False))
    for source in tool.sources:
        if images[source.name] is None:
            raise ValueError(f"{source.label}: choose a file or a sample first.")
    check_options(tool.settings(**settings))
    job = {"job": tool.job, "name": (opened[0] or {}).get("name", ""), "settings": settings}
    job |= {name: image["path"] for name, image in images.items() if image is not None}
    if tool.paints:
        if painted.startswith(ERROR_PREFIX):
            raise ValueError(painted.removeprefix(ERROR_PREFIX))
        loaded = (opened[1] or {}).get("path", "")
        job |= {"mask": str(state.storage.claim(owner, painted)) if painted else loaded, "painted": bool(painted)}
    return job


def _comparison_value(result: dict[str, Any]) -> dict[str, str]:
    """The URLs of a result's images, and the name of its file."""
    urls = {name: html_helpers.file_url(result[name]) for name in ("before", "after", "path")}
    return urls | {"name": Path(result["path"]).name}


def _add_mask_chooser(state: AppState) -> Any:
    import gradio as gr

    with gr.Accordion("Or load a mask", open=False):
        source = Source("mask", "White is what goes; as large as the photograph", {})
        return add_image_chooser(state, source, "inpaint-mask")


def _painter_value(opened: OpenedImage) -> dict[str, str]:
    return {} if opened is None else {"image": html_helpers.file_url(opened["preview"]), "name": opened["name"]}
