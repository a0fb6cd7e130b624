"""A tab that makes a picture from one or two others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchattn.demo import words
from patchattn.demo.house import House, write_painted
from patchattn.demo.opening import Opened, choose_picture
from patchattn.demo.running import Step, steps
from patchattn.demo.tools import Source, Tool

__all__ = ["add_tool"]

FORMATS = ["png", "tif", "webp", "jpg"]
PAINTED = "(_, ...others) => [window.patchattn.painted(), ...others]"


def add_tool(house: House, tool: Tool, owner: Any) -> None:
    """Fill a tab: pictures and settings on the left, the result on the right."""
    import gradio as gr

    gr.HTML(f'<p class="pa-intro">{tool.intro}</p>')
    painted = gr.Textbox(visible=False)
    with gr.Row(elem_classes="pa-columns"):
        with gr.Column(min_width=320):
            painter = gr.HTML(js_on_load="window.patchattn.painter(element, props, watch)", render=False)
            if tool.paints:
                sources = [choose_picture(house, tool.sources[0], painter, _paintable)]
                painter.render()
                sources.append(_choose_mask(house))
            else:
                sources = [choose_picture(house, source) for source in tool.sources]
        with gr.Column(min_width=320):
            settings = tool.settings()
            file_format = gr.Radio(FORMATS, value="png", label="File", info="All but jpg keep every pixel exactly.")
            with gr.Row():
                run = gr.Button(tool.verb, variant="primary", elem_classes="pa-run")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_classes="pa-stop")
            status = gr.HTML()
            slider = gr.ImageSlider(
                label="Before and after", type="filepath", interactive=False, visible=False, buttons=["fullscreen"]
            )
            download = gr.DownloadButton("Download", visible=False, elem_classes="pa-download")

    def shown(step: Step) -> tuple[Any, ...]:
        buttons = gr.update(interactive=not step.working), gr.update(visible=step.working)
        if step.result is None:
            return step.status, *buttons, gr.skip(), gr.skip()
        result = step.result
        pair = gr.update(value=(result["before"], result["after"]), visible=True)
        name = Path(result["path"]).name
        return step.status, *buttons, pair, gr.update(value=result["path"], label=f"Download {name}", visible=True)

    async def work(painted: str, owner: str, file_format: str, *given: Any) -> Any:
        opened, values = given[: len(sources)], given[len(sources) :]
        try:
            job = _job(house, tool, painted, opened, file_format, dict(zip(settings, values, strict=True)))
        except ValueError as why:
            yield shown(Step(words.failed(str(why))))
            return
        async for step in steps(house.bench, f"{owner} {tool.job}", job):
            yield shown(step)

    async def stopping(owner: str) -> None:
        house.bench.stop(f"{owner} {tool.job}")

    run.click(
        work,
        [painted, owner, file_format, *sources, *settings.values()],
        [status, run, stop, slider, download],
        js=PAINTED if tool.paints else None,
        show_progress="hidden",
        concurrency_limit=None,  # the lane has its own queue
        api_visibility="private",
    )

    def forget(told: str) -> tuple[Any, ...]:
        """What was made of another picture is no longer shown beside this one."""
        hidden = gr.update(visible=False)
        # What is told meanwhile, of work or of an error, is of this picture.
        return "" if told.startswith(words.DONE) else gr.skip(), hidden, hidden

    for opened in sources:
        opened.change(forget, status, [status, slider, download], show_progress="hidden", api_visibility="private")
    stop.click(stopping, owner, None, queue=False, show_progress="hidden", api_visibility="private")


def _job(
    house: House, tool: Tool, painted: str, opened: tuple[Opened, ...], file_format: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """The job that was asked for; a `ValueError` says what is missing."""
    pictures = dict(zip([source.name for source in tool.sources], opened, strict=False))
    for source in tool.sources:
        if pictures[source.name] is None:
            raise ValueError(f"{source.label}: choose a file or a sample first.")
    job = house.job(tool.job, format=file_format, **settings)
    job |= {name: picture["path"] for name, picture in pictures.items() if picture is not None}
    job["name"] = (opened[0] or {}).get("name", "")
    if tool.paints:
        loaded = opened[1]
        mask = write_painted(painted, Path(job["folder"])) if painted else (loaded or {}).get("path", "")
        job |= {"mask": mask, "painted": bool(painted)}
    return job


def _choose_mask(house: House) -> Any:
    import gradio as gr

    with gr.Accordion("Or load a mask", open=False):
        return choose_picture(house, Source("mask", "White is what goes; as large as the photograph", {}))


def _paintable(opened: Opened) -> dict[str, str]:
    return {} if opened is None else {"picture": words.url(opened["shown"]), "name": opened["name"]}
