"""The page *Heads over a set*: one's own question over prompts, as a run, in sentences, as maps and as a table."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from visit.app.fields import choice, field, listed, segments
from visit.app.figure_list import collect_chart
from visit.app.grid import grid
from visit.app.live import say
from visit.app.marks import named_part
from visit.app.prompt_bar import show_notes, shown_model
from visit.app.prompt_sets import choose_set, part_of
from visit.app.sessions import change, state
from visit.app.set_question import (
    SetQuestion,
    follow_goto,
    graph_button,
    lines_told,
    look_in_prompt,
    set_explained,
    shown_in,
    with_band_columns,
)
from visit.app.set_runs import key_of, question_run, st_asked
from visit.app.sidebar import show_ledger
from visit.app.state import CONTROLS
from visit.app.widgets import READING_AID, downloads, folded, in_cells, on_row, section, sentences
from visit.models.catalog import title
from visit.runs.prompts import PromptSet
from visit.text.glossary import explain
from visit.text.node_id import part_name
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.models.model import Model

CHOICES = 100  # prompts of the list in which one is chosen to look at a part


def question() -> SetQuestion | None:
    """What is asked of which set, and its run; None while there is nothing to ask."""
    st.caption(
        "A head that matters for one text may matter for no other. Here each is measured on every prompt of a set: "
        "what it adds to the answer directly, and what the answer is without it."
    )
    show_notes()
    model = shown_model()
    show_ledger(model)
    with named_part("asked"):
        chosen = choose_set(model, control="heads_set")
        if chosen is None:
            return None
        set_explained(chosen)
        one, prompts = _question_controls(model, chosen)
        lines = st.container()
    with named_part("run"):
        one = question_run(one, "a")
    with lines:
        lines_told(one, prompts.rows)
    return one


# ---- what is asked ---------------------------------------------------------------------------------------------------
def _question_controls(model: Model, chosen: PromptSet) -> tuple[SetQuestion, PromptSet]:
    """What is asked, and the lines that it is asked of, those left out too."""
    now = state().heads_page
    with st.container(horizontal=True, vertical_alignment="bottom"):
        counts = [c for c in CONTROLS["lines"].choices if c == "all" or int(c) < len(chosen.rows)]
        count = now.lines if now.lines in counts else "all"
        st.selectbox("Prompts, evenly spread over the set", width=230, filter_mode=None,
                     format_func=lambda c: f"all {len(chosen.rows):,}" if c == "all" else c,
                     **listed("lines", counts, count))  # fmt: skip
        st.selectbox("Measured", width=270, filter_mode=None, **choice("asks"))
        st.selectbox("In its place", width=240, filter_mode=None, help=_IN_PLACE, **choice("instead"))
    prompts = chosen if count == "all" else part_of(chosen, int(count))
    asked = st_asked(model.name, prompts.identity, now.instead, now.first_token, model, prompts)
    if asked.several:
        many = f"{len(asked.several)} line{'s' if len(asked.several) > 1 else ''}"
        st.toggle(f"Take the first token of longer words ({many})", **field("first_token"),
                  help="A target or distractor of several tokens has no single logit. Its first token can stand for "
                       "it; else the line is left out.")  # fmt: skip
    return SetQuestion(
        model, chosen, asked, now.asks, now.instead, key_of(model, asked, now.asks, now.instead)
    ), prompts


_IN_PLACE = (
    "What stands at the looked-at position in the place of the part: nothing; its mean over all prompts of "
    "the set; or its values in the line's partner, a text of the same form with other words (column abc)."
)


# ---- what was found --------------------------------------------------------------------------------------------------
def findings(one: SetQuestion) -> None:
    """What was found so far: in sentences, as a map, of the part that is chosen, and as a table."""
    from visit.narrate.head_sets import set_story

    table = one.table
    story = set_story(table)
    sentences(story, "set_story", _select)
    say("".join(text for text, _ in story[0]))
    line = section("set", "Every part, over the set", explain("effect"))
    with line:
        with folded(*READING_AID):
            _reading_of_sets(table)
        downloads("heads", lambda: (table.attrs, {"heads": table}), partial(_set_picture, table, one.model))
    if one.kind != "neurons":
        from visit.figures.head_sets import scale_of, set_grid

        found = set_grid(table, _number_shown("number"), scale_of(table), state().graph.node, one.key)
        grid("set_map", found, _select, lambda: table, table.attrs, "heads")
    else:
        from visit.figures.head_sets import set_bands

        chart, shows = set_bands(table), "The neurons with the largest effects, with their bands"
        collect_chart(chart, shows, table.attrs, lambda: table, "heads")
        st.altair_chart(chart, width="stretch", alt=shows)
    _part_card(one, table)
    _set_table(table)


def _number_shown(name: str) -> Any:
    return st.segmented_control("Number", required=True, wrap=True, label_visibility="collapsed", **segments(name))


def _select(node: str) -> None:
    change(node=node)


def _set_picture(table: pd.DataFrame, model: Model, kind: str) -> bytes:
    from visit.figures.head_sets import set_chart, set_title
    from visit.files.chart_file import chart_file

    lines = set_title(table, title(model.name))
    return chart_file(set_chart(table, lines), kind, lines[0], lines[0], table.attrs)


def _reading_of_sets(table: pd.DataFrame) -> None:
    st.caption(
        "**Contribution**: what a part adds to the answer directly. **Influence**: what its removal is foreseen to "
        "take away, by one backward pass. **Effect**: what the answer does when the part is really replaced, at the "
        "looked-at position alone; below 0: the answer falls without it. All are means over the prompts, in logits, "
        "with 95 % bands (Student's t over prompts); a cell whose band contains 0 is faint. All maps share one scale, "
        "and colours mean the same: blue-green speaks for the target, vermilion against it."
    )
    if "role" in table:
        st.caption(
            "Roles, each by criteria: **mover**: attends to the target more than 0.2, its memory value reads the word "
            "it attends to in more than half of the cases, and it adds more than 0.1. **Negative mover**: the negative "
            "of the value reads it, and the head takes more than 0.1. **Suppressor**: attends to the distractor, the "
            "negative reads it, and it adds more than 0.1. **Inhibitor**: attends to the distractor, adds less than "
            "0.1, and without it the answer falls by more than 0.3. Only the last is judged by an effect; whether it "
            "acts through the movers’ queries, *Paths* below tests."
        )


def _set_table(table: pd.DataFrame) -> None:
    """Every part, the largest effect first; a click on a heading sorts."""
    order = table.reindex(table["effect"].abs().sort_values(ascending=False, kind="stable").index)
    chosen = on_row("set_table", order["node"].tolist(), _select)
    shown, names, config = with_band_columns(order)
    column = st.column_config.NumberColumn
    if "role" in table:
        names += ["attends_target", "attends_distractor", "copies", "suppresses"]
        config |= {
            "attends_target": column("Attends to target", format="%.2f"),
            "attends_distractor": column("… to distractor", format="%.2f"),
            "copies": column("Reads the word", help="Of the cases in which it attends to one."),
            "suppresses": column("… its negative"),
            "role": st.column_config.TextColumn("Role", width=120),
        }  # fmt: skip
        names.insert(1, "role")
    shown = shown[names]
    shown.attrs = {}
    cells = in_cells(shown, percents=["copies", "suppresses"] if "role" in table else [])
    st.dataframe(cells, hide_index=True, height=380, placeholder="–", column_config=config, **chosen)


# ---- one part --------------------------------------------------------------------------------------------------------
def _part_card(one: SetQuestion, table: pd.DataFrame) -> None:
    """The chosen part, and the way to a prompt of the set in which it can be looked at."""
    from visit.narrate.head_sets import with_band

    rows = table[table["node"] == state().graph.node]
    if rows.empty:
        where = "a row" if one.kind == "neurons" else "a cell or a row"  # their bands are no cells
        st.caption(f"Choose {where} to look at that part in a prompt of the set.")
        return
    row = rows.iloc[0].to_dict()
    role = row.get("role")
    told = f"**{part_name(row['node'])}**{f', {role}' if isinstance(role, str) else ''}: adds "
    told += (
        f"{with_band(row, 'contribution')}, influence {with_band(row, 'influence')}; without it the answer changes by "
    )
    with st.container(border=True, key="set_card"):
        st.markdown(f"{told}{with_band(row, 'effect')} logits.")
        lines = one.asked.lines[:CHOICES]
        at = st.selectbox("In the prompt", range(len(lines)), filter_mode=None,
                          format_func=lambda n: visible(str(lines[n].row.prompt)))  # fmt: skip
        with st.container(horizontal=True):
            graph_button(lines[at or 0], row["node"], "set_to_flow")
            if "head" in row and row["head"] == row["head"] and not pd.isna(row["head"]):
                st.button("What does it recall there?", icon=":material/psychology_alt:", on_click=look_in_prompt,
                          args=(lines[at or 0], "memory", {"head": row["node"]}))  # fmt: skip
            st.button("What if it were not there?", icon=":material/content_cut:", on_click=look_in_prompt,
                      args=(lines[at or 0], "whatif", shown_in(lines[at or 0].row, row["node"], one.how)))  # fmt: skip
    follow_goto()
