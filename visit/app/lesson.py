"""A lesson while it runs: a panel beside the real pages, which asks before they answer.

`go_to` opens a step: its page in its state. `begin_lesson`, before a page is drawn, says which of its parts are held
back until the prediction is made (`session().held`, `marks.shows`), which are marked, and draws the panel. An answer is
judged on the learner's own run: the text and the model that stand on the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.address import parse
from visit.app.cache import kept, lens_under, st_pass
from visit.app.lens_choice import seen
from visit.app.lesson_progress import (
    LessonProgress,
    class_of,
    class_step,
    last_step,
    lesson_named,
    own_prompt,
    progress,
    step_at,
)
from visit.app.lesson_question import asked, filled_in, markdown, take_answer
from visit.app.marks import Mark, point_at
from visit.app.problems import comes_with_model
from visit.app.room import class_strip, may_open
from visit.app.sessions import change, draw_anew, forget_fields, session, state
from visit.app.stand_in import standing_in
from visit.app.widgets import plain
from visit.errors import VisitError
from visit.lessons.lesson import Lesson, LessonStep, address_of
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.lessons.queries import LearnerRun

_STYLE = Path(__file__).with_name("lesson.css")


# ---- from step to step -----------------------------------------------------------------------------------------------
def with_class(lesson: Lesson) -> None:
    """In a class that takes this lesson: how far it is, and what was revealed. Else nothing."""
    if class_of(lesson) is not None:
        class_strip(class_step(lesson, state().step), partial(go_to, lesson))


def go_to(lesson: Lesson, number: int) -> None:
    """Open a step: its page in its state, with the learner's own text where the step has none of its own.

    From callbacks. A free answer that was written and not kept is kept.
    """
    now = session()
    _keep_drafts(lesson)
    number = min(max(0, number), last_step(lesson))
    step, kept_prompt = step_at(lesson, number), own_prompt(lesson)
    place = {"lesson": lesson.name, "step": str(number)}
    params = place if step is None else {**address_of(lesson, step), **place}
    if step is not None and kept_prompt and "prompt" not in dict(step.params):
        params = {**params, "prompt": kept_prompt}
        for name in ("target", "distractor"):
            if name not in dict(step.params):
                params.pop(name, None)
    now.state, now.notes = parse(params)
    now.goto = f"pages/{'learn' if step is None else step.page}.py"
    forget_fields()


def _keep_drafts(lesson: Lesson) -> None:
    here, number = state(), state().step
    if here.lesson != lesson.name:
        return
    step, given = step_at(lesson, number), progress(lesson).answers
    when = "before" if number == 0 else "after"
    asked_here = lesson.twice if step is None else step.questions
    for question in asked_here:
        key = question.key if step is not None else question.key.replace("before", when)
        name = f"answer_{lesson.edition}_{key}"
        text = str(st.session_state.get(name) or "").strip()
        if question.kind != "free" or not text or (key in given and given[key].given == text):
            continue
        try:
            run = None if step is None else learner_run(lesson, step)
        except VisitError:  # the text on the page cannot be run; what was written does not depend on it
            run = None
        take_answer(lesson, question, key, run, name, step is not None)


def leave_lesson() -> None:
    """End the lesson where it is; the page stays as it is."""
    change(lesson="", step=0)


# ---- before a page is drawn ------------------------------------------------------------------------------------------
def begin_lesson(page: str) -> None:
    """Call once a run, before the page: draws the panel where a lesson runs, and says what the page holds back."""
    now = session()
    now.held, now.held_told = frozenset(), False
    linked, now.linked = now.linked, None
    if not state().lesson:
        return
    lesson = lesson_named(state().lesson)
    if lesson is None:
        st.info(
            "This lesson is not on this server: it was opened from a file. Drop the file on the page Learn again, or "
            "open another lesson there.", icon=":material/school:",
        )  # fmt: skip
        return
    step = step_at(lesson, state().step)
    if step is not None and linked is not None and "prompt" not in linked:
        _complete_link(lesson, step, linked)
    if step is None or page == "learn":
        return
    done = progress(lesson)
    here = step.page == page
    if here:
        now.held, now.held_later = _held_back(lesson, step, done)
    if here:
        point_at(f"{lesson.name} {state().step}", *(Mark(name) for name in step.mark if name not in now.held))
    st.html(_STYLE)
    with st.container(key="lesson_panel"):
        _panel_head(lesson)
        with_class(lesson)
        if here:
            _step(lesson, step)
        else:
            st.markdown(f"Step {state().step}, “{plain(step.title)}”, is on another page.")
        _onward(lesson, step, here)


def _complete_link(lesson: Lesson, step: LessonStep, asked: dict[str, str]) -> None:
    """Where a link to a step leaves out the text, it means the lesson's, and with nothing else the step as it opens."""
    now, whole = session(), address_of(lesson, step)
    if asked.keys() - {"lesson", "step"}:
        whole = {name: whole[name] for name in ("model", "prompt", "target", "distractor") if name in whole}
    opened, notes = parse({**whole, **asked})
    if opened != now.state:
        now.state, now.notes = opened, notes
        draw_anew()  # the sidebar was drawn before


# a part that tells what others tell, too: while one of these is held back, so is it
_TELLS = {"causes": {"units", "reading"}}


def _held_back(lesson: Lesson, step: LessonStep, done: LessonProgress) -> tuple[frozenset[str], bool]:
    """The parts that this step holds back now, and whether only for what is asked later in the lesson.

    Before the prediction these are all of `hide`. After it those stay back that are not marked, and that a later step
    on the same text holds back whose prediction is still to be made: the first answer must not show the next ones.
    """
    if step.questions and not done.tried(step.questions[0].key):
        return frozenset(step.hide), False
    text = address_of(lesson, step).get("prompt")
    later = {
        part
        for one in lesson.steps[state().step :]
        if one.questions and not done.tried(one.questions[0].key) and address_of(lesson, one).get("prompt") == text
        for part in one.hide
    }
    kept_back = {part for part in step.hide if ({part} | _TELLS.get(part, set())) & later}
    return frozenset(kept_back - set(step.mark) - {"next"}), True


def _panel_head(lesson: Lesson) -> None:
    """Which lesson, how far, and the way out."""
    total = len(lesson.steps)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="lesson_head"):
        st.caption(f"{plain(lesson.title)} · step {state().step} of {total}", width="stretch")
        st.button("Leave", icon=":material/close:", type="tertiary", key="lesson_leave", on_click=leave_lesson,
                  help="Ends the lesson; the page stays as it is.")  # fmt: skip
    st.progress(state().step / total)


def _step(lesson: Lesson, step: LessonStep) -> None:
    st.header(markdown(step.title), anchor=False)
    if standing_in():  # the question is asked of the learner's own run
        comes_with_model()
        return
    run = None
    try:
        run = learner_run(lesson, step)
    except VisitError as problem:
        st.warning(plain(str(problem)), icon=":material/edit:")
    if step.text:
        st.markdown(markdown(step.text if run is None else filled_in(lesson, step.text, run)))
    if own := own_prompt(lesson):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.caption(f"Checked on your own text, “{plain(visible(own[:60]))}”.", width="content")
            st.button(
                "Back to the lesson's", type="tertiary", key="lesson_text", on_click=_lesson_text, args=(lesson, step)
            )
    for question in step.questions:
        asked(lesson, question, question.key, run)
        if not progress(lesson).tried(question.key):  # what comes next may tell the answer
            break


def _lesson_text(lesson: Lesson, step: LessonStep) -> None:
    given = {"target": "", "distractor": "", **address_of(lesson, step)}
    change(**{name: given[name] for name in ("prompt", "target", "distractor")}, pos=-1, node="")


def _onward(lesson: Lesson, step: LessonStep, here: bool) -> None:
    """Back, Next, and where a page was left the way back to it."""
    number = state().step
    open_ones = [q for q in step.questions if not progress(lesson).done(q.key)]
    with st.container(horizontal=True, key="lesson_ways", gap="small"):
        st.button("Back", icon=":material/arrow_back:", key="lesson_back", on_click=go_to, args=(lesson, number - 1))
        if not here:
            st.button("Open this step's page", type="primary", key="lesson_here", on_click=go_to, args=(lesson, number))
        elif not may_open(class_step(lesson, number + 1)):
            st.button("Next", icon=":material/hourglass_top:", key="lesson_next", disabled=True,
                      help="Your teacher opens the next step for all.")  # fmt: skip
        else:
            st.button("Next", icon=":material/arrow_forward:", key="lesson_next", on_click=go_to,
                      args=(lesson, number + 1), type="secondary" if open_ones else "primary")  # fmt: skip


# ---- the learner's run -----------------------------------------------------------------------------------------------
@kept(grows=True)
def st_lesson_tables(
    name: str, prompt: Any, pos: int, target: int, distractor: int | None, lens: str
) -> dict[str, Any]:  # fmt: skip
    """What was measured for checks of this run, shared by all who ask."""
    return {}


def learner_run(lesson: Lesson, step: LessonStep) -> LearnerRun:
    """The pass on screen, as the step asks about it: its position and words, or of an own text the prediction.

    Raises `VisitError` for a text that cannot be run.
    """
    from visit.lessons.queries import paired

    given, now = address_of(lesson, step), state()
    first = _run_here(_model_shown(), now.prompt, {} if own_prompt(lesson) else given)
    if step.page != "compare":
        return first
    second = now.compare.prompt_b or now.prompt
    same = given.get("prompt_b") == second
    asked_b = {name: given.get(f"{name}_b", "") for name in ("pos", "target", "distractor")} if same else {}
    return paired(first, _run_here(now.compare.model_b or _model_shown(), second, asked_b))


def _run_here(model_name: str, prompt: str, words: Mapping[str, str]) -> LearnerRun:
    """The pass of a prompt, asked at the position and for the words that a step names, else for its prediction."""
    from visit.exact.question import ask
    from visit.lessons.queries import LearnerRun

    model, acts = st_pass(model_name, prompt)
    about = ask(model, acts, int(words.get("pos") or -1), words.get("target") or None, words.get("distractor") or None)
    key = seen(model.name)[0][0]
    tables = st_lesson_tables(model.name, prompt, about.pos, about.target, about.distractor, key)
    return LearnerRun(about, lens_under(model.name, key), tables)


def _model_shown() -> str:
    """The model of the page: while another is fetched, the last that could be had."""
    waiting = session().pending is not None
    return session().shown_models.get("model", state().model) if waiting else state().model
