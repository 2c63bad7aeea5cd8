"""The part of *Heads over a set* in which another set or another model is asked the same, and what differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from visit.app.fields import listed
from visit.app.grid import as_table, grid
from visit.app.prompt_bar import shown_model
from visit.app.prompt_sets import part_of, readable
from visit.app.sessions import change, state
from visit.app.set_question import SetQuestion, set_explained, with_band_columns
from visit.app.set_runs import key_of, question_run, st_asked
from visit.app.state import value_of
from visit.app.widgets import READING_AID, beside, downloads, folded, plain, section, sentences
from visit.models.catalog import LISTED, is_hosted, title
from visit.runs.prompts import NOTES_SHOWN, PromptSet, shipped, shipped_set

MOST_LISTED = 10  # parts of each side, where two tables are not subtracted


def second_part(one: SetQuestion) -> None:
    """The same question of another set or another model, two maps beside each other, and how they differ."""
    line = section("second", "Beside another set or another model")
    other = _second_question(one)
    if other is None:
        st.caption("Choose another set or model, and the same question is asked of it.")
    elif other.sums is not None:
        with line, folded(*READING_AID, key="second_aid"):
            _two_sets_read()
        _laid_beside(one, other)


def _two_sets_read() -> None:
    st.caption(
        "Both maps show the same number, each over its own prompts; on one model they share one scale. What differs is "
        "the second set’s mean less the first’s, with its 95 % band (Welch’s, for two samples that do not depend on "
        "each other). A band is of one part by itself: of many parts some would seem to differ where none does, about "
        "one in twenty. A set with distractors and one without ask for two different things, and two models have no "
        "heads in common: neither is subtracted."
    )


def _second_question(one: SetQuestion) -> SetQuestion | None:
    """What is chosen to lie beside, with what its run has found so far; None where nothing is chosen."""
    now = state()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names = ["", *[name for name in shipped(now.compare.model_b or now.model) if name != now.heads_page.heads_set]]
        own = now.heads_page.set_b if now.heads_page.set_b in names else ""
        st.selectbox("Set", width=240, format_func=lambda n: n or "the same", **listed("set_b", names, own))
        models = list(dict.fromkeys(["", *LISTED, now.compare.model_b]))
        st.selectbox("Model", width=360, format_func=lambda n: title(n) if n else "the same",
                     accept_new_options=not is_hosted(), **listed("model_b", models))  # fmt: skip
    if not own and now.compare.model_b in ("", now.model):
        return None
    model = shown_model("_b", "The second model: ") if now.compare.model_b else one.model
    whole = shipped_set(own, model.name) if own else one.whole
    if own:
        set_explained(whole)
    count = now.heads_page.lines
    prompts = readable(model, whole if count == "all" else part_of(whole, int(count)), False)
    asked = st_asked(model.name, prompts.identity, one.how, now.heads_page.first_token, model, prompts)
    for note in asked.notes:
        st.caption(plain(note))
    _lines_left_out(asked.promptset, len(prompts.notes), len(asked.lines))
    key = key_of(model, asked, one.kind, one.how)
    return question_run(SetQuestion(model, whole, asked, one.kind, one.how, key), "b")


def _lines_left_out(asked: PromptSet, before: int, count: int) -> None:
    """The lines that cannot be asked; `before`: notes that were shown already."""
    if fresh := asked.notes[before:]:
        with st.expander(f"{len(fresh)} lines cannot be asked this; {count:,} are", icon=":material/warning:"):
            for note in fresh[:NOTES_SHOWN]:
                st.caption(plain(str(note)))


def _laid_beside(one: SetQuestion, other: SetQuestion) -> None:
    """What differs in sentences, where it can be said; the two maps; then the differences, or the largest of each."""
    tables, named = (one.table, other.table), side_names(one, other)
    alike, why = can_be_subtracted(one, other)
    found = None
    if alike:
        from visit.causal.head_sets import set_difference
        from visit.narrate.head_sets import difference_story

        assert one.sums is not None and other.sums is not None
        found = set_difference(one.model, one.sums, other.sums)
        if len(found):
            sentences(difference_story(found, (one.whole.name, other.whole.name)), "second_story", _choose_part)
        else:
            why = "No neuron is among the 100 of both sets: each set has its own."
    if why:
        st.caption(why)
    if one.kind != "neurons":
        measure, tops = value_of(state(), "number"), full_colours(alike, tables)
        with beside("sets_two"):
            for place, side, table, name, key, top in zip(st.columns(2, gap="large"), (one, other), tables, named, "ab",
                                                          tops, strict=True):  # fmt: skip
                with place:
                    st.markdown(f"**{name}**")
                    _side_map(side, table, measure, top, f"set_map_{key}")
    if found is None or not len(found):
        _largest_of_each(tables, named)
    else:
        _difference_table(one, other, found)


def _side_map(side: SetQuestion, table: pd.DataFrame, measure: Any, top: float, key: str) -> None:
    from visit.figures.head_sets import set_grid

    found = set_grid(table, measure, top, state().graph.node, side.key)
    grid(key, found, _choose_part, lambda: table, table.attrs, "heads")
    as_table(key, found)


def side_names(one: SetQuestion, other: SetQuestion) -> list[str]:
    """What the two sides are called: by their sets, and where two models are asked, by these, too."""
    apart = one.model.name != other.model.name
    return [plain(f"{title(side.model.name)}: {side.named}" if apart else side.named) for side in (one, other)]


def can_be_subtracted(one: SetQuestion, other: SetQuestion) -> tuple[bool, str]:
    """Whether the numbers of two sides are of one quantity, and if not, why not."""
    if one.model.name != other.model.name:
        return False, (
            "Heads of two models do not stand for each other: compare what the largest do, not their numbers. "
            "Each map has a scale of its own."
        )
    if one.asked.answer != other.asked.answer:
        with_one = plain((one if one.asked.answer == "difference" else other).whole.name)
        without = plain((one if one.asked.answer != "difference" else other).whole.name)
        return False, (
            f"The answer of {with_one} is target − distractor; {without} has no distractors, so that its answer is the "
            "target’s logit above the mean of all words. These are two quantities: compare what the largest do, not "
            "their numbers. Each map has a scale of its own."
        )
    return True, ""


def full_colours(alike: bool, tables: Sequence[pd.DataFrame]) -> list[float]:
    """The number that has the full colour in each of two maps: one for both where their numbers can be compared.

    Otherwise each map's own scale shows what is large in it.
    """
    from visit.figures.head_sets import scale_of

    return [scale_of(*(tables if alike else (table,))) for table in tables]


def _largest_of_each(tables: Sequence[pd.DataFrame], named: Sequence[str]) -> None:
    with beside("sets_lists"):
        for place, table, name in zip(st.columns(2, gap="large"), tables, named, strict=True):
            with place:
                st.markdown(f"**{name}**: the largest effects")
                most = table.reindex(table["effect"].abs().sort_values(ascending=False).index).head(MOST_LISTED)
                shown, _, config = with_band_columns(most)
                shown.attrs = {}
                keep = ["name", *(["role"] if "role" in shown else []), "effect", "effect_band", "contribution"]
                st.dataframe(shown[keep], hide_index=True, placeholder="–",
                             column_config={**config, "role": "Role"})  # fmt: skip


def _difference_table(one: SetQuestion, other: SetQuestion, found: pd.DataFrame) -> None:
    """Every part that both sides measured: its effect in each, and what differs."""
    names = [plain(side.whole.name) for side in (one, other)]
    st.markdown(f"**What differs**: {names[1]} minus {names[0]}; the largest difference that is sure first.")
    twice = len(shared_lines(one, other))
    if one.kind == "neurons":
        st.caption(f"Each set has its 100 most influential neurons; {len(found)} are among those of both.")
    if twice:
        st.caption(f"{twice:,} prompt{'s are' if twice > 1 else ' is'} in both sets; the bands take the sets for "
                   "independent ones, and are wider than they need be.")  # fmt: skip
    shown, columns, config = with_band_columns(found, "Difference")
    number = st.column_config.NumberColumn
    config |= {f"effect_{side}": number(f"Effect in {name}", format="%+.3f")
               for side, name in zip("ab", names, strict=True)}  # fmt: skip
    columns[1:1] = ["effect_a", "effect_b"]
    st.dataframe(shown[columns], hide_index=True, height=380, placeholder="–", column_config=config)
    about = {"a": one.table.attrs, "b": other.table.attrs}
    downloads("heads-difference", lambda: (about, {"difference": found}))


def shared_lines(one: SetQuestion, other: SetQuestion) -> set[tuple]:
    """The questions that both sides ask."""
    asked = [{(line.ids, line.pos, line.target, line.distractor) for line in side.asked.lines} for side in (one, other)]
    return asked[0] & asked[1]


def _choose_part(node: str) -> None:
    change(node=node)
