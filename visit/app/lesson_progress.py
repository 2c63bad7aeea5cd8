"""A visitor's way through a lesson: which one, what was done in it, and where it stands.

The address holds the lesson and the step (`lesson`, `step`): 0 are the questions before, then come the steps, then the
same questions again, then the end. Answers, hints and runs are kept for a page that is loaded anew; `recorded` is the
one place where an answer is kept, and where a class is told of it.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.room import lesson_in, membership
from visit.app.room import record as tell_room
from visit.app.sessions import session, state
from visit.errors import VisitError
from visit.lessons.lesson import Lesson, LessonStep, address_of
from visit.lessons.lesson_file import parse_lesson
from visit.lessons.results import Given, Result, RunPrint
from visit.lessons.shipped import shipped_lesson, shipped_lessons

if TYPE_CHECKING:
    from visit.lessons.room import Room


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
    told: dict[str, Any] = field(default_factory=dict)  # question → what `visit.lessons.check` says to its answer
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


def recorded(lesson: Lesson, given: Given) -> None:
    """The one place where an answer is kept, right or wrong, skipped or taken from “show me”.

    Where the visitor sits in a class, the room is told, too.
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


def last_step(lesson: Lesson) -> int:
    """The number of the end in the address."""
    return len(lesson.steps) + (2 if lesson.twice else 1)


def step_at(lesson: Lesson, number: int) -> LessonStep | None:
    """The step with a page; None before the first and behind the last."""
    return lesson.steps[number - 1] if 1 <= number <= len(lesson.steps) else None


def own_prompt(lesson: Lesson) -> str:
    """The learner's own text, where one stands instead of the step's; else nothing."""
    step = step_at(lesson, state().step)
    if step is None or state().lesson != lesson.name:
        return ""
    return "" if state().prompt == address_of(lesson, step).get("prompt") else state().prompt
