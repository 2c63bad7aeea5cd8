"""A lesson file: what is read from it, and every mistake by its line."""

from __future__ import annotations

import pytest

from visit.errors import VisitError
from visit.lessons.grammar import PHRASES, parse_query
from visit.lessons.lesson import LessonError, address_of
from visit.lessons.lesson_file import parse_lesson

GOOD = """---
title: A small lesson
minutes: 5
prompt: The capital of Japan is the city of
goals:
- one thing
- another
let head: largest contribution among heads
---
# Before and after
? Two and two?
kind: choice
- [x] four -> yes
- [ ] five -> that is three and two

# Step: Look
open: /flow?detail=4w
mark: graph, map
hide: reading
Some text about {target}.

- a list is text

? Click it.
kind: node
answer: head
hint: it is {head}
wrong: L7* -> not in the last block,
   and not in the one before
show: L4.head1
explain: {head} adds {head.contribution}.
# End
Done.
"""


def lines_of(text: str) -> dict[int, str]:
    with pytest.raises(LessonError) as caught:
        parse_lesson(text)
    return {one.line: one.what for one in caught.value.mistakes}


def test_a_file_is_read_into_its_parts():
    lesson = parse_lesson(GOOD, "small")
    assert (lesson.name, lesson.title, lesson.minutes, lesson.model) == ("small", "A small lesson", 5, "visit-mini")
    assert lesson.goals == ("one thing", "another") and lesson.end == "Done."
    assert [option.right for option in lesson.twice[0].options] == [True, False]
    (step,) = lesson.steps
    assert step.page == "flow" and step.mark == ("graph", "map") and "- a list is text" in step.text
    (question,) = step.questions
    assert question.key == "step1.1" and question.answer == lesson.let["head"]
    assert question.wrong[0].sentence == "not in the last block, and not in the one before"
    assert address_of(lesson, step) == {"model": "visit-mini", "prompt": lesson.prompt, "detail": "4w"}


def test_windows_line_ends_and_a_mark_in_front_change_nothing():
    lesson = parse_lesson("\ufeff" + GOOD.replace("\n", "\r\n"))
    assert lesson.steps == parse_lesson(GOOD).steps


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("model", "", 0, ""),
        ("minutes: 5", "minutes: soon", 3, "whole number from 1 to 180"),
        ("minutes: 5", "model: gpt-9", 3, "visit-mini, smollm2"),
        ("minutes: 5", "author: me", 3, "its keys are title"),
        ("open: /flow?detail=4w", "open: /garden", 17, "/flow, /compare"),
        ("open: /flow?detail=4w", "open: https://evil.example/flow", 17, "/flow, /compare"),
        ("mark: graph, map", "mark: graf", 18, "its parts are prompt"),
        ("hide: reading", "conceal: reading", 19, "its keys are open, mark, hide, note"),
        ("about {target}", "about {tagret}", 16, "{target}"),
        ("kind: node", "kind: nod", 25, "the kinds are choice, token"),
        ("answer: head", "answer: largest contributions among heads", 26, "“{nth} contribution among {set}”"),
        ("answer: head", "answer: final prediction", 26, "gives a token"),
        ("answer: head", "answer: in B: head", 24, "opens /compare"),
        ("hint: it is {head}", "hints: it is {head}", 27, "its keys are kind, answer"),
        ("wrong: L7* ->", "wrong: L7* =>", 28, "“wrong: L7* -> what is said to it”"),
        ("{head.contribution}", "{head.weight}", 31, "{head.contribution}"),
        ("# End", "# Finally", 32, "“# Step: a title”"),
        ("Done.", "Done with {target}.", 32, "stands on no page"),
        ("- [ ] five -> that", "- [ ] five: that", 14, "every option says"),
        ("- [x] four", "- [ ] four", 11, "exactly one option"),
        ("let head: largest", "let head: biggest", 8, "nothing that can be asked of a run"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_by_its_line_with_what_is_allowed(old, new, line, says):
    if not line:
        return
    found = lines_of(GOOD.replace(old, new, 1))
    assert line in found and says in found[line], found


def test_all_mistakes_are_said_at_once_in_order():
    broken = GOOD.replace("minutes: 5", "minutes: x").replace("kind: node", "kind: nod").replace("# End", "# Finally")
    with pytest.raises(LessonError) as caught:
        parse_lesson(broken)
    lines = [one.line for one in caught.value.mistakes]
    assert {3, 25, 32} <= set(lines) and lines == sorted(lines)
    assert str(caught.value).startswith("Line 3: minutes is a whole number from 1 to 180; got “x”.")


@pytest.mark.parametrize(
    "text", ["", "---", "# Step: x", "---\n---\n", "\x00\x00", "? \nkind", "---\ntitle: x\n---\n# "]
)
def test_what_is_no_lesson_is_said_and_nothing_breaks(text):
    with pytest.raises(LessonError):
        parse_lesson(text)


def test_too_much_is_refused():
    with pytest.raises(VisitError, match="at most 100,000 characters"):
        parse_lesson("x" * 100_001)
    found = lines_of(GOOD.replace("# End", "# Step: more\ntext\n" * 31 + "# End"))
    assert any("at most 30 steps" in what for what in found.values())


@pytest.mark.parametrize("phrase", PHRASES)
def test_every_phrase_is_read(phrase):
    head = parse_query("L4.head1", {})
    filled = phrase.format(
        nth="second largest",
        set="heads",
        node="head",
        pos='position of "Japan"',
        block="block 3",
        word='"Paris"',
        count="3",
    )
    query = parse_query(filled, {"head": head})
    assert (query.name, query.kind, query.unit) == PHRASES[phrase]
