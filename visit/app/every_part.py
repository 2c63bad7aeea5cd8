"""Every part of a pass taken out by itself: its effect beside what it adds, its role, and how far a graph can be
believed that shows few of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from visit.app.cached_effects import st_effects, st_effects_seconds, st_roles
from visit.app.edit_list import take_out
from visit.app.fields import choice, segments
from visit.app.figure_list import altair_figure
from visit.app.grid import grid
from visit.app.measuring import UNASKED, measured, st_measuring
from visit.app.prompt_sets import on_model, watched
from visit.app.sessions import state
from visit.app.state import CONTROLS
from visit.app.subject import Subject
from visit.app.widgets import (
    FOLDED_CONTROLS,
    READING_AID,
    beside,
    downloads,
    folded,
    in_cells,
    on_point,
    on_row,
    plain,
    section,
    unfolding,
)  # fmt: skip
from visit.text.glossary import explain
from visit.text.node_id import part_name
from visit.text.numbers import percent, short
from visit.text.visible import as_word


def all_parts(subject: Subject) -> None:
    """Every head, or the most influential neurons, taken out one by one: a map, a scatter, a table."""
    from visit.causal.agreement import beside_effect

    now = state().whatif
    line = section("parts", "Every part, taken out by itself", explain("effect"))
    with line, folded(*FOLDED_CONTROLS):
        st.selectbox("Replaced", **choice("replaced"))
        st.selectbox("Where", **choice("where"))
        measure: Any = st.segmented_control("Colour", required=True, wrap=True, **segments("show"))
    units: Any = st.segmented_control("Parts", required=True, wrap=True, label_visibility="collapsed",
                                      **segments("units"))  # fmt: skip
    asked = *subject.about, units, now.replaced, now.where
    if subject.recorded is not None or st_effects_seconds(*subject.about[:3], now.where) <= UNASKED:
        with st.spinner("Measuring what each part does…"):
            found = st_effects(*asked)
    else:
        one = st_measuring(*subject.about, f"{units} {now.replaced} {now.where}")
        seconds = partial(st_effects_seconds, *subject.about[:3], now.where)
        found = measured(one, lambda: st_effects(*asked), seconds, "what each part does")
    if found is None:
        return
    table = beside_effect(found)
    st.markdown(_summary(subject, table))
    if units == "heads":
        _heads_map(subject, table, measure)
    with beside("effects"):
        left, right = st.columns([1, 1], gap="medium")
        with left:
            _scatter(subject, table)
        with right:
            _table(subject, table)
    with line:
        with folded(*READING_AID):
            _how_to_read(subject)
        downloads("effects", lambda: (table.attrs, {"effects": table}))


def _how_to_read(subject: Subject) -> None:
    from visit.causal.agreement import AGREEMENT_KINDS

    st.caption(
        f"Each cell of the map is one head, in logits of “{plain(subject.word)}”. **Effect**: what the answer does "
        "without it; below 0 it falls. **Influence** and **contribution**: above 0 the head speaks for the answer. "
        "Blue-green speaks for it, vermilion against it, in all three. A click takes the part out, above."
    )
    judged = "target − distractor" if subject.distractor is not None else "the odds of the word against all others"
    kinds = "  \n".join(f"**{name}**: {about}" for name, about in AGREEMENT_KINDS.items())
    st.caption(f"Kinds, judged by what becomes of {judged}:  \n{kinds}.")


def _summary(subject: Subject, table: pd.DataFrame) -> str:
    """The finding in sentences: the part with the largest contribution, and the one with the largest effect."""
    before, word = table.attrs["before"], plain(subject.word)
    first = table.loc[table["contribution"].abs().idxmax()]
    most = table.loc[table["effect"].abs().idxmax()]
    adds = f"**{first['name']}** {'adds' if first['contribution'] > 0 else 'takes'} most directly"
    adds += f" ({first['contribution']:+.2f} logits)"
    if most["node"] == first["node"]:
        return f"{adds}, and its removal changes most: {_moved(subject, most, before)}."
    told = f"{adds}. Without it “{word}” has {percent(first['prob'])} instead of {percent(before['prob'])}"
    told += ": others make up for it." if first["kind"] == "others make up" else "."
    how = ": it steers others" if most["kind"] == "steers others" else ""
    return (
        f"{told} Most changes without **{most['name']}**, which adds {most['contribution']:+.2f} directly: "
        f"{_moved(subject, most, before)}{how}."
    )


def _moved(subject: Subject, part: pd.Series, before: dict[str, Any]) -> str:
    """What the removal of a part did to the logit, and to the probability, which need not move the same way.

    "the logit, above the mean, falls by 0.87, the probability goes from 86 % to 89 %, for its rivals lose more"
    """
    change, old, new = float(part["effect"]), float(before["prob"]), float(part["prob"])
    what = "the logit, above the mean," if subject.distractor is None else "the difference of the two logits"
    moves, after = "falls" if change < 0 else "rises", percent(new)
    told = f"{what} {moves} by {abs(change):.2f}, the probability "
    told += f"stays {after}" if after == percent(old) else f"goes from {percent(old)} to {after}"
    if subject.distractor is not None or change * (new - old) >= 0 or after == percent(old):
        return told
    return f"{told}, for its rivals {'lose' if change < 0 else 'win'} more"


def _heads_map(subject: Subject, table: pd.DataFrame, measure: str) -> None:
    from visit.figures.effects import effects_grid

    title = CONTROLS["show"].choices[measure]
    found = effects_grid(table, measure, title, state().graph.node, subject.about)
    grid("effects_map", found, partial(_take_out, subject), lambda: table, code="effects")


def _take_out(subject: Subject, node: str) -> None:
    """What the map, the scatter or the table measured of a part, as a change: by the same means, at the same place."""
    now = state().whatif
    at = "all" if now.where == "all" else str(subject.in_address(subject.pos))
    take_out(node, at, now.replaced)


def _scatter(subject: Subject, table: pd.DataFrame) -> None:
    from visit.figures.effects import disagreement

    altair_figure(
        disagreement(table), width="stretch",
        **on_point("effects_scatter", "part", lambda point: _take_out(subject, point["node"])),
        alt="What every part adds directly against how the answer changes without it",
    )  # fmt: skip


def _table(subject: Subject, table: pd.DataFrame) -> None:
    order = table.reindex(table["effect"].abs().sort_values(ascending=False, kind="stable").index)
    shown = order[["name", "contribution", "influence", "effect", "prob", "kind"]]
    chosen = on_row("effects_table", order["node"].tolist(), partial(_take_out, subject))
    shown.attrs = {}  # the browser gets them as JSON, in which a missing difference (NaN) cannot stand
    column = st.column_config.NumberColumn
    st.dataframe(
        in_cells(shown, percents=["prob"]), hide_index=True, height=360, **chosen,
        column_config={
            "name": "Part",
            "contribution": column("Adds directly", format="%+.3f", help=explain("contribution")),
            "influence": column("Influence", format="%+.3f", help=explain("influence")),
            "effect": column("Effect", format="%+.3f", help=explain("effect")),
            "prob": column("P without it", help=explain("probability")),
            "kind": st.column_config.TextColumn("So", help="By the rules below."),
        },
    )  # fmt: skip


# ---- who writes which word, and how far the graph can be believed ----------------------------------------------------
def roles_of_words(subject: Subject) -> None:
    """Who writes each word of the prompt, who writes against it, and who is missed without adding anything."""
    if subject.recorded is not None:
        return
    label = "Roles: who writes which word of the prompt, and who writes against it"
    with unfolding("roles", label, ":material/badge:") as opened:
        if opened:
            _roles(subject)


def _roles(subject: Subject) -> None:
    with st.spinner("Measuring what every head does…"):
        table = st_roles(*subject.key, subject.pos)
        worded = table[table["word"].notna()]
        if not worded.empty:
            st.table(_who(worded), border="horizontal")
        if nobody := nobody_told(worded):
            st.caption(nobody)
        st.caption(
            "Every head listed meets all criteria of its role, each with the number that was measured; the thresholds "
            "stand beside them. An inhibitor is told by its effect here; whether it acts through the movers' queries, "
            "*Paths* on *Heads over a set* tests. A suppressor of the answer itself is a negative (name) mover there."
        )
        from visit.analyses.heads import named_from

        can = {rule: threshold == threshold for rule, threshold in named_from(subject.acts).items()}
        st.markdown("By where they look, over the whole prompt, with the mean attention:")
        st.markdown("\n".join(f"- {plain(one)}" for one in looks_told(table, can)))
        with st.popover("All criteria, and roles of patterns"):
            st.dataframe(table.assign(node=[part_name(n) for n in table["node"]]), hide_index=True, width="content")


LOOKS = {"same token": "same token (duplicate-token heads)", "induction": "what followed the same token (induction)",
         "previous token": "the token before"}  # fmt: skip
LOOKING = 6  # heads of a kind that are named


def looks_told(table: pd.DataFrame, can: Mapping[str, bool]) -> list[str]:
    """The heads whose pattern follows a rule, a line a rule, the surest first; that nobody follows it is said, too.

    `table`: `visit.roles`; `can`: whether enough tokens of the prompt have a place at which the rule looks.
    """
    from visit.analyses.heads import LEAST_QUERIES

    told = []
    for role, name in LOOKS.items():
        rows = table[table["role"] == role].sort_values("number", ascending=False)
        heads = [f"{part_name(row.node)} {short(row.number)}" for row in rows.head(LOOKING).itertuples()]
        more = f" and {len(rows) - LOOKING} more" if len(rows) > LOOKING else ""
        few = f"cannot be told here, fewer than {LEAST_QUERIES} tokens have such a place to look at"
        nobody = "no head by the criteria" if can[role] else few
        told.append(f"{name}: {', '.join(heads) + more if heads else nobody}")
    return told


def nobody_told(table: pd.DataFrame) -> str:
    """Which roles of a word no head has; empty where each has one. `table`: rows of `visit.roles` that have a word."""
    missing = [role for role in ("a mover", "a suppressor", "an inhibitor")
               if role.split()[1] not in set(table["role"])]  # fmt: skip
    roles = " or ".join(filter(None, (", ".join(missing[:-1]), missing[-1]))) if missing else ""
    return f"No head meets the criteria of {roles} here." if missing else ""


def _plainly(value: float) -> str:
    """A rank as the count that it is."""
    return f"{value:,.0f}" if value == round(value) else short(value)


def _who(table: pd.DataFrame) -> pd.DataFrame:
    """A row a word, role and head; what was measured of it, a line a criterion."""
    rows = []
    for (word, role, node), found in table.groupby(["word", "role", "node"], sort=False):
        told = [f"{plain(one.criterion)} {_plainly(one.threshold)}: **{_plainly(one.number)}**"
                for one in found.itertuples()]  # fmt: skip
        rows.append({"Word": plain(as_word(str(word))), "Role": role, "Head": part_name(str(node)),
                     "Measured": "  \n".join(told)})  # fmt: skip
    return pd.DataFrame(rows).set_index("Word")


def believed(subject: Subject) -> None:
    """How much of the answer the most important parts bring back alone, measured when it is asked for."""
    if subject.recorded is not None:
        return
    with unfolding("believed", "How far can a graph of few parts be believed?", ":material/verified:") as opened:
        if opened:
            _comes_back(subject)


def _comes_back(subject: Subject) -> None:
    from visit.causal.faithfulness import ORDERS, FaithfulnessJob, in_words
    from visit.exact.question import Question
    from visit.figures.effects import recovery
    from visit.runs.answers import model_run_key

    st.caption(
        "All but the most important heads and neurons are replaced by their mean over this prompt, at this position. "
        "How much of the answer comes back?", help=explain("faithfulness"),
    )  # fmt: skip
    pos, target, distractor = subject.pos, subject.target, subject.distractor
    asked = (*subject.acts.token_ids,), pos, target, distractor
    key = model_run_key("faithfulness 1", subject.model, *asked)

    def job(model: Any) -> FaithfulnessJob:
        return FaithfulnessJob.of(Question(model, subject.acts, pos, target, distractor), ORDERS, None, "last", 0)

    run = watched("faithfulness", key, on_model(subject.model, job), "Measure it")
    if run is None or run.result is None or run.state != "done":
        return
    table = run.result
    st.markdown(plain(in_words(table)))
    altair_figure(recovery(table), width="stretch", alt="Share of the answer that comes back by share of parts kept")
    downloads("faithfulness", lambda: (table.attrs, {"faithfulness": table}))
