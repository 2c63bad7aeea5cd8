"""A page as a Jupyter notebook: prose, code, and as outputs what stood on the page, so that it reads without being run.

Run from top to bottom, every output is drawn anew from the code above it. Pictures are PNG: a page that shows notebooks
and trusts none (GitHub's, a fresh Jupyter) leaves out scripts, frames and SVG.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from visit.files.png import png
from visit.text.citation import bibtex
from visit.text.visible import as_word, visible

WIDEST_PX = 1600.0  # of a picture in a notebook
MOST_ROWS = 60  # of a table, as in Jupyter: the first and the last ones
_LISTED = 5  # words of a cell that holds a list
_WIDTH = re.compile(r'<svg\b[^>]*?\bwidth="([\d.]+)')


@dataclass(frozen=True)
class NotebookCell:
    """`why`: a sentence of Markdown above it; `source`: its code; `outputs`: as `picture_output` and `table_output`."""

    why: str
    source: str
    outputs: tuple[dict[str, Any], ...] = ()


def notebook_file(head: str, cells: list[NotebookCell], meta: dict[str, Any]) -> dict[str, Any]:
    """The notebook (format 4.5), as JSON has it. `head`: Markdown of its first cell; `meta`: what made its outputs."""
    made: list[dict[str, Any]] = []

    def add(kind: str, text: str, **more: Any) -> None:
        made.append({"cell_type": kind, "id": f"c{len(made)}", "metadata": {}, "source": text, **more})

    add("markdown", head)
    for cell in cells:
        add("markdown", cell.why)
        add("code", cell.source, execution_count=None, outputs=list(cell.outputs))
    add("markdown", f"How to cite this:\n\n```bibtex\n{bibtex().strip()}\n```")
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}, "visit": meta}
    return {"cells": made, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def picture_output(svg: str, caption: str) -> dict[str, Any]:
    """A drawing as an output: a picture, and its caption for whoever cannot see it. `svg`: with a width in pixels."""
    wide = _WIDTH.search(svg)
    assert wide is not None
    drawn = base64.b64encode(png(svg, min(2.0, WIDEST_PX / float(wide[1])))).decode()
    return _output({"image/png": drawn, "text/plain": visible(caption)})


def table_output(table: pd.DataFrame) -> dict[str, Any]:
    """A table as an output: its first and last rows, with six digits, as HTML and as plain text."""
    spelled = table.map(_spelled)
    spelled.columns = [str(name) for name in spelled.columns]
    numbers: dict[str, Any] = {"max_rows": MOST_ROWS, "show_dimensions": True, "float_format": "{:.6g}".format}
    # else a notebook sets what stands between two dollars as a formula
    html = spelled.to_html(classes="tex2jax_ignore mathjax_ignore", border=0, escape=True, **numbers)
    return _output({"text/html": html, "text/plain": spelled.to_string(line_width=120, **numbers)})


def _output(data: dict[str, str]) -> dict[str, Any]:
    return {"output_type": "display_data", "data": data, "metadata": {}}


def _spelled(value: Any) -> Any:
    """A cell of a table: words visible, of a list the first ones."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, (list, tuple)):
        return " ".join(as_word(v) if isinstance(v, str) else f"{v:.3g}" for v in value[:_LISTED])
    return value
