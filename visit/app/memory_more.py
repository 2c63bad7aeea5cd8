"""The lower half of the memory page: the head as a drawing, its pattern, a value's life, the paper's figures, files."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from visit.app import graph_panel as graphs
from visit.app.cache import st_alignment, st_head, st_head_graph, st_heads, st_life
from visit.app.memory import Chosen, take_head
from visit.app.prompt_bar import plain
from visit.app.state import change, field, state
from visit.figures import heads as figures_memory
from visit.text.glossary import explain
from visit.text.visible import visible

WINDOW = 40  # positions of a pattern shown at once; a longer prompt is paged
SMALL = 24  # … in the small maps of all heads


def picture(chosen: Chosen) -> None:
    """The head as a drawing: query, keys, memory values, output."""
    from visit.drawing.draw import flow_data

    subject = chosen.subject
    st.subheader("The same as a picture", anchor=False, help=explain("query") + " " + explain("key"))
    graph = st_head_graph(*subject.about, chosen.layer, chosen.head)
    node = state().node if state().node in set(graph.nodes["id"]) else None
    graphs.show(flow_data(graph, "everything", parts="attention", selected=node), "flow_memory")
    st.caption(
        "From left to right: what the head's query looks for, the keys it finds, the memory values they stand for, and "
        "their sum. Gold: the pattern. Everything else that attention adds stands in “rest”."
    )


# ---- the pattern -----------------------------------------------------------------------------------------------------


def pattern(chosen: Chosen) -> None:
    """The head's query × key map, and all heads of its layer as small ones."""
    subject = chosen.subject
    st.subheader(f"The pattern of {chosen.name}", anchor=False, help=explain("pattern"))
    acts = subject.acts
    assert acts.pattern is not None
    count = len(acts.token_ids)
    with graphs.beside("patterns"):
        whole, small = st.columns(2, gap="medium")
    with whole:
        first, last = _window(count, subject.pos, WINDOW, "pattern")
        rows = acts.pattern[chosen.layer, chosen.head, first:last, first:last].float().tolist()
        chart = figures_memory.pattern_map(rows, list(acts.tokens[first:last]), first, subject.pos)
        st.altair_chart(chart, key="pattern", selection_mode="row", width="content",
                        on_select=lambda: _take_query(count), alt="How the head divides its attention")  # fmt: skip
        st.caption("Each row is a position that looks, each column one that is looked at; gold: how much. Every row "
                   "adds up "
                   "to 1. Click a row to look from there.")  # fmt: skip
    with small:
        first, last = _window(count, subject.pos, SMALL, "multiples")
        rows = acts.pattern[chosen.layer, :, first:last, first:last].float().tolist()
        chart = figures_memory.pattern_multiples(rows, list(acts.tokens[first:last]), first, chosen.head)
        st.altair_chart(chart, key="multiples", selection_mode="multiple", width="content",
                        on_select=lambda: _take_multiple(chosen.layer), alt="The patterns of all heads of the "
                                                                            "layer")  # fmt: skip
        st.caption(f"All heads of layer {chosen.layer}; click one to open it. Attention below 0.01 is left blank.")


def _window(count: int, pos: int, size: int, name: str) -> tuple[int, int]:
    """The positions shown: all, or a page that begins with the one looked at in sight."""
    if count <= size:
        return 0, count
    key = f"{name}_first"
    if st.session_state.get(f"{name}_for") != (count, pos):
        st.session_state[f"{name}_for"] = (count, pos)
        st.session_state[key] = min(count - size, max(0, pos - size + 1))
    first = int(st.slider(f"First of {size} positions shown (of {count})", 0, count - size, key=key))
    return first, first + size


def _take_query(count: int) -> None:
    found = st.session_state["pattern"]["selection"].get("row") or []
    if found:
        pos = int(found[0]["query"])
        change(pos=-1 if pos == count - 1 else pos, node="")


def _take_multiple(layer: int) -> None:
    found = st.session_state["multiples"]["selection"].get("multiple") or []
    if found:
        take_head(f"L{layer}.head{int(found[0]['number'])}")


# ---- a value's life --------------------------------------------------------------------------------------------------


def life(chosen: Chosen) -> None:
    """What one source token is remembered as, in every head of every layer."""
    subject = chosen.subject
    source = _chosen_source(chosen)
    token = subject.acts.tokens[source]
    st.subheader(f"The life of a memory value: {plain(visible(token))}", anchor=False, help=explain("value"))
    tokens = subject.acts.tokens
    key = f"source_{source}_{len(tokens)}"
    st.selectbox("Source token", range(len(tokens)), index=source, key=key, width=260,
                 format_func=lambda i: f"{i}  {visible(tokens[i])}",
                 on_change=lambda: change(source=str(st.session_state[key])))  # fmt: skip
    st.session_state.setdefault("life_open", bool(state().source))
    box = st.expander("What it reads in every head of every layer", icon=":material/grid_on:", key="life_open",
                      on_change="rerun")  # fmt: skip
    if box.open:
        with box:
            _life(chosen, source)


def _life(chosen: Chosen, source: int) -> None:
    subject = chosen.subject
    token = subject.acts.tokens[source]
    by = "source_prob"
    if subject.pos >= source:  # a head looks back only
        choice: Any = st.segmented_control("Colour of the cells", ["own", "head"], required=True, wrap=True,
                                           format_func=lambda c: _LIFE[c], **field("life"))  # fmt: skip
        by = "source_prob" if choice == "own" else "intersection_head"
    table = st_life(*subject.key, None if by == "source_prob" else subject.pos, source, subject.target)
    st.altair_chart(
        figures_memory.life_map(table, token, chosen.node, by), key="life", selection_mode="life", width="stretch",
        on_select=lambda: _take_life(), alt="What the token's memory value reads in every head",
    )  # fmt: skip
    st.caption(_life_caption(table, by, plain(visible(token)), subject.model.d_vocab))


_LIFE = {"own": "probability of its own token (Fig. 18)", "head": "words in common with its head's output (Fig. 17)"}


def _life_caption(table: Any, by: str, token: str, d_vocab: int) -> str:
    mean = table.groupby("layer")[by].mean()
    best = int(mean.idxmax())
    start = f"What any head would write if it looked at {token} alone: the top word of its memory value."
    end = "Who looks at it is another question: click a head to see."
    if by == "source_prob":
        return (
            f"{start} The stronger the colour, the more probable its own token: on average over heads "
            f"{mean.iloc[0]:.1%} in "
            f"layer 0 and most, {mean.max():.1%}, in layer {best} (chance: {1 / d_vocab:.2%}). The paper finds "
            "higher values "
            f"in later layers (Fig. 18). {end}"
        )
    return (
        f"{start} The stronger the colour, the more of its fifty top words it shares with what its head writes at the "
        f"position looked at: on average {table[by].mean():.2f}, most in layer {best} ({mean.max():.2f}). The paper "
        "finds "
        f"this for the most attended values of all heads (Fig. 17). {end}"
    )


def _chosen_source(chosen: Chosen) -> int:
    """The source that the address names, else the one that moves most in this head."""
    acts = chosen.subject.acts
    text = state().source
    if text and int(text) < len(acts.token_ids):
        return int(text)
    _, numbers = st_head(*chosen.subject.about, chosen.layer, chosen.head, ())
    rows = numbers[numbers["source_pos"].notna()]
    return int(rows.loc[rows["moved"].idxmax(), "source_pos"])


def _take_life() -> None:
    found = st.session_state["life"]["selection"].get("life") or []
    if found:
        change(head=found[0]["node"], node="")


def _whole_life(chosen: Chosen) -> Any:
    """The table with both of its measures, for a file."""
    subject, source = chosen.subject, _chosen_source(chosen)
    return st_life(*subject.key, subject.pos if subject.pos >= source else None, source, subject.target)


# ---- the paper's figures ---------------------------------------------------------------------------------------------


def paper(chosen: Chosen) -> None:
    """Figures 2, 3 and 5 of the paper for this prompt, for those who open them: they read every head twice."""
    st.subheader("The paper's figures, for this prompt", anchor=False)
    box = st.expander("Figures 2, 3 and 5: whose words are whose?", icon=":material/bar_chart:", key="paper_open",
                      on_change="rerun")  # fmt: skip
    if box.open:
        with box:
            _paper(chosen)


def _paper(chosen: Chosen) -> None:
    from visit.narrate.memory import FINDINGS, figure_findings

    subject = chosen.subject
    scores = st_alignment(*subject.key, subject.pos)
    said = figure_findings(scores)
    chance = min(50, subject.model.d_vocab) / subject.model.d_vocab
    with graphs.beside("figures"):
        columns = st.columns(3, gap="medium")
    for column, figure in zip(columns, (2, 3, 5), strict=True):
        with column:
            st.markdown(f"**{_TITLES[figure]}** (Fig. {figure})")
            st.altair_chart(
                figures_memory.alignment_chart(scores, figure, chance), width="stretch", alt=_TITLES[figure]
            )
            st.caption(f"{said[figure]} {FINDINGS[figure]}")
    st.caption(
        "I₅₀: the share of the fifty most probable words that two vectors have in common; dotted: two random "
        "vectors. One "
        "prompt is an example, no proof: the study averages over many."
    )


_TITLES = {2: "All heads, with and without W_O", 3: "The three longest heads", 5: "Memory values with their head"}


# ---- files -----------------------------------------------------------------------------------------------------------


def files(chosen: Chosen) -> None:
    """The page's tables and the head's drawing as files, made when asked for."""
    graphs.downloads(partial(_file, chosen), "memory")


def _file(chosen: Chosen, kind: str) -> bytes | str:
    from visit.files import flow_page as export
    from visit.files import tables
    from visit.narrate.memory import memory_meta

    subject = chosen.subject
    about = subject.model, subject.acts, subject.pos, subject.target, subject.distractor
    if kind in ("json", "zip"):
        everything = tuple(range(subject.pos + 1))
        summary, rows = st_head(*subject.about, chosen.layer, chosen.head, everything)
        both = {
            "memory": rows, "heads": st_heads(*subject.about, words=True),
            "life": _whole_life(chosen),
            "figures": st_alignment(*subject.key, subject.pos),
        }  # fmt: skip
        meta = memory_meta(*about, summary)
        return tables.to_json(meta, both) if kind == "json" else tables.to_zip(meta, both)
    graph = st_head_graph(*subject.about, chosen.layer, chosen.head)
    look: Any = {"parts": "attention"}
    if kind == "html":
        return export.flow_html(graph, "everything", **look)
    make = export.flow_svg if kind == "svg" else export.flow_png
    return make(graph, "light", "everything", **look)
