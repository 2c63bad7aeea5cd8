"""A term in a sentence tells its definition to the mouse, the keyboard and a finger, and leads to the glossary."""

from __future__ import annotations

import pytest
from browser import ready, soon

from visit.text.glossary import GLOSSARY


@pytest.fixture(scope="module")
def flow(page):
    page.goto(f"{page.address}/flow")
    ready(page)
    return page


def term(page, word: str):
    return page.locator(".story").first.locator(".term", has_text=word).first


def test_the_pointer_opens_the_note_and_closes_it(flow):
    term(flow, "pattern").hover()
    note = flow.locator(".story .note")
    note.wait_for()
    assert GLOSSARY["pattern"] in note.inner_text()
    note.hover()  # it stays while the pointer is on it: its link can be reached
    flow.wait_for_timeout(400)
    assert note.count() == 1
    flow.get_by_role("heading", name="Flow graph", exact=True).hover()
    note.wait_for(state="detached")


def test_the_keyboard_opens_it_reaches_the_link_and_escape_closes_it(flow):
    word = term(flow, "logits")
    word.focus()
    note = flow.locator(".story .note")
    note.wait_for()
    told = word.evaluate("b => b.getRootNode().getElementById(b.getAttribute('aria-describedby')).textContent")
    assert told == GLOSSARY["logit"] and word.get_attribute("aria-expanded") == "true"
    flow.keyboard.press("Tab")
    assert note.locator("a").evaluate("a => a.getRootNode().activeElement === a")
    flow.keyboard.press("Escape")
    note.wait_for(state="detached")
    assert word.get_attribute("aria-expanded") == "false"


def test_the_words_of_a_sentence_stay_what_they_are(flow):
    line = flow.locator(".story p", has_text="pattern").first
    before = line.inner_text()
    assert "pattern 0." in before and "GLOSSARY" not in before.upper()


def test_a_part_with_a_node_still_selects_it_and_says_what_its_word_means(flow):
    part = flow.locator(".story").first.locator("button.node", has_text="memory value").first
    assert GLOSSARY["value"] in part.get_attribute("title")
    part.click()
    flow.wait_for_function("() => /value/.test(new URLSearchParams(location.search).get('node'))", timeout=60_000)


def test_the_link_opens_the_glossary_at_the_term(flow):
    ready(flow)
    term(flow, "plain lens").hover()
    with flow.context.expect_page() as opened:
        flow.locator(".story .note a").click()
    there = opened.value
    here = there.locator("article.here")
    here.wait_for(timeout=60_000)
    assert there.url.endswith("#lens") and GLOSSARY["lens"] in here.inner_text()
    assert soon(lambda: 0 <= here.bounding_box()["y"] < 400)
    there.close()


def test_a_finger_opens_the_note_within_the_screen_and_closes_it_elsewhere(chromium, address):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{address}/flow")
    ready(page)
    for word in ("pattern", "plain lens"):
        term(page, word).tap()
        note = page.locator(".story .note")
        note.wait_for()
        box = note.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    page.get_by_role("heading", name="Flow graph", exact=True).tap()
    note.wait_for(state="detached")
    context.close()
