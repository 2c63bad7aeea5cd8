"""What a lesson is: frozen records of its steps and questions, as `visit.lessons.lesson_file` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from visit.errors import VisitError
from visit.lessons.grammar import Query
from visit.models.catalog import MINI


@dataclass(frozen=True)
class Mistake:
    """What is wrong in a line, what stands there, and what may."""

    line: int
    what: str

    def __str__(self) -> str:
        return f"Line {self.line}: {self.what}"


class LessonError(VisitError):
    """A lesson file with mistakes: all of them, in order of their lines."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda one: one.line)
        super().__init__("\n".join(str(one) for one in self.mistakes))


@dataclass(frozen=True)
class Option:
    """One answer to choose: its text, whether it is right, and what is said to whoever chooses it."""

    text: str
    right: bool
    why: str


@dataclass(frozen=True)
class Wrong:
    """What is said to a wrong answer of this form: a pattern such as `L7*`, `less`, or a query."""

    pattern: str
    sentence: str
    query: Query | None = None


@dataclass(frozen=True)
class Exercise:
    """One question. `key` names it in a result file: `before.1`, `step2.1`; a repeated one is `after.1` there.

    `answer`: what is asked of the run; None for a choice, an order (`options` in their right order) and a free text.
    """

    key: str
    line: int
    text: str
    kind: str = "free"
    answer: Query | None = None
    tolerance: float | None = None
    options: tuple[Option, ...] = ()
    hints: tuple[str, ...] = ()
    show: str = ""
    wrong: tuple[Wrong, ...] = ()
    explain: str = ""
    note: str = ""


@dataclass(frozen=True)
class LessonStep:
    """A page in a state, what to look at, what is held back at first, a text, and questions."""

    title: str
    line: int
    page: str = "flow"
    params: tuple[tuple[str, str], ...] = ()
    mark: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    text: str = ""
    questions: tuple[Exercise, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Lesson:
    """A whole lesson. `twice`: the questions before and after. `edition`: a short hash of its text."""

    name: str
    edition: str
    title: str = ""
    minutes: int = 10
    model: str = MINI
    prompt: str = ""
    target: str = ""
    distractor: str = ""
    about: str = ""
    goals: tuple[str, ...] = ()
    let: Mapping[str, Query] = field(default_factory=dict)
    twice: tuple[Exercise, ...] = ()
    steps: tuple[LessonStep, ...] = ()
    end: str = ""
    note: str = ""

    @property
    def questions(self) -> tuple[Exercise, ...]:
        """Those of the steps, in order."""
        return tuple(question for step in self.steps for question in step.questions)


def address_of(lesson: Lesson, step: LessonStep) -> dict[str, str]:
    """What the page of a step is about: the lesson's model, prompt, target and distractor, and what its link says."""
    shared = {name: getattr(lesson, name) for name in ("model", "prompt", "target", "distractor")}
    given = dict(step.params)
    if "prompt" in given:  # another prompt has its own words
        shared["target"] = shared["distractor"] = ""
    return {**{name: value for name, value in shared.items() if value}, **given}
