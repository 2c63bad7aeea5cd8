"""The first screen of a page is its answer, at 1440 × 900, and no page is a scroll of everything."""

from __future__ import annotations

import pytest
from browser import idle, ready

SCREEN, MOST = 900, 2250  # px: one screen, and two and a half
NAMES = "prompt=When Mary and John went to the store, John gave a drink to&target= Mary&distractor= John"


@pytest.fixture
def screen(chromium, address):
    context = chromium.new_context(viewport={"width": 1440, "height": SCREEN})
    page = context.new_page()
    page.address = address
    yield page
    context.close()


def height(page) -> int:
    return page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollHeight")


def top(page, selector: str) -> float:
    return page.locator(selector).first.bounding_box()["y"]


@pytest.mark.parametrize("query", ["", NAMES])
def test_reading_map_and_the_opened_block_begin_on_the_first_screen(screen, query):
    screen.goto(f"{screen.address}/flow?{query}")
    ready(screen)
    idle(screen)
    opened = screen.locator(".frame").bounding_box()["y"]
    # the map may stand below the bar of a fit
    assert top(screen, ".story") < 260 and top(screen, ".lensmap table") < 450 and opened < SCREEN - 20
    assert height(screen) <= MOST


def test_a_short_prompt_has_a_bar_of_one_line_and_a_sentence_one_of_two(screen):
    bar = screen.locator(".st-key-prompt_line")
    screen.goto(f"{screen.address}/flow")
    ready(screen)
    idle(screen)
    one = bar.bounding_box()["height"]
    assert one < 50 and "Tokyo" in screen.get_by_role("group", name="What comes next").inner_text()
    screen.goto(f"{screen.address}/flow?{NAMES}")
    ready(screen)
    idle(screen)
    shown = screen.get_by_role("group", name="What comes next").inner_text()
    assert one < bar.bounding_box()["height"] < 110 and "Mary" in shown and "not" in shown and "John" in shown


def test_what_comes_next_is_unfolded_and_a_click_makes_a_word_the_target(screen):
    screen.goto(f"{screen.address}/flow")
    ready(screen)
    group = screen.get_by_role("group", name="What comes next")
    assert group.locator("button.word:visible").count() == 1
    group.get_by_text("9 more").click()
    assert group.locator("button.word:visible").count() == 10
    group.locator("button.word").nth(1).click()
    screen.wait_for_function("() => new URLSearchParams(location.search).get('target')")
    idle(screen)
    assert group.locator("button.target").count() == 1


@pytest.mark.parametrize("query", ["", "edits=L4.head1~zero@-1;L2.mlp_out~scale0.5@all"])
def test_what_if_answers_first(screen, query):
    screen.goto(f"{screen.address}/whatif?{query}")
    screen.get_by_text("most directly").first.wait_for(timeout=60_000)
    idle(screen)
    screen.get_by_text("Fitting a lens").wait_for(state="hidden", timeout=120_000)  # its bar goes when it is fitted
    answer = ".st-key-whatif_verdict" if query else ".st-key-section_parts"
    assert top(screen, answer) < 320 and height(screen) <= MOST
