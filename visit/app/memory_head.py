"""The memory page, one head: in sentences, source by source, as a picture, its pattern, and the life of a value."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from visit.app import graph_panel as graphs
from visit.app.cached_heads import st_alignment, st_head, st_head_graph, st_heads, st_life
from visit.app.chosen_head import Chosen, take_head
from visit.app.fields import choice, segments
from visit.app.figure_list import altair_figure, collect_figure
from visit.app.graph_panel import picture_file
from visit.app.grid import as_table, grid
from visit.app.live import say
from visit.app.sessions import change, set_opened, state
from visit.app.widgets import (
    beside,
    downloads,
    in_cells,
    on_point,
    on_row,
    pager,
    plain,
    sentences,
    turned_page,
    unfolding,
    words_cell,
)
from visit.figures import heads as figures
from visit.text.glossary import explain
from visit.text.numbers import percent, short
from visit.text.visible import visible

SOURCES = 40  # positions whose words are read and shown at once, and of a pattern; a longer prompt is paged
SMALL = 24  # … in the small maps of all heads


def head_in_sentences(chosen: Chosen) -> None:
    """What the head does at this position, in sentences."""
    from visit.narrate.memory import memory_story

    subject = chosen.subject
    say(f"head {chosen.name}")
    rows = _source_rows(chosen)  # the sentences are about those that push most, and the first position
    best = rows["contribution"].abs().sort_values(ascending=False).index[:4]
    told = tuple(sorted({0, *(int(i) for i in best)}))
    summary, table = st_head(*subject.about, chosen.layer, chosen.head, told)
    role = st_heads(*subject.about).set_index("node").loc[chosen.node, "role"]
    found = memory_story(summary, table, role if isinstance(role, str) else None, subject.model.d_vocab)
    sentences(found, "memory_story", lambda node: change(node=node))


def _source_rows(chosen: Chosen) -> pd.DataFrame:
    """The numbers of every source position of the head."""
    _, numbers = st_head(*chosen.subject.about, chosen.layer, chosen.head, ())
    return numbers[numbers["source_pos"].notna()]


def drill_down(chosen: Chosen) -> None:
    """One row per past position: what was attended, what is remembered there, and what it moves."""
    subject = chosen.subject
    st.header(f"{chosen.name} at position {subject.pos} ({plain(subject.token)})",
                 anchor=False, help=explain("value") + " " + explain("pattern"))  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("Order", width=230, **choice("order"))
        st.selectbox("First position", width=230, help="In most heads the first position is an attention sink: looked "
                     "at when there is nothing to fetch, with a short memory value.", **choice("sink"))  # fmt: skip
        if subject.model.family.ln1 is not None and subject.recorded is None:  # a gain to fold in
            st.selectbox("Keys and queries read", width=260, help="A key and a query pair with the normed stream. "
                         "Folding in the gain of the norm reads them in the space of the stream itself.",
                         **choice("gain"))  # fmt: skip
    summary, numbers = st_head(*subject.about, chosen.layer, chosen.head, ())
    rows, order, aside = numbers[numbers["source_pos"].notna()], state().memory.order, ""
    if state().memory.sink == "aside":
        sink_share = float(rows.loc[rows["is_sink"], "share"].iloc[0])
        aside = f" (the first position, {percent(sink_share)} of what moves, is set aside)"
    if aside and len(rows) > 1:
        rows = rows[~rows["is_sink"]]
    if order != "source_pos":
        rows = rows.sort_values(order, ascending=False, key=lambda c: c.abs(), kind="stable")
    first = SOURCES * (
        turned_page("sources", (chosen.node, subject.key, subject.pos), -(-len(rows) // SOURCES), SOURCES) - 1
    )
    shown = rows.iloc[first : first + SOURCES]
    read = tuple(sorted(int(p) for p in shown["source_pos"]))
    _, table = st_head(*subject.about, chosen.layer, chosen.head, read)
    _source_table(chosen, table.loc[[*shown.index, len(table) - 1]])
    collect_figure(f"What {chosen.name} recalls from every position", None, lambda: table, code="memory")
    error, share = summary["relative_miss"], float(shown["share"].sum())
    first = _first_seen(chosen)
    near = f" This layer sees no position before {first}: the pattern there is 0." if first else ""
    st.caption(
        f"One row per position up to this one.{near} {chosen.name} writes the sum of these memory values, each "
        f"times its pattern; what is shown makes {percent(share)} of what it moves{aside}. The last row is what the "
        f"sum misses: {error:.0e} of the head's length. Words: what each vector reads with the logit lens. Choose a "
        "row for that token's life below."
    )


def _first_seen(chosen: Chosen) -> int:
    """The first position that the layer sees from here."""
    if chosen.subject.recorded is not None:  # its table has the positions that the head saw
        return int(_source_rows(chosen)["source_pos"].min())
    from visit.models.attention import first_visible

    return first_visible(chosen.subject.model, chosen.layer, chosen.subject.pos)


def _source_table(chosen: Chosen, table: pd.DataFrame) -> None:
    has_gain = chosen.subject.model.family.ln1 is not None
    gain = "gain_" if state().memory.gain == "folded" and has_gain else ""
    words = {"value": "tokens", "key": f"key_{gain}tokens", "query": f"query_{gain}tokens"}
    shown = pd.DataFrame({
        "source": [_source_name(row) for row in table.to_dict("records")],
        "pattern": table["pattern"], "norm": table["value_norm"], "moved": table["moved"], "share": table["share"],
        "contribution": table["contribution"],
        **{name: [words_cell(w, 4) for w in table[column]] for name, column in words.items()},
        "own": table["source_rank"], "own_prob": table["source_prob"], "rank": table["rank"], "prob": table["prob"],
    })  # fmt: skip
    if table["negated_tokens"].notna().any():
        shown.insert(7, "negated", [words_cell(w, 4) for w in table["negated_tokens"]])

    def take_source(pos: Any) -> None:
        if not pd.isna(pos):
            change(source=int(pos))
            set_opened("life", True)

    st.dataframe(
        in_cells(shown, ["share", "own_prob", "prob"], ["own", "rank"]), hide_index=True, placeholder="–",
        **on_row("memory_rows", table["source_pos"].tolist(), take_source),
        row_height=34, height=min(34 * (len(shown) + 1) + 2, 620), column_config=_columns(chosen.subject.word),
    )  # fmt: skip


def _columns(target: str) -> dict[str, Any]:
    """Titles, formats and explanations of the drill-down's columns."""
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    bar = st.column_config.ProgressColumn
    length = "Attention × ‖v W_O‖: the length of what this position adds to the head."
    negated = "The head pushes the target away, so the negated value is read, too."
    own = "The source token's rank in its own memory value."
    return {
        "source": text("From", pinned=True),
        "pattern": bar("Attention", format="%.2f", min_value=0.0, max_value=1.0, help=explain("pattern")),
        "norm": number("Length", format="%.3g", help="Of its memory value, ‖v W_O‖. " + explain("norm")),
        "moved": number("Attention × length", format="%.3g", help=length),
        "share": number("Share", help="Of the lengths of all rows; in the last row, of the head's length."),
        "contribution": number("Contribution", format="%+.3f", help=explain("contribution")),
        "value": text("Its memory value reads", help=explain("value")),
        "negated": text("With a minus it reads", help=negated),
        "key": text("Its key reads", help=explain("key")),
        "query": text("The query, as it sees it, reads", help=explain("query")),
        "own": number("Rank of its own token", help=own),
        "own_prob": number("P of its own token"),
        "rank": number(f"Rank of {target}", help=explain("rank")),
        "prob": number(f"P of {target}"),
    }


def _source_name(row: dict[str, Any]) -> str:
    if pd.isna(row["source_pos"]):
        return "what the sum misses"
    sink = " · first position" if row["is_sink"] else ""
    return f"{visible(row['source_token'])} ({int(row['source_pos'])}){sink}"


def picture(chosen: Chosen) -> None:
    """The head as a drawing: query, keys, memory values, output."""
    with unfolding("head-picture", f"{chosen.name} as a picture: query, keys, memory values, output") as opened:
        if opened:
            _head_picture(chosen)


def _head_picture(chosen: Chosen) -> None:
    from visit.drawing.draw import draw, flow_data

    subject = chosen.subject
    graph = st_head_graph(*subject.about, chosen.layer, chosen.head)
    node = state().graph.node if state().graph.node in graph.by_id else None
    graphs.show(flow_data(graph, "everything", parts="attention", selected=node), "flow_memory")
    collect_figure(f"{chosen.name}: query, keys, memory values, output",
                   lambda words: draw(graph, "everything", words=words, parts="attention"),
                   lambda: graph.nodes)  # fmt: skip
    st.caption(
        "From left to right: what the head's query looks for, the keys it finds, the memory values they stand for, and "
        "their sum. Gold: the pattern. Everything else that attention adds stands in “rest”."
    )


# ---- the pattern -----------------------------------------------------------------------------------------------------


def pattern(chosen: Chosen) -> None:
    """The head's query × key map, and all heads of its layer as small ones."""
    with unfolding("pattern", f"The pattern of {chosen.name}: from every position to every other") as opened:
        if opened:
            _both_patterns(chosen)


def _both_patterns(chosen: Chosen) -> None:
    subject = chosen.subject
    acts = subject.acts
    assert acts.pattern is not None
    count = len(acts.token_ids)
    with beside("patterns"):
        whole, small = st.columns(2, gap="medium")
    with whole:
        seen = pager("pattern", subject.key, count, subject.pos, SOURCES)
        rows = acts.pattern[chosen.layer, chosen.head, seen.start : seen.stop, seen.start : seen.stop].tolist()
        tokens = subject.named[seen.start : seen.stop]
        found = figures.pattern_grid(rows, tokens, seen.start, subject.pos, (chosen.node, subject.key))
        grid("pattern", found, lambda query: change(pos=subject.in_address(query), node=""),
             partial(figures.pattern_table, rows, tokens, seen.start))  # fmt: skip
        st.caption("Each row is a position that looks, each column one that is looked at; gold: how much. Every row "
                   "adds up to 1. Click a row to look from there.")  # fmt: skip
        as_table("pattern", found)
    with small:
        seen = pager("multiples", subject.key, count, subject.pos, SMALL)
        rows = acts.pattern[chosen.layer, :, seen.start : seen.stop, seen.start : seen.stop].tolist()
        altair_figure(
            figures.pattern_multiples(rows, subject.named[seen.start : seen.stop], seen.start, chosen.head),
            width="content", alt="The patterns of all heads of the layer",
            **on_point("multiples", "multiple", lambda p: take_head(f"L{chosen.layer}.head{int(p['number'])}")),
        )  # fmt: skip
        st.caption(f"All heads of layer {chosen.layer}; click one to open it. Attention below 0.01 is left blank.")


# ---- a value's life --------------------------------------------------------------------------------------------------


def life(chosen: Chosen) -> None:
    """What one source token is remembered as, in every head of every layer."""
    source = _chosen_source(chosen)
    token = plain(visible(chosen.subject.named[source]))
    label = f"The life of a memory value: what {token} is remembered as in every head of every layer"
    with unfolding("life", label) as opened:
        if opened:
            _choose_source(chosen, source)
            _life(chosen, source)


def _choose_source(chosen: Chosen, source: int) -> None:
    tokens = chosen.subject.named
    key = f"source_{source}_{len(tokens)}"
    st.selectbox("Source token", range(len(tokens)), index=source, key=key, width=260,
                 format_func=lambda i: f"{i}  {visible(tokens[i])}",
                 on_change=lambda: change(source=int(st.session_state[key])))  # fmt: skip


def _life(chosen: Chosen, source: int) -> None:
    subject = chosen.subject
    token = subject.named[source]
    by = "source_prob"
    if subject.pos >= source:  # a head looks back only
        colour: Any = st.segmented_control("Colour of the cells", required=True, wrap=True, **segments("life"))
        by = "source_prob" if colour == "own" else "intersection_head"
    table = st_life(*subject.key, None if by == "source_prob" else subject.pos, source, subject.target)
    found = figures.life_grid(table, token, chosen.node, by, (subject.key, source))
    grid("life", found, lambda node: change(head=node, node=""), lambda: table)
    st.caption(_life_caption(table, by, plain(visible(token)), subject.model.d_vocab))
    as_table("life", found)


def _life_caption(table: Any, by: str, token: str, d_vocab: int) -> str:
    mean = table.groupby("layer")[by].mean()
    best = int(mean.idxmax())
    start = f"What any head would write if it looked at {token} alone: the top word of its memory value."
    end = "Who looks at it is another question: click a head to see."
    if by == "source_prob":
        return (
            f"{start} The stronger the colour, the more probable its own token: on average over heads "
            f"{percent(mean.iloc[0])} in layer 0 and most, {percent(mean.max())}, in layer {best} (chance: "
            f"{percent(1 / d_vocab, fine=True)}). The paper finds higher values in later layers (Fig. 18). {end}"
        )
    return (
        f"{start} The stronger the colour, the more of its fifty top words it shares with what its head writes at the "
        f"position looked at: on average {short(table[by].mean())}, most in layer {best} ({short(mean.max())}). The "
        f"paper finds this for the most attended values of all heads (Fig. 17). {end}"
    )


def _chosen_source(chosen: Chosen) -> int:
    """The source that the address names, else the one that moves most in this head."""
    source = state().memory.source
    if source is not None and source < len(chosen.subject.acts.token_ids):
        return source
    rows = _source_rows(chosen)
    return int(rows.loc[rows["moved"].idxmax(), "source_pos"])


# ---- files -----------------------------------------------------------------------------------------------------------


def files(chosen: Chosen) -> None:
    """The page's tables and the head's drawing as files, made when asked for."""
    subject, about = chosen.subject, (*chosen.subject.about, chosen.layer, chosen.head)

    def tables() -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        summary, rows = st_head(*about, tuple(range(subject.pos + 1)))
        if subject.recorded is not None:
            return subject.meta, {"memory": rows, "heads": st_heads(*subject.about, words=True),
                                  "figures": st_alignment(*subject.key, subject.pos)}  # fmt: skip
        from visit.analyses.attention_memory import head_meta

        source = _chosen_source(chosen)
        pos = subject.pos if subject.pos >= source else None
        meta = subject.question.meta | head_meta(subject.model, summary)
        return meta, {
            "memory": rows, "heads": st_heads(*subject.about, words=True),
            "life": st_life(*subject.key, pos, source, subject.target),
            "figures": st_alignment(*subject.key, subject.pos),
        }  # fmt: skip

    look = {"parts": "attention"}
    downloads("memory", tables, lambda kind: picture_file(st_head_graph(*about), kind, "everything", look))
