"""Math renderer to MathML, which browsers draw without scripts (MathJax and KaTeX load some)."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)
converter = LatexToMathML()


def _convert(node: Any, *, display: bool) -> str:
    latex = node.astext()
    try:
        return str(converter.convert_with_local_state(latex, displaystyle=display))
    except LatexError as error:
        logger.warning("equation: %s in %s", error, latex, location=node)
        return "<code></code>"


def _visit_inline(self: Any, node: Any) -> None:
    self.body.append(_convert(node, display=False))
    raise nodes.SkipNode


def _visit_display(self: Any, node: Any) -> None:
    self.body.append(f'<div class="math" style="overflow-x: auto">{_convert(node, display=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
