"""Lesson 3 on a trained model: nothing in the file is of visit-mini, its answers follow the model."""

from __future__ import annotations

import pytest

import visit
from visit import VisitError
from visit.exact.question import ask
from visit.lessons.check import judge, show_me
from visit.lessons.lesson import address_of
from visit.lessons.queries import LearnerRun
from visit.lessons.shipped import shipped_lesson


def test_the_answers_of_lesson_3_are_those_of_the_model_that_runs(smollm2):
    lesson = shipped_lesson("3-recall")
    expected = {"step1.1": " Tokyo", "step3.1": "L23.head4", "step4.1": "3", "step5.1": " Japanese"}
    for step in lesson.steps:
        run = LearnerRun(ask(smollm2, visit.capture(smollm2, address_of(lesson, step)["prompt"])))
        for question in step.questions:
            if question.answer is not None and step.page == "trace":  # some seconds here: a lesson does not wait for it
                with pytest.raises(VisitError, match="A trace takes long"):
                    show_me(lesson, question, run)
            elif question.answer is not None:
                shown = show_me(lesson, question, run)
                assert judge(lesson, question, shown, run).right and shown == expected.get(question.key, shown)
                assert question.key != "step3.1" or judge(lesson, question, "L4 H1", run).right is False
