"""The memory page: the head looked at, and all heads as a map and as a list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from visit.app.cache import st_heads
from visit.app.prompt_bar import Subject, plain
from visit.app.state import change, field, state, whole_words
from visit.figures import heads as figures_memory
from visit.text.glossary import explain
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
