"""The parts of the flow page: the reading in sentences, the graph with its controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import streamlit as st

from visit.app import graph_panel as graphs
from visit.app import known
from visit.app.cache import About, Prompt, Seen, st_model
from visit.app.cached_effects import causes as compute_causes
from visit.app.cached_effects import st_effects_seconds
from visit.app.cached_flow import Layers, st_graph, st_opened, st_story, st_whole_graph
from visit.app.figure_list import collect_figure
from visit.app.graph_panel import picture_file
from visit.app.lens_choice import followed, seen
from visit.app.marks import marked, named_part, shows
from visit.app.measuring import measured, st_measuring
from visit.app.problems import shown_errors
from visit.app.recorded import is_recorded, stands_in
from visit.app.sessions import draw_anew, session, state, write_url
from visit.app.stand_in import stand_in_now
from visit.app.subject import Subject
from visit.app.widgets import READING_AID, beside, downloads, folded, plain, section, sentences
from visit.text.glossary import explain
from visit.text.numbers import percent
from visit.text.visible import as_word, visible


def first_screen(subject: Subject, map_of: Callable[[Subject], None]) -> None:
    """The reading, with what was measured, and beside it the map of the stream; below it on a narrow page."""
    with beside("reading_and_map"):
        reading, stream = st.columns([0.39, 0.61], gap="medium")
    with reading:
        if shows("reading"):
            with named_part("reading"):
                answer_in_sentences(subject)
        if shows("causes"):
            with named_part("causes"):
                causes(subject)
    with stream:
        if shows("map"):
            with named_part("map"):
                map_of(subject)


def answer_in_sentences(subject: Subject) -> None:
    """Computed sentences, each underlined part selects its node; where visit-mini is lost, what it knows."""
    sentences(st_story(*subject.about, seen(subject.model.name)[0][0]), "story", graphs.select)
    if subject.recorded is None:
        known.when_lost(subject.model.name, subject.acts, subject.pos)


def causes(subject: Subject) -> None:
    """What the heads are needed for, measured when the page is drawn; of a larger model when asked for."""
    about = subject.about
    if subject.recorded is not None:
        if "causes" in set(subject.recorded.results):
            _causes_told(subject.recorded.result("causes"))
        else:
            st.caption(":material/inventory_2: What each head does when it is taken out was not recorded.")
        return
    found = measured(
        st_measuring(*about, "heads"), lambda: compute_causes(*about), lambda: st_effects_seconds(*about[:3]),
        "what each head does",
    )  # fmt: skip
    if found is not None:
        _causes_told(found[1])


def _causes_told(story: Any) -> None:
    """The head with the largest contribution and what happens without it; the others on request."""
    leads = {side: n for n, sentence in enumerate(story) for side in _LEADS if sentence[0][0].startswith(side)}
    first = [story[leads[side] + 1] for side in ("Most for", "What adds") if side in leads]
    st.markdown("**What happens without it?** Measured, head by head.", help=explain("effect"))
    sentences(first or story, "causes", graphs.select)
    with st.container(horizontal=True, vertical_alignment="center"):
        with folded("All heads, for and against", "list"):
            sentences(story, "causes_all", graphs.select)
        st.page_link("pages/whatif.py", label="What if? Take any part out",
                     icon=":material/content_cut:")  # fmt: skip


_LEADS = ("Most for", "Most against", "What adds")


def graph(subject: Subject) -> None:
    """The flow graph of the chosen blocks, with the controls of what is drawn."""
    if not shows("graph"):
        return
    with named_part("graph"):
        _graph(*subject.about, seen(subject.model.name)[0])


@st.fragment
def _graph(name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, read: Seen) -> None:
    """Controls and drawing: a fragment, so that a selection or a control runs nothing above it. Takes keys only."""
    from visit.drawing.draw import draw, flow_data
    from visit.graph.prune import is_pin

    if stands_in(name) and not stand_in_now():  # the model is there, or a control asks for what is not recorded
        draw_anew()
    with shown_errors():
        about = (name, prompt, pos, target, distractor)
        line = section("flow", "The flow", explain("residual stream") + " " + explain("contribution"))
        keep, layers = graphs.controls((name,), line)
        followed((name,), (read,))
        model = st_model(name)
        drawn = list(range(model.n_layers)) if layers is None else list(layers)
        pins = tuple(p for p in keep.pin if is_pin(model, p, drawn, pos))
        if len(pins) < len(keep.pin):
            st.caption(
                f"{len(keep.pin) - len(pins)} kept or hidden nodes do not exist here (other blocks or positions)."
            )
        meant = tuple(node for node in marked("graph").nodes if is_pin(model, node, drawn, pos))
        keep = replace(keep, pin=(*pins, *meant))
        with st.spinner("Reading the words of the flow…"):
            shown = graphs.with_meant(graphs.levels(state().graph.detail, drawn, st_opened(layers, about)), meant)
            built, shown, exists = _with_selected(about, layers, keep, shown, read)
        now = state().graph
        if not exists:
            st.caption(f"The node {now.node} does not exist here (other blocks, another position or model).")
        session().levels = shown
        look = {**now.look, "color_by": now.color}
        graphs.show(flow_data(built, shown, selected=now.node or None, actions=True, **look), "flow", meant=meant)

        def whole() -> Any:
            return st_whole_graph(*about, layers, keep, read, now.influence)

        collect_figure(f"The flow graph towards {as_word(model.vocabulary[target])}, its opened blocks",
                lambda words: draw(whole(), shown, crop=True, words=words, **look), lambda: whole().nodes,
                code="graph")  # fmt: skip
        with line:
            with folded(*READING_AID):
                st.caption(_graph_caption(built))
            downloads(
                "flow", lambda: graph_tables(whole()), lambda kind: picture_file(whole(), kind, shown, look), True
            )
    write_url()


def _with_selected(
    about: About, layers: Layers, keep: Any, shown: dict[int, Any], read: Seen
) -> tuple[Any, dict[int, Any], bool]:  # fmt: skip
    """The graph with the selected node in it, whose block is opened for that; and whether there is such a node."""
    from visit.graph.prune import is_pin

    node, moves = state().graph.node, state().graph.influence

    def built_at(shown: dict[int, Any], keep: Any) -> Any:
        worded = tuple(layer for layer, level in shown.items() if level == "words")
        return st_graph(*about, layers, keep, graphs.opened_blocks(shown), read, moves, worded)

    built = built_at(shown, keep)
    if is_recorded(about[0]):
        graphs.check_influence(built)
        return built, _opened_for(node, built, shown), not node or node in built.by_id
    if not node or (node in built.by_id and built.by_id[node].tokens):
        return built, shown, True
    layer = graphs.block_of(node)
    if node in built.by_id and layer is not None:  # it stands behind the words
        shown = {**shown, layer: "everything"}
        return built_at(shown, keep), shown, True
    if layer not in shown or not is_pin(st_model(about[0]), node, list(shown), about[2]):
        return built, shown, False
    shown = {**shown, layer: "words" if shown[layer] == "states" else shown[layer]}
    built = built_at(shown, keep)
    if node not in built.by_id:  # chosen above, but pruned
        built = built_at(shown, replace(keep, pin=(*keep.pin, node)))
    return built, shown, True


def _opened_for(node: str, built: Any, shown: dict[int, Any]) -> dict[int, Any]:
    """The levels at which a recorded graph, which has all nodes, draws a selected one: no block is opened in vain."""
    from visit.drawing.layout import shown as drawn

    layer: Any = graphs.block_of(node) if node in built.by_id else None
    levels = [shown, *({**shown, layer: level} for level in ("words", "everything"))] if layer in shown else [shown]
    return next((one for one in levels if node in drawn(built, one)), shown)


def graph_tables(built: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A flow graph for a file: what it is of, and its tables."""
    return built.meta, {"nodes": built.nodes, "edges": built.edges}


def _graph_caption(built: Any) -> str:
    from visit.graph.flowgraph import influence_share

    shares, opened = built.meta["shares"], built.meta.get("opened", built.meta["layers"])
    kept = {
        name: [share for node, share in shares.items() if node.endswith(ending)]
        for name, ending in (("heads", ".attn_out"), ("neurons", ".mlp_out"))
    }
    kept["memory values"] = [share for node, share in shares.items() if ".head" in node]
    parts = [f"{_percent_range(found)} {name}" for name, found in kept.items() if found]
    by = {"norm": "length", "pattern": "attention"}.get(built.meta["keep"]["by"], built.meta["keep"]["by"])
    target = plain(visible(built.meta["target"]["token"]))
    blocks = f" in block{'s' if len(opened) > 1 else ''} {', '.join(map(str, opened))}"
    where = "" if len(opened) == len(built.meta["layers"]) else blocks
    sums = (
        f"Kept{where}, by {by}: {', '.join(parts)}; the rest stands in dashed pills, so every sum"
        if parts
        else "No block is taken apart; every sum of its states"
    )
    moved = f"{influence_share(built.meta)} " if "influence" in built.meta else ""
    return (
        f"Every pill is a vector of this one pass and the word it reads ({_lenses(built.meta)}); the percentage in a "
        f"state is the probability of {target} there. What a band carries is added to the node it runs into. {sums} "
        f"adds up (largest error {built.meta['ledger']['max_rel_error']:.0e}, over the {len(built.by_id):,} nodes read "
        f"here). {moved}A block's title unfolds it, which takes it apart; files hold all blocks whole."
    )


def _lenses(meta: dict[str, Any]) -> str:
    """Through which lens what is read."""
    if "lens" not in meta:
        return "logit lens"
    parts = ", heads and memory values through its linear part" if meta["lens"].get("carries_parts") else ""
    return f"states of the stream through the lens {plain(meta['lens']['name'])}{parts}, all else plainly"


def _percent_range(shares: list[float]) -> str:
    if min(shares) >= 1:
        return "all"
    low, high = percent(min(shares)), percent(max(shares))
    return f"{low} of the" if low == high else f"{low} to {high} of the"
