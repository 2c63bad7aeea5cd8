"""`python -m visit lesson`: check a lesson file, line by line and against a model, and make its handout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visit.cli.options import check_out
from visit.errors import VisitError


def add(commands: Any) -> None:
    """The command's options."""
    lesson = commands.add_parser("lesson", help="check a lesson file, make its handout", description=__doc__)
    kinds = lesson.add_subparsers(required=True, metavar="check|handout", parser_class=type(lesson))
    check = kinds.add_parser("check", help="its mistakes by line, its answers", description=run_check.__doc__)
    check.set_defaults(run=run_check)
    handout = kinds.add_parser("handout", help="a page to print", description=run_handout.__doc__)
    handout.set_defaults(run=run_handout)
    handout.add_argument("--out", type=Path, required=True, metavar="FILE", help="an .html file")
    handout.add_argument("--teacher", action="store_true", help="with the expected answers and the notes")
    for one in (check, handout):
        one.add_argument("file", metavar="FILE", help="a lesson file, or the name of one that comes with VISIT")
        one.add_argument("--model", help="another model than the lesson names")


def run_check(options: argparse.Namespace) -> int:
    """Say every mistake of a lesson file by its line; of one without, what each question expects on this model."""
    from visit.lessons.check import filled
    from visit.lessons.queries import answer, spelled

    lesson, run_of = _opened_lesson(options)
    problems = 0
    print(f"“{lesson.title}”, {lesson.minutes} minutes, model {options.model or lesson.model}: no mistakes.\n")
    for number, step in enumerate(lesson.steps, 1):
        print(f"Step {number}: {step.title} (/{step.page})")
        run = run_of(step)
        for question in step.questions:
            said = filled(lesson, question.text, run, question).replace("\n", " ")
            print(f"  {question.key} {question.kind}: {said[:100]}")
            try:
                expected = "" if question.answer is None else spelled(run, answer(run, question.answer))
            except VisitError as problem:
                expected, problems = f"no answer here: {problem}", problems + 1
            print(f"    line {question.line}{': expected ' + expected if expected else ''}")
    if problems:
        raise VisitError(f"Questions without an answer on this model: {problems}; they stand above.")
    return 0


def run_handout(options: argparse.Namespace) -> int:
    """Write a lesson as a page to print, with room to write; with --teacher the answers and notes beside."""
    from visit.files.lesson_handout import lesson_handout
    from visit.files.tables import write_bytes

    check_out(options.out, (".html",))
    lesson, run_of = _opened_lesson(options)
    write_bytes(options.out, lesson_handout(lesson, run_of, options.teacher).encode())
    print(f"wrote {options.out}", file=sys.stderr)
    return 0


def _opened_lesson(options: argparse.Namespace) -> tuple[Any, Callable[[Any], Any]]:
    """The lesson, and what gives each of its steps its run."""
    from visit.lessons.check import runs_of
    from visit.lessons.lesson_file import parse_lesson
    from visit.lessons.shipped import shipped_lessons, shipped_text
    from visit.models.load import load_model

    name, file = options.file, Path(options.file)
    if name in shipped_lessons() and not file.exists():
        text = shipped_text(name)
    else:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as problem:
            known = ", ".join(shipped_lessons())
            raise VisitError(
                f"The lesson {name!r} cannot be read: {problem.strerror}. Those that come with VISIT are {known}."
            ) from problem
        except UnicodeDecodeError as problem:
            raise VisitError(f"The lesson {name!r} is no text in UTF-8; save it as plain text (UTF-8).") from problem
    lesson = parse_lesson(text, file.stem)
    return lesson, runs_of(lesson, load_model(options.model or lesson.model))
