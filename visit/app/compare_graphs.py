"""The lower half of the compare page: both flow graphs, their difference, and the table of changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st

from visit.app import graph_panel as graphs
from visit.app.address import levels
from visit.app.cache import About, st_compare, st_graph, st_model, st_opened, st_pairing
from visit.app.compare import Two, why_apart
from visit.app.prompt_bar import plain
from visit.app.state import field, shown_errors, state, write_url
from visit.models.catalog import title
from visit.text.glossary import explain
from visit.text.visible import visible


def both_graphs(two: Two) -> None:
    """Both flow graphs, or their difference, with the controls of what is drawn and the table of changes."""
    st.subheader("The flows", anchor=False, help=explain("residual stream") + " " + explain("contribution"))
    _both(two.a.about, two.b.about, two.align, why_apart(two) is None)


@st.fragment
def _both(a: About, b: About, align: str, alike: bool) -> None:
    """Controls and drawings: a fragment, so that a selection runs nothing above it. Takes keys only."""
    with shown_errors():
        keep, layers = graphs.controls(), graphs.chosen_layers()
        if alike:
            _compared(a, b, align, layers, keep)
        else:
            _side_by_side(a, b, layers, keep)
    write_url()


def _compared(a: About, b: About, align: str, layers: tuple[int, ...] | None, keep: Any) -> None:
    from visit.drawing.pair import both_data, difference_data

    with st.spinner("Reading the words of both flows…"):
        found, shown, whole = _found(a, b, align, layers, keep)
    view: Any = st.segmented_control(
        "View", ["graphs", "difference"], required=True, label_visibility="collapsed",
        format_func=lambda v: {"graphs": "Two graphs", "difference": "The difference, B − A"}[v], **field("view"),
    )  # fmt: skip
    st.session_state["visit_levels"] = shown
    now: Any = state()
    look = {"width_by": now.width, "sort_by": now.sort, "parts": now.parts}
    node = state().node or None
    if view == "difference":
        graphs.show(difference_data(found, shown, selected=node, actions=True, **look), "flow_difference")
    else:
        data = both_data(found, shown, selected=node, actions=True, color_by=now.color, **look)
        with graphs.beside("graphs"):
            for column, side, one in zip(st.columns(2, gap="small"), ("a", "b"), data, strict=True):
                with column:
                    st.markdown(f"**{side.upper()}** {plain(_heading(found, side))}")
                    graphs.show(one, f"flow_{side}", partial(_common, found, side), "" if side == "a" else "_b")
    _explain(found, view)
    _changes(found)
    graphs.downloads(lambda kind: _file(whole(), shown, look, kind), "compare")


def _found(
    a: About, b: About, align: str, layers: tuple[int, ...] | None, keep: Any
) -> tuple[Any, dict[int, Any], Callable[[], Any]]:
    """The comparison with the kept, hidden and selected nodes of both sides, its levels, and how to get all of it."""
    shown = _levels(a, b, layers)

    def build(node: str, whole: bool = False) -> Any:
        pins = [_pins(side, keep.pin, node, a, b, align, tuple(shown)) for side in ("a", "b")]
        keeps = replace(keep, pin=pins[0]), replace(keep, pin=pins[1])
        opened = None if whole else tuple(layer for layer, level in shown.items() if level != "states")
        return st_compare(a, b, layers, keeps[0], keeps[1], align, opened)

    node = state().node
    layer = graphs.layer_of(node) if node else None
    found = build("" if shown.get(layer) == "states" else node)  # type: ignore[arg-type]
    absent = shown.get(layer) == "states" and node not in set(found.nodes["id"])  # type: ignore[arg-type]
    if absent and any(_pins(side, (), node, a, b, align, tuple(shown)) for side in ("a", "b")):
        shown = {**shown, layer: "words"}  # type: ignore[dict-item]
        found = build(node)
    return found, shown, partial(build, node, True)


def _levels(a: About, b: About, layers: tuple[int, ...] | None) -> dict[int, Any]:
    default = st_opened(layers, a, b)
    return levels(state().detail, list(default), default)


def _pins(
    side: Any, kept: tuple[str, ...], node: str, a: About, b: About, align: str, drawn: tuple[int, ...]
) -> tuple[str, ...]:
    """The kept and hidden nodes and the selected one under their names on one side, as far as it has them."""
    from visit.analyses.graph_difference import own_id
    from visit.graph.draft import is_pin

    pairing, about = st_pairing(a[0], a[1], b[0], b[1], align), a if side == "a" else b
    wanted = [*kept, *([node] if node else [])]
    own = [(p.startswith("-"), own_id(p.removeprefix("-"), side, pairing)) for p in wanted]
    model, pos = st_model(a[0]), about[2]
    pins = tuple(("-" if hide else "") + i for hide, i in own if i and is_pin(model, i, list(drawn), pos))
    return tuple(p for p in dict.fromkeys(pins) if _adds(p))


def _adds(pin: str) -> bool:
    """Whether a pin changes the graph: states, norms and sums are always there."""
    return any(part in pin for part in (".head", ".mlp_value", ".mlp_key", ".attn_neuron")) and ".rest" not in pin


def _common(found: Any, side: Any, node: str) -> str:
    from visit.analyses.graph_difference import common_id

    return common_id(node, side, found.pairing)


def _heading(found: Any, side: str) -> str:
    """A side's prompt, and its model where the two sides have different ones."""
    meta = found.meta if side == "a" else found.meta["b"]
    name = "" if found.meta["model"] == found.meta["b"]["model"] else title(meta["model"]) + ": "
    return name + visible(meta["prompt"][:200]) + (" (as a chat message)" if meta.get("chat") else "")


def _explain(found: Any, view: str) -> None:
    counts = found.meta["counts"]
    parts = [
        f"{counts.get('alike', 0):,} nodes read alike on both sides, {counts.get('word', 0):,} have another top word, "
        f"{counts.get('only A', 0):,} are kept by the pruning in A alone and {counts.get('only B', 0):,} in B alone"
    ]
    how = (
        "Every node that one side keeps is drawn on both, at the same place, in the same colours and widths; a node is "
        "called absent only where the other prompt has no such token in sight. Point at one to light its twin."
        if view == "graphs"
        else "Every band is as wide as what it carries has changed (B − A), solid where B carries more, dashed where "
        "it carries less. Click a node for both sides' words and numbers."
    )
    folded = len(found.meta["layers"]) - len(found.a.meta["opened"])
    less = " Folded blocks stand with their states and largest heads until they are unfolded." if folded else ""
    st.caption(f"{how} {'; '.join(parts)}.{less}")


def _side_by_side(a: About, b: About, layers: tuple[int, ...] | None, keep: Any) -> None:
    """Two graphs of models of different shape: nothing corresponds, so each is drawn for itself."""
    from visit.drawing.draw import flow_data

    now: Any = state()
    with graphs.beside("graphs"):
        for column, side, about in zip(st.columns(2, gap="small"), "ab", (a, b), strict=True):
            with column:
                shown_layers = layers
                count = st_model(about[0]).n_layers
                if layers is not None and max(layers) >= count:
                    st.caption(f"{about[0]} has {count} blocks; all of them are shown.")
                    shown_layers = None
                detail = st_opened(shown_layers, about)
                opened = tuple(layer for layer, level in detail.items() if level != "states")
                graph = st_graph(*about[:3], shown_layers, *about[3:], replace(keep, pin=()), opened)
                look = {"width_by": now.width, "color_by": now.color, "sort_by": now.sort, "parts": now.parts}
                st.markdown(f"**{side.upper()}** {plain(title(about[0]))}")
                graphs.show(flow_data(graph, detail, **look), f"flow_{side}")


_CHANGE_COLUMNS = ["component", "status", "word_a", "word_b", "rank_a", "rank_b", "contribution_a", "contribution_b",
                   "difference"]  # fmt: skip


def _changes(found: Any) -> None:
    """The parts that change most; a chosen row selects its node in the graphs."""
    table = found.tables["changes"].head(500)
    shown = table[_CHANGE_COLUMNS].assign(
        word_a=[_word(w) for w in table["word_a"]], word_b=[_word(w) for w in table["word_b"]],
        status=[_STATUS[s] for s in table["status"]],
    )  # fmt: skip
    number = partial(st.column_config.NumberColumn, format="%+.3f")
    st.markdown("**The largest changes**", help="Every part that adds to the stream, by how much its contribution "
                "differs between the two sides. " + explain("contribution"))  # fmt: skip
    st.dataframe(
        shown, hide_index=True, height=300, key="changes", selection_mode="single-row", placeholder="–",
        on_select=partial(_take_change, table["id"].tolist()),
        column_config={
            "component": "Part", "status": st.column_config.TextColumn("The pruning keeps it", help=_KEPT),
            "word_a": "Word in A", "word_b": "Word in B",
            "rank_a": st.column_config.NumberColumn("Rank of A's target", help=explain("rank")),
            "rank_b": st.column_config.NumberColumn("Rank of B's target", help=explain("rank")),
            "contribution_a": number("Contribution in A"), "contribution_b": number("Contribution in B"),
            "difference": number("B − A"),
        },
    )  # fmt: skip
    st.caption(
        "Choose a row to see its node in the graphs; click a column's name to sort. Contributions are in logits, each "
        "towards its own side's target."
    )


_KEPT = ("How much of each sum is shown is chosen above. A part that only one side's pruning keeps exists on the other "
         "side as well, and its numbers stand here.")  # fmt: skip
_STATUS = {"only A": "in A alone", "only B": "in B alone", "word": "in both, another word", "alike": "in both, alike"}


def _word(word: Any) -> str:
    return visible(word) if isinstance(word, str) else "absent"


def _take_change(ids: list[str]) -> None:
    rows = st.session_state["changes"]["selection"]["rows"]
    if rows and rows[0] < len(ids):
        graphs.select(ids[rows[0]])


def _file(found: Any, shown: Any, look: dict[str, Any], kind: str) -> bytes | str:
    from visit.files import flow_page as export
    from visit.files import tables

    if kind == "json":
        return tables.to_json(found.meta, found.tables)
    if kind == "zip":
        return tables.to_zip(found.meta, found.tables)
    return export.difference_file(found, kind, shown, **look)
