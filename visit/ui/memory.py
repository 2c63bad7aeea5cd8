"""The upper half of the memory page: which heads push, all heads as a map and as a list, one head row by row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from visit import figures_memory
from visit.glossary import explain
from visit.permalink import CHOICES
from visit.ui.cached import st_head, st_head_map
from visit.ui.prompt import Subject, plain
from visit.ui.reading import sentences
from visit.ui.state import change, field, state
from visit.words import visible

PAGE = 40  # source positions whose words are read and shown at once

MEASURES = {
    "contribution": "contribution", "norm": "norm", "share": "share of the layer's lengths",
    "intersection_attn_out": "I₅₀ with attn_out", "intersection_block": "I₅₀ with the block",
    "intersection_final": "I₅₀ with the last state", "rank": "rank of the target",
}  # fmt: skip


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
    from visit.recollection import strongest_head

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
    found = _numbers(strongest_head(st_head_map(*subject.about)))
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
    table = st_head_map(*subject.about)
    target = plain(visible(subject.model.vocabulary[subject.target]))
    st.subheader("All heads", anchor=False, help=explain("head"))
    measure: Any = st.segmented_control("Colour", list(MEASURES), format_func=lambda m: MEASURES[m], required=True,
                                        wrap=True, **field("measure"))  # fmt: skip
    st.altair_chart(
        figures_memory.heads_map(table, measure, chosen.node), key="heads", selection_mode="head", width="stretch",
        on_select=lambda: take_head(_picked("heads", "head", "node")),
        alt="Every head of every layer, coloured by the chosen measure",
    )  # fmt: skip
    st.caption(f"{_ABOUT[measure].format(target=target)} A dot marks the three longest heads of a layer; click a "
               "head to "
               "open it below.")  # fmt: skip
    with st.expander("The same as a list: top words, main source, role hints", icon=":material/list:"):
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
        "rank": order["rank"], "words": [_words(w, 5) for w in order["tokens"]],
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


def _words(tokens: Any, count: int = 4) -> str | None:
    return ", ".join(visible(t) for t in tokens[:count]) if isinstance(tokens, list) else None


# ---- one head --------------------------------------------------------------------------------------------------------


def story(chosen: Chosen) -> None:
    """What the head does at this position, in sentences."""
    from visit.recollection import memory_story

    subject = chosen.subject
    summary, table = st_head(*subject.about, chosen.layer, chosen.head, _best(chosen))
    role = st_head_map(*subject.about).set_index("node").loc[chosen.node, "role"]
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
    subject = chosen.subject
    st.subheader(f"{chosen.name} at position {subject.pos} ({plain(visible(subject.acts.tokens[subject.pos]))})",
                 anchor=False, help=explain("value") + " " + explain("pattern"))  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("Order", CHOICES["order"], format_func=lambda o: _ORDERS[o], width=230, **field("order"))
        st.selectbox("First position", CHOICES["sink"], width=230, help="In most heads the first position is an "
                                                                        "attention "
                     "sink: looked at when there is nothing to fetch, with a short memory value.",
                     format_func=lambda s: {"shown": "shown", "aside": "set aside"}[s], **field("sink"))  # fmt: skip
        st.selectbox("Keys and queries read", CHOICES["gain"], width=260, help="A key and a query pair with the normed "
                     "stream. Folding in the gain of the norm reads them in the space of the stream itself.",
                     format_func=lambda g: {"plain": "as they pair with ln1_out", "folded": "with the norm's gain"}[g],
                     **field("gain"))  # fmt: skip
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
    aside = "" if state().sink == "shown" else f" (the first position, {_share(numbers)} of what moves, is set aside)"
    st.caption(
        f"One row per position that {chosen.name} can look at. It writes the sum of these memory values, each times "
        "its "
        f"pattern; what is shown makes {share:.0%} of what it moves{aside}. The last row is what the sum misses: "
        f"{error:.0e} of the head's length. Words: what each vector reads with the logit lens. Choose a row for that "
        "token's life below."
    )


def _page(pages: int, key: str) -> int:
    """Which page of a long prompt's rows is shown; a new head or position begins with the first."""
    if pages == 1:
        return 1
    return int(st.number_input(f"Page (of {pages}, {PAGE} positions each)", 1, pages, 1, key=key))


_ORDERS = {"moved": "by what it moves", "pattern": "by attention", "contribution": "by |contribution|",
           "source_pos": "by position"}  # fmt: skip


def _share(numbers: pd.DataFrame) -> str:
    return f"{float(numbers.loc[numbers['is_sink'], 'share'].iloc[0]):.0%}"


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    by = state().order
    if by == "source_pos":
        return rows
    return rows.sort_values(by, ascending=False, key=lambda c: c.abs(), kind="stable")


def _rows(chosen: Chosen, table: pd.DataFrame) -> None:
    gain = "gain_" if state().gain == "folded" else ""
    words = {"value": "tokens", "key": f"key_{gain}tokens", "query": f"query_{gain}tokens"}
    shown = pd.DataFrame({
        "source": [_source(row) for row in table.to_dict("records")],
        "pattern": table["pattern"], "norm": table["value_norm"], "moved": table["moved"], "share": table["share"],
        "contribution": table["contribution"],
        **{name: [_words(w) for w in table[column]] for name, column in words.items()},
        "own": table["source_rank"], "own_prob": table["source_prob"], "rank": table["rank"], "prob": table["prob"],
    })  # fmt: skip
    if table["negated_tokens"].notna().any():
        shown.insert(7, "negated", [_words(w) for w in table["negated_tokens"]])
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
