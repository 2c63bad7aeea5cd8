"""What is opened by choice stands in the address: a click, a link, the back button."""

from __future__ import annotations

import pytest
from browser import idle


@pytest.fixture(scope="module")
def page(page):
    page.goto(f"{page.address}/memory")
    page.get_by_text("The pattern of L4 H1", exact=False).first.wait_for(timeout=60_000)
    idle(page)
    return page


def opened(page) -> list[str]:
    return page.locator("details[open] > summary").all_inner_texts()


def test_a_click_opens_a_part_and_the_address_says_so(page):
    page.get_by_text("The pattern of L4 H1", exact=False).first.click()
    page.get_by_text("Every row adds up to 1", exact=False).wait_for(timeout=60_000)
    idle(page)
    assert page.url.endswith("opened=pattern") and len(opened(page)) == 1
    page.get_by_text("The life of a memory value", exact=False).first.click()
    page.get_by_label("Source token").wait_for(timeout=60_000)
    idle(page)
    assert page.url.endswith("opened=pattern%2Clife") and len(opened(page)) == 2


def test_a_link_opens_what_it_names(page):
    other = page.context.new_page()
    other.goto(f"{page.address}/memory?opened=life,nothing-of-this-name")
    other.get_by_label("Source token").wait_for(timeout=60_000)
    idle(other)
    assert ["life of a memory" in text for text in opened(other)] == [True]
    other.close()


def test_a_second_click_folds_it_and_the_address_forgets_it(page):
    for text in ("The life of a memory value", "The pattern of L4 H1"):
        page.get_by_text(text, exact=False).first.click()
        idle(page)
    assert "opened" not in page.url and opened(page) == [] and page.errors == []
