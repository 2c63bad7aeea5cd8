"""Every shipped lesson: its expected answers are computed, accepted, and others are not; so they cannot rot."""

from __future__ import annotations

from functools import cache

import pytest

import visit
from visit.exact.question import ask
from visit.lessons.check import filled, judge, show_me
from visit.lessons.grammar import parse_query
from visit.lessons.lesson import Lesson, LessonStep, address_of
from visit.lessons.queries import LearnerRun, answer, paired
from visit.lessons.shipped import shipped_lesson, shipped_lessons
from visit.models.catalog import MINI

# what the lessons are about, as it was looked at on the pages: a change of these is a change of the lesson
EXPECTED = {
    "3-recall": {"step1.1": " Tokyo", "step2.1": "6", "step3.1": "L4.head1", "step4.1": "3", "step5.1": " Tokyo",
                 "step6.1": "3", "step6.2": "4", "step7.1": "L4.head1"},
    "4-names": {"step1.1": " Mary", "step2.1": "L4.head1", "step3.1": "L4.head2", "step4.1": "L0.head2", "step4.2": "9",
                "step5.1": "L4.head7"},
    "5-norms-neurons": {"step1.1": "171.6", "step3.1": "L7.mlp_value377", "step4.1": "L7.mlp_value377",
                        "step5.1": "L6.mlp_value256"},
    "6-two-prompts": {"step1.1": " Tokyo", "step1.2": "3", "step1.3": " Paris", "step2.2": "6", "step3.1": "L4.head1",
                      "step3.2": "3", "step3.3": "L4.head1"},
    "8-false-results": {"step1.1": "L4.head4", "step2.1": "99.42 %", "step2.2": "L0.head7", "step3.1": "L4.head1"},
    "7-causes": {"step1.1": "L4.head1", "step2.1": "99.4 %", "step3.1": "L0.head7", "step4.1": "35.21 %"},
}  # fmt: skip
TRIED = {
    "node": ["L4 H1", "L5 H7", "L0.head7", "L4.mlp_out", "L1.head3"], "token": [" Tokyo", " Japan", "Paris", " of"],
    "position": ["0", "1", "3", "5"], "number": ["1", "6", "52", "99.4", "1000"],
}  # fmt: skip


@cache
def model():
    return visit.load_model(MINI)


def run_of(lesson: Lesson, step: LessonStep) -> LearnerRun:
    state = address_of(lesson, step)
    acts = visit.capture(model(), state["prompt"])
    place = int(state.get("pos", -1))
    run = LearnerRun(ask(model(), acts, place, state.get("target") or None, state.get("distractor") or None))
    if step.page != "compare":
        return run
    return paired(run, LearnerRun(ask(model(), visit.capture(model(), state["prompt_b"]))))


MINIS = [name for name in shipped_lessons() if shipped_lesson(name).model == MINI]


@pytest.mark.parametrize("name", MINIS)
def test_expected_answers_are_accepted_and_others_are_told_apart(name):
    lesson = shipped_lesson(name)
    found = {}
    for step in lesson.steps:
        run = run_of(lesson, step)
        for question in step.questions:
            show = show_me(lesson, question, run)
            if question.kind == "free":
                continue
            verdict = judge(lesson, question, show, run)
            assert verdict.right is True, (question.key, show, verdict)
            if question.kind in ("choice", "order"):
                continue
            found[question.key] = show
            if question.show:
                assert judge(lesson, question, question.show, run).right, f"show of {question.key} is not accepted"
            tried = [judge(lesson, question, text, run) for text in TRIED[question.kind]]
            wrong = [one for one in tried if one.right is False]
            assert len(wrong) >= 2 and all(len(one.sentence) > 20 for one in wrong), question.key
            assert question.kind == "number" or len({one.sentence for one in wrong}) == len(wrong)
            assert verdict.sentence and "{" not in verdict.sentence and "–" not in verdict.sentence
    assert name not in EXPECTED or found == EXPECTED[name]


@pytest.mark.parametrize("name", MINIS)
def test_every_text_is_filled_from_the_run(name):
    lesson = shipped_lesson(name)
    for step in lesson.steps:
        run = run_of(lesson, step)
        texts = [step.text, *(t for q in step.questions for t in (q.text, *q.hints, *(w.sentence for w in q.wrong)))]
        for text in texts:
            told = filled(lesson, text, run)
            assert "{" not in told.replace("{yours", "").replace("{answer", ""), told
        for query in lesson.let.values():
            answer(run, query)


@pytest.mark.parametrize("name", MINIS)
def test_four_questions_are_asked_before_and_after_and_every_choice_is_explained(name):
    lesson = shipped_lesson(name)
    assert len(lesson.twice) == 4 and 10 <= lesson.minutes <= 20 and 2 <= len(lesson.goals) <= 4 and lesson.end
    rights = []
    for question in lesson.twice:
        for n, option in enumerate(question.options):
            verdict = judge(lesson, question, str(n))
            assert verdict.right is option.right and len(verdict.sentence) > 10
        rights.append(next(n for n, option in enumerate(question.options) if option.right))
    assert len(set(rights)) > 1, "the right one does not always stand at the same place"


def test_what_lesson_8_tells_of_other_texts_and_of_all_heads_is_so():
    """One head adds most on every text about a capital, and hardly any single head is needed."""
    for country in ("Japan", "France", "Egypt", "Peru"):
        acts = visit.capture(model(), f"The capital of {country} is the city of")
        run = LearnerRun(ask(model(), acts, -1))
        assert answer(run, parse_query("largest contribution among heads", {})).value == "L4.head1"
    table = visit.effects(model(), visit.capture(model(), "The capital of Japan is the city of"), "heads")
    assert (table["prob"] > table.attrs["before"]["prob"] - 0.01).all()


def test_both_texts_of_lesson_6_have_one_answer_with_and_without_not():
    said = []
    for text in ("The capital of Japan is the city of", "The capital of Japan is not the city of"):
        said.append(model().vocabulary[int(visit.capture(model(), text).logits[-1].argmax())])
    assert said == [" Tokyo", " Tokyo"]
