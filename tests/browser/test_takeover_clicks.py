"""A visitor who is at work when the model takes a recording's place: the badge goes, and all else stays as it was."""

from __future__ import annotations

import pytest
from browser import idle, need_browser, ready, server

BADGE = "Shown from a shipped recording"
# a finder may not wait itself: Python lets nobody else import meanwhile
HELD = """
import os, sys, time
from importlib.machinery import PathFinder
class Held:
    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        spec = PathFinder.find_spec(name, path)
        read = spec.loader.exec_module
        def wait(module):
            while not os.path.exists({file!r}):
                time.sleep(0.05)
            read(module)
        spec.loader.exec_module = wait
        return spec
sys.meta_path.insert(0, Held())
"""
DRAWN = """(nodes) => nodes.map((node) => {
  const box = node.getBBox();
  return [node.dataset.i, node.textContent, ...[box.x, box.y, box.width, box.height].map(Math.round)];
})"""


@pytest.fixture
def cold(tmp_path):
    """A server that has loaded nothing, and imports torch when `cold.go` is there."""
    need_browser()
    go = tmp_path / "go"
    (tmp_path / "sitecustomize.py").write_text(HELD.format(file=str(go)))
    with server(VISIT_CACHE=str(tmp_path), PYTHONPATH=str(tmp_path)) as address:
        yield address, go


def test_the_model_takes_over_under_the_hands_of_a_visitor(cold, chromium):
    address, go = cold
    context = chromium.new_context(viewport={"width": 1440, "height": 1300})
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{address}/flow?node=L0.head7&opened=map-table")
    ready(page)
    page.get_by_text(BADGE).wait_for()
    page.locator("[data-testid=stDataFrame]").first.wait_for()
    nodes = page.locator(".nodes .n")
    chosen, drawn = page.url, nodes.evaluate_all(DRAWN)
    page.locator(".st-key-prompt_more button").first.click()
    page.get_by_text("This comes when the model is loaded").first.wait_for()
    assert page.get_by_text(BADGE).is_visible()

    go.touch()
    page.get_by_text(BADGE).wait_for(state="detached", timeout=120_000)
    page.get_by_label("Target", exact=True).wait_for()  # the same popover, still open
    idle(page)
    assert page.url == chosen and drawn and nodes.evaluate_all(DRAWN) == drawn
    assert page.locator("[data-testid=stDataFrame]").first.is_visible()
    assert not errors and not page.get_by_text("is not what this machine computes").count()
    context.close()
