"""Lesson 3 in a real browser: a prediction, clicks on a head and on a token, the learner's own text, the end."""

from __future__ import annotations

import json
import re

import pytest
from browser import idle, ready


def panel(page):
    return page.locator(".st-key-lesson_panel")


def type_answer(page, key: str, text: str) -> None:
    field = page.locator(f".st-key-ask_{key}").get_by_role("textbox")
    field.fill(text)
    field.press("Enter")
    idle(page)


def press(page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).first.click()
    idle(page)


def head(page, word: str, name: str):
    """A head of the open block, by the word it reads and its name."""
    return page.locator(".nodes .n").filter(has_text=word).filter(has_text=name).first


@pytest.fixture(scope="module")
def lesson(page):
    page.goto(f"{page.address}/learn")
    page.get_by_text("A head recalls").first.wait_for(timeout=60_000)
    idle(page)
    return page


def test_a_lesson_begins_with_four_questions(lesson):
    lesson.locator(".st-key-begin_3-recall").get_by_role("button").click()
    lesson.get_by_text("What do you think now?").wait_for(timeout=60_000)
    idle(lesson)
    assert "lesson=3-recall" in lesson.url and lesson.get_by_role("radiogroup").count() >= 4
    option = lesson.locator("label").filter(has_text="It looks at earlier words and copies something")
    option.click()
    lesson.wait_for_function("e => e.querySelector('input').checked", arg=option.element_handle(), timeout=60_000)
    idle(lesson)
    idle(lesson)
    press(lesson, "Begin with step 1")
    panel(lesson).wait_for(timeout=60_000)


def test_a_prediction_comes_before_the_answer(lesson):
    idle(lesson)
    assert "step=1" in lesson.url and lesson.locator(".nodes .n").count() == 0
    assert "99.5" not in lesson.locator("[data-testid=stMain]").inner_text()
    type_answer(lesson, "step1_1", "tokyo")
    lesson.locator(".st-key-part_map").wait_for(timeout=60_000)
    assert lesson.locator(".nodes .n").count() == 0  # the graph is asked about later
    assert "99.5\u00a0%" in panel(lesson).inner_text()
    press(lesson, "Next")


def test_a_wrong_number_is_told_where_to_look(lesson):
    lesson.locator(".st-key-ask_step2_1").wait_for(timeout=60_000)
    type_answer(lesson, "step2_1", "3")
    assert "“Tokyo” comes later" in panel(lesson).inner_text()
    type_answer(lesson, "step2_1", "6")
    assert "After block 6" in panel(lesson).inner_text()
    press(lesson, "Next")


def test_a_head_is_answered_by_a_click_in_the_graph(lesson):
    lesson.locator(".st-key-ask_step3_1").wait_for(timeout=60_000)
    ready(lesson)
    head(lesson, "·Daniel", "H7").click()
    field = lesson.locator(".st-key-ask_step3_1").get_by_role("textbox")
    lesson.wait_for_function("e => e.value === 'L4.head7'", arg=field.element_handle(), timeout=60_000)
    press(lesson, "Check")
    assert "comes second" in panel(lesson).inner_text()
    head(lesson, "·Tokyo", "H1").click()
    field = lesson.locator(".st-key-ask_step3_1").get_by_role("textbox")
    lesson.wait_for_function("e => e.value === 'L4.head1'", arg=field.element_handle(), timeout=60_000)
    press(lesson, "Check")
    assert "+2.5 logits" in panel(lesson).inner_text()
    press(lesson, "Next")


def test_a_position_is_answered_by_a_click_on_a_token(lesson):
    lesson.locator(".st-key-ask_step4_1").wait_for(timeout=60_000)
    idle(lesson)
    assert "/memory" in lesson.url
    lesson.locator(".token").nth(3).click()
    field = lesson.locator(".st-key-ask_step4_1").get_by_role("textbox")
    lesson.wait_for_function("e => e.value === '3'", arg=field.element_handle(), timeout=60_000)
    press(lesson, "Check")
    assert "96\u00a0% of its attention" in panel(lesson).inner_text()
    press(lesson, "Next")


def test_three_hints_lead_to_the_answer(lesson):
    lesson.locator(".st-key-ask_step5_1").wait_for(timeout=60_000)
    for name in ("A nudge", "A suggestion", "Show me"):
        press(lesson, name)
    assert "reads “Tokyo” first" in panel(lesson).inner_text()
    press(lesson, "Next")


def test_an_experiment_is_read_from_the_maps_of_the_trace(lesson):
    lesson.locator(".st-key-ask_step6_1").wait_for(timeout=60_000)
    assert "/trace" in lesson.url
    lesson.get_by_text("What brings the answer back").wait_for(timeout=60_000)  # it is traced unasked
    idle(lesson)
    assert lesson.get_by_text("Put back at").count() == 0  # the page's own sentence would tell it
    type_answer(lesson, "step6_1", "Japan")
    assert "nearly all of it" in panel(lesson).inner_text()
    type_answer(lesson, "step6_2", "5")
    assert "too late already" in panel(lesson).inner_text()
    type_answer(lesson, "step6_2", "4")
    assert "L4 H1 is one of them" in panel(lesson).inner_text()
    press(lesson, "Next")


def test_the_own_text_is_checked(lesson):
    lesson.locator(".st-key-ask_step7_1").wait_for(timeout=60_000)
    ready(lesson)
    prompt = lesson.get_by_role("textbox", name="Prompt")
    prompt.fill("The capital of France is the city of")
    prompt.press("Enter")
    panel(lesson).get_by_text("Checked on your own text").wait_for(timeout=60_000)
    idle(lesson)
    type_answer(lesson, "step7_1", "L4 H1")
    assert re.search(r"On “The capital of France.*for “Paris”", panel(lesson).inner_text())
    press(lesson, "Next")


def test_the_end_gives_a_result_file(lesson):
    lesson.get_by_text("The same questions again.").wait_for(timeout=60_000)
    idle(lesson)
    press(lesson, "See the end")
    lesson.get_by_text("Download your result").wait_for(timeout=60_000)
    idle(lesson)
    with lesson.expect_download() as caught:
        lesson.get_by_role("button", name="Download your result").click()
    found = json.loads(caught.value.path().read_text(encoding="utf-8"))
    given = {one["question"]: one for one in found["answers"]}
    assert given["step3.1"]["given"] == "L4.head1" and given["step3.1"]["tries"] == 2
    assert given["step5.1"]["hints"] == 3 and given["before.1"]["right"] and len(found["runs"]) == 2
    assert not lesson.errors
