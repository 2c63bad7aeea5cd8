"""One head on the memory page: what it does in sentences, and row by row what it attends, remembers and moves."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from visit.app.address import CHOICES
from visit.app.cache import st_head, st_heads
from visit.app.memory import Chosen, spoken
from visit.app.prompt_bar import plain
from visit.app.sentences import sentences
from visit.app.state import change, field, state
from visit.text.glossary import explain
from visit.text.visible import visible

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
        f"times its pattern; what is shown makes {share:.0%} of what it moves{aside}. The last row is what the sum "
        f"misses: {error:.0e} of the head's length. Words: what each vector reads with the logit lens. Choose a row "
        "for that token's life below."
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
