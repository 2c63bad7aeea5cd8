"""What a class answered, as bars: the room's steps are the lesson's, and what is right is told where it is known."""

from __future__ import annotations

import pytest

from visit.errors import VisitError
from visit.lessons.room import MAX_STEPS, Rooms, Tally
from visit.lessons.shipped import shipped_lesson, shipped_lessons
from visit.lessons.tally import MOST_BARS, answer_text, bars, question_text, questions_at, room_steps, step_of
from visit.text.node_id import part_name


@pytest.mark.parametrize("name", shipped_lessons())
def test_every_question_of_a_shipped_lesson_has_its_step_in_the_room(name):
    lesson = shipped_lesson(name)
    steps = room_steps(lesson)
    assert len(steps) == len(lesson.steps) + 2 <= MAX_STEPS
    asked = [(step, key) for step in range(len(steps)) for key, _ in questions_at(lesson, step)]
    assert [step for step, key in asked] == [step_of(key, len(steps)) for step, key in asked]
    assert len(asked) == len(lesson.questions) + 2 * len(lesson.twice) == len({key for _, key in asked})
    room, _ = Rooms().open(lesson.title, steps, "x")
    token = room.join()
    for step, key in asked:
        room.answer(token, step, key, "0", "right")


@pytest.mark.parametrize("key", ["", "x", "step", "step99.1", "stepx.1", "step-1.1", "<b>"])
def test_a_question_that_the_lesson_has_not_is_refused(key):
    with pytest.raises(VisitError, match="no question"):
        step_of(key, 8)


def choice():
    return next(q for q in shipped_lesson("3-recall").twice if q.kind == "choice")


def test_a_choice_shows_all_its_options_in_order_also_those_that_nobody_took():
    question = choice()
    found = bars(question, [Tally("1", 3, 3), Tally("0", 1, 0), Tally("77", 5, 0)])
    assert [bar.label for bar in found] == [option.text for option in question.options]
    assert [bar.count for bar in found] == [1, 3, 0, 0]
    assert [bar.right for bar in found] == [option.right for option in question.options]


def typed():
    return next(q for q in shipped_lesson("3-recall").questions if q.kind == "token")


def test_typed_answers_are_the_most_frequent_and_the_others_are_counted():
    tallies = [Tally(f" w{n}", 50 - n, 0) for n in range(MOST_BARS + 3)]
    found = bars(typed(), tallies)
    assert len(found) == MOST_BARS + 1 and found[0].label == "·w0"
    assert found[-1].label == "other answers" and sum(b.count for b in found) == sum(t.count for t in tallies)


def test_an_answer_that_was_right_for_some_is_neither_right_nor_wrong():
    one, two, three = bars(typed(), [Tally("a", 4, 4), Tally("b", 3, 0), Tally("c", 2, 1)])
    assert (one.right, two.right, three.right) == (True, False, None)


def test_answers_are_read_as_people_write_them():
    lesson = shipped_lesson("3-recall")
    node = next(q for q in lesson.questions if q.kind == "node")
    assert answer_text(node, "L4.head1") == part_name("L4.head1") and answer_text(typed(), " Tokyo\n") == "·Tokyo⏎"
    assert answer_text(choice(), "1,99") == f"{choice().options[1].text} → ?" and answer_text(choice(), "<b>") == "–"


def test_a_question_is_shown_without_the_names_that_only_a_run_can_fill():
    asked = [question_text(q) for name in shipped_lessons() for q in shipped_lesson(name).questions]
    assert asked and not any("{" in text or "}" in text for text in asked)
