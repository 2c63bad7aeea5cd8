"""The teacher's guides under docs/teaching say what the lessons say today, and list all that a lesson may ask."""

import runpy
from pathlib import Path

import pytest

from visit.lessons.grammar import PHRASES
from visit.lessons.shipped import shipped_lessons

FOLDER = Path(__file__).parents[3] / "docs" / "teaching"


@pytest.fixture(scope="module")
def made():
    return runpy.run_path(str(FOLDER / "make.py"))["files"]()


def test_every_guide_is_what_the_lesson_gives(made):
    stale = [file.name for file, text in made.items() if not file.exists() or file.read_text("utf-8") != text]
    assert not stale, f"python docs/teaching/make.py writes {', '.join(stale)} anew"


def test_no_answer_or_placeholder_is_missing(made):
    for file, text in made.items():
        assert "{" not in text and " –" not in text, file.name


def test_the_teachers_page_links_every_guide_and_lists_every_question():
    page = (FOLDER / "README.md").read_text("utf-8")
    assert all(f"({name}.md)" in page for name in shipped_lessons())
    assert all(f"`{phrase}`" in page for phrase in PHRASES)
