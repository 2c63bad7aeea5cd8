"""*Share*, *Projector* and the doors in a browser: what is copied, what a room sees, where one comes in."""

from __future__ import annotations

from urllib.parse import urlparse

import browser


def test_the_link_that_is_shown_opens_the_same_view(page):
    page.goto(f"{page.address}/flow?node=L4.head1")
    browser.ready(page)
    page.get_by_role("button", name="Share").click()
    field = page.get_by_label("Link to this view")
    field.wait_for()
    assert field.input_value() == page.url
    page.get_by_role("img", name="QR code of the link").wait_for()
    assert page.get_by_text("of this computer alone").is_visible()
    page.get_by_role("button", name="Copy", exact=True).click()
    page.get_by_role("button", name="Copied").wait_for()
    page.keyboard.press("Escape")


def test_projector_mode_is_large_has_no_sidebar_and_is_left_by_a_button(page):
    page.goto(f"{page.address}/glossary")
    page.get_by_role("button", name="Projector").wait_for()
    size = "() => parseFloat(getComputedStyle(document.querySelector('h1')).fontSize)"
    small = page.evaluate(size)
    page.get_by_role("button", name="Projector").click()
    leave = page.get_by_role("button", name="Leave projector mode")
    leave.wait_for()
    browser.idle(page)
    assert page.evaluate(size) > 1.3 * small and "projector=1" in urlparse(page.url).query
    assert not page.locator("[data-testid=stSidebar]").is_visible()
    leave.click()
    page.get_by_role("button", name="Projector", exact=True).wait_for()
    browser.idle(page)
    assert page.evaluate(size) == small and page.locator("[data-testid=stSidebar]").is_visible()
    assert not page.errors


def test_a_room_sees_the_prompt_and_the_graph_and_what_is_pointed_at_has_its_note_beside_it(page):
    page.goto(f"{page.address}/flow?projector=1")
    browser.ready(page)
    shown = (
        "(all) => all.filter((e) => e.getClientRects().length).map((e) => e.className.match(/st-key-part_(\\w+)/)[1])"
    )
    assert page.locator("[class*=st-key-part_]").evaluate_all(shown) == ["prompt", "graph"]
    node = page.locator(".nodes .n", has_text="H7").first
    node.hover()
    note = page.locator(".tip").first
    note.wait_for()
    at, beside = node.bounding_box(), note.bounding_box()
    assert 0 <= beside["y"] - (at["y"] + at["height"]) < 20 and abs(beside["x"] - at["x"]) < 20
    page.goto(f"{page.address}/flow?projector=1&guide=3")
    browser.ready(page)
    assert "reading" in page.locator("[class*=st-key-part_]").evaluate_all(shown), "the guide points at any part"


def test_the_third_door_opens_the_field_for_a_model_and_says_what_is_wrong_with_it(page):
    page.goto(page.address)
    page.get_by_role("link", name="Bring my model").click()
    field = page.get_by_label("Hub id, folder or GGUF file")
    field.wait_for(timeout=60_000)
    assert urlparse(page.url).path == "/flow"
    field.fill("/no/such/folder")
    page.get_by_role("button", name="Load it").click()
    page.locator("[data-testid=stAlert]").first.wait_for(timeout=60_000)
    assert "/no/such/folder" in page.locator("[data-testid=stAlert]").first.inner_text()
    field.wait_for(state="hidden")
    assert not page.errors
