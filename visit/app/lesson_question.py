"""A question of a lesson on the page: its control, its hints, its judgement (`visit.lessons.check`), its texts."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from visit.app.lesson_progress import progress, recorded, step_at
from visit.app.sessions import session, state
from visit.app.state import value_of
from visit.app.widgets import plain
from visit.errors import VisitError
from visit.lessons.lesson import Exercise, Lesson, address_of
from visit.lessons.results import Given, RunPrint

if TYPE_CHECKING:
    from visit.lessons.check import Judged
    from visit.lessons.queries import LearnerRun

TYPED_ANSWER = 1_000


def asked(lesson: Lesson, question: Exercise, key: str, run: LearnerRun | None, told: bool = True) -> None:
    """A question with its control, its hints and what is said to the answer.

    `key`: under which the answer is kept (a question that is asked twice has two); `told`: whether it is said if the
    answer is right.
    """
    now = progress(lesson)
    with st.container(key=f"ask_{key.replace('.', '_')}", border=True):
        st.markdown(
            f"**{markdown(question.text if run is None else filled_in(lesson, question.text, run, question))}**"
        )
        if question.kind not in ("choice", "order", "free") and run is None:
            return
        _control(lesson, question, key, run, told)
        if not told:
            return
        _hints(lesson, question, key, run)
        judged = now.told.get(key)
        if judged is not None:
            _show_judged(judged)
        elif key in now.skipped and question.explain:
            st.info(markdown(_explained(lesson, question, run)), icon=":material/fast_forward:")


def _show_judged(judged: Judged) -> None:
    text = markdown(judged.sentence)
    if judged.right is True:
        st.success(text or "Right.", icon=":material/check_circle:")
    elif judged.right is False:
        st.warning(text, icon=":material/help:")
    elif judged.sentence:
        (st.info if judged.given else st.warning)(text, icon=":material/edit_note:")


def _control(
    lesson: Lesson, question: Exercise, key: str, run: LearnerRun | None, told: bool
) -> None:  # fmt: skip
    """Where the answer is given; Enter checks it."""
    name = f"answer_{lesson.edition}_{key}"
    take = partial(take_answer, lesson, question, key, run, name, told)
    if question.kind == "choice":
        st.radio(
            "Your answer", range(len(question.options)), index=_chosen_option(lesson, key), key=name, on_change=take,
            format_func=lambda n: markdown(_option(lesson, question, n, run)), label_visibility="collapsed",
        )  # fmt: skip
        return
    _take_click(lesson, question, key, name)
    if question.kind == "free":  # in no form, which would hold back what is written until it is sent: Next keeps it
        st.text_area("Your answer", key=name, max_chars=TYPED_ANSWER, height=90, label_visibility="collapsed",
                     placeholder="In your own words")  # fmt: skip
        st.button("Keep", key=f"check_{key}", on_click=take)
        return
    with st.form(f"form_{name}", border=False):
        if question.kind == "order":
            order = _shuffled(question)
            st.multiselect(
                "In order, the first one first", order, key=name, format_func=lambda n: question.options[n].text
            )
        else:
            places = {"node": "Click it, or write L2 H5", "position": "Click a word above, or write it",
                      "token": "A word", "number": "A number"}  # fmt: skip
            st.text_input("Your answer", key=name, max_chars=200, placeholder=places[question.kind],
                          label_visibility="collapsed", autocomplete="off")  # fmt: skip
        with st.container(horizontal=True, gap="small"):
            st.form_submit_button("Check" if told else "Keep", key=f"check_{key}", on_click=take)


def _option(lesson: Lesson, question: Exercise, n: int, run: LearnerRun | None) -> str:
    text = question.options[n].text
    return text if run is None else filled_in(lesson, text, run, question)


def _chosen_option(lesson: Lesson, key: str) -> int | None:
    given = progress(lesson).answers.get(key)
    return int(given.given) if given is not None and given.given.isdecimal() else None


def _shuffled(question: Exercise) -> list[int]:
    """Options of an order in an order that is not theirs, the same for all."""
    count = len(question.options)
    return [(3 * n + 1) % count for n in range(count)] if count % 3 else [*range(1, count, 2), *range(0, count, 2)]


def _take_click(lesson: Lesson, question: Exercise, key: str, name: str) -> None:
    """What was clicked on the page stands in the field, until something else is written."""
    step = step_at(lesson, state().step)
    clicked = (
        ""
        if step is None
        else clicked_part(
            question.kind,
            dict(address_of(lesson, step)),
            "_b" if question.answer and question.answer.side == "B" else "",
        )
    )
    given = progress(lesson).answers.get(key)
    if clicked and (session().clicked.get(key) != clicked or name not in st.session_state):
        st.session_state[name] = clicked
    elif name not in st.session_state and given is not None and question.kind != "order":
        st.session_state[name] = given.given.strip()
    session().clicked[key] = clicked


def clicked_part(kind: str, opened: Mapping[str, str], side: str = "") -> str:
    """The node or position that was clicked since the step was opened; nothing where none was. `side`: "_b" for B."""
    now = state()
    if kind == "node":
        last = now.whatif.edits.split(";")[-1].partition("~")[0].removeprefix("!")
        had = {
            opened.get("node", ""),
            opened.get("head", ""),
            *(e.partition("~")[0] for e in opened.get("edits", "").split(";")),
        }
        return next((node for node in (now.graph.node, now.memory.head, last) if node and node not in had), "")
    pos = str(value_of(now, f"pos{side}"))
    if kind == "position" and pos != str(opened.get(f"pos{side}", "-1")):
        return pos
    return ""


def take_answer(
    lesson: Lesson, question: Exercise, key: str, run: LearnerRun | None, name: str, told: bool
) -> None:  # fmt: skip
    """An answer was given: judge it, and keep it."""
    from visit.lessons.check import judge

    value = st.session_state.get(name)
    given = ",".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    given = given[:TYPED_ANSWER]  # a field's own bound is the browser's: what is kept here is kept for long
    try:
        judged = judge(lesson, question, given, run)
    except VisitError as problem:
        from visit.lessons.check import Judged

        judged = Judged(None, "", str(problem))
    now = progress(lesson)
    if told or judged.given == "":
        now.told[key] = judged
    if judged.given:
        _keep_answer(lesson, key, judged.given, judged.right, _run_of_question(question, run))


def _run_of_question(question: Exercise, run: LearnerRun | None) -> LearnerRun | None:
    from visit.lessons.queries import asked_of

    return None if run is None else asked_of(run, question.answer)


def _keep_answer(lesson: Lesson, key: str, given: str, right: bool | None, run: LearnerRun | None) -> None:
    now = progress(lesson)
    before = now.answers.get(key)
    now.skipped.discard(key)
    tries = 1 + (before.tries if before is not None else 0)
    made = "" if run is None else _run_name(lesson, run)
    seconds = round(time.time() - now.begun, 1)
    recorded(lesson, Given(key, given, right, tries, now.hints.get(key, 0), seconds, made))


def _run_name(lesson: Lesson, run: LearnerRun) -> str:
    """The run's short name in the result file, which is told of it."""
    known, acts = progress(lesson).runs, run.acts
    for key, one in known.items():
        if (one.model, one.token_ids) == (run.model.name, acts.token_ids):
            return key
    key = f"run{len(known) + 1}"
    known[key] = RunPrint(key, run.model.name, run.model.revision or "", tuple(acts.token_ids), acts.prompt[:8000])
    return key


def _hints(lesson: Lesson, question: Exercise, key: str, run: LearnerRun | None) -> None:
    """Nudge, suggestion, show me; and a way on for whoever does not want to guess."""
    now = progress(lesson)
    used = now.hints.get(key, 0)
    for hint in question.hints[:used]:
        st.caption(f":material/lightbulb: {markdown(hint if run is None else filled_in(lesson, hint, run, question))}")
    if now.done(key):
        return
    with st.container(horizontal=True, gap="small"):
        if used < len(question.hints):
            st.button(("A nudge", "A suggestion")[min(used, 1)], icon=":material/lightbulb:", type="tertiary",
                      key=f"hint_{key}", on_click=_hint, args=(lesson, key))  # fmt: skip
        elif question.kind != "free":
            st.button("Show me", icon=":material/visibility:", type="tertiary", key=f"hint_{key}", on_click=_show_me,
                      args=(lesson, question, key, run))  # fmt: skip
        st.button("Skip", type="tertiary", key=f"skip_{key}", on_click=_skip, args=(lesson, key))


def _hint(lesson: Lesson, key: str) -> None:
    now = progress(lesson)
    now.hints[key] = now.hints.get(key, 0) + 1


def _show_me(lesson: Lesson, question: Exercise, key: str, run: LearnerRun | None) -> None:
    from visit.lessons.check import judge, show_me

    now = progress(lesson)
    now.hints[key] = 3
    value = show_me(lesson, question, run)
    judged = judge(lesson, question, value, run)
    name = f"answer_{lesson.edition}_{key}"
    numbers = [int(part) for part in value.split(",")] if question.kind in ("choice", "order") else []
    st.session_state[name] = numbers if question.kind == "order" else numbers[0] if numbers else value.strip()
    now.told[key] = judged
    _keep_answer(lesson, key, judged.given, judged.right, _run_of_question(question, run))


def _skip(lesson: Lesson, key: str) -> None:
    now = progress(lesson)
    if key not in now.answers:
        recorded(lesson, Given(key, "", None, 0, now.hints.get(key, 0), round(time.time() - now.begun, 1)))
    now.skipped.add(key)
    now.told.pop(key, None)


# ---- texts -----------------------------------------------------------------------------------------------------------
def filled_in(lesson: Lesson, text: str, run: LearnerRun, question: Exercise | None = None) -> str:
    from visit.lessons.check import filled

    return filled(lesson, text, run, question)


def _explained(lesson: Lesson, question: Exercise, run: LearnerRun | None) -> str:
    return question.explain if run is None else filled_in(lesson, question.explain, run, question)


# what is left of Markdown: code between two single backticks, and stars
_MARKS_LEFT = re.compile(r"((?<!`)`(?!`)[^`\n]+`(?!`)|\*+)")


def markdown(text: str) -> str:
    """A lesson's text as Markdown of which only *emphasis*, `code` and lists are left: no links, pictures or HTML."""
    lines = []
    for line in text.split("\n"):
        start = "- " if line.startswith("- ") else ""
        parts = _MARKS_LEFT.split(line.removeprefix(start))
        lines.append(start + "".join(part if n % 2 else plain(part) for n, part in enumerate(parts)))
    return "\n".join(lines)
