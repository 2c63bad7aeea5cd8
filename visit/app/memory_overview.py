"""The memory page, all heads: as a map, as a list, and as the paper's Figures 2, 3 and 5 for this prompt."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from visit.app.cached_heads import st_alignment, st_heads
from visit.app.chosen_head import Chosen, take_head
from visit.app.fields import segments
from visit.app.figure_list import altair_figure
from visit.app.grid import grid
from visit.app.sessions import is_opened
from visit.app.state import CONTROLS
from visit.app.widgets import beside, in_cells, on_row, plain, unfolding, words_cell
from visit.figures import heads as figures
from visit.text.glossary import explain
from visit.text.visible import visible

_NEEDS_NO_WORDS = ("contribution", "norm", "share")  # measures for which no head has to be read


def overview(chosen: Chosen) -> None:
    """All heads as a map, and as a list."""
    subject = chosen.subject
    st.header("All heads", anchor=False, help=explain("head"))
    measure: Any = st.segmented_control("Colour", required=True, wrap=True, **segments("measure"))
    listed = is_opened("heads-list")
    worded = listed or measure not in _NEEDS_NO_WORDS
    table = st_heads(*subject.about, words=worded, influence=listed)
    named = CONTROLS["measure"].choices[measure]
    grid("heads", figures.heads_grid(table, measure, named, chosen.node, subject.about), take_head, lambda: table)
    about = _ABOUT[measure].format(target=plain(subject.word))
    st.caption(f"{about} A dot marks the three longest heads of a layer; click a head to open it below.")
    with unfolding("heads-list", "All heads as a list: top words, main source, role hints") as opened:
        if opened:
            _head_list(table, measure)


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


def _head_list(table: pd.DataFrame, measure: str) -> None:
    rising = measure == "rank"
    order = table.sort_values(measure, ascending=rising, key=lambda c: c if rising else c.abs(), kind="stable")
    shown = pd.DataFrame({
        "head": [f"L{n} H{j}" for n, j in zip(order["layer"], order["head"], strict=True)],
        "contribution": order["contribution"], "influence": order["influence"], "norm": order["norm"],
        "share": order["share"],
        "rank": order["rank"], "words": [words_cell(w) for w in order["tokens"]],
        "source": [f"{visible(t)} ({p}), pattern {a:.2f}" for t, p, a in
                   zip(order["source_token"], order["source_pos"], order["source_pattern"], strict=True)],
        "role": order["role"],
    })  # fmt: skip
    number = st.column_config.NumberColumn
    st.dataframe(
        in_cells(shown, percents=["share"], counts=["rank"]), hide_index=True, height=380, placeholder="–",
        **on_row("head_list", order["node"].tolist(), take_head),
        column_config={
            "head": "Head", "contribution": number("Contribution", format="%+.3f", help=explain("contribution")),
            "influence": number("Influence", format="%+.3f", help=explain("influence")),
            "norm": number("Norm", format="%.3g", help=explain("norm")),
            "share": number("Share", help="Of the lengths of all heads in the layer."),
            "rank": number("Rank", help=explain("rank")), "words": "Reads",
            "source": st.column_config.TextColumn("Takes most from", help="The memory value that moves most: "
                                                                          "pattern × norm."),
            "role": st.column_config.TextColumn("Over the whole prompt", help=_ROLE_HINTS),
        },
    )  # fmt: skip


_ROLE_HINTS = (
    "Where the head looks, whatever the words, with the score it rests on: attention to the previous token, to an "
    "earlier same token, to the first position, or to the token after an earlier same one (induction), averaged over "
    "the queries that have such a token. Named from 40 % of the way between chance and 1, for at least 3 queries."
)


# ---- the paper's figures ---------------------------------------------------------------------------------------------


def paper(chosen: Chosen) -> None:
    """Figures 2, 3 and 5 of the paper for this prompt, for those who open them: they read every head twice."""
    with unfolding("paper-figures", "The paper's Figures 2, 3 and 5 for this prompt: whose words are whose?") as opened:
        if opened:
            _paper_figures(chosen)


def _paper_figures(chosen: Chosen) -> None:
    from visit.narrate.memory import FINDINGS, figure_findings

    subject = chosen.subject
    scores = st_alignment(*subject.key, subject.pos)
    said = figure_findings(scores)
    chance = min(50, subject.model.d_vocab) / subject.model.d_vocab
    with beside("figures"):
        columns = st.columns(3, gap="medium")
    for column, figure in zip(columns, (2, 3, 5), strict=True):
        with column:
            st.markdown(f"**{_PAPER_FIGURES[figure]}** (Fig. {figure})")
            altair_figure(figures.alignment_chart(scores, figure, chance), width="stretch", alt=_PAPER_FIGURES[figure])
            st.caption(f"{said[figure]} {FINDINGS[figure]}")
    st.caption(
        "I₅₀: the share of the fifty most probable words that two vectors have in common; dotted: two random "
        "vectors. One "
        "prompt is an example, no proof: the study averages over many."
    )


_PAPER_FIGURES = {
    2: "All heads, with and without W_O",
    3: "The three longest heads",
    5: "Memory values with their head",
}
