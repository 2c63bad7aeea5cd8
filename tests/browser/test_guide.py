"""The guide as a browser sees it: five steps by clicks, what is marked, what is dimmed, and nothing in the way."""

from __future__ import annotations

from browser import idle, ready, soon

OPACITY = "name => getComputedStyle(document.querySelector(`.st-key-part_${name}`)).opacity"
PARTS = ("prompt", "reading", "causes", "map", "graph")


def bright(page, expected: set[str]) -> bool:
    """Whether these are bright, and the others dimmed, which takes a moment."""
    return soon(lambda: {name for name in PARTS if page.evaluate(OPACITY, name) == "1"} == expected)


def in_sight(page, name: str) -> bool:
    """Whether the part, or its beginning, stands between the strip and the window's edge."""
    part, strip = (page.locator(f".st-key-{key}").bounding_box() for key in (f"part_{name}", "guide_strip"))
    below = part["y"] >= strip["y"] + strip["height"] or part["y"] + min(part["height"], 60) <= strip["y"]
    return below and part["y"] >= 0 and part["y"] + 60 <= page.viewport_size["height"]


def next_step(page, n: int, words: str) -> None:
    """Go on, until the strip says these words and the page rests."""
    page.locator(".st-key-guide_next button").click()
    page.get_by_text(f"{n} of 5").wait_for(timeout=60_000)
    page.locator(".st-key-guide_said .story").filter(has_text=words).wait_for(timeout=60_000)
    idle(page)


def test_five_steps_by_clicks(page):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(f"{page.address}/flow?prompt=The+capital+of+Japan+is+the+city+of")
    ready(page)
    assert bright(page, set(PARTS))
    page.mouse.move(5, 400)
    page.locator(".st-key-guide_me button").first.click()
    page.get_by_text("1 of 5").wait_for(timeout=60_000)
    page.mouse.move(5, 400)
    idle(page)
    assert bright(page, {"prompt"}) and "guide=1" in page.url
    assert page.locator(".following .meant").inner_text().startswith("·Tokyo") and soon(
        lambda: in_sight(page, "prompt")
    )

    next_step(page, 2, "after block 6")
    assert bright(page, {"map"}) and soon(lambda: in_sight(page, "map"))
    assert page.locator(".lensmap td.meant button").get_attribute("aria-label").startswith("·Tokyo") or (
        page.locator(".lensmap td.meant button").inner_text() == "·Tokyo"
    )

    next_step(page, 3, "L4 H1")
    assert bright(page, {"graph"}) and soon(lambda: in_sight(page, "graph"))
    assert page.locator(".visit .ring.meant").count() == 1 and page.locator(".visit svg.dim").count() == 1
    assert soon(lambda: page.locator(".visit .ring.meant").first.bounding_box()["y"] < 900)

    next_step(page, 4, "“·Japan”")
    assert bright(page, {"graph", "prompt"}) and page.locator(".visit .ring.meant").count() == 2
    assert page.locator(".tokens .meant").inner_text() == "·Japan"

    page.locator(".st-key-guide_next button").click()
    page.get_by_text("Is “·Japan” the cause?").wait_for(timeout=60_000)
    idle(page)
    assert bright(page, {"causes"}) and soon(lambda: in_sight(page, "causes"))
    assert "Not by itself" in page.locator(".st-key-guide_said .story").inner_text()
    page.locator(".st-key-guide_next button").click()
    page.locator(".st-key-guide_me button").first.wait_for(timeout=60_000)
    idle(page)
    assert bright(page, set(PARTS)) and "guide" not in page.url
    assert page.locator(".visit .ring.meant").count() == 0 and page.locator(".visit svg.dim").count() == 0
    assert page.errors == []


def test_it_survives_a_reload_and_what_is_dimmed_can_be_reached(page):
    page.goto(f"{page.address}/flow?guide=3")
    ready(page)
    page.get_by_text("3 of 5").wait_for()
    assert soon(lambda: float(page.evaluate(OPACITY, "map")) < 0.5)
    page.locator(".lensmap button").first.focus()
    assert soon(lambda: page.evaluate(OPACITY, "map") == "1")
    page.reload()
    page.get_by_text("3 of 5").wait_for(timeout=60_000)


def test_the_last_step_leads_to_the_head_taken_out(page):
    page.goto(f"{page.address}/flow?guide=5")
    page.get_by_text("Is “·Japan” the cause?").wait_for(timeout=60_000)
    page.get_by_role("button", name="Take this head out yourself").click()
    page.wait_for_url("**/whatif*")
    page.get_by_text("99.5 % → 99.4 %").first.wait_for(timeout=60_000)
    assert "L4.head1~zero%40-1" in page.url


def test_on_a_phone_the_strip_stands_at_the_bottom_and_covers_nothing_that_is_meant(page):
    page.set_viewport_size({"width": 390, "height": 844})
    for step, part in ((2, "map"), (3, "graph"), (5, "causes")):
        page.goto(f"{page.address}/flow?guide={step}")
        ready(page)
        idle(page)
        strip = page.locator(".st-key-guide_strip").bounding_box()
        assert strip["y"] > 400 and strip["y"] + strip["height"] <= 844 and strip["x"] + strip["width"] <= 390
        assert soon(lambda part=part: in_sight(page, part)), step
    page.set_viewport_size({"width": 1440, "height": 1300})
