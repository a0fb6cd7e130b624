"""The tab that shows what the layer does."""

from __future__ import annotations

from typing import Any

from patchattn.demo import words
from patchattn.demo.house import House, owner_of, with_request
from patchattn.demo.opening import Opened, choose_picture, entries
from patchattn.demo.running import Step, steps
from patchattn.demo.tools import Source

__all__ = ["add_look"]

INTRO = (
    "Every pixel finds its k best matches, anywhere, and attends to those alone. Click a pixel to see which, and with "
    "what weights. Without a second picture the first looks into itself."
)
HINT = words.done("Click a pixel of the first picture, or move it by the arrow keys.")
CLICKED = "(_, ...others) => [window.patchattn.clicked(), ...others]"
SOURCES = (
    Source("photo", "Image that looks", {"Motorcycle, left eye": "left", "Bricks": "bricks", "Cat": "cat"}),
    Source("reference", "Image in which it looks", {"Motorcycle, right eye": "right", "Astronaut": "astronaut"}),
)


def add_look(house: House) -> None:
    """Fill the tab."""
    import gradio as gr

    gr.HTML(f'<p class="pa-intro">{INTRO}</p>')
    with gr.Row(elem_classes="pa-columns"):
        sources = []
        for source in SOURCES:
            with gr.Column(min_width=280):
                sources.append(choose_picture(house, source, f"look-{source.name}"))
        with gr.Column(min_width=280):
            settings = _settings()
            with gr.Row():
                run = gr.Button("Look", variant="primary", elem_classes="pa-run")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_classes="pa-stop")
            status = gr.HTML()
    viewer = gr.HTML(value={}, html_template="", js_on_load="window.patchattn.viewer(element, props, watch, trigger)")
    field, clicked = gr.State(None), gr.Textbox(visible=False)
    hidden = {"show_progress": "hidden", "api_visibility": "private"}

    def shown(step: Step) -> tuple[Any, ...]:
        buttons = gr.update(interactive=not step.working), gr.update(visible=step.working)
        if step.result is None:
            return step.status, *buttons, gr.skip(), gr.skip()
        return HINT, *buttons, _visible(step.result), step.result

    @with_request
    async def work(request: Any, before: dict[str, Any] | None, photo: Opened, reference: Opened, *values: Any) -> Any:
        owner = owner_of(request)
        if photo is None:
            yield shown(Step(words.failed(f"{SOURCES[0].label}: choose a file or a sample first.")))
            return
        other = photo if reference is None else reference
        chosen = dict(zip(settings, values, strict=True))
        job = {"job": "look", "photo": photo["path"], "reference": other["path"], "settings": chosen}
        async for step in steps(house.work(house.bench, owner, job, [*entries(photo), *entries(other)])):
            if step.result is not None and before is not None:
                house.release(owner, [before["id"]])
            yield shown(step)

    @with_request
    async def mark(request: Any, clicked: str, found: dict[str, Any] | None) -> Any:
        place = [int(number) for number in clicked.split(",") if number.isdecimal()]
        if found is None or len(place) != 2:
            return
        job = {"job": "marks", "field": found["field"], "row": place[0], "column": place[1]}
        async for step in steps(house.ask(house.desk, owner_of(request), job, [found["id"]])):
            if step.result is not None:
                yield _visible(found | step.result), HINT
            elif not step.working:
                yield gr.skip(), step.status

    @with_request
    async def stopping(request: Any) -> None:
        house.stop(house.bench, owner_of(request), "look")

    run.click(
        work,
        [field, *sources, *settings.values()],
        [status, run, stop, viewer, field],
        **hidden,
    )
    viewer.click(
        mark,
        [clicked, field],
        [viewer, status],
        js=CLICKED,
        trigger_mode="always_last",
        **hidden,
    )
    stop.click(stopping, None, None, **hidden)


def _settings() -> dict[str, Any]:
    import gradio as gr

    methods = [("auto", "auto"), ("guided", "guided"), ("PatchMatch", "patchmatch"), ("exact (slow)", "exact")]
    return {
        "patch_size": gr.Slider(1, 21, value=7, step=2, label="Patch size"),
        "k": gr.Slider(1, 16, value=3, step=1, label="k"),
        "temperature": gr.Slider(0.05, 5, value=1, step=0.05, label="Temperature"),
        "similarity": gr.Dropdown(["l2", "l1", "dot", "scaled_dot", "cosine"], value="l2", label="Similarity"),
        "method": gr.Dropdown(methods, value="auto", label="Method"),
    }


def _visible(found: dict[str, Any]) -> dict[str, Any]:
    """What the browser needs of it: pictures by where they are found, and no path of the field."""
    pictures = {name: words.url(found[name]) for name in ("query", "key", "flow")}
    names = ("query_size", "key_size", "patch_size", "row", "column", "matches", "votes", "mass")
    return pictures | {name: found[name] for name in names if name in found}
