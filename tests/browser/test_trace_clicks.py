"""The causal trace, as only a browser can see it: words made unreadable by clicks, cells by clicks and arrow keys."""

from __future__ import annotations

from browser import idle


def test_a_click_on_a_word_makes_it_unreadable_too(page):
    page.goto(f"{page.address}/trace?samples=2")
    page.get_by_text("With “·Japan” made unreadable").wait_for(timeout=60_000)
    idle(page)
    page.locator(".st-key-subject_line").get_by_role("button", name="·capital").click()
    page.get_by_text("With “·capital … Japan” made unreadable").wait_for(timeout=60_000)
    assert "subject=%401%2C3" in page.url and page.errors == []


def test_a_cell_is_chosen_by_click_and_by_key_and_leads_to_the_flow(page):
    page.goto(f"{page.address}/trace?samples=2")
    grid = page.get_by_role("grid", name="Attention of 3 blocks")
    grid.wait_for(timeout=60_000)
    idle(page)
    grid.get_by_role("gridcell", name="Attention of blocks 3 to 5 (around 4) at “·of” (position 7)").click()
    page.get_by_text("put back alone").wait_for(timeout=60_000)
    idle(page)
    assert "cell=attn_out.4.7" in page.url
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_url("**cell=attn_out.5.7**")
    idle(page)
    page.get_by_role("button", name="See it in the flow graph").click()
    page.wait_for_url("**/flow*")
    idle(page)
    assert "node=L5.attn_out" in page.url and page.errors == []
