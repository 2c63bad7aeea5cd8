"""The page *Heads over a set*: one's own question over prompts, as a run, in sentences, as maps and as a table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from visit.app.cache import kept
from visit.app.fields import choice, field, listed, segments
from visit.app.figure_list import collect_chart
from visit.app.follow import pressed
from visit.app.grid import as_table, grid
from visit.app.live import say
from visit.app.marks import named_part
from visit.app.prompt_bar import show_notes, shown_model
from visit.app.prompt_sets import choose_set, on_model, part_of, readable, short_name, start_run, watched
from visit.app.sessions import change, state
from visit.app.set_question import SetQuestion, follow_goto, graph_button, lines_told, look_in_prompt, shown_in
from visit.app.sidebar import show_ledger
from visit.app.state import CONTROLS, value_of
from visit.app.widgets import READING_AID, beside, downloads, folded, in_cells, on_row, plain, section, sentences
from visit.models.catalog import LISTED, is_hosted, title
from visit.runs.prompts import NOTES_SHOWN, PromptSet, shipped, shipped_set
from visit.text.glossary import explain
from visit.text.node_id import part_name
from visit.text.numbers import duration
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.causal.set_lines import Asked
    from visit.models.model import Model

QUESTION_SECONDS = 600.0  # that a question may take on a hosted app, as it is forecast
CHOICES = 100  # prompts of the list in which one is chosen to look at a part


def question() -> SetQuestion | None:
    """The page below its title, but for parts of others; None while there is nothing to ask."""
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
        one, prompts = _question_controls(model, chosen)
        lines = st.container()
    with named_part("run"):
        one = _question_run(one, "a")
    with lines:
        lines_told(one, prompts.rows)
    if one.sums is None:
        return one
    with named_part("found"):
        _findings(one)
    with named_part("second"):
        _second(one, chosen)
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
    return SetQuestion(model, asked, now.asks, now.instead, _key(model, asked, now.asks, now.instead)), prompts


_IN_PLACE = (
    "What stands at the looked-at position in the place of the part: nothing; its mean over all prompts of "
    "the set; or its values in the line's partner, a text of the same form with other words (column abc)."
)


def _key(model: Model, asked: Asked, kind: Any, how: Any) -> Any:
    from visit.causal.head_sets import head_key

    return head_key(model, asked, kind, how, -1, state().heads_page.first_token)


@kept(spinner="Reading the set…")
def st_asked(name: str, identity: str, how: Any, first_token: bool, _model: Model, _prompts: PromptSet) -> Asked:
    from visit.causal.set_lines import asked_lines

    return asked_lines(_model, _prompts, how, -1, first_token)


def _lines_told(asked: Asked, before: int) -> None:
    """What is odd about the lines, and those that cannot be asked; `before`: notes that were shown already."""
    for note in asked.notes:
        st.caption(plain(note))
    if fresh := asked.promptset.notes[before:]:
        label = f"{len(fresh)} lines cannot be asked this; {len(asked.lines):,} are"
        with st.expander(label, icon=":material/warning:"):
            for one in fresh[:NOTES_SHOWN]:
                st.caption(plain(str(one)))


# ---- the run ---------------------------------------------------------------------------------------------------------
def _question_run(one: SetQuestion, side: str) -> SetQuestion:
    """The question with what its run has found so far; the run is started by a button that says what it takes."""
    asked, kind, how = one.asked, one.kind, one.how

    def job(model: Model) -> Any:
        from visit.causal.head_sets import HeadRun

        return HeadRun(model, asked, kind, how)

    make = on_model(one.model, job)
    start = partial(_before_question, one, side, partial(start_run, one.key, make))
    run = watched((f"heads {side}", *one.key[1:]), one.key, make, start=start)
    sums = None if run is None or run.result is None or not run.result.moments["parts"].count else run.result
    return SetQuestion(one.model, asked, kind, how, one.key, sums)


@kept(spinner="Measuring what it will take…")
def st_question_seconds(key: Any, _one: SetQuestion) -> float:
    from visit.causal.set_cost import question_seconds

    return question_seconds(_one.model, _one.asked, _one.kind, _one.how)


def _before_question(one: SetQuestion, side: str, run: Callable[[], None]) -> None:
    """How long the run will take on this machine, and the button that starts it."""
    seconds, count = st_question_seconds(one.key, one), len(one.asked.lines)
    many = f"{count:,} prompt{'s' if count != 1 else ''}"
    st.markdown(f"**About {duration(seconds)}** for {many} on this machine, if it has nothing else to do.")
    if is_hosted() and seconds > QUESTION_SECONDS:
        st.info(f"This app is hosted for many: a run may take {duration(QUESTION_SECONDS)}. Take fewer prompts, or run "
                "VISIT on your own machine.", icon=":material/group:")  # fmt: skip
        return
    if pressed("Measure", f"run heads {side}", ":material/play_arrow:", primary=True):
        run()


# ---- what was found --------------------------------------------------------------------------------------------------
def _findings(one: SetQuestion) -> None:
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
        _set_map(one, table, _number_shown("number"), _shared_scale(table), "set_map")
    else:
        from visit.figures.head_sets import set_bands

        chart, shows = set_bands(table), "The neurons with the largest effects, with their bands"
        collect_chart(chart, shows, table.attrs, lambda: table, "heads")
        st.altair_chart(chart, width="stretch", alt=shows)
    _part_card(one, table)
    _set_table(table)


def _number_shown(name: str) -> Any:
    return st.segmented_control("Number", required=True, wrap=True, label_visibility="collapsed", **segments(name))


def _shared_scale(*tables: pd.DataFrame) -> float:
    from visit.figures.head_sets import scale_of

    return scale_of(*tables)


def _set_map(
    one: SetQuestion, table: pd.DataFrame, measure: Any, top: float, key: str, listed_below: bool = False
) -> None:
    from visit.figures.head_sets import set_grid

    found = set_grid(table, measure, top, state().graph.node, one.key)
    grid(key, found, _select, lambda: table, table.attrs, "heads")
    if listed_below:
        as_table(key, found)


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
    shown, names, config = _with_band_columns(order)
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


def _with_band_columns(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str], dict[str, Any]]:
    """(the table with a name and each band as one cell, the columns that are shown, what they are called)."""
    shown = table.assign(name=[part_name(node) for node in table["node"]])
    names, config = ["name"], {"name": "Part"}
    for name, label in (("effect", "Effect"), ("contribution", "Adds directly"), ("influence", "Influence")):
        names += [name, f"{name}_band"]
        ends = zip(shown[f"{name}_low"], shown[f"{name}_high"], strict=True)
        shown[f"{name}_band"] = ["" if a != a else f"{a:+.2f} … {b:+.2f}" for a, b in ends]
        number: Any = st.column_config.NumberColumn(label, format="%+.3f", help=explain(name))
        config |= {name: number, f"{name}_band": "95 % band"}
    return shown, names, config


# ---- one part --------------------------------------------------------------------------------------------------------
def _part_card(one: SetQuestion, table: pd.DataFrame) -> None:
    """The chosen part, and the way to a prompt of the set in which it can be looked at."""
    from visit.narrate.head_sets import with_band

    rows = table[table["node"] == state().graph.node]
    if rows.empty:
        st.caption("Choose a cell or a row to look at that part in a prompt of the set.")
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


# ---- a second set, or a second model ---------------------------------------------------------------------------------
def _second(one: SetQuestion, chosen: PromptSet) -> None:
    """The same question of another set or another model, two maps beside each other, and how they differ."""
    section("second", "Beside another set or another model")
    now = state()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names = ["", *[name for name in shipped(now.compare.model_b or now.model) if name != now.heads_page.heads_set]]
        own = now.heads_page.set_b if now.heads_page.set_b in names else ""
        st.selectbox("Set", width=240, format_func=lambda n: n or "the same", **listed("set_b", names, own))
        models = list(dict.fromkeys(["", *LISTED, now.compare.model_b]))
        st.selectbox("Model", width=360, format_func=lambda n: title(n) if n else "the same",
                     accept_new_options=not is_hosted(), **listed("model_b", models))  # fmt: skip
    if not own and now.compare.model_b in ("", now.model):
        st.caption("Choose another set or model, and the same question is asked of it.")
        return
    model = shown_model("_b", "The second model: ") if now.compare.model_b else one.model
    prompts = shipped_set(own, model.name) if own else chosen
    count = now.heads_page.lines
    prompts = readable(model, prompts if count == "all" else part_of(prompts, int(count)), False)
    asked = st_asked(model.name, prompts.identity, one.how, now.heads_page.first_token, model, prompts)
    _lines_told(asked, len(prompts.notes))
    other = _question_run(SetQuestion(model, asked, one.kind, one.how, _key(model, asked, one.kind, one.how)), "b")
    if other.sums is not None:
        _both_maps(one, other)


def _both_maps(one: SetQuestion, other: SetQuestion) -> None:
    tables = one.table, other.table
    named = [f"{short_name(q.model)}, {plain(q.asked.promptset.name)}, {t.attrs['prompts']:,} prompts"
             for q, t in zip((one, other), tables, strict=True)]  # fmt: skip
    if one.kind != "neurons":
        measure, tops = value_of(state(), "number"), full_colours((one.model.name, other.model.name), tables)
        with beside("sets_two"):
            for place, q, table, name, key, top in zip(st.columns(2, gap="large"), (one, other), tables, named, "ab",
                                                       tops, strict=True):  # fmt: skip
                with place:
                    st.markdown(f"**{name}**")
                    _set_map(q, table, measure, top, f"set_map_{key}", True)
    _differences(one, other, named)


def full_colours(models: tuple[str, str], tables: tuple[pd.DataFrame, pd.DataFrame]) -> list[float]:
    """The number that has the full colour in each of two maps: one for both where one model has made them.

    Numbers of two models are not compared: each model's own scale shows what is large in it.
    """
    return [_shared_scale(*(tables if models[0] == models[1] else (table,))) for table in tables]


def _differences(one: SetQuestion, other: SetQuestion, named: list[str]) -> None:
    from visit.causal.head_sets import set_difference

    if one.model.name != other.model.name:
        st.caption(
            "Heads of two models do not stand for each other: compare what the largest do, not their numbers. "
            "Each map has a scale of its own."
        )
        with beside("sets_lists"):
            for place, table, name in zip(st.columns(2, gap="large"), (one.table, other.table), named, strict=True):
                with place:
                    st.markdown(f"**{name}**")
                    most = table.reindex(table["effect"].abs().sort_values(ascending=False).index).head(10)
                    shown, _, config = _with_band_columns(most)
                    shown.attrs = {}
                    keep = ["name", "effect", "contribution", *(["role"] if "role" in shown else [])]
                    st.dataframe(shown[keep], hide_index=True, placeholder="–",
                                 column_config={**config, "role": "Role"})  # fmt: skip
        return
    assert one.sums is not None and other.sums is not None
    table = set_difference(one.model, one.sums, other.sums)
    st.markdown(f"**What differs**: {named[1]} minus {named[0]}; the largest difference that is sure first.")
    shown, names, config = _with_band_columns(table)
    st.dataframe(shown[names], hide_index=True, height=380, placeholder="–", column_config=config)
    downloads("heads-difference", lambda: ({"a": one.table.attrs, "b": other.table.attrs}, {"difference": table}))
