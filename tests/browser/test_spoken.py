"""What changed is said once and politely; terms are one stop of Tab and reached with the arrow keys."""

from __future__ import annotations

import pytest
from browser import idle, ready

LINE = "() => document.getElementById('visit-live').textContent"
COUNTED = """() => {
  window.told = [];
  new MutationObserver(() => window.told.push(document.getElementById('visit-live').textContent))
    .observe(document.getElementById('visit-live'), { childList: true, characterData: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def flow(page):
    page.goto(f"{page.address}/flow")
    ready(page)
    idle(page)
    return page


def test_a_change_is_said_once_in_one_sentence(flow):
    line = flow.locator("#visit-live")
    assert line.count() == 1 and line.get_attribute("role") == "status"
    assert flow.evaluate(LINE) == "“Tokyo” 99.5 %, position 7 (·of)"
    flow.evaluate(COUNTED)
    flow.get_by_role("radio", name="·Japan").click()
    flow.wait_for_function("() => window.told.length", timeout=60_000)
    idle(flow)
    idle(flow)  # what is measured beside the page says nothing more
    told = flow.evaluate("() => window.told")
    assert len(told) == 1 and told[0].endswith("position 3 (·Japan)")


def test_the_line_outlives_a_change_of_page(flow):
    flow.evaluate("() => { window.line = document.getElementById('visit-live') }")
    flow.get_by_role("link", name="Attention memory").click()
    flow.get_by_role("heading", name="All heads", exact=True).wait_for(timeout=60_000)
    flow.wait_for_function("() => /head L\\d+ H\\d+/.test(document.getElementById('visit-live').textContent)")
    assert flow.evaluate("() => window.line === document.getElementById('visit-live')")
    assert flow.locator("#visit-live").count() == 1


def test_terms_are_one_stop_of_tab_and_arrows_go_to_the_others(page):
    page.goto(f"{page.address}/flow")
    ready(page)
    idle(page)
    terms = page.locator(".story").first.locator(".term")
    assert terms.count() > 3
    assert terms.evaluate_all("all => all.map((t) => t.tabIndex)") == [0] + [-1] * (terms.count() - 1)
    page.locator("textarea").first.focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        if terms.first.evaluate("t => t.getRootNode().activeElement === t"):
            break
    page.keyboard.press("ArrowRight")
    assert terms.nth(1).evaluate("t => t.getRootNode().activeElement === t && t.tabIndex === 0")
    note = page.locator(".story .note")
    assert note.count() == 1 and "other terms" in note.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # there is none before the first
    assert terms.first.evaluate("t => t.getRootNode().activeElement === t")
    assert page.errors == []
