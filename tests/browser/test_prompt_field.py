"""The prompt's field: keys, its height, and the box of a long prompt's tokens."""

from __future__ import annotations

import browser


def test_enter_runs_shift_enter_begins_a_line_and_a_long_prompt_stays_three_lines_high(page):
    page.goto(f"{page.address}/flow")
    browser.ready(page)
    field = page.get_by_label("Prompt", exact=True)
    low = field.bounding_box()["height"]
    field.fill("one")
    field.press("Shift+Enter")
    field.type("two")
    field.press("Enter")
    page.wait_for_function("new URLSearchParams(location.search).get('prompt') === 'one\\ntwo'")
    assert low < field.bounding_box()["height"] < 3 * low
    field.fill("the city of" + " the city of" * 40)
    field.press("Enter")
    page.wait_for_function("new URLSearchParams(location.search).get('prompt').length > 400")
    browser.idle(page)
    box = page.get_by_role("radiogroup", name="Tokens (")
    assert box.bounding_box()["height"] < 130 and box.get_by_role("radio").count() > 100
    assert box.get_by_role("radio", checked=True).is_visible()
    box.get_by_role("radio", checked=True).focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_function("new URLSearchParams(location.search).get('pos') === '0'")
    assert not page.errors


def test_a_word_typed_in_a_folded_field_does_not_come_back_when_another_has_taken_its_place(page):
    page.goto(f"{page.address}/flow?prompt=The+capital+of+Japan+is+the+city+of")
    browser.ready(page)
    page.get_by_role("button", name="More").first.click()
    word = page.get_by_role("textbox", name="Distractor")
    word.fill("Paris")
    word.press("Enter")
    page.get_by_text("has no space before it").wait_for()
    browser.idle(page)
    page.keyboard.press("Escape")
    word.wait_for(state="detached")
    page.get_by_role("button", name="Use “").click()
    page.wait_for_function("new URLSearchParams(location.search).get('distractor') === ' Paris'")
    browser.idle(page)
    page.get_by_role("button", name="Guide me").click()  # anything else
    page.get_by_role("button", name="Leave").wait_for()
    browser.idle(page)
    page.wait_for_timeout(500)
    assert "distractor=+Paris" in page.url and not page.errors
