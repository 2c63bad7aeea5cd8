"""The memory page: the head looked at, and all heads as a map and as a list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from visit.app import graph_panel as graphs
from visit.app.address import CHOICES
from visit.app.cache import st_alignment, st_head, st_head_graph, st_heads, st_life
from visit.app.prompt_bar import Subject, plain
from visit.app.sentences import sentences
from visit.app.state import change, field, state, whole_words
from visit.figures import heads as figures_memory
from visit.text.glossary import explain
from visit.text.numbers import percent, short
from visit.text.visible import visible, word_list

MEASURES = {
    "contribution": "contribution", "norm": "norm", "share": "share of the layer's lengths",
    "intersection_attn_out": "I₅₀ with attn_out", "intersection_block": "I₅₀ with the block",
    "intersection_final": "I₅₀ with the last state", "rank": "rank of the target",
}  # fmt: skip
_NUMBERS = ("contribution", "norm", "share")  # for which no head has to be read as words


@dataclass(frozen=True, eq=False)
class Chosen:
    """The head looked at."""

    subject: Subject
    layer: int
    head: int

    @property
    def node(self) -> str:
        return f"L{self.layer}.head{self.head}"

    @property
    def name(self) -> str:
        return f"L{self.layer} H{self.head}"


def chosen_head(subject: Subject) -> Chosen:
    """The head that the address names, else the one that pushes hardest towards the target."""
    from visit.narrate.memory import strongest_head

    model = subject.model
    for text in (state().head, state().node):
        numbers = _numbers(text)
        if numbers and numbers[0] < model.n_layers and numbers[1] < model.n_heads:
            return Chosen(subject, *numbers)
    if state().head:
        last = f"L{model.n_layers - 1}.head{model.n_heads - 1}"
        st.info(f"The link's head “{state().head}” does not exist here (heads go up to {last}); the strongest is "
                "shown.",
                icon=":material/link:")  # fmt: skip
    found = _numbers(strongest_head(st_heads(*subject.about)))
    assert found
    return Chosen(subject, *found)


def _numbers(node: str) -> tuple[int, int] | None:
    """(layer, head) of an id such as L4.head1.value3."""
    parts = node.split(".")
    if len(parts) < 2 or not parts[1].startswith("head") or not parts[1][4:].isdigit():
        return None
    return int(parts[0][1:]), int(parts[1][4:])


def take_head(node: str | None) -> None:
    """Look at another head."""
    if node and _numbers(node):
        layer, head = _numbers(node) or (0, 0)
        change(head=f"L{layer}.head{head}", node="", source="")


# ---- all heads -------------------------------------------------------------------------------------------------------


def overview(chosen: Chosen) -> None:
    """All heads as a map, and as a list."""
    subject = chosen.subject
    target = plain(visible(subject.model.vocabulary[subject.target]))
    st.subheader("All heads", anchor=False, help=explain("head"))
    measure: Any = st.segmented_control("Colour", list(MEASURES), format_func=lambda m: MEASURES[m], required=True,
                                        wrap=True, **field("measure"))  # fmt: skip
    listed = bool(st.session_state.get("heads_listed"))
    worded = listed or measure not in _NUMBERS
    table = st_heads(*subject.about, words=True) if worded else st_heads(*subject.about)
    st.altair_chart(
        figures_memory.heads_map(table, measure, chosen.node), key="heads", selection_mode="head", width="stretch",
        on_select=lambda: take_head(_picked("heads", "head", "node")),
        alt="Every head of every layer, coloured by the chosen measure",
    )  # fmt: skip
    st.caption(f"{_ABOUT[measure].format(target=target)} A dot marks the three longest heads of a layer; click a "
               "head to "
               "open it below.")  # fmt: skip
    box = st.expander("The same as a list: top words, main source, role hints", icon=":material/list:",
                      key="heads_listed", on_change="rerun")  # fmt: skip
    if box.open:
        with box:
            _list(table, measure)


_ABOUT = {
    "contribution": "Each cell is one head at the chosen position: how many logits it adds to “{target}” "
    "(blue-green) or "
    "takes from it (vermilion).",
    "norm": "Each cell: the length of what the head writes into the stream. Long ones set the words of their layer.",
    "share": "Each cell: the head's length as a share of all heads' lengths in its layer.",
    "intersection_attn_out": "Each cell: the share of its fifty top words that the head has in common with what its "
    "whole "
    "attention adds.",
    "intersection_block": "Each cell: the share of its fifty top words that the head has in common with its block's "
    "output.",
    "intersection_final": "Each cell: the share of its fifty top words that the head has in common with the last "
    "state.",
    "rank": "Each cell: the rank of “{target}” in what the head reads, 1 for the most probable.",
}


def _picked(key: str, name: str, field_: str) -> Any:
    """What a click on a chart chose."""
    found = st.session_state[key]["selection"].get(name) or []
    return found[0][field_] if found else None


def _list(table: pd.DataFrame, measure: str) -> None:
    rising = measure == "rank"
    order = table.sort_values(measure, ascending=rising, key=lambda c: c if rising else c.abs(), kind="stable")
    shown = pd.DataFrame({
        "head": [f"L{n} H{j}" for n, j in zip(order["layer"], order["head"], strict=True)],
        "contribution": order["contribution"], "norm": order["norm"], "share": order["share"],
        "rank": order["rank"], "words": [spoken(w, 5) for w in order["tokens"]],
        "source": [f"{visible(t)} ({p}), pattern {a:.2f}" for t, p, a in
                   zip(order["source_token"], order["source_pos"], order["source_pattern"], strict=True)],
        "role": order["role"],
    })  # fmt: skip
    number = st.column_config.NumberColumn
    st.dataframe(
        shown, hide_index=True, height=380, key="head_list", selection_mode="single-row", placeholder="–",
        on_select=partial(_take_row, order["node"].tolist()),
        column_config={
            "head": "Head", "contribution": number("Contribution", format="%+.3f", help=explain("contribution")),
            "norm": number("Norm", format="%.3g", help=explain("norm")),
            "share": number("Share", format="percent", help="Of the lengths of all heads in the layer."),
            "rank": number("Rank", help=explain("rank")), "words": "Reads",
            "source": st.column_config.TextColumn("Takes most from", help="The memory value that moves most: "
                                                                          "pattern × norm."),
            "role": st.column_config.TextColumn("Over the whole prompt", help=_ROLES),
        },
    )  # fmt: skip


_ROLES = ("Where the head looks, whatever the words, with the score it rests on: attention to the previous token, "
          "to an "
          "earlier same token, to the first position, or to the token after an earlier same one (induction), "
          "averaged over "
          "the queries that have such a token. Named from 40 % of the way between chance and 1, for at least 3 "
          "queries.")  # fmt: skip


def _take_row(nodes: list[str]) -> None:
    rows = st.session_state["head_list"]["selection"]["rows"]
    if rows and rows[0] < len(nodes):
        take_head(nodes[rows[0]])


def spoken(tokens: Any, count: int = 4) -> str | None:
    """A list of tokens for a table's cell."""
    return ", ".join(word_list(tokens, count, whole_words())) if isinstance(tokens, list) else None


# ---- one head on the memory page -------------------------------------------------------------------------------------
PAGE = 40  # source positions whose words are read and shown at once


def story(chosen: Chosen) -> None:
    """What the head does at this position, in sentences."""
    from visit.narrate.memory import memory_story

    subject = chosen.subject
    summary, table = st_head(*subject.about, chosen.layer, chosen.head, _best(chosen))
    role = st_heads(*subject.about).set_index("node").loc[chosen.node, "role"]
    found = memory_story(summary, table, role if isinstance(role, str) else None, subject.model.d_vocab)
    sentences(found, "memory_story", lambda node: change(node=node))


def _best(chosen: Chosen) -> tuple[int, ...]:
    """The sources that the sentences are about: those that push most, and the first position."""
    _, numbers = st_head(*chosen.subject.about, chosen.layer, chosen.head, ())
    rows = numbers[numbers["source_pos"].notna()]
    best = rows["contribution"].abs().sort_values(ascending=False).index[:4]
    return tuple(sorted({0, *(int(i) for i in best)}))


def drill_down(chosen: Chosen) -> None:
    """One row per past position: what was attended, what is remembered there, and what it moves."""
    from visit.models.attention import first_visible

    subject = chosen.subject
    st.subheader(f"{chosen.name} at position {subject.pos} ({plain(visible(subject.acts.tokens[subject.pos]))})",
                 anchor=False, help=explain("value") + " " + explain("pattern"))  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("Order", CHOICES["order"], format_func=lambda o: _ORDERS[o], width=230, **field("order"))
        st.selectbox("First position", CHOICES["sink"], width=230, help="In most heads the first position is an "
                                                                        "attention "
                     "sink: looked at when there is nothing to fetch, with a short memory value.",
                     format_func=lambda s: {"shown": "shown", "aside": "set aside"}[s], **field("sink"))  # fmt: skip
        if subject.model.family.ln1 is not None:  # a gain to fold in
            names = {"plain": "as they pair with ln1_out", "folded": "with the norm's gain"}
            st.selectbox("Keys and queries read", CHOICES["gain"], width=260, help="A key and a query pair with the "
                         "normed stream. Folding in the gain of the norm reads them in the space of the stream itself.",
                         format_func=lambda g: names[g], **field("gain"))  # fmt: skip
    summary, numbers = st_head(*subject.about, chosen.layer, chosen.head, ())
    rows = numbers[numbers["source_pos"].notna()]
    if state().sink == "aside" and len(rows) > 1:
        rows = rows[~rows["is_sink"]]
    rows = _ordered(rows)
    pages = -(-len(rows) // PAGE)
    page = _page(pages, f"memory_page {chosen.node} {subject.key} {subject.pos}")
    shown = rows.iloc[(page - 1) * PAGE : page * PAGE]
    read = tuple(sorted(int(p) for p in shown["source_pos"]))
    _, table = st_head(*subject.about, chosen.layer, chosen.head, read)
    _rows(chosen, table.loc[[*shown.index, len(table) - 1]])
    error, share = summary["relative_miss"], float(shown["share"].sum())
    first = first_visible(subject.model, chosen.layer, subject.pos)
    near = f" This layer sees no position before {first}: the pattern there is 0." if first else ""
    aside = "" if state().sink == "shown" else f" (the first position, {_share(numbers)} of what moves, is set aside)"
    st.caption(
        f"One row per position up to this one.{near} {chosen.name} writes the sum of these memory values, each "
        f"times its pattern; what is shown makes {percent(share)} of what it moves{aside}. The last row is what the "
        f"sum misses: {error:.0e} of the head's length. Words: what each vector reads with the logit lens. Choose a "
        "row for that token's life below."
    )


def _page(pages: int, key: str) -> int:
    """Which page of a long prompt's rows is shown; a new head or position begins with the first."""
    if pages == 1:
        return 1
    return int(st.number_input(f"Page (of {pages}, {PAGE} positions each)", 1, pages, 1, key=key))


_ORDERS = {"moved": "by what it moves", "pattern": "by attention", "contribution": "by |contribution|",
           "source_pos": "by position"}  # fmt: skip


def _share(numbers: pd.DataFrame) -> str:
    return f"{percent(float(numbers.loc[numbers['is_sink'], 'share'].iloc[0]))}"


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    by = state().order
    if by == "source_pos":
        return rows
    return rows.sort_values(by, ascending=False, key=lambda c: c.abs(), kind="stable")


def _rows(chosen: Chosen, table: pd.DataFrame) -> None:
    has_gain = chosen.subject.model.family.ln1 is not None
    gain = "gain_" if state().gain == "folded" and has_gain else ""
    words = {"value": "tokens", "key": f"key_{gain}tokens", "query": f"query_{gain}tokens"}
    shown = pd.DataFrame({
        "source": [_source(row) for row in table.to_dict("records")],
        "pattern": table["pattern"], "norm": table["value_norm"], "moved": table["moved"], "share": table["share"],
        "contribution": table["contribution"],
        **{name: [spoken(w) for w in table[column]] for name, column in words.items()},
        "own": table["source_rank"], "own_prob": table["source_prob"], "rank": table["rank"], "prob": table["prob"],
    })  # fmt: skip
    if table["negated_tokens"].notna().any():
        shown.insert(7, "negated", [spoken(w) for w in table["negated_tokens"]])
    st.dataframe(
        shown, hide_index=True, key="memory_rows", selection_mode="single-row", placeholder="–",
        on_select=partial(_take_source, table["source_pos"].tolist()), height=min(36 * (len(shown) + 1) + 6, 620),
        column_config=_columns(visible(chosen.subject.model.vocabulary[chosen.subject.target])),
    )  # fmt: skip


def _columns(target: str) -> dict[str, Any]:
    """Titles, formats and explanations of the drill-down's columns."""
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    bar = st.column_config.ProgressColumn
    length = "The length of what this position adds to the head."
    negated = "The head pushes the target away, so the negated value is read, too."
    own = "The source token's rank in its own memory value."
    return {
        "source": text("From", pinned=True),
        "pattern": bar("Attention", format="%.2f", min_value=0.0, max_value=1.0, help=explain("pattern")),
        "norm": number("‖v W_O‖", format="%.3g", help=explain("norm")),
        "moved": number("Attention × ‖v W_O‖", format="%.3g", help=length),
        "share": number(
            "Share", format="percent", help="Of the lengths of all rows; in the last row, of the head's length."
        ),
        "contribution": number("Contribution", format="%+.3f", help=explain("contribution")),
        "value": text("Its memory value reads", help=explain("value")),
        "negated": text("Turned round it reads", help=negated),
        "key": text("Its key reads", help=explain("key")),
        "query": text("The query, as it sees it, reads", help=explain("query")),
        "own": number("Rank of its own token", help=own),
        "own_prob": number("P of its own token", format="percent"),
        "rank": number(f"Rank of {target}", help=explain("rank")),
        "prob": number(f"P of {target}", format="percent"),
    }


def _source(row: dict[str, Any]) -> str:
    if pd.isna(row["source_pos"]):
        return "what the sum misses"
    sink = " · first position" if row["is_sink"] else ""
    return f"{visible(row['source_token'])} ({int(row['source_pos'])}){sink}"


def _take_source(positions: list[Any]) -> None:
    rows = st.session_state["memory_rows"]["selection"]["rows"]
    if rows and rows[0] < len(positions) and not pd.isna(positions[rows[0]]):
        change(source=str(int(positions[rows[0]])))
        st.session_state["life_open"] = True


# ---- the lower half of the memory page -------------------------------------------------------------------------------
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
    from visit.analyses.attention_memory import head_meta
    from visit.exact.question import ask
    from visit.files import flow_page as export
    from visit.files import tables

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
        meta = ask(*about).meta | head_meta(chosen.subject.model, summary)
        return tables.to_json(meta, both) if kind == "json" else tables.to_zip(meta, both)
    graph = st_head_graph(*subject.about, chosen.layer, chosen.head)
    look: Any = {"parts": "attention"}
    if kind == "html":
        return export.flow_html(graph, "everything", **look)
    make = export.flow_svg if kind == "svg" else export.flow_png
    return make(graph, "light", "everything", **look)
