"""The lessons that come with VISIT, as files of `visit/data/lessons`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import visit
from visit.errors import VisitError
from visit.lessons.lesson import Lesson
from visit.lessons.lesson_file import parse_lesson

FOLDER = Path(visit.__file__).parent / "data" / "lessons"


def shipped_lessons() -> list[str]:
    """Their names, in order."""
    return sorted(file.stem for file in FOLDER.glob("*.md"))


def shipped_text(name: str) -> str:
    """The file of one. Raises `VisitError` for a name that is none."""
    if name not in shipped_lessons():
        raise VisitError(f"There is no lesson of this name here; the lessons are {', '.join(shipped_lessons())}.")
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


@cache
def shipped_lesson(name: str) -> Lesson:
    """One of them, read."""
    return parse_lesson(shipped_text(name), name)
