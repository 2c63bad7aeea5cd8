"""A lesson on paper: goals, questions with room to write, the steps; for the teacher its answers and notes as well.

Made from the same file as the lesson on screen. Its texts are filled from a run of the lesson's own model and prompts,
so that what is asked on paper is what stands on the pages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Any

from markupsafe import Markup

from visit.files.page import fill_template
from visit.lessons.check import explanation, filled
from visit.lessons.lesson import Exercise, Lesson, LessonStep, address_of
from visit.lessons.queries import LearnerRun, answer, spelled


def lesson_handout(lesson: Lesson, run_of: Callable[[LessonStep], LearnerRun], teacher: bool = False) -> str:
    """The handout as a page that stands alone and prints. `run_of`: a step's run; `teacher`: with answers and notes."""
    steps = []
    for number, step in enumerate(lesson.steps, 1):
        run = run_of(step)
        address = {name: value for name, value in address_of(lesson, step).items() if name != "model"}
        steps.append(
            {"number": number, "title": step.title, "page": step.page, "prompt": address.get("prompt", ""),
             "text": _html(filled(lesson, step.text, run)), "note": step.note,
             "questions": [_exercise(lesson, one, run) for one in step.questions]}
        )  # fmt: skip
    end = filled(lesson, lesson.end, run_of(lesson.steps[0]))
    twice = [_exercise(lesson, one, None) for one in lesson.twice]
    return fill_template(
        "lesson_handout.html", lesson=lesson, teacher=teacher, steps=steps, end=_html(end), twice=twice
    )


def _exercise(lesson: Lesson, one: Exercise, run: LearnerRun | None) -> dict[str, Any]:
    def told(text: str) -> str:
        return text if run is None else filled(lesson, text, run, one)

    expected = ""
    if run is not None and one.answer is not None:
        expected = spelled(run, answer(run, one.answer))
    elif one.kind == "choice":
        expected = next(told(option.text) for option in one.options if option.right)
    elif one.kind == "order":
        expected = " → ".join(option.text for option in one.options)
    options = [_html(told(option.text)) for option in (sorted(one.options, key=lambda o: o.text) if one.kind == "order"
               else one.options)]  # fmt: skip
    return {
        "text": _html(told(one.text)), "kind": one.kind, "options": options, "answer": _html(expected),
        "explain": _html(explanation(lesson, one, run)), "note": one.note,
        "lines": {"free": 4, "choice": 0, "order": 0}.get(one.kind, 1),
    }  # fmt: skip


def _html(text: str) -> Markup:
    """A lesson's text as HTML: *emphasis*, **bold**, `code`, lists; everything else is escaped."""
    parts = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = escape(block).split("\n")
        if all(line.startswith("- ") for line in lines):
            parts.append("<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>")
        elif block:
            parts.append(f"<p>{_inline(' '.join(lines))}</p>")
    return Markup("".join(parts) if len(parts) != 1 or parts[0].startswith("<ul>") else parts[0][3:-4])


def _inline(escaped: str) -> str:
    for sign, tag in ((r"\*\*", "b"), (r"\*", "em"), ("`", "code")):
        escaped = re.sub(rf"{sign}([^*`]+){sign}", rf"<{tag}>\1</{tag}>", escaped)
    return escaped
