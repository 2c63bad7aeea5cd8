"""The flow graph as files: a page that stands alone, SVG, and PNG. Each holds what it is a picture of."""

from __future__ import annotations

import json
from typing import Any, Literal

from markupsafe import Markup

from visit.analyses.graph_difference import Comparison
from visit.drawing.draw import (
    Look,
    component_source,
    compose,
    default_detail,
    draw,
    drawing_data,
    flow_data,
    node_entries,
)
from visit.drawing.layout import block_levels
from visit.drawing.page_script import page_script
from visit.drawing.pair import common_detail, difference_picture
from visit.drawing.records import LEVELS, Detail, Level
from visit.drawing.style import page_colours
from visit.drawing.svg import visible_tree
from visit.files.page import fill_template
from visit.files.png import png
from visit.graph.flowgraph import FlowGraph
from visit.models.catalog import portable

_ROOM = {"one": 850_000, "many": 2_800_000}  # bytes of all drawings of a page: 1 MB for one block, 3 MB for several
_FOLDED_BYTES = 20_000  # bytes of a drawing of folded blocks
_OF_ONE_DRAWING = ("svg", "nodes", "links", "junctions", "open", "rise")


def flow_svg(
    graph: FlowGraph, theme: Literal["light", "dark"] = "light", detail: Detail | None = None, **look: Any
) -> str:
    """A flow graph as an SVG file of one theme with plain attributes, for Inkscape, LaTeX and browsers alike.

    detail: as in `visit.draw`; None: all blocks folded but the one that matters most. `look`: the options of
    `visit.draw`.
    """
    return draw(graph, detail or default_detail(graph), theme=theme, **look)


def flow_png(
    graph: FlowGraph, theme: Literal["light", "dark"] = "light", detail: Detail | None = None, **look: Any
) -> bytes:
    """A flow graph as a PNG file with two pixels per unit of the drawing.

    detail and `look`: as in `flow_svg`. Raises VisitError where the library that draws it, or every font, is missing.
    """
    return png(draw(graph, detail or default_detail(graph), theme=theme, **look))


def script_json(value: Any) -> str:
    """JSON that can stand inside a <script> element: it cannot close it, open a comment or break a line of script."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _wanted(graph: FlowGraph, detail: Detail) -> list[tuple[str, dict[int, Level]]]:
    """Names and levels of the drawings that a page should hold: what is saved, then the most useful first."""
    saved, folded = block_levels(graph, detail), block_levels(graph, "states")
    several, found = len(saved) > 1, []
    for level in LEVELS:
        if several and level != "states":
            found += [(f"block {layer} at {level}", {**folded, layer: level}) for layer in folded]
        name = "folded" if level == "states" else f"at {level}"
        found.append((f"all {name}" if several else name, block_levels(graph, level)))
    known = [one for one in found if one[1] == saved] or [("as saved", saved)]
    return known[:1] + [one for one in found if one[1] != saved]


def _with_views(graph: FlowGraph, detail: Detail, room: int, **look: Any) -> dict[str, Any]:
    """The data of `flow_data` with several drawings; what the inspector says of a node stands there once for all."""
    page = {k: v for k, v in flow_data(graph, detail, **look).items() if k not in _OF_ONE_DRAWING}
    drawn = {name: value for name, value in look.items() if name in Look.__annotations__}
    wanted = _wanted(graph, detail)
    numbers: dict[str, int] = {}
    held: list[dict[str, Any]] = []
    views: list[dict[str, Any]] = []
    for name, chosen in wanted:
        if views and room < _FOLDED_BYTES:
            break
        picture = compose(graph, chosen, **drawn)
        new = node_entries(graph, (i for i in picture.sheet.pills if i not in numbers))
        known = numbers | {entry["id"]: len(held) + i for i, entry in enumerate(new)}
        view = {"name": name, "levels": chosen, "nodes": [known[i] for i in picture.sheet.pills]}
        view |= drawing_data(picture)
        size = len(script_json([view, new]).encode())
        if views and size > room:
            continue
        room, numbers, held, views = room - size, known, held + new, [*views, view]
    page["legend"]["provenance"] = [*page["legend"]["provenance"], _page_contents(graph, len(views), len(wanted))]
    return page | {"views": views, "entries": held}


def _page_contents(graph: FlowGraph, held: int, wanted: int) -> str:
    """What a page holds, for its caption."""
    if len(graph.layers) == 1 and held == wanted:
        kinds = "the block folded, at words and at everything"
    else:
        kinds = f"{held} drawings, the blocks unfolded one at a time and together"
    more = f" ({wanted - held} with more unfolded would make it too large)" if held < wanted else ""
    return f"This file holds {kinds}{more}: choose one above it, or click a block's title"


def flow_html(graph: FlowGraph, detail: Detail | None = None, room: int | None = None, **look: Any) -> str:
    """A flow graph as an HTML page that works offline, with the app's interactions and inspector.

    It opens at `detail` (as in `flow_svg`) and holds further drawings to switch to: one block at every level; several
    blocks all at one level and each unfolded alone, as far as they fit into `room` bytes (None: 0.85 MB for one block,
    2.8 MB for several).
    It follows the reader's light or dark system. `look`: the options of `visit.drawing.draw.flow_data`.
    """
    source = component_source()
    data = _with_views(
        graph, detail or default_detail(graph), room or _ROOM["one" if len(graph.layers) == 1 else "many"], **look
    )
    light, dark = (page_colours(theme)["page"] for theme in ("light", "dark"))
    return fill_template(
        "flow_page.html", title=data["legend"]["caption"], light=light, dark=dark, css=Markup(source["css"]),
        html=Markup(source["html"]), js=Markup(page_script("flow")), data=Markup(script_json(data)),
        provenance=Markup(script_json(visible_tree(portable(graph.meta)))),
    )  # fmt: skip


def flow_file(
    graph: FlowGraph, kind: str, detail: Detail | None = None, theme: Literal["light", "dark"] = "light", **look: Any
) -> bytes:
    """A flow graph as the content of a file. `kind`: "html", "svg" or "png"; the rest as in `flow_svg`."""
    if kind == "png":
        return flow_png(graph, theme, detail, **look)
    return (flow_html(graph, detail, **look) if kind == "html" else flow_svg(graph, theme, detail, **look)).encode()


def difference_file(
    found: Comparison, kind: str, detail: Detail | None = None, theme: Literal["light", "dark"] = "light", **look: Any
) -> bytes:
    """The difference graph of `visit.compare` as the content of a file, as `flow_file` makes it."""
    flow, options = difference_picture(found, **look)
    return flow_file(flow, kind, detail or common_detail(found), theme, **options)
