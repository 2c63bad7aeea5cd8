"""Compare, as only a browser can see it: two graphs that move together, and clicks that choose on both sides."""

from __future__ import annotations

import pytest
from browser import idle, soon

from visit.app.state import DEFAULT_PROMPT, DEFAULT_PROMPT_B


@pytest.fixture(scope="module")
def page(page):
    page.goto(f"{page.address}/compare?detail=4w&opened=flows&prompt_b={DEFAULT_PROMPT_B}")
    page.locator(".nodes").nth(1).wait_for(timeout=60_000)
    idle(page)
    return page


def test_pointing_at_a_node_lights_its_twin(page):
    frames = page.locator(".frame")
    frames.nth(0).locator(".nodes .n", has_text="H1").last.hover()
    assert soon(lambda: all(frames.nth(i).locator(".lit .n").count() > 3 for i in range(2)))
    page.mouse.move(5, 5)


def test_both_graphs_scroll_and_zoom_together(page):
    frames = page.locator(".frame")
    for leader in (0, 1):
        frames.nth(leader).hover(position={"x": 20, "y": 8})
        frames.nth(leader).evaluate("(f, to) => { f.scrollLeft = to; }", 120 + 200 * leader)
        wanted = [120 + 200 * leader] * 2
        assert soon(lambda wanted=wanted: [frames.nth(i).evaluate("f => f.scrollLeft") for i in range(2)] == wanted)

    def widths() -> list[str]:
        return [frames.nth(i).locator("svg").first.evaluate("s => s.style.width") for i in range(2)]

    before = widths()
    page.locator("button[aria-label='zoom in']").nth(1).click()
    assert soon(lambda: before[0] != widths()[0] == widths()[1])
    page.get_by_text("120 %").first.click()


def test_a_click_selects_on_both_sides_and_a_row_of_changes_does_too(page):
    frames = page.locator(".frame")
    frames.nth(1).locator(".nodes .n", has_text="H7").last.click()
    page.locator(".inspector:visible h3").nth(1).wait_for(timeout=60_000)
    idle(page)
    titles = page.locator(".inspector:visible h3").all_inner_texts()
    assert len(titles) == 2 and titles[0] == titles[1] and titles[0].startswith("Head L")
    assert "node=L" in page.url


def test_the_aligned_tokens_are_one_tab_stop_that_the_arrow_keys_walk(page):
    chips = page.locator(".pairs .chip")
    assert chips.count() == 16 and page.locator(".pairs .chip[tabindex='0']").count() == 1
    chips.first.focus()
    walked = []
    for key in ("ArrowRight", "ArrowDown", "End", "ArrowUp", "Home"):
        page.keyboard.press(key)
        walked.append(page.locator(".pairs .chip:focus").get_attribute("title").split(":")[0])
    assert walked == [f"{side}, position {pos}" for side, pos in (("A", 1), ("B", 1), ("B", 7), ("A", 7), ("A", 0))]
    assert page.locator(".pairs .chip[tabindex='0']").count() == 1


def test_the_user_corrects_the_alignment(page):
    chips = page.locator(".grid .chip")
    page.get_by_text("Correct the alignment").click()
    assert "partner is wrong" in page.locator(".say").inner_text()
    chips.nth(6).click()
    chips.nth(6).click()
    idle(page)
    assert "align=3%3A" in page.url and page.locator(".col.deleted, .col.inserted").count() == 2
    page.get_by_text("Undo my corrections").click()
    idle(page)
    assert "align" not in page.url and page.locator(".col.replaced").count() == 1


def test_below_1100_pixels_the_graphs_stack(page):
    def parted() -> list[float]:
        one, other = (page.locator(".frame").nth(i).bounding_box() for i in range(2))
        return [other["x"] - one["x"], other["y"] - one["y"]]

    page.set_viewport_size({"width": 1000, "height": 1300})
    assert soon(lambda: parted()[1] > 100 and abs(parted()[0]) < 5)
    page.set_viewport_size({"width": 1440, "height": 1300})
    assert soon(lambda: abs(parted()[1]) < 5)


def test_nothing_was_thrown_and_nothing_runs(page):
    hostile = "prompt=<img src=x onerror=window.hit=1>&prompt_b=<script>window.hit=1</script>"
    page.goto(f"{page.address}/compare?opened=flows&{hostile}")
    page.locator(".nodes").nth(1).wait_for(timeout=60_000)
    idle(page)
    assert page.evaluate("window.hit") is None and page.errors == []


def test_fields_keep_their_values_when_the_page_changes(page):
    from playwright.sync_api import expect

    def values() -> list[str]:
        page.get_by_role("button", name="Controls").last.click()
        fields = [page.get_by_label(name, exact=True) for name in ("Heads per block", "Values per head")]
        for one in fields:
            expect(one).not_to_have_value("")
        found = [one.input_value() for one in fields]
        page.keyboard.press("Escape")
        return found

    page.goto(f"{page.address}/flow?values=3&opened=flows&prompt_b={DEFAULT_PROMPT_B}")
    page.locator(".nodes").first.wait_for(timeout=60_000)
    idle(page)
    assert values() == ["all", "3"]
    page.get_by_role("link", name="Compare").click()
    page.locator(".nodes").nth(1).wait_for(timeout=60_000)
    idle(page)
    assert page.get_by_label("Prompt A", exact=True).input_value() == DEFAULT_PROMPT and values() == ["all", "3"]
    page.get_by_role("link", name="Flow graph").click()
    page.get_by_role("group", name="What comes next").wait_for(timeout=60_000)
    idle(page)
    assert page.get_by_label("Prompt", exact=True).input_value() == DEFAULT_PROMPT and values() == ["all", "3"]
    page.go_back()
    if "/compare" not in page.url:  # an address that was completed while a page ran is an entry of its own
        page.go_back()
    page.get_by_label("Prompt B", exact=True).wait_for(timeout=60_000)
    idle(page)
    assert page.get_by_label("Prompt B", exact=True).input_value() == DEFAULT_PROMPT_B and values() == ["all", "3"]


def test_a_click_in_a_sentence_brings_the_graph_into_sight(page):
    page.set_viewport_size({"width": 1440, "height": 600})
    page.goto(f"{page.address}/flow")
    page.locator(".nodes").first.wait_for(timeout=60_000)
    idle(page)
    top = page.locator(".frame").bounding_box()["y"]
    assert top > 600, "the graph lies below"
    page.locator(".story button.node").first.click()
    assert soon(lambda: page.locator(".frame").bounding_box()["y"] < 450)
