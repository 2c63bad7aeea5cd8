"""The parts of the flow page: the reading in sentences, the graph with its controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st

from visit.app import graph_panel as graphs
from visit.app.address import levels
from visit.app.cache import About, Prompt, st_graph, st_model, st_opened, st_story, st_whole_graph
from visit.app.prompt_bar import Subject, plain
from visit.app.sentences import sentences
from visit.app.state import shown_errors, state, write_url
from visit.text.glossary import explain
from visit.text.numbers import percent
from visit.text.visible import visible


def reading(subject: Subject) -> None:
    """Computed sentences; each underlined part selects its node."""
    sentences(st_story(*subject.key, subject.pos, subject.target, subject.distractor), "story", graphs.select)


# ---- the graph -----------------------------------------------------------------------------------------------------


def graph(subject: Subject) -> None:
    """The flow graph of the chosen blocks, with the controls of what is drawn."""
    st.subheader("The flow", anchor=False, help=explain("residual stream") + " " + explain("contribution"))
    _graph(*subject.key, subject.pos, subject.target, subject.distractor)


@st.fragment
def _graph(name: str, prompt: Prompt, pos: int, target: int, distractor: int | None) -> None:
    """Controls and drawing: a fragment, so that a selection or a control runs nothing above it. Takes keys only."""
    from visit.graph.draft import is_pin

    with shown_errors():
        keep, layers = graphs.controls(), graphs.chosen_layers()
        model = st_model(name)
        drawn = list(range(model.n_layers)) if layers is None else list(layers)
        pins = tuple(p for p in keep.pin if is_pin(model, p, drawn, pos))
        if len(pins) < len(keep.pin):
            st.caption(
                f"{len(keep.pin) - len(pins)} kept or hidden nodes do not exist here (other blocks or positions)."
            )
        about, keep = (name, prompt, pos, target, distractor), replace(keep, pin=pins)
        shown = levels(state().detail, drawn, st_opened(layers, about))
        with st.spinner("Reading the words of the flow…"):
            built, shown, found = _with_selected(about, layers, keep, shown)
        if not found:
            st.caption(f"The node {state().node} does not exist here (other blocks, another position or model).")
        _draw(built, shown, partial(_whole, about, layers, keep))
    write_url()


def _with_selected(
    about: About, layers: tuple[int, ...] | None, keep: Any, shown: dict[int, Any]
) -> tuple[Any, dict[int, Any], bool]:
    """The graph with the selected node in it, whose block is opened for that; and whether there is such a node."""
    from visit.graph.draft import is_pin

    def build(keep: Any) -> Any:
        opened = tuple(layer for layer, level in shown.items() if level != "states")
        return st_graph(*about[:3], layers, *about[3:], keep, opened)

    node, built = state().node, build(keep)
    if not node or node in set(built.nodes["id"]):
        return built, shown, True
    layer = graphs.layer_of(node)
    if layer in shown and is_pin(st_model(about[0]), node, list(shown), about[2]):
        shown = {**shown, layer: "words" if shown[layer] == "states" else shown[layer]}
        built = build(keep)
        if node not in set(built.nodes["id"]):  # chosen above, but pruned
            built = build(replace(keep, pin=(*keep.pin, node)))
        return built, shown, True
    return built, shown, False


def _whole(about: About, layers: tuple[int, ...] | None, keep: Any) -> Any:
    return st_whole_graph(*about[:3], layers, *about[3:], keep)


def _draw(built: Any, shown: dict[int, Any], whole: Callable[[], Any]) -> None:
    from visit.drawing.draw import flow_data

    st.session_state["visit_levels"] = shown
    selected = state().node or None
    now: Any = state()  # its words were checked when they were read
    look = {"width_by": now.width, "color_by": now.color, "sort_by": now.sort, "parts": now.parts}
    data = flow_data(built, shown, selected=selected, actions=True, **look)
    graphs.show(data, "flow")
    _caption(built)
    graphs.downloads(lambda kind: _file(whole(), shown, look, kind), "flow")


def _caption(built: Any) -> None:
    shares, opened = built.meta["shares"], built.meta["opened"]
    kept = {
        name: [share for node, share in shares.items() if node.endswith(ending)]
        for name, ending in (("heads", ".attn_out"), ("neurons", ".mlp_out"))
    }
    kept["memory values"] = [share for node, share in shares.items() if ".head" in node]
    parts = [f"{_range(found)} {name}" for name, found in kept.items() if found]
    by = {"norm": "length", "pattern": "attention"}.get(built.meta["keep"]["by"], "contribution")
    target = plain(visible(built.meta["target"]["token"]))
    where = "" if len(opened) == len(built.meta["layers"]) else f" in {_blocks(opened)}"
    sums = (
        f"Kept{where}, by {by}: {', '.join(parts)}; the rest stands in dashed pills, so every sum"
        if parts
        else "No block is taken apart; every sum of its states"
    )
    st.caption(
        "Every pill is a vector of this one pass and the word it reads (logit lens); the percentage in a state is the "
        f"probability of {target} there. What a band carries is added to the node it runs into. {sums} adds up "
        f"(largest error {built.meta['ledger']['max_rel_error']:.0e}, over the {len(built.nodes):,} nodes read here). "
        "A block's title unfolds it, which takes it apart; files hold all blocks whole."
    )


def _blocks(opened: list[int]) -> str:
    return f"block{'s' if len(opened) > 1 else ''} {', '.join(map(str, opened))}"


def _range(shares: list[float]) -> str:
    if min(shares) >= 1:
        return "all"
    low, high = percent(min(shares)), percent(max(shares))
    return f"{low} of the" if low == high else f"{low} to {high} of the"


def _file(built: Any, shown: Any, look: dict[str, Any], kind: str) -> bytes | str:
    from visit.files import flow_page as export
    from visit.files import tables

    both = {"nodes": built.nodes, "edges": built.edges}
    if kind == "json":
        return tables.to_json(built.meta, both, flat=True)
    if kind == "zip":
        return tables.to_zip(built.meta, both)
    if kind == "html":
        return export.flow_html(built, shown, **look)
    make = export.flow_svg if kind == "svg" else export.flow_png
    return make(built, "light", shown, **look)
