"""The flow graph as a drawing: one layout, drawn as SVG text for files and as data for the page that makes it live.

How a drawing is made, in five steps:
1. `layout.shown` says which nodes are shown at the level of each block.
2. `layout.place` gives each of them its place and cuts its texts to their room (what they become: `records`).
3. `style` gives each a class by what its number means; `edges` routes the bands and gives them their widths.
4. `svg` writes all of it as text, `style` the legend.
5. For the app `inspector` adds what is said of each node when it is clicked; flow.js makes it live.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypedDict, Unpack

from visit.drawing.edges import gauge, route
from visit.drawing.inspector import LENS, entries, fact_names, fact_terms
from visit.drawing.layout import block_levels, place
from visit.drawing.records import Band, Detail, Gauge, Level, Parts, Sheet, WidthBy
from visit.drawing.style import ColorBy, Legend, PaletteName, Theme, legend, pill_class, style
from visit.drawing.svg import Ink, document, draw_legend, drawing, frame, mark
from visit.errors import VisitError
from visit.graph.flowgraph import STREAM, FlowGraph


@dataclass(frozen=True, slots=True)
class Picture:
    """A laid out graph: where everything stands and what everything looks like."""

    graph: FlowGraph
    sheet: Sheet
    bands: list[Band]
    looks: dict[str, str]
    legend: Legend
    measure: Gauge


class Look(TypedDict, total=False):
    """What can be chosen about a picture, with its defaults.

    width_by: "norm", or "contribution" or "influence" for their size in logits. color_by: "rank", "probability",
    "contribution" or "influence" of the target (rank from 1, probability 0 to 1, logits), or "entropy" of the reading
    in bits. sort_by: order of heads and neurons, "norm", "contribution", "influence" or "index". Influence only of a
    graph that was built with it. parts: "both", "attention" or "mlp". order: a graph whose rows
    this one follows, so that the two can be compared line by line (none). beside: graphs that are drawn in the same
    units (none).
    """

    width_by: WidthBy
    color_by: ColorBy
    sort_by: str
    parts: Parts
    order: FlowGraph | None
    beside: Sequence[FlowGraph]


def compose(graph: FlowGraph, detail: Detail = "words", words: float = 1.0, **look: Unpack[Look]) -> Picture:
    """Lay out a graph and give every part its class. `words`: as of `draw`."""
    color_by, beside = look.get("color_by", "rank"), look.get("beside", ())
    if "influence" in (color_by, look.get("width_by"), look.get("sort_by")) and "influence" not in graph.meta:
        raise VisitError("This graph was built without influence; use build_flow_graph(…, influence=True).")
    sheet = place(
        graph, block_levels(graph, detail), look.get("parts", "both"), look.get("sort_by", "norm"), look.get("order")
    )
    if words != 1.0:
        sheet = sheet.narrowed(words)
    largest = max(_largest_part(one, color_by) for one in (graph, *beside))
    class_of = pill_class(color_by, graph.d_vocab, largest)
    measure = gauge(graph, look.get("width_by", "norm"), beside)
    looks = {p.id: class_of(p.node) for p in sheet.pills.values()}
    bands = route(graph, sheet, measure, class_of)
    read = [p.node.word for p in sheet.pills.values() if p.word]
    notes = legend(graph, measure, color_by, largest, read, bool(sheet.bars))
    return Picture(graph, sheet, bands, looks, notes, measure)


def _largest_part(flow: FlowGraph, color_by: ColorBy) -> float:
    """The end of the colour scale in logits: the largest part, as the whole stream would pale all others."""
    parts = (n for n in flow.by_id.values() if n.kind not in STREAM)
    return max((abs((n.influence if color_by == "influence" else n.contribution) or 0.0) for n in parts), default=0.0)


def draw(
    graph: FlowGraph,
    detail: Detail = "words",
    *,
    theme: Theme = "light",
    palette: PaletteName = "safe",
    selected: str | None = None,
    crop: bool = False,
    words: float = 1.0,
    **look: Unpack[Look],
) -> str:
    """Draw a flow graph as the text of an SVG file, with its legend, its caption and its provenance.

    graph: a `FlowGraph`. detail: "states" (folded), "words" or "everything", for all blocks or as {layer: level}.
    theme: "light" and "dark" are drawn with plain attributes, for every program that reads SVG; "auto" follows the
    reader's system through a style sheet. palette: "safe" (colour-blind safe) or "paper" (green and red). selected: id
    of a node to be marked. crop: from the first opened block to the last, without
    the folded ones around. words: how many times larger they are against the width of the drawing: it is made narrower,
    and words that lose their room are cut. `look`: `width_by`, `color_by`, `sort_by`, `parts`, `order`, as `Look` says.

    Raises ValueError for an unknown level, `VisitError` for influence that the graph was built without. Source: paper
    section 4 and Appendix A; the layout is ours.
    """
    picture = compose(graph, detail, words, **look)
    ink = Ink(None if theme == "auto" else theme, palette)
    opened = _open_blocks(picture.sheet, _BEFORE_PX / words) if crop else []
    left = min((start for *_, start in opened), default=0.0)
    end = max((right + _AFTER_PX / words for _, _, right, _ in opened), default=picture.sheet.width)
    width = max(end - left, 640.0 / words)
    body = drawing(picture.sheet, picture.bands, picture.looks, ink, _target(picture.graph))
    if selected in picture.sheet.pills:
        body += mark(picture.sheet.pills[selected], ink)
    if opened:
        room = f"width='{width:.0f}' height='{picture.sheet.height:.0f}'"
        body = f"<svg {room} viewBox='{left:.0f} 0 {width:.0f} {picture.sheet.height:.0f}'>{body}</svg>"
    notes, height = draw_legend(picture.legend, picture.sheet.height + 10, width, ink)
    css = _auto_style(palette) if theme == "auto" else ""
    return document(body + notes, width, height, picture.graph.meta, picture.legend.caption, ink, css)


_BEFORE_PX, _AFTER_PX = 230.0, 60.0  # around an opened block: the stream comes from somewhere and goes on


def _target(flow: FlowGraph) -> str | None:
    target = flow.meta.get("target")
    return target.get("token") if isinstance(target, dict) else None


def _auto_style(palette: PaletteName) -> str:
    dark, light = (style(theme, palette, ".visit", ".visit") for theme in ("dark", "light"))
    rules = light + _asset("flow.css").split("/* drawing */")[1].split("/* end of drawing */")[0].strip()
    return f"<style>{rules}@media(prefers-color-scheme:dark){{{dark}}}</style>"


def flow_data(
    graph: FlowGraph,
    detail: Detail = "words",
    *,
    palette: PaletteName = "safe",
    selected: str | None = None,
    actions: bool = False,
    group: str | None = None,
    **look: Unpack[Look],
) -> dict[str, Any]:
    """Everything that flow.js needs to show a graph: drawing, inspector's entries and links, as JSON can hold it.

    `look` and `palette`: as for `draw`. group: drawings of one page that name the same group light up together.
    actions: offer what only the app can do (fold a block, hide or keep a node); it then receives
    `{"do": "detail", "layer"}`, or "hide", "keep", "memory" or "without" with an "id", as trigger "action".
    """
    picture = compose(graph, detail, **look)
    page = {"palette": palette, "selected": selected, "actions": actions, "group": group}
    return (
        drawing_data(picture)
        | {"nodes": node_entries(picture.graph, picture.sheet.pills)}
        | legend_terms(picture)
        | page
    )


def drawing_data(picture: Picture) -> dict[str, Any]:
    """What differs between two drawings of one graph: SVG text, links between its nodes, where to look first."""
    sheet = picture.sheet
    body = drawing(sheet, picture.bands, picture.looks, Ink(), _target(picture.graph))
    numbers = {name: i for i, name in enumerate([*sheet.pills, *sheet.junctions])}
    return {
        "svg": frame(body, sheet.width, sheet.height),
        "junctions": len(sheet.junctions),
        "links": [_link(band, numbers) for band in picture.bands],
        "open": _open_blocks(sheet, _BEFORE_PX),
        "rise": _steepest_block(sheet),
    }


def node_entries(flow: FlowGraph, ids: Iterable[str]) -> list[dict[str, Any]]:
    """The inspector's entries, with what flow.js must know of a node to light its path."""
    found = entries(flow, ids)
    for entry in found:
        node = flow.by_id[entry["id"]]
        roles = [name for name, kinds in _ROLES.items() if node.kind in kinds]
        entry |= dict.fromkeys([r for r in roles if r != "pin" or not node.placeholder], 1)
    return found


def legend_terms(picture: Picture) -> dict[str, Any]:
    """The words around a drawing: the numbers' names and meanings, the legend."""
    return {
        "facts": fact_names(picture.graph),
        "terms": fact_terms(picture.graph),
        "lens": LENS,
        "legend": picture.legend.as_dict(),
    }


_ROLES = {
    "stream": STREAM,
    "pin": ("head", "value", "attn_neuron", "mlp_value"),
    "recall": ("head", "value", "key", "query"),
    "part": (  # can be taken out
        "head",
        "value",
        "key",
        "query",
        "attn_neuron",
        "mlp_value",
        "attn_out",
        "mlp_out",
        "resid_pre",
        "resid_post",
    ),
    "reads": ("ln1_out", "ln2_out", "query", "key", "mlp_key", "attn_neuron", "ln_final"),
}


def _link(band: Band, numbers: dict[str, int]) -> list[Any]:
    """[source, target, a(dd) r(esidual) m(ultiply) n(orm), contribution in logits or None, 1 at the model's end]."""
    end = int(band.target in ("ln_final", "logits"))
    contribution = None if band.contribution is None else float(f"{band.contribution:.3g}")
    return [numbers[band.source], numbers[band.target], band.kind[0], contribution, end]


def _open_blocks(sheet: Sheet, before: float) -> list[list[float]]:
    """[layer, left, right, start] of every block that is not folded: what the page centres on.

    `start`: where a frame begins that has no room for more: with the last whole pills before the block, so that none is
    cut; where no folded block stands before it, at the drawing's own beginning.
    """
    wholes = [pill.x for pill in sheet.pills.values() if pill.role in ("state", "rest")]
    return [
        [
            block.layer, block.x, block.right,
            min((x for x in wholes if block.x - before <= x < block.x), default=block.x) - 12 if n else 0.0,
        ]
        for n, block in enumerate(sheet.blocks)
        if block.level != "states"
    ]  # fmt: skip


def _steepest_block(sheet: Sheet) -> list[float] | None:
    """As `_open_blocks`, of the block over which the target's probability rises most; looked at when all are folded."""
    steps = [(b.share - a.share, b) for a, b in pairwise(sheet.bars)]
    if not steps:
        return None
    _, bar = max(steps, key=lambda step: step[0])
    return [bar.layer, bar.x, bar.x + bar.w, bar.x]


def default_detail(graph: FlowGraph) -> dict[int, Level]:
    """All blocks folded but the one that moves the target's contribution most, which is at *words*.

    Moves: |contribution of attention out| + |contribution of MLP out|, in logits.
    """
    moved: dict[int, float] = {}
    for node in graph.by_id.values():
        if node.kind in ("attn_out", "mlp_out") and node.layer is not None:
            moved[node.layer] = moved.get(node.layer, 0.0) + abs(node.contribution or 0.0)
    most = max(graph.layers, key=lambda layer: moved.get(layer, 0.0), default=None)
    return {layer: "words" if layer == most else "states" for layer in graph.layers}


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@cache
def component_source() -> dict[str, str]:
    """The flow graph's `html`, `css` and `js`, as `st.components.v2.component` takes them."""
    css = _asset("flow.css")
    for theme in ("light", "dark"):
        for palette in ("safe", "paper"):
            page = f".visit.{theme}" if palette == "safe" else None
            css += style(theme, palette, f".visit.{theme}.{palette}", page)
    return {"html": "<div class='visit light safe'></div>", "css": css, "js": _asset("flow.js")}
