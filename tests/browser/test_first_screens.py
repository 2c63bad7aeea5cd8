"""The first screen of a page is its answer. (That no page is long is looked at in test_every_page.py.)"""

from __future__ import annotations

import pytest
from browser import idle

SCREEN = 900
ANSWERS = {  # what must stand on the first screen: the end of the sentences, the beginning of the main picture
    "/memory": ("part_reading", "part_heads"),
    "/layernorm": ("part_reading", "part_norm"),
    "/neurons": ("part_active",),
    "/compare?prompt_b=The capital of France is the city of": ("part_reading", "part_apart"),
    "/compare": ("part_reading",),
}


@pytest.fixture(scope="module")
def screen(chromium):
    context = chromium.new_context(viewport={"width": 1440, "height": SCREEN})
    yield context.new_page()
    context.close()


def opened(screen, address: str) -> None:
    screen.goto(address)
    screen.locator("[data-testid=stMainBlockContainer] h1").first.wait_for(timeout=60_000)
    idle(screen)
    idle(screen)


@pytest.mark.parametrize("path", ANSWERS)
def test_the_answer_meets_the_eye(address, screen, path):
    opened(screen, address + path)
    *sentences, picture = (screen.locator(f".st-key-{name}").bounding_box() for name in ANSWERS[path])
    assert picture["y"] + 200 < SCREEN
    assert all(box["y"] + box["height"] < 600 for box in sentences)
