"""Patch B into A, as only a browser can see it: a cell's click is a run with that patch, and there is a way back."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from browser import idle

from visit.app.state import DEFAULT_PROMPT_B


@pytest.fixture(scope="module")
def page(page):
    page.goto(f"{page.address}/compare?opened=patch&prompt_b={DEFAULT_PROMPT_B}")
    page.get_by_text("nearly the whole answer").wait_for(timeout=120_000)  # all is measured, at once or in a run
    idle(page)
    return page


def patches(page):
    return page.get_by_role("grid", name="moves the answer from A")


def cell(page, words: str):
    return patches(page).get_by_role("gridcell", name=words)


def edits(page) -> list[str]:
    return parse_qs(urlsplit(page.url).query).get("edits", [""])


def test_a_click_runs_a_with_that_patch_and_draws_its_graph(page):
    cell(page, "Block 2, “·Japan” ← “·France”").click()
    page.get_by_text("with B’s value the answer moves").first.wait_for(timeout=60_000)
    page.locator(".st-key-part_patch .nodes").first.wait_for(timeout=60_000)
    idle(page)
    assert edits(page) == ["L2.resid_pre~from@3"]
    assert "the first choice is “·Paris”" in page.locator(".st-key-whatif_verdict").inner_text()
    assert cell(page, "Block 2, “·Japan” ← “·France”").get_attribute("aria-selected") == "true"


def test_another_cell_takes_its_place_by_the_keyboard_and_back_shows_the_first_again(page):
    cell(page, "Block 2, “·Japan” ← “·France”").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_function("() => decodeURIComponent(location.search).includes('L3.resid_pre~from@3')", timeout=60_000)
    idle(page)
    assert edits(page) == ["L3.resid_pre~from@3"], "one patch at a time"
    page.go_back()
    page.wait_for_function("() => decodeURIComponent(location.search).includes('L2.resid_pre~from@3')", timeout=60_000)
    idle(page)
    assert cell(page, "Block 2, “·Japan” ← “·France”").get_attribute("aria-selected") == "true"
    assert cell(page, "Block 3, “·Japan” ← “·France”").get_attribute("aria-selected") is None


def test_a_number_of_the_sentence_leads_to_its_cell(page):
    page.locator(".st-key-part_patch .story").get_by_text("%").filter(has_text="99 %").last.click()
    page.wait_for_function("() => decodeURIComponent(location.search).includes('L7.resid_pre~from@-1')", timeout=60_000)
    idle(page)
    assert cell(page, "Block 7, “·of” (position 7)").get_attribute("aria-selected") == "true"


def test_it_stands_in_the_list_of_what_if_and_one_button_leads_back(page):
    page.get_by_role("button", name="Open in What if").click()
    page.wait_for_url("**/whatif?**", timeout=60_000)
    page.get_by_text("L7 stream in").first.wait_for(timeout=60_000)
    idle(page)
    page.get_by_role("button", name="Back to the map of patches").click()
    page.wait_for_url("**/compare?**", timeout=60_000)
    patches(page).wait_for(timeout=60_000)
    idle(page)
    assert cell(page, "Block 7, “·of” (position 7)").get_attribute("aria-selected") == "true"


def test_a_link_shows_the_same_and_taking_the_patch_out_leaves_the_map(page):
    page.goto(page.url)
    page.locator(".st-key-part_patch .nodes").first.wait_for(timeout=90_000)
    idle(page)
    page.get_by_role("button", name="Take the patch out").click()
    page.get_by_text("Click a cell to run A with this patch").wait_for(timeout=60_000)
    idle(page)
    assert edits(page) == [""] and patches(page).is_visible() and not page.errors


def test_the_scale_says_what_0_and_1_are_and_the_quick_map_what_its_dots_are(page):
    scale = page.locator(".st-key-part_patch .scale")
    assert scale.locator(".step").all_inner_texts()[2::2] == ["0 as A", "1 as B"]
    page.get_by_role("button", name="quick: estimated").or_(page.get_by_text("quick: estimated")).first.click()
    page.get_by_text("measured; all others are estimates").first.wait_for(timeout=60_000)
    idle(page)
    assert patches(page).locator(".marked").count() == 10
