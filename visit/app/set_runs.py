"""The run of a question over a set: what makes it equal to another, its forecast, its button, what it found so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.cache import kept
from visit.app.follow import pressed
from visit.app.prompt_sets import on_model, start_run, watched
from visit.app.sessions import state
from visit.app.set_question import SetQuestion
from visit.models.catalog import is_hosted
from visit.text.numbers import duration

if TYPE_CHECKING:
    from visit.causal.set_lines import Asked
    from visit.models.model import Model
    from visit.runs.prompts import PromptSet

QUESTION_SECONDS = 600.0  # that a question may take on a hosted app, as it is forecast


def key_of(model: Model, asked: Asked, kind: Any, how: Any) -> Any:
    """What makes two runs of a question equal."""
    from visit.causal.head_sets import head_key

    return head_key(model, asked, kind, how, -1, state().heads_page.first_token)


@kept(spinner="Reading the set…")
def st_asked(name: str, identity: str, how: Any, first_token: bool, _model: Model, _prompts: PromptSet) -> Asked:
    from visit.causal.set_lines import asked_lines

    return asked_lines(_model, _prompts, how, -1, first_token)


def question_run(one: SetQuestion, side: str) -> SetQuestion:
    """The question with what its run has found so far; the run is started by a button that says what it takes."""
    asked, kind, how = one.asked, one.kind, one.how

    def job(model: Model) -> Any:
        from visit.causal.head_sets import HeadRun

        return HeadRun(model, asked, kind, how)

    make = on_model(one.model, job)
    start = partial(_before_question, one, side, partial(start_run, one.key, make))
    run = watched((f"heads {side}", *one.key[1:]), one.key, make, start=start)
    sums = None if run is None or run.result is None or not run.result.moments["parts"].count else run.result
    return replace(one, sums=sums)


@kept(spinner="Measuring what it will take…")
def st_question_seconds(key: Any, _one: SetQuestion) -> float:
    from visit.causal.set_cost import question_seconds

    return question_seconds(_one.model, _one.asked, _one.kind, _one.how)


def _before_question(one: SetQuestion, side: str, run: Callable[[], None]) -> None:
    count = len(one.asked.lines)
    many = f"{count:,} prompt{'s' if count != 1 else ''}"
    seconds = st_question_seconds(one.key, one)
    begin_button(seconds, many, QUESTION_SECONDS, "prompts", "Measure", f"run heads {side}", run, primary=True)


def begin_button(
    seconds: float, many: str, most: float, fewer: str, label: str, key: str, run: Callable[[], None],
    primary: bool = False,
) -> None:  # fmt: skip
    """How long a run of `many` will take on this machine, and the button that starts it.

    `most`: seconds that it may take on a hosted app, and `fewer`: of what to take fewer then.
    """
    st.markdown(f"**About {duration(seconds)}** for {many} on this machine, if it has nothing else to do.")
    if is_hosted() and seconds > most:
        st.info(f"This app is hosted for many: a run may take {duration(most)}. Take fewer {fewer}, or run "
                "VISIT on your own machine.", icon=":material/group:")  # fmt: skip
    elif pressed(label, key, ":material/play_arrow:", primary=primary):
        run()
