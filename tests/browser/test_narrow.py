"""On a phone and on half a screen no page is too wide, no button is cut, and no line begins with "%"."""

from __future__ import annotations

import pytest
from browser import idle, navigation

# what makes the page, or Streamlit's part of it that scrolls, wider than the screen: the outermost culprits
TOO_WIDE = """() => {
  const wide = innerWidth + 1, found = [];
  const bounded = (e) => { // within something that scrolls by itself, or cuts what is outside
    for (let p = e.parentElement; p && !p.matches("[data-testid=stMain]"); p = p.parentElement)
      if (getComputedStyle(p).overflowX !== "visible" && p.getBoundingClientRect().right <= wide) return true;
    return false;
  };
  for (const e of document.querySelectorAll("[data-testid=stMain] *"))
    if (e.getClientRects().length && e.getBoundingClientRect().right > wide && !bounded(e))
      found.push(`${e.tagName} ${e.dataset.testid ?? ""} ${e.className} ${e.getBoundingClientRect().right}`);
  const main = document.querySelector("[data-testid=stMain]");
  const scrolls = Math.max(document.documentElement.scrollWidth, main.scrollWidth);
  return scrolls > innerWidth ? [`scrolls to ${scrolls}`, ...found.slice(0, 4)] : found.slice(0, 4);
}"""

CUT = """() => [...document.querySelectorAll("[data-testid=stMain] :is(button, a) :is(p, span, div)")]
  .filter((e) => e.getClientRects().length && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
    && getComputedStyle(e).overflowX !== "visible" && e.textContent.trim())
  .map((e) => e.textContent)"""

# a number on one line and its "%" on the next, in what components draw, too
PARTED = """() => {
  const found = [], range = document.createRange();
  const look = (root) => {
    const texts = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
    for (let one = texts.nextNode(); one; one = texts.nextNode()) {
      if (one.shadowRoot) look(one.shadowRoot);
      for (const match of (one.nodeType === 3 ? one.data : "").matchAll(/\\d\\s%/g)) {
        const top = [0, 2].map((at) => {
          range.setStart(one, match.index + at);
          range.setEnd(one, match.index + at + 1);
          return range.getBoundingClientRect().top;
        });
        if (Math.abs(top[0] - top[1]) > 4) found.push(one.data.slice(0, 80));
      }
    }
  };
  look(document.body);
  return found;
}"""


@pytest.fixture(scope="module", params=[390, 800])
def screen(request, chromium):
    context = chromium.new_context(viewport={"width": request.param, "height": 844})
    yield context.new_page()
    context.close()


def test_the_check_sees_what_is_wrong(screen):
    screen.set_content(
        "<main data-testid=stMain><div style='width:1200px'>wide</div><div style='overflow:auto'><i style="
        "'display:block;width:2000px'>scrolls by itself</i></div><button style='width:50px'><p style="
        "'overflow:hidden;white-space:nowrap'>All that this button says</p></button></main>"
    )
    wide = screen.evaluate(TOO_WIDE)
    assert wide[0].startswith("scrolls to 12") and "DIV" in wide[1] and len(wide) == 2
    assert screen.evaluate(CUT) == ["All that this button says"]
    screen.set_content("<p style='width:4ch'>9999 %</p><p style='width:4ch'>9999&nbsp;%</p>")
    assert screen.evaluate(PARTED) == ["9999 %"]


def test_no_page_is_wider_than_the_screen(chromium, address, screen):
    wrong: dict[str, list[str]] = {}
    changed = "/whatif?edits=L4.head1~zero@-1;L2.mlp_out~scale0.5@all"
    patches = "/compare?opened=patch&prompt_b=The capital of France is the city of&edits=L2.resid_pre~from@3"
    for path in [*navigation(chromium, address), changed, patches, "/flow?target= Tokyo&distractor= Kyoto"]:
        screen.goto(address + path)
        screen.locator("[data-testid=stMainBlockContainer] h1").first.wait_for(timeout=60_000)
        idle(screen)
        idle(screen)  # what is measured beside the page, too
        found = screen.evaluate(TOO_WIDE) + [f"cut: {words}" for words in screen.evaluate(CUT)]
        found += [f"parted: {words}" for words in screen.evaluate(PARTED)]
        if found:
            wrong[path] = found
    assert not wrong, "\n".join(f"{path}: {found}" for path, found in wrong.items())
