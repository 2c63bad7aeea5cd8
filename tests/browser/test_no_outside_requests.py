"""The offline promise: nothing that an address, a file or our own code says leads to another host.

That no page asks one as it opens is looked at in test_every_page.py.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import pytest
from browser import ROOT, foreign_requests, idle
from escapes import with_addresses

from visit.lessons.shipped import shipped_text

PAGES = sorted(path.stem for path in (ROOT / "pages").glob("*.py"))


@pytest.fixture(scope="module")
def watched(chromium, address):
    """A tab, and in `asked` every request of it to another host."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1000})
    found = context.new_page()
    found.asked = foreign_requests(found, address)
    yield found
    context.close()


def test_no_script_or_style_sheet_of_ours_names_another_host():
    ours = [path for kind in ("js", "css", "html") for path in (Path(ROOT) / "visit").rglob(f"*.{kind}")]
    assert ours
    for path in ours:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        assert "http://" not in text and "https://" not in text and 'src="//' not in text, path.name


def foreign(page) -> list[str]:
    """Links and pictures that lead to another host."""
    return page.evaluate(
        """() => [...document.querySelectorAll("a[href], img[src]")].map(e => e.href || e.src).filter(to =>
             to.startsWith("http") ? new URL(to).host !== location.host : /^(mailto|xmpp):/.test(to))"""
    )


LINK = (
    "x'). ![t](http://elsewhere.invalid/t.png) [Log in](http://elsewhere.invalid/) <img src=http://elsewhere.invalid/>"
)


@pytest.mark.parametrize("name", PAGES)
def test_texts_of_an_address_are_no_pictures_and_no_links(watched, address, name):
    """Of a model, a word, a prompt, a pruning control, a node: one that is refused and one that is shown."""
    refused = {"model": LINK, "heads": LINK, "node": LINK, "layers": LINK, "pos": LINK, "set": LINK, "head": LINK}
    shown = {"prompt": LINK, "prompt_b": LINK, "target": LINK, "distractor": LINK, "word": LINK, "system": LINK}
    for params in (refused, shown):
        watched.asked.clear()
        watched.goto(f"{address}/{name}?{urlencode(params)}")
        watched.wait_for_selector("[data-testid=stMainBlockContainer] h1", timeout=60_000)
        idle(watched)
        assert watched.asked == []
        assert foreign(watched) == []
    for alert in watched.locator("[data-testid=stAlert]").all():
        assert "\\" not in alert.inner_text(), "an escape is seen"


def test_texts_of_a_file_are_no_pictures_and_no_links(watched, address):
    watched.asked.clear()
    watched.goto(f"{address}/study?set=own")
    idle(watched)
    field = watched.locator("textarea[aria-label^='Prompts, one a line']")
    field.wait_for(timeout=60_000)
    file = {"name": f"![t](http:elsewhere.invalid) {'x' * 20}.csv", "mimeType": "text/csv", "buffer": LINK.encode()}
    watched.locator("input[type=file]").first.set_input_files([file])
    idle(watched)
    assert watched.asked == []
    assert foreign(watched) == []


def test_texts_of_a_lesson_are_no_pictures_and_no_links(watched, address):
    """Bare addresses, too, which a reader of Markdown makes links of."""
    watched.asked.clear()
    watched.goto(f"{address}/learn")
    watched.get_by_text("Or paste its text").click(timeout=60_000)
    watched.get_by_label("The lesson's text").fill(with_addresses(shipped_text("3-recall")))
    watched.get_by_role("button", name="Read it").click()
    watched.get_by_text("has no mistakes").wait_for(timeout=60_000)
    assert foreign(watched) == []
    watched.locator(".st-key-begin_own").get_by_role("button").click()
    watched.get_by_text("What do you think now?").wait_for(timeout=60_000)
    idle(watched)
    assert watched.get_by_text("elsewhere.invalid/x").count() > 4
    assert foreign(watched) == []
    watched.locator(".st-key-lesson_next").get_by_role("button").click()
    watched.locator(".st-key-lesson_panel").wait_for(timeout=60_000)
    idle(watched)
    assert watched.get_by_text("elsewhere.invalid/x").count() > 0
    assert foreign(watched) == [] and watched.asked == []
