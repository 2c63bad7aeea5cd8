"""Random views, opened by their link in a fresh browser, are the same pictures (with tests/app/test_links.py, seventy).

The pictures are compared as what is drawn (elements, classes, texts), not as pixels.
"""

from __future__ import annotations

import random
import re
from urllib.parse import urlsplit

import pytest
from browser import idle

OPENED = {
    "flow": "",
    "compare": "?prompt_b=The+capital+of+Poland+is+the+city+of&opened=flows",
    "memory": "?opened=head-picture",
    "whatif": "?edits=L4.head1~zero%40-1&opened=edited_flows",
    "trace": "?samples=2",
}
STEPS = {"flow": 6, "compare": 4, "memory": 3, "whatif": 2, "trace": 2}

PICTURE = """() => {
  const roots = [document], found = {};
  for (const root of roots) for (const e of root.querySelectorAll("*")) if (e.shadowRoot) roots.push(e.shadowRoot);
  const all = (selector) => roots.flatMap((root) => [...root.querySelectorAll(selector)]);
  const bare = (html) => html.replace(/ (tabindex|role|aria-[a-z]+|transform|title)="[^"]*"| class=""/g, "");
  found.drawings = all(".visit").filter((visit) => visit.querySelector(".frame svg")).map((visit) => {
    const svg = visit.querySelector(".frame svg"), said = visit.querySelector(".inspector");
    return [bare(svg.outerHTML), svg.style.width, visit.querySelector("input").value,
      said.hidden ? "" : said.innerText, visit.querySelector("details.table").innerText];
  });
  found.maps = all(".lensmap table, .grid table").map((table) => bare(table.outerHTML));
  found.tokens = all(".tokens").map((box) => bare(box.outerHTML));
  found.sentences = all(".story").map((story) => bare(story.outerHTML));
  found.text = all("[data-testid=stMain]").map((main) => main.innerText);
  found.open = all("[data-testid=stExpander] details[open] > summary").map((one) => one.innerText);
  found.folding = all("[data-testid=stExpander] details[open] > [inert]").length;
  return found;
}"""
BLUR = """() => {
  let at = document.activeElement;
  while (at && at.shadowRoot && at.shadowRoot.activeElement) at = at.shadowRoot.activeElement;
  if (at) at.blur();
}"""
CONTROLS = {
    "a fold of the map": ".lensmap [data-fold]", "a cell": ".lensmap td.gridcell button, .grid td.cell",
    "a node": ".visit .nodes .n", "a title": ".visit .names [data-layer]", "larger": ".visit [aria-label='zoom in']",
    "smaller": ".visit [aria-label='zoom out']", "trace": ".visit .inspector .start",
    "the table": ".visit details.table > summary", "a word": ".visit input",
    "a part": "[data-testid=stMain] [data-testid=stExpander] summary", "a token": ".tokens [role=radio]",
}  # fmt: skip


def act(page, dice: random.Random) -> str:
    """Do one thing that can be done on the page; says what."""
    ways = [name for name, selector in CONTROLS.items() if page.locator(selector).count()]
    name = dice.choice(ways)
    places = page.locator(CONTROLS[name])
    place = places.nth(dice.randrange(places.count()))
    if name == "a word":
        place.fill(dice.choice(["Tokyo", "Japan", '" city"']))
    else:
        place.dispatch_event("click")
    page.mouse.move(2, 2)
    page.evaluate(BLUR)  # a click that no pointer made shows the focus, and lights what has it
    return name


@pytest.mark.parametrize("name", OPENED)
def test_a_view_that_clicks_have_made_is_its_link(name, chromium, address):
    dice, done = random.Random(name), []
    drawn = f"[data-testid=stMain] {'.grid table' if name == 'trace' else 'svg'}"
    context = chromium.new_context(viewport={"width": 1440, "height": 1300})
    page = context.new_page()
    page.goto(f"{address}/{name}{OPENED[name]}")
    page.locator(drawn).first.wait_for(timeout=60_000)
    idle(page)
    page.get_by_text("Shown from a shipped recording").wait_for(state="detached", timeout=60_000)  # a cold server
    idle(page)
    for _ in range(STEPS[name]):
        done.append(act(page, dice))
        idle(page)
        here, other = settled(page), chromium.new_context(viewport={"width": 1440, "height": 1300})
        fresh = other.new_page()
        fresh.goto(page.url)
        fresh.locator(drawn).first.wait_for(timeout=60_000)
        idle(fresh)
        there = settled(fresh, here)
        other.close()
        for part in here:
            assert here[part] == there[part], (
                part,
                done,
                urlsplit(page.url).query,
                first_difference(here, there, part),
            )
    context.close()


def settled(page, like: dict | None = None) -> dict:
    """The picture, once it stays as it is, with as many parts as another has at least.

    A part that is being folded is open until its movement has ended, on a busy machine a second later.
    """
    before = None
    for _ in range(100):
        now = page.evaluate(PICTURE)
        waits = re.search("Measuring|Reading the words|Fitting a lens|Running the", str(now["text"]))
        if (
            now == before
            and not waits
            and not now["folding"]
            and all(len(now[part]) >= len(found) for part, found in (like or {}).items() if isinstance(found, list))
        ):
            break
        before = now
        page.wait_for_timeout(300)
    return now


def first_difference(here: dict, there: dict, part: str) -> tuple[str, str]:
    one, other = str(here[part]), str(there[part])
    at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[max(0, at - 80) : at + 200], other[max(0, at - 80) : at + 200]
