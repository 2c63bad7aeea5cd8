"""A lesson while it runs: a panel beside the real pages, which asks before they answer.

1. The address holds the lesson and the step (`lesson`, `step`): 0 are the questions before, then come the steps, then
   the same questions again, then the end. A step opens its page in its state.
2. `begin_lesson`, before a page is drawn: which of its parts are held back until the prediction is made
   (`session().held`, `marks.shows`), which are marked, and the panel itself.
3. An answer is judged on the learner's own run (`visit.lessons.check`): the text and the model that stand on the page.
   `recorded` is the one place where it is kept.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.address import parse
from visit.app.cache import kept, lens_under, st_pass
from visit.app.lens_choice import seen
from visit.app.marks import Mark, point_at
from visit.app.room import class_strip, lesson_in, may_open, membership
from visit.app.room import record as tell_room
from visit.app.sessions import change, session, state
from visit.app.sidebar import is_here
from visit.app.widgets import plain
from visit.errors import VisitError
from visit.lessons.lesson import Exercise, Lesson, LessonStep, address_of, parse_lesson
from visit.lessons.results import Given, Result, RunPrint
from visit.lessons.shipped import shipped_lesson, shipped_lessons
from visit.models.catalog import title
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.lessons.check import Judged
    from visit.lessons.queries import LearnerRun
    from visit.lessons.room import Room

_STYLE = Path(__file__).with_name("lesson.css")
MOST_OWN = 100  # lessons from files that a server holds
MOST_WAYS = 1_000  # visitors whose answers a server holds, a few KB each


# ---- which lesson ----------------------------------------------------------------------------------------------------
@st.cache_resource(show_spinner=False)
def _own_lessons() -> dict[str, Lesson]:
    """Lessons that were opened from files, by name: a link to one works while the server runs."""
    return {}


def keep_own(text: str) -> Lesson:
    """Read a lesson of one's own, and keep it under a name of its own. Raises `LessonError` with its mistakes."""
    lesson = parse_lesson(text)
    for name in shipped_lessons():
        if shipped_lesson(name).edition == lesson.edition:
            return shipped_lesson(name)
    lesson = replace(lesson, name=f"own-{lesson.edition}")
    known = _own_lessons()
    known[lesson.name] = lesson
    while len(known) > MOST_OWN:
        known.pop(next(iter(known)))
    return lesson


def lesson_named(name: str) -> Lesson | None:
    """A shipped lesson, or one that was opened from a file; None where there is none of this name."""
    return shipped_lesson(name) if name in shipped_lessons() else _own_lessons().get(name)


# ---- what was done in it ---------------------------------------------------------------------------------------------
@dataclass(eq=False)
class LessonProgress:
    """One visitor's way through one lesson. Keys of questions are those of a result file."""

    begun: float = field(default_factory=time.time)
    answers: dict[str, Given] = field(default_factory=dict)
    told: dict[str, Judged] = field(default_factory=dict)  # what is said below a question
    hints: dict[str, int] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    runs: dict[str, RunPrint] = field(default_factory=dict)
    nickname: str = ""

    def done(self, key: str) -> bool:
        """Answered rightly, or skipped, or answered where nothing is right or wrong."""
        given = self.answers.get(key)
        return key in self.skipped or (given is not None and given.right is not False)

    def tried(self, key: str) -> bool:
        """A prediction is made: what was held back may be seen."""
        return key in self.answers or key in self.skipped


@st.cache_resource(show_spinner=False)
def _all_progress() -> dict[str, dict[str, LessonProgress]]:
    """What visitors have done, by the name that stands in their address: a page that is loaded anew finds it again."""
    return {}


def _name_way() -> None:
    """Give this visitor's progress its name, and keep it for her while it is among the last MOST_WAYS of the server."""
    now, known = session(), _all_progress()
    now.way = now.way or token_urlsafe(12)
    known.pop(now.way, None)
    known[now.way] = now.progress
    while len(known) > MOST_WAYS:
        known.pop(next(iter(known)))


def progress(lesson: Lesson) -> LessonProgress:
    """This visitor's way through a lesson."""
    now = session()
    if not now.progress:
        now.progress = _all_progress().get(now.way, now.progress)
    known: dict[str, LessonProgress] = now.progress
    key = f"{lesson.name} {lesson.edition}"
    if key not in known:
        known[key] = LessonProgress(answers=_answers_in_class(lesson))
    return known[key]


def _answers_in_class(lesson: Lesson) -> dict[str, Given]:
    """What the class has of this visitor's answers: a page that was loaded anew has none of its own."""
    room = class_of(lesson)
    if room is None:
        return {}
    replies = room.answers_of(session().seat.me)
    tries = Counter(one.question for one in replies)
    right = {"right": True, "wrong": False}
    return {
        one.question: Given(one.question, one.value, right.get(one.verdict), tries[one.question], min(one.hints, 3))
        for one in replies
    }


def result(lesson: Lesson) -> Result:
    """What the visitor did, for a file."""
    now = progress(lesson)
    begun = datetime.fromtimestamp(now.begun, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Result(
        lesson.name, lesson.title, lesson.edition, begun, round(time.time() - now.begun, 1), now.nickname,
        tuple(now.answers.values()), tuple(now.runs.values()),
    )  # fmt: skip


def recorded(lesson: Lesson, step: int, given: Given) -> None:
    """The one place where an answer is kept, right or wrong, skipped or taken from “show me”.

    `step`: as in the address. Where the visitor sits in a class, the room is told, too.
    """
    progress(lesson).answers[given.question] = given
    _name_way()
    if class_of(lesson) is None:
        return
    try:
        tell_room(given.question, given.given, given.right, given.hints)
    except VisitError as problem:
        session().notes = [str(problem)]


# ---- where it stands -------------------------------------------------------------------------------------------------
def class_step(lesson: Lesson, number: int) -> int:
    """A step's number in a room, which has one for all that comes after the last."""
    return min(number, len(lesson.steps) + 1)


def class_of(lesson: Lesson) -> Room | None:
    """The room of the visitor's class, where it takes this lesson."""
    room = membership()
    return room if room is not None and lesson_in(room.lesson).edition == lesson.edition else None


def with_class(lesson: Lesson) -> None:
    """In a class that takes this lesson: how far it is, and what was revealed. Else nothing."""
    if class_of(lesson) is not None:
        class_strip(class_step(lesson, state().step), partial(go_to, lesson))


def last_step(lesson: Lesson) -> int:
    """The number of the end in the address."""
    return len(lesson.steps) + (2 if lesson.twice else 1)


def step_at(lesson: Lesson, number: int) -> LessonStep | None:
    """The step with a page; None before the first and behind the last."""
    return lesson.steps[number - 1] if 1 <= number <= len(lesson.steps) else None


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
    for name in [k for k in st.session_state if str(k).startswith("w_")]:
        del st.session_state[name]


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
        _take_answer(lesson, number, question, key, run, name, step is not None)


def own_prompt(lesson: Lesson) -> str:
    """The learner's own text, where one stands instead of the step's; else nothing."""
    step = step_at(lesson, state().step)
    if step is None or state().lesson != lesson.name:
        return ""
    return "" if state().prompt == address_of(lesson, step).get("prompt") else state().prompt


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
        st.rerun()  # the sidebar was drawn before


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
    run = None
    try:
        run = learner_run(lesson, step)
    except VisitError as problem:
        st.warning(plain(str(problem)), icon=":material/edit:")
    if step.text:
        st.markdown(markdown(step.text if run is None else _filled(lesson, step.text, run)))
    if own := own_prompt(lesson):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.caption(f"Checked on your own text, “{plain(visible(own[:60]))}”.", width="content")
            st.button(
                "Back to the lesson's", type="tertiary", key="lesson_text", on_click=_lesson_text, args=(lesson, step)
            )
    for question in step.questions:
        asked(lesson, state().step, question, question.key, run)
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
@kept(weighs=1 << 20)  # it is filled later
def st_lesson_tables(
    name: str, prompt: Any, pos: int, target: int, distractor: int | None, lens: str
) -> dict[str, Any]:  # fmt: skip
    """What was measured for checks of this run, shared by all who ask."""
    return {}


def learner_run(lesson: Lesson, step: LessonStep) -> LearnerRun:
    """The pass on screen, as the step asks about it: its position and words, or of an own text the prediction.

    Raises `VisitError` for a text that cannot be run.
    """
    from visit.exact.question import ask
    from visit.lessons.queries import LearnerRun

    given = address_of(lesson, step)
    own = bool(own_prompt(lesson))
    words = {} if own else given
    model, acts = st_pass(_model_shown(), state().prompt)
    about = ask(model, acts, int(given.get("pos") or -1) if not own else -1, words.get("target") or None,
                words.get("distractor") or None)  # fmt: skip
    key = seen(model.name)[0][0]
    tables = st_lesson_tables(model.name, state().prompt, about.pos, about.target, about.distractor, key)
    return LearnerRun(about, lens_under(model.name, key), tables)


def _model_shown() -> str:
    """The model of the page: while another is fetched, the last that could be had."""
    waiting = session().pending is not None
    return session().shown_models.get("model", state().model) if waiting else state().model


def run_of(lesson: Lesson, run: LearnerRun) -> str:
    """The run's short name in the result file, which is told of it."""
    known, acts = progress(lesson).runs, run.acts
    for key, one in known.items():
        if (one.model, one.token_ids) == (run.model.name, acts.token_ids):
            return key
    key = f"run{len(known) + 1}"
    known[key] = RunPrint(key, run.model.name, run.model.revision or "", tuple(acts.token_ids), acts.prompt[:8000])
    return key


# ---- a question ------------------------------------------------------------------------------------------------------
def asked(lesson: Lesson, step: int, question: Exercise, key: str, run: LearnerRun | None, told: bool = True) -> None:
    """A question with its control, its hints and what is said to the answer.

    `key`: under which the answer is kept (a question that is asked twice has two); `told`: whether it is said if the
    answer is right.
    """
    now = progress(lesson)
    with st.container(key=f"ask_{key.replace('.', '_')}", border=True):
        st.markdown(f"**{markdown(question.text if run is None else _filled(lesson, question.text, run, question))}**")
        if question.kind not in ("choice", "order", "free") and run is None:
            return
        _control(lesson, step, question, key, run, told)
        if not told:
            return
        _hints(lesson, step, question, key, run)
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
    lesson: Lesson, step: int, question: Exercise, key: str, run: LearnerRun | None, told: bool
) -> None:  # fmt: skip
    """Where the answer is given; Enter checks it."""
    name = f"answer_{lesson.edition}_{key}"
    take = partial(_take_answer, lesson, step, question, key, run, name, told)
    if question.kind == "choice":
        st.radio(
            "Your answer", range(len(question.options)), index=_chosen_option(lesson, key), key=name, on_change=take,
            format_func=lambda n: markdown(_option(lesson, question, n, run)), label_visibility="collapsed",
        )  # fmt: skip
        return
    _take_click(lesson, question, key, name)
    if question.kind == "free":  # in no form, which would hold back what is written until it is sent: Next keeps it
        st.text_area("Your answer", key=name, max_chars=1000, height=90, label_visibility="collapsed",
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
    return text if run is None else _filled(lesson, text, run, question)


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
    clicked = "" if step is None else clicked_part(question.kind, dict(address_of(lesson, step)))
    given = progress(lesson).answers.get(key)
    if clicked and (session().clicked.get(key) != clicked or name not in st.session_state):
        st.session_state[name] = clicked
    elif name not in st.session_state and given is not None and question.kind != "order":
        st.session_state[name] = given.given.strip()
    session().clicked[key] = clicked


def clicked_part(kind: str, opened: Mapping[str, str]) -> str:
    """The node or position that was clicked since the step was opened; nothing where none was."""
    now = state()
    if kind == "node":
        last = now.whatif.edits.split(";")[-1].partition("~")[0].removeprefix("!")
        had = {
            opened.get("node", ""),
            opened.get("head", ""),
            *(e.partition("~")[0] for e in opened.get("edits", "").split(";")),
        }
        return next((node for node in (now.graph.node, now.memory.head, last) if node and node not in had), "")
    if kind == "position" and str(now.pos) != str(opened.get("pos", "-1")):
        return str(now.pos)
    return ""


def _take_answer(
    lesson: Lesson, step: int, question: Exercise, key: str, run: LearnerRun | None, name: str, told: bool
) -> None:  # fmt: skip
    """An answer was given: judge it, and keep it."""
    from visit.lessons.check import judge

    value = st.session_state.get(name)
    given = ",".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    try:
        judged = judge(lesson, question, given, run)
    except VisitError as problem:
        from visit.lessons.check import Judged

        judged = Judged(None, "", str(problem))
    now = progress(lesson)
    if told or judged.given == "":
        now.told[key] = judged
    if judged.given:
        _keep_answer(lesson, step, key, judged.given, judged.right, run)


def _keep_answer(lesson: Lesson, step: int, key: str, given: str, right: bool | None, run: LearnerRun | None) -> None:
    now = progress(lesson)
    before = now.answers.get(key)
    now.skipped.discard(key)
    tries = 1 + (before.tries if before is not None else 0)
    made = "" if run is None else run_of(lesson, run)
    seconds = round(time.time() - now.begun, 1)
    recorded(lesson, step, Given(key, given, right, tries, now.hints.get(key, 0), seconds, made))


def _hints(lesson: Lesson, step: int, question: Exercise, key: str, run: LearnerRun | None) -> None:
    """Nudge, suggestion, show me; and a way on for whoever does not want to guess."""
    now = progress(lesson)
    used = now.hints.get(key, 0)
    for hint in question.hints[:used]:
        st.caption(f":material/lightbulb: {markdown(hint if run is None else _filled(lesson, hint, run, question))}")
    if now.done(key):
        return
    with st.container(horizontal=True, gap="small"):
        if used < len(question.hints):
            st.button(("A nudge", "A suggestion")[min(used, 1)], icon=":material/lightbulb:", type="tertiary",
                      key=f"hint_{key}", on_click=_hint, args=(lesson, key))  # fmt: skip
        elif question.kind != "free":
            st.button("Show me", icon=":material/visibility:", type="tertiary", key=f"hint_{key}", on_click=_show_me,
                      args=(lesson, step, question, key, run))  # fmt: skip
        st.button("Skip", type="tertiary", key=f"skip_{key}", on_click=_skip, args=(lesson, step, key, run))


def _hint(lesson: Lesson, key: str) -> None:
    now = progress(lesson)
    now.hints[key] = now.hints.get(key, 0) + 1


def _show_me(lesson: Lesson, step: int, question: Exercise, key: str, run: LearnerRun | None) -> None:
    from visit.lessons.check import judge, show_me

    now = progress(lesson)
    now.hints[key] = 3
    value = show_me(lesson, question, run)
    judged = judge(lesson, question, value, run)
    name = f"answer_{lesson.edition}_{key}"
    numbers = [int(part) for part in value.split(",")] if question.kind in ("choice", "order") else []
    st.session_state[name] = numbers if question.kind == "order" else numbers[0] if numbers else value.strip()
    now.told[key] = judged
    _keep_answer(lesson, step, key, judged.given, judged.right, run)


def _skip(lesson: Lesson, step: int, key: str, run: LearnerRun | None) -> None:
    now = progress(lesson)
    if key not in now.answers:
        recorded(lesson, step, Given(key, "", None, 0, now.hints.get(key, 0), round(time.time() - now.begun, 1)))
    now.skipped.add(key)
    now.told.pop(key, None)


# ---- texts -----------------------------------------------------------------------------------------------------------
def _filled(lesson: Lesson, text: str, run: LearnerRun, question: Exercise | None = None) -> str:
    from visit.lessons.check import filled

    return filled(lesson, text, run, question)


def _explained(lesson: Lesson, question: Exercise, run: LearnerRun | None) -> str:
    return question.explain if run is None else _filled(lesson, question.explain, run, question)


def markdown(text: str) -> str:
    """A lesson's text as Markdown of which only *emphasis*, `code` and lists are left: no links, pictures or HTML."""
    kept_signs = "*`"
    lines = []
    for line in text.split("\n"):
        start = "- " if line.startswith("- ") else ""
        body = line.removeprefix(start)
        lines.append(start + "".join(c if c in kept_signs else plain(c) for c in body))
    return "\n".join(lines)


def at_hand(lesson: Lesson) -> str:
    """What to do where the lesson's model is not on this machine; empty where it is."""
    from visit.models.catalog import LISTED, MINI
    from visit.text.numbers import size_text

    if lesson.model == MINI or is_here(lesson.model):
        return ""
    size = size_text(LISTED[lesson.model].download)
    return (
        f"This lesson uses {title(lesson.model)} ({size}), which is not on this machine yet: choose it in the sidebar "
        f"and press Download, or run `python -m visit models fetch {lesson.model}` where the app is installed."
    )
