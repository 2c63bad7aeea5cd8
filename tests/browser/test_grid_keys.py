"""Maps that are walked with the arrow keys: one Tab stop each, every cell spoken, Enter chooses, a table behind it."""

from __future__ import annotations

import pytest
from browser import idle

FOCUSED = """() => {
  let e = document.activeElement;
  while (e && e.shadowRoot && e.shadowRoot.activeElement) e = e.shadowRoot.activeElement;
  return e && e.getAttribute("aria-label");
}"""


def focused(page) -> str:
    return page.evaluate(FOCUSED) or ""


def grid(page, label: str):
    return page.get_by_role("grid", name=label)


@pytest.fixture(scope="module")
def memory(page):
    page.goto(f"{page.address}/memory?head=L4.head1&opened=pattern")
    page.get_by_text("L4 H1 at position 7").first.wait_for(timeout=60_000)
    idle(page)
    return page


def test_a_grid_says_what_it_is_and_every_cell_what_it_holds(memory):
    heads = grid(memory, "of every head of every layer")
    assert heads.get_by_role("columnheader").count() == 9 and heads.get_by_role("rowheader").count() == 8
    cells = heads.get_by_role("gridcell")
    assert cells.count() == 64
    chosen = heads.get_by_role("gridcell", name="L4 H1", selected=True)
    assert "contribution in logits: +2.5" in chosen.get_attribute("aria-label")
    assert heads.locator('[tabindex="0"]').count() == 1  # one stop, at the head looked at
    assert heads.locator('[tabindex="0"]').get_attribute("aria-label").startswith("L4 H1;")


def test_arrows_walk_home_and_end_lead_to_the_ends_and_enter_chooses(memory):
    heads = grid(memory, "of every head of every layer")
    heads.locator('[tabindex="0"]').focus()
    for key, where in (
        ("ArrowRight", "L4 H2"), ("ArrowUp", "L5 H2"), ("ArrowLeft", "L5 H1"), ("End", "L5 H7"),
        ("ArrowRight", "L5 H7"), ("Home", "L5 H0"), ("Control+End", "L0 H7"),
        ("ArrowDown", "L0 H7"), ("Control+Home", "L7 H0"),
    ):  # fmt: skip
        memory.keyboard.press(key)
        assert focused(memory).startswith(f"{where};"), (key, focused(memory))
    assert heads.locator('[tabindex="0"]').count() == 1
    memory.locator(".tip:visible").get_by_text("L7 H0").wait_for()  # what is spoken can be seen, too
    memory.keyboard.press("Tab")
    assert "L7" not in focused(memory)
    memory.keyboard.press("Shift+Tab")
    assert focused(memory).startswith("L7 H0;")
    memory.keyboard.press("Enter")
    memory.get_by_text("L7 H0 at position 7").first.wait_for(timeout=60_000)
    idle(memory)
    assert focused(memory).startswith("L7 H0;")  # a rerun does not take the cursor away
    memory.goto(f"{memory.address}/memory?head=L4.head1&opened=pattern")
    memory.get_by_text("L4 H1 at position 7").first.wait_for(timeout=60_000)
    idle(memory)


def test_a_pattern_is_walked_where_it_has_cells_and_chooses_the_position_that_looks(memory):
    pattern = grid(memory, "How the head divides its attention")
    assert pattern.locator(".cell").count() == 36
    pattern.locator('[tabindex="0"]').focus()
    memory.keyboard.press("Control+End")
    assert focused(memory).startswith("·of looks at ·of;")
    memory.keyboard.press("ArrowRight")  # nothing there: no token looks ahead
    memory.keyboard.press("ArrowUp")
    assert focused(memory).startswith("·city looks at ·city;")  # the row above is shorter
    memory.keyboard.press("Enter")
    memory.get_by_text("at position 6").first.wait_for(timeout=60_000)


def test_where_do_they_part_is_walked_and_lists_the_same(page):
    page.goto(f"{page.address}/compare?prompt_b=The capital of France is the city of")
    page.get_by_role("heading", name="Where do they part?").wait_for(timeout=60_000)
    idle(page)
    apart = grid(page, "after every block at every pair of tokens")
    count = apart.locator(".cell").count()
    apart.locator('[tabindex="0"]').focus()
    page.keyboard.press("Control+End")
    page.keyboard.press("ArrowUp")
    assert "after: block 0" in focused(page)
    page.keyboard.press("Enter")
    page.wait_for_function("() => new URLSearchParams(location.search).get('detail') === '0w'", timeout=60_000)
    assert count == 9 * 8 and page.errors == []


def test_the_lens_map_has_one_tab_stop_and_home_and_end(page):
    page.goto(f"{page.address}/flow")
    lens = grid(page, "The stream, read after every block at every token")
    lens.locator("td button").first.wait_for(timeout=60_000)
    idle(page)
    stop = lens.locator('[tabindex="0"]')
    assert stop.count() == 1 and "at ·of (position 7)" in stop.get_attribute("aria-label")  # where one looks
    lens.locator("tr:has(th:text-is('block 2')) button").nth(1).focus()
    page.keyboard.press("End")
    assert "after block 2, at ·of (position 7)" in focused(page)
    page.keyboard.press("Control+End")
    assert "after embedding, at ·of (position 7)" in focused(page)
    page.keyboard.press("Home")
    assert "after embedding, at The (position 0)" in focused(page)


def test_on_a_phone_the_lens_map_is_a_list_of_blocks_of_one_token(chromium, address):
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{address}/flow")
    lens = grid(page, "The stream, read after every block")
    lens.locator("td button").first.wait_for(timeout=60_000)
    idle(page)
    rows = lens.locator("tbody tr")
    assert rows.count() == 9 and rows.first.inner_text().split() == ["block", "7", "·Tokyo", "99.5", "%"]
    frame = lens.locator("..").evaluate("f => [f.scrollHeight - f.clientHeight, f.scrollWidth - f.clientWidth]")
    assert frame == [0, 0]  # nothing is hidden in a scroll of its own
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    lens.get_by_role("button", name="the token before").click()
    assert "·city (6)" in lens.locator("thead").inner_text()
    rows.nth(5).locator("button").click()  # block 2
    page.wait_for_function(
        "() => /pos=6/.test(location.search) && /detail=2w/.test(location.search)",
        timeout=60_000,
    )
    context.close()


def test_a_lens_map_that_is_scrolled_says_how_many_tokens_lie_before(page):
    page.set_viewport_size({"width": 1440, "height": 1000})
    page.goto(f"{page.address}/flow?prompt=When Mary and John went to the store, John gave a drink to")
    sheet = page.locator(".lensmap .sheet")
    sheet.locator("thead .chosen").wait_for(timeout=60_000)
    idle(page)
    inside = "(e) => { const a = e.getBoundingClientRect(), b = e.closest('.sheet').getBoundingClientRect(); "
    inside += "return a.left >= b.left - 1 && a.right <= b.right + 1; }"
    assert sheet.locator("thead .chosen").evaluate(inside)
    assert sheet.locator("tbody th").first.evaluate(inside)  # names of rows stay where the map is scrolled
    assert "left" in sheet.get_attribute("class")
    more = sheet.locator(".corner button")
    assert int(more.inner_text().split()[1]) >= 3
    box = more.bounding_box()  # where it stands: a click by its locator would scroll the map first, and move it away
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_function("e => e.scrollLeft === 0", arg=sheet.element_handle())
    sheet.locator(".corner").get_by_text("after").wait_for()
    assert "left" not in sheet.get_attribute("class") and "right" in sheet.get_attribute("class")


def test_the_part_of_the_graph_that_has_the_focus_is_ringed_above_what_is_dimmed(page):
    page.goto(f"{page.address}/flow")
    page.locator(".visit .n").first.wait_for(timeout=60_000)
    idle(page)
    page.get_by_label("Find a word in any top 10").focus()
    for _ in range(4):
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    ring = page.locator(".visit .ring.focus")
    ring.wait_for()
    assert ring.count() == 1 and page.locator(".visit svg.dim").count() == 1
    after = "e => !!(e.compareDocumentPosition(e.ownerSVGElement.querySelector('.veil')) & 2)"
    assert ring.evaluate(after)  # drawn later, so above
    page.keyboard.press("Shift+Tab")
    ring.wait_for(state="detached")
