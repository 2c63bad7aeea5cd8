"""The attention memory, as only a browser can see it: links, clicks on the map, pages of a long prompt."""

from __future__ import annotations

from browser import idle


def test_a_memory_value_of_the_flow_graph_leads_here(page):
    page.goto(f"{page.address}/flow?node=L4.head1.value3&detail=4w")
    page.locator(".inspector:visible").wait_for(timeout=60_000)
    page.get_by_text("Open in attention memory").click()
    page.wait_for_url("**/memory*")
    page.get_by_text("L4 H1 at position 7").first.wait_for(timeout=60_000)
    idle(page)
    assert "head=L4.head1" in page.url and "source=3" in page.url and "node=L4.head1.value3" in page.url


def test_a_click_on_the_map_opens_a_head(page):
    page.goto(f"{page.address}/memory")
    page.get_by_text("L4 H1 at position 7").first.wait_for(timeout=60_000)
    idle(page)
    page.get_by_role("grid").first.get_by_role("gridcell", name="L4 H7").click()
    page.get_by_text("L4 H7 at position 7").first.wait_for(timeout=60_000)
    assert page.errors == []


def test_a_long_prompt_has_pages(page):
    page.goto(f"{page.address}/memory?order=source_pos&prompt={'the city of ' * 30}")
    page.get_by_text("positions each").wait_for(timeout=60_000)
    idle(page)
    shown = page.get_by_text("what is shown makes").inner_text()
    page.locator("[data-testid=stNumberInput] button").nth(1).click()
    idle(page)
    assert page.locator("[data-testid=stNumberInput] input").input_value() == "2"
    assert page.get_by_text("what is shown makes").inner_text() != shown and page.errors == []


def test_a_head_that_is_chosen_leaves_the_picture_open(page):
    page.goto(f"{page.address}/memory?opened=head-picture")
    for head in ("L4 H7", "L1 H6"):
        page.get_by_role("grid").first.wait_for(timeout=60_000)
        idle(page)
        page.get_by_role("grid").first.get_by_role("gridcell", name=head).click()
        page.get_by_text(f"{head} as a picture").wait_for(timeout=60_000)
        idle(page)
        picture = page.get_by_test_id("stExpander").filter(has_text=f"{head} as a picture")
        picture.locator(".frame svg").wait_for(timeout=60_000)
        assert "opened=head-picture" in page.url
