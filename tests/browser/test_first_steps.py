"""The app as a visitor meets it: a cold server, a deep link, clicks, and text that would like to be code."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote, urlparse

import browser
import pytest

HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'> \" ' ]]> {{x}} **b** $x$"


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1440, "height": 1000})
    found = context.new_page()
    errors: list[str] = []
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
    yield found
    context.close()
    assert not errors, errors


def query(page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlparse(page.url).query, keep_blank_values=True).items()}


def until(page, condition: str, *names: str) -> None:
    """Wait until the address satisfies a JavaScript condition on `q`, its parameters."""
    page.wait_for_function(
        f"() => {{ const q = new URLSearchParams(location.search); return {condition} }}", timeout=60_000
    )


@pytest.mark.slow
def test_a_cold_server_answers_a_deep_link_with_its_page(page):
    """The fault it guards against shows on a server's first request only."""
    with browser.server() as address:
        deep_link(page, address)


def deep_link(page, address):
    from playwright.sync_api import expect

    page.goto(f"{address}/flow?prompt={quote('Buenos Aires is the capital of')}&layers=0-2&values=1")
    browser.ready(page)
    assert page.get_by_label("Prompt", exact=True).input_value() == "Buenos Aires is the capital of"
    page.get_by_role("button", name="Controls").last.click()
    expect(page.get_by_label("Blocks", exact=True)).to_have_value("0-2")
    assert query(page) == {"prompt": "Buenos Aires is the capital of", "layers": "0-2", "values": "1"}
    assert urlparse(page.url).path == "/flow" and page.get_by_text("Page not found").count() == 0
    assert page.get_by_text("Numbers checked").count() == 1


@pytest.mark.parametrize("path", ["/", "/flow"])
def test_every_address_leads_to_the_page(address, page, path):
    page.goto(address + path + "?values=1")
    browser.ready(page)
    assert urlparse(page.url).path == "/flow" and query(page) == {"values": "1"}
    assert page.get_by_text("Page not found").count() == 0


@pytest.mark.parametrize("path", ["/", "/home"])
def test_the_bare_address_is_the_start_page_and_its_links_stay_in_the_app(address, page, path):
    page.goto(address + path)
    page.get_by_role("heading", name="VISIT").wait_for(timeout=60_000)
    page.evaluate("() => { window.same = true }")
    page.get_by_role("link", name="Head 1 of block 4", exact=True).locator("visible=true").click()
    browser.ready(page)
    assert urlparse(page.url).path == "/flow" and query(page) == {"node": "L4.head1", "detail": "4w"}
    assert page.evaluate("() => window.same"), "the app was not loaded again"
    assert page.get_by_text("Page not found").count() == 0
    page.get_by_role("link", name="Start").click()
    page.get_by_role("heading", name="VISIT").wait_for(timeout=60_000)
    assert urlparse(page.url).path == "/" and query(page) == {}


def test_a_piece_of_the_reading_selects_its_node(address, page):
    page.goto(address + "/flow")
    browser.ready(page)
    page.locator(".story button.node").last.click()
    until(page, "q.get('node')")
    page.locator(".inspector:not([hidden])").wait_for(timeout=60_000)
    assert re.match(r"L\d+\.", query(page)["node"])


def test_a_click_in_the_drawing_opens_the_inspector_and_is_in_the_address(address, page):
    page.goto(address + "/?detail=0w&heads=2")
    browser.ready(page)
    page.locator(".nodes .n", has_text=re.compile(r"H\d")).first.click()
    inspector = page.locator(".inspector:not([hidden])")
    inspector.wait_for(timeout=60_000)
    until(page, "/head/.test(q.get('node'))")
    head = re.fullmatch(r"L(\d+)\.head(\d+)", query(page)["node"])
    assert head and re.search(rf"L{head[1]} H{head[2]}", inspector.inner_text())


def test_a_chip_chooses_the_position_and_a_cell_of_the_map_does_too(address, page):
    page.goto(address + "/flow")
    browser.ready(page)
    page.get_by_role("radio", name="·Japan").click()
    until(page, "q.get('pos') === '3'")
    browser.ready(page)
    page.locator("tr:has(th:text-is('block 2')) td button").nth(1).click()
    until(page, "q.get('node') === 'L2.resid_post' && q.get('pos') === '1' && q.get('detail') === '2w'")
    row = page.locator("tr:has(th:text-is('block 2')) td button")
    row.nth(1).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    until(page, "q.get('node') === 'L3.resid_post' && q.get('pos') === '2'")


def test_enter_runs_a_prompt_and_typing_does_not(address, page):
    page.goto(address + "/flow")
    browser.ready(page)
    field = page.get_by_label("Prompt", exact=True)
    field.fill("Lionel Messi plays the sport of")
    page.wait_for_timeout(700)
    assert "prompt" not in query(page)
    field.press("Enter")
    until(page, "q.get('prompt') === 'Lionel Messi plays the sport of'")


def test_hostile_text_is_shown_and_never_run(address, page):
    page.goto(
        f"{address}/flow?prompt={quote(HOSTILE)}&target={quote('<b>')}&model={quote('<img src=x onerror=alert(1)>')}"
    )
    page.get_by_text("no hub id either").wait_for(timeout=60_000)
    page.goto(f"{address}/flow?prompt={quote(HOSTILE)}&target={quote('<b>')}&detail=everything&layers=0")
    browser.ready(page)
    page.locator(".tokens").get_by_role("radio").nth(4).click()
    until(page, "q.get('pos')")
    assert page.evaluate("() => window.hacked") is None
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.slow
def test_hosted_loads_no_path_from_a_link(page):
    with browser.server(VISIT_HOSTED="1") as address:
        page.goto(f"{address}/flow?model=/etc&prompt=The+capital+of")
        browser.ready(page)
        assert page.get_by_text("hosted").first.is_visible()
        assert query(page) == {"prompt": "The capital of"}
