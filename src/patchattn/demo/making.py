"""A tab that makes a picture from one or two others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchattn.demo import words
from patchattn.demo.house import House, owner_of, with_request
from patchattn.demo.opening import Opened, choose_picture, entries
from patchattn.demo.running import Step, steps
from patchattn.demo.storage import Owner
from patchattn.demo.tools import Source, Tool

__all__ = ["add_tool"]

FORMATS = ["png", "tif", "webp", "jpg"]
PAINTED = "async (_, ...others) => [await window.patchattn.painted(), ...others]"
REFUSED = "refused: "
"""What comes before the sentence where the browser could not upload what was painted."""
NO_RESULT: dict[str, str] = {}


def add_tool(house: House, tool: Tool) -> None:
    """Fill a tab: pictures and settings on the left, the result on the right."""
    import gradio as gr

    gr.HTML(f'<p class="pa-intro">{tool.intro}</p>')
    painted = gr.Textbox(visible=False)
    names = {source.name: f"{tool.job}-{source.name}" for source in tool.sources}
    with gr.Row(elem_classes="pa-columns"):
        with gr.Column(min_width=320):
            painter = gr.HTML(js_on_load="window.patchattn.painter(element, props, watch)", render=False)
            if tool.paints:
                (photo,) = tool.sources
                sources = [choose_picture(house, photo, names[photo.name], painter, _paintable)]
                painter.render()
                sources.append(_choose_mask(house))
            else:
                sources = [choose_picture(house, source, names[source.name]) for source in tool.sources]
        with gr.Column(min_width=320):
            settings = tool.settings()
            file_format = gr.Radio(FORMATS, value="png", label="File", info="All but jpg keep every pixel exactly.")
            with gr.Row():
                run = gr.Button(tool.verb, variant="primary", elem_classes="pa-run")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_classes="pa-stop")
            status = gr.HTML()
            comparison = gr.HTML(
                value=NO_RESULT, html_template="", js_on_load="window.patchattn.comparison(element, props, watch)"
            )
    made = gr.State(None)

    def shown(step: Step) -> tuple[Any, ...]:
        buttons = gr.update(interactive=not step.working), gr.update(visible=step.working)
        if step.result is None:
            return step.status, *buttons, gr.skip(), gr.skip()
        return step.status, *buttons, _visible(step.result), step.result["id"]

    @with_request
    async def work(request: Any, painted: str, before: str | None, file_format: str, *given: Any) -> Any:
        owner = owner_of(request)
        opened, values = given[: len(sources)], given[len(sources) :]
        try:
            job = _job(house, tool, owner, painted, opened, dict(zip(settings, values, strict=True)))
            reads = [name for picture in opened for name in entries(picture)] + ([painted] if painted else [])
            async for step in steps(house.work(house.bench, owner, job | {"format": file_format}, reads)):
                if step.result is not None and before is not None:
                    house.release(owner, [before])
                yield shown(step)
        except ValueError as why:
            yield shown(Step(words.failed(str(why))))
        finally:
            house.release(owner, [painted])

    @with_request
    async def stopping(request: Any) -> None:
        house.stop(house.bench, owner_of(request), tool.job)

    @with_request
    async def forget(request: Any, made: str | None) -> tuple[Any, ...]:
        """What was made of another picture is no longer shown beside this one."""
        if made is None:
            return gr.skip(), gr.skip(), gr.skip()
        house.release(owner_of(request), [made])
        return "", NO_RESULT, None

    settled = {"show_progress": "hidden", "api_visibility": "private"}
    run.click(
        work,
        [painted, made, file_format, *sources, *settings.values()],
        [status, run, stop, comparison, made],
        js=PAINTED if tool.paints else None,
        **settled,
    )
    for opened in sources:
        opened.change(forget, made, [status, comparison, made], **settled)
    stop.click(stopping, None, None, **settled)


def _job(
    house: House, tool: Tool, owner: Owner, painted: str, opened: tuple[Opened, ...], settings: dict[str, Any]
) -> dict[str, Any]:
    """The job that was asked for; a `ValueError` says what is missing."""
    pictures = dict(zip([source.name for source in tool.sources], opened, strict=False))
    for source in tool.sources:
        if pictures[source.name] is None:
            raise ValueError(f"{source.label}: choose a file or a sample first.")
    job = {"job": tool.job, "name": (opened[0] or {}).get("name", ""), **settings}
    job |= {name: picture["path"] for name, picture in pictures.items() if picture is not None}
    if tool.paints:
        if painted.startswith(REFUSED):
            raise ValueError(painted.removeprefix(REFUSED))
        loaded = (opened[1] or {}).get("path", "")
        job |= {"mask": str(house.storage.claim(owner, painted)) if painted else loaded, "painted": bool(painted)}
    return job


def _visible(result: dict[str, Any]) -> dict[str, str]:
    """What the browser needs of a result."""
    pictures = {name: words.url(result[name]) for name in ("before", "after", "path")}
    return pictures | {"name": Path(result["path"]).name}


def _choose_mask(house: House) -> Any:
    import gradio as gr

    with gr.Accordion("Or load a mask", open=False):
        source = Source("mask", "White is what goes; as large as the photograph", {})
        return choose_picture(house, source, "inpaint-mask")


def _paintable(opened: Opened) -> dict[str, str]:
    return {} if opened is None else {"picture": words.url(opened["shown"]), "name": opened["name"]}
