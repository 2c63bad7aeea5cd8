"""Results in a notebook: the drawings of the pages, in a frame that fetches nothing and can reach nothing.

A notebook may be sandboxed, and its page has styles and scripts of its own: so each drawing is a whole page inside an
`iframe` with `srcdoc`, which works in Jupyter, in VS Code and in a saved HTML file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
from markupsafe import Markup

from visit.analyses.function_words import function_words, is_function_word
from visit.causal.agreement import beside_effect
from visit.drawing.page_script import page_script, page_style
from visit.drawing.style import page_colours, style
from visit.drawing.svg import visible_tree
from visit.figures.effects import effects_grid
from visit.figures.grids import Grid, grid_data, grid_style
from visit.figures.heads import memory_grid
from visit.figures.lens_rows import rows_of
from visit.figures.tracing import STEP_Y
from visit.files.flow_page import difference_file, flow_html, script_json
from visit.files.page import fill_template
from visit.files.trace_picture import trace_file
from visit.models.catalog import title
from visit.text.visible import as_word, visible

DRAWN_BYTES = 400_000  # bytes of the drawings that a graph holds: a notebook keeps the output of every cell
_GRAPH_PX, _ABOVE_PX, _ROW_PX, _BELOW_PX = (
    760,
    72,
    27,
    70,
)  # px of a frame: a graph; a map's title and names, a row, what lies below

_AROUND_TRACE_PX = 300  # px of the title, the tokens, the scale and what the maps are of


def view_of(kind: str, result: Any) -> str:
    """A result of `visit` as a notebook's HTML.

    `kind`: "graph", "comparison", "lens_map", "effects" (of heads), "head_memory" or "trace".
    """
    makers: dict[str, Callable[[Any], str]] = {
        "graph": partial(flow_html, room=DRAWN_BYTES),
        "comparison": lambda found: difference_file(found, "html", room=DRAWN_BYTES).decode(),
        "lens_map": lens_map_page, "effects": effects_page, "head_memory": head_memory_page,
        "trace": lambda found: trace_file(found, "html").decode(),
    }  # fmt: skip
    rows = {"lens_map": "depth", "effects": "layer", "head_memory": "source_pos"}
    height = _GRAPH_PX
    if kind in rows:
        height = _ABOVE_PX + _ROW_PX * result[rows[kind]].nunique() + (_BELOW_PX if kind == "lens_map" else 0)
    if kind == "trace":
        height = _AROUND_TRACE_PX + STEP_Y * result["layer"].nunique()
    page = makers[kind](result).replace("&", "&amp;").replace('"', "&quot;")  # all that an attribute in quotes needs
    return (
        f'<iframe srcdoc="{page}" sandbox="allow-scripts" title="VISIT: {kind.replace("_", " ")}" '
        f'style="width:100%;height:{height}px;border:0"></iframe>'
    )


def lens_map_page(table: pd.DataFrame) -> str:
    """The lens map as on the flow page."""
    about, listed = table.attrs, function_words()
    target = about["target"]["token"]
    found = rows_of(table, about["d_vocab"], "target", target, lambda word: is_function_word(word, listed),
                    readable_from=about["readable_from"])  # fmt: skip
    chosen = len(found["heads"]) - 1
    data = found | {"chosen": chosen, "node": "", "meant": [], "of": ""}
    colours = "".join(style(theme, "safe", f".lensmap.{theme}", f".lensmap.{theme}") for theme in ("light", "dark"))
    name = f"What the stream reads after every block of {_of(table)}; fill: probability of {as_word(target)}"
    return _component_page("lens_map", name, "<div class='lensmap light'></div>", data, colours)


def effects_page(table: pd.DataFrame) -> str:
    """What the answer does without each head."""
    grid = effects_grid(beside_effect(table), "effect", "The answer without it, logits", "")
    return _grid_page(
        grid,
        f"What {as_word(table.attrs['target']['token'])} does without each head of {_of(table)}; below 0: it falls",
    )


def head_memory_page(table: pd.DataFrame) -> str:
    """What one head attends to, how far that moves it, and what it adds."""
    about = table.attrs
    word = as_word(about["target"]["token"])
    name = f"L{about['layer']} H{about['head']} of {_of(table)}: what it recalls, and adds to {word}"
    return _grid_page(memory_grid(table), name)


def _of(table: pd.DataFrame) -> str:
    return f"{visible(title(table.attrs['model']))} on “{visible(table.attrs['prompt'])}”"


def _grid_page(grid: Grid, name: str) -> str:
    colours = "".join(grid_style(theme, f".grid.{theme}") for theme in ("light", "dark"))
    return _component_page("grid", name, "<div class='grid light'></div>", grid_data(grid), colours)


def _component_page(component: str, name: str, html: str, data: dict[str, Any], colours: str) -> str:
    return fill_template(
        "component_page.html", title=name, html=Markup(html), js=Markup(page_script(component, "cells")),
        css=Markup(page_style(component) + colours), data=Markup(script_json(visible_tree(data))),
        light=page_colours("light"), dark=page_colours("dark"),
    )  # fmt: skip
