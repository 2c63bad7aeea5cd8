"""What a class answered, as a teacher looks at it: the steps of a room, the questions of a step, a bar per answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visit.errors import VisitError
from visit.lessons.room import Tally
from visit.text.node_id import part_name
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.lessons.lesson import Exercise, Lesson

MOST_BARS = 10


@dataclass(frozen=True)
class AnswerBar:
    """One answer as it is shown, how many gave it, and whether it is right (None: not checked, or for some)."""

    label: str
    count: int
    right: bool | None


def room_steps(lesson: Lesson) -> tuple[str, ...]:
    """The steps of a room: where all wait at first (with the questions before), the lesson's, and its end."""
    ends = ("Before the lesson", "After the lesson") if lesson.twice else ("Start", "End")
    return (ends[0], *(step.title for step in lesson.steps), ends[1])


def step_of(key: str, steps: int) -> int:
    """The step, of so many, to which a question belongs by its name: `before.1`, `step2.1`, `after.1`."""
    part = key.partition(".")[0]
    number = {"before": 0, "after": steps - 1}.get(part, int(part[4:]) if part[4:].isdecimal() else -1)
    if not 0 <= number < steps:
        raise VisitError(f"This room's lesson has no question {key[:40]!r}.")
    return number


def questions_at(lesson: Lesson, step: int) -> tuple[tuple[str, Exercise], ...]:
    """(name, question) of a step of the room."""
    last = len(lesson.steps) + 1
    if 0 < step < last:
        return tuple((one.key, one) for one in lesson.steps[step - 1].questions)
    when = "before" if step == 0 else "after"
    return tuple((f"{when}.{one.key.partition('.')[2]}", one) for one in lesson.twice)


def bars(question: Exercise, tallies: Sequence[Tally]) -> list[AnswerBar]:
    """A bar per answer: all options of a choice in their order, else the most frequent, and one for the others."""
    if question.kind == "choice":
        count = {one.value: one.count for one in tallies}
        return [AnswerBar(option.text, count.get(str(n), 0), option.right) for n, option in enumerate(question.options)]
    shown = [
        AnswerBar(answer_text(question, one.value), one.count, _right(question, one)) for one in tallies[:MOST_BARS]
    ]
    others = sum(one.count for one in tallies[MOST_BARS:])
    return shown + [AnswerBar("other answers", others, None)] * bool(others)


def question_text(question: Exercise) -> str:
    """A question without its placeholders, which only a learner's own run fills."""
    return re.sub(r"\{[^{}]*\}", "…", question.text)


def _right(question: Exercise, one: Tally) -> bool | None:
    if question.kind == "free" or 0 < one.right < one.count:
        return None
    return one.right == one.count


def answer_text(question: Exercise, value: str) -> str:
    """An answer as it is read: options by their texts, a head as L4 H1, everything else with what it holds visible."""
    if question.kind in ("choice", "order"):
        numbers = [int(n) for n in value.split(",") if n.strip().isdecimal() and len(n) < 9]
        return " → ".join(question.options[n].text if n < len(question.options) else "?" for n in numbers) or "–"
    if question.kind == "node":
        return part_name(value)
    if question.kind == "position":
        return f"position {value}"
    return value if question.kind == "free" else visible(value)
