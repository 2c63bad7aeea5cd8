"""The flows of the compare page: both graphs side by side, or their difference, and the parts that change most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st

from visit.app import graph_panel as graphs
from visit.app.cache import About, Seen, st_model
from visit.app.cached_flow import Layers, st_graph, st_opened
from visit.app.cached_pairs import st_compare, st_pairing
from visit.app.fields import segments
from visit.app.figure_list import collect_figure
from visit.app.lens_choice import followed
from visit.app.marks import named_part
from visit.app.problems import shown_errors
from visit.app.recorded import is_recorded, stands_in
from visit.app.sessions import draw_anew, session, state, write_url
from visit.app.stand_in import stand_in_now
from visit.app.two_sides import Two, why_apart
from visit.app.widgets import beside, downloads, in_cells, on_row, plain, unfolding
from visit.models.catalog import title
from visit.text.glossary import explain
from visit.text.visible import visible


def both_graphs(two: Two) -> None:
    """Both flow graphs, or their difference, with the controls of what is drawn and the table of changes."""
    with unfolding("flows", "Both flow graphs, or their difference, and the parts that change most") as opened:
        if opened:
            _both(two.a.about, two.b.about, two.align, why_apart(two) is None, two.seen)


@st.fragment
def _both(a: About, b: About, align: str, alike: bool, read: tuple[Seen, ...]) -> None:
    """Controls and drawings: a fragment, so that a selection runs nothing above it. Takes keys only."""
    if stands_in(a[0]) and not stand_in_now():
        draw_anew()
    with shown_errors():
        keep, layers = graphs.controls((a[0], b[0]))
        followed((a[0], b[0]), read)
        if alike:
            _compared(a, b, align, layers, keep, read)
        else:
            _side_by_side(a, b, layers, keep, read)
    write_url()


def _compared(a: About, b: About, align: str, layers: Layers, keep: Any, read: tuple[Seen, ...]) -> None:
    from visit.analyses.graph_difference import common_id
    from visit.drawing.pair import both_data, difference_data, difference_svg

    with st.spinner("Reading the words of both flows…"):
        found, shown, whole = _found(a, b, align, layers, keep, read)
    if is_recorded(a[0]):
        graphs.check_influence(found.a)
    view: Any = st.segmented_control("View", required=True, label_visibility="collapsed", **segments("view"))
    session().levels = shown
    now: Any = state().graph
    node = now.node or None
    if view == "difference":
        graphs.show(difference_data(found, shown, selected=node, actions=True, **now.look), "flow_difference")
    else:
        data = both_data(found, shown, selected=node, actions=True, color_by=now.color, **now.look)
        models = found.meta["model"], found.meta["b"]["model"]
        with beside("graphs"):
            for column, side, one, meta in zip(
                st.columns(2, gap="small"), ("a", "b"), data, (found.meta, found.meta["b"]), strict=True
            ):
                name = "" if models[0] == models[1] else title(meta["model"]) + ": "
                chat = " (as a chat message)" if meta.get("chat") else ""
                with column:
                    st.markdown(f"**{side.upper()}** {plain(name + visible(meta['prompt'][:200]) + chat)}")
                    common: Any = partial(common_id, side=side, pairing=found.pairing)  # type: ignore[arg-type]
                    graphs.show(one, f"flow_{side}", common, "" if side == "a" else "_b")
    _explain(found, view)
    with named_part("changes"):
        _changes_table(found)

    def picture(kind: str) -> bytes:
        from visit.files.flow_page import difference_file

        return difference_file(whole(), kind, shown, **now.look)

    look = {**now.look, "color_by": now.color}
    for side in ("a", "b"):
        drawn = partial(_side_svg, whole, side, shown, look)
        collect_figure(f"The flow graph of {side.upper()}, its opened blocks", drawn,
                       partial(_side_nodes, whole, side), code="found")  # fmt: skip
    collect_figure("What differs between the two runs, B − A",
                   lambda words: difference_svg(whole(), shown, words, **now.look),
                   lambda: whole().tables["changes"], code="found")  # fmt: skip
    downloads("compare", lambda: (whole().meta, whole().tables), picture)


def _side_svg(whole: Callable[[], Any], side: Any, shown: dict[int, Any], look: dict[str, Any], words: float) -> str:
    from visit.drawing.draw import draw
    from visit.drawing.pair import side_graph

    return draw(side_graph(whole(), side), shown, crop=True, words=words, **look)


def _side_nodes(whole: Callable[[], Any], side: str) -> Any:
    return getattr(whole(), side).nodes


def _found(
    a: About, b: About, align: str, layers: Layers, keep: Any, read: tuple[Seen, ...]
) -> tuple[Any, dict[int, Any], Callable[[], Any]]:  # fmt: skip
    """The comparison with the kept, hidden and selected nodes of both sides, its levels, and how to get all of it."""
    default = st_opened(layers, a, b)
    shown = graphs.levels(state().graph.detail, list(default), default)
    drawn = tuple(default)

    def build(node: str, whole: bool = False) -> Any:
        keep_a, keep_b = (replace(keep, pin=_pins(side, keep.pin, node, a, b, align, drawn)) for side in ("a", "b"))
        opened = None if whole else graphs.opened_blocks(shown)
        return st_compare(a, b, layers, keep_a, keep_b, align, opened, read[0], read[1], state().graph.influence)

    node = state().graph.node
    layer: Any = graphs.block_of(node) if node else None
    found = build("" if shown.get(layer) == "states" else node)
    absent = shown.get(layer) == "states" and node not in found.pairs
    if absent and any(_pins(side, (), node, a, b, align, drawn) for side in ("a", "b")):
        shown = {**shown, layer: "words"}
        found = build(node)
    return found, shown, partial(build, node, True)


def _pins(
    side: Any, chosen: tuple[str, ...], node: str, a: About, b: About, align: str, drawn: tuple[int, ...]
) -> tuple[str, ...]:
    """The kept and hidden nodes and the selected one under their names on one side, as far as it has them.

    States, norms and sums are left out: they are always there.
    """
    from visit.analyses.graph_difference import own_id
    from visit.graph.prune import is_pin

    pairing, pos = st_pairing(a[:2], b[:2], align), (a if side == "a" else b)[2]
    found = []
    for pin in [*chosen, *([node] if node else [])]:
        own = own_id(pin.removeprefix("-"), side, pairing)
        parts = (".head", ".mlp_value", ".mlp_key", ".attn_neuron")
        adds = own and any(part in own for part in parts) and ".rest" not in own
        if own and adds and is_pin(st_model(a[0]), own, list(drawn), pos):
            found.append(("-" if pin.startswith("-") else "") + own)
    return tuple(dict.fromkeys(found))


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
    folded = len(found.meta["layers"]) - len(found.a.meta.get("opened", found.meta["layers"]))
    less = " Folded blocks stand with their states and largest heads until they are unfolded." if folded else ""
    st.caption(f"{how} {'; '.join(parts)}.{less}")


def _side_by_side(a: About, b: About, layers: Layers, keep: Any, read: tuple[Seen, ...]) -> None:
    """Two graphs of models of different shape: nothing corresponds, so each is drawn for itself."""
    from visit.drawing.draw import flow_data

    now: Any = state().graph
    with beside("graphs"):
        for column, side, about, by in zip(st.columns(2, gap="small"), "ab", (a, b), read, strict=True):
            with column:
                shown_layers = layers
                count = st_model(about[0]).n_layers
                if layers is not None and max(layers) >= count:
                    st.caption(f"{plain(title(about[0]))} has {count} blocks; all of them are shown.")
                    shown_layers = None
                detail = st_opened(shown_layers, about)
                opened = graphs.opened_blocks(detail)
                graph = st_graph(*about, shown_layers, replace(keep, pin=()), opened, by, now.influence)
                st.markdown(f"**{side.upper()}** {plain(title(about[0]))}")
                graphs.show(flow_data(graph, detail, color_by=now.color, **now.look), f"flow_{side}")


_CHANGE_COLUMNS = ["component", "status", "word_a", "word_b", "rank_a", "rank_b", "contribution_a", "contribution_b",
                   "difference"]  # fmt: skip


def _changes_table(found: Any) -> None:
    """The parts that change most; a chosen row selects its node in the graphs."""
    table = found.tables["changes"].head(500)
    shown = table[_CHANGE_COLUMNS].assign(
        **{c: [visible(w) if isinstance(w, str) else "absent" for w in table[c]] for c in ("word_a", "word_b")},
        status=[_STATUS[s] for s in table["status"]],
    )  # fmt: skip
    number = partial(st.column_config.NumberColumn, format="%+.3f")
    st.markdown("**The largest changes**", help="Every part that adds to the stream, by how much its contribution "
                "differs between the two sides. " + explain("contribution"))  # fmt: skip
    st.dataframe(
        in_cells(shown, counts=["rank_a", "rank_b"]), hide_index=True, height=300, placeholder="–",
        **on_row("changes", table["id"].tolist(), graphs.select),
        column_config={
            "component": "Part", "status": st.column_config.TextColumn("The pruning keeps it", help=_PRUNING),
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


_PRUNING = (
    "How much of each sum is shown is chosen above. A part that only one side's pruning keeps exists on the other side "
    "as well, and its numbers stand here."
)
_STATUS = {"only A": "in A alone", "only B": "in B alone", "word": "in both, another word", "alike": "in both, alike"}
