"""Print every route of Gradio's application: method and path, a line each; run by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any


def main() -> None:
    import gradio as gr
    from fastapi import FastAPI

    with gr.Blocks() as blocks:
        gr.Textbox()
    app = gr.mount_gradio_app(FastAPI(), blocks, path="/")
    print("\n".join(sorted(set(routes_of(app.routes)))))


def routes_of(routes: Any) -> Iterator[str]:
    for route in routes:
        for method in getattr(route, "methods", None) or ():
            yield f"{method} {re.sub(r'{[^}]*}', 'x', route.path)}"
        # A router that is included keeps its routes, which have their prefix already.
        yield from routes_of(getattr(getattr(route, "original_router", route), "routes", None) or ())


if __name__ == "__main__":
    main()
