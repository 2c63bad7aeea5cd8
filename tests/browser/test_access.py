"""Every page can be read and walked by everyone: axe-core's rules, the contrast of charts, headings in order.

Pages are those of the navigation, whichever they are. A finding of "serious" or "critical" fails, unless it is listed
below: those lie inside Streamlit's own widgets, by rule and selector, with the reason why no option of ours mends them.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import axe_playwright_python
import pytest
from browser import idle, navigation

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")

# (rule, part of the selector or of the element): why
STREAMLITS: dict[tuple[str, str], str] = {
    ("svg-img-alt", "role-mark"): "Vega, which draws Streamlit's charts, calls every group of marks a symbol, an empty "
    "one too, and has no option for a name; the whole chart has one (`alt=` of st.altair_chart).",
}

# what is opened on pages, beside them as they open
OPENED = [
    "/flow?node=L4.head1&detail=4e&opened=map-table", "/memory?opened=pattern,life,head-picture,heads-list",
    "/compare?prompt_b=The capital of France is the city of&view=difference&opened=flows,apart-map-table",
    "/compare?prompt_b=The capital of France is the city of&opened=patch,patch-map-table&patching=quick",
    "/whatif?edits=L4.head1", "/trace?samples=2&cell=resid.3.3&opened=trace-table",
]  # fmt: skip

HEADINGS = """() => {
  const found = [];
  const walk = (node) => { for (const e of node.children) {
    if (/^H[1-6]$/.test(e.tagName) && e.getClientRects().length) found.push([+e.tagName[1], e.textContent]);
    if (e.shadowRoot) walk(e.shadowRoot);
    walk(e);
  } };
  walk(document.body);
  return found;
}"""

# axe leaves out words of drawings: those of charts stand on the page itself
CHART_WORDS = """() => {
  const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const page = rgb(getComputedStyle(document.querySelector(".stApp")).backgroundColor);
  return [...document.querySelectorAll("[data-testid=stVegaLiteChart] svg text")].filter((text) => text.textContent)
    .filter((text) => !text.closest(".role-mark")).map((text) => {
      const style = getComputedStyle(text), opacity = +style.fillOpacity * +style.opacity;
      const ink = rgb(style.fill).slice(0, 3).map((v, n) => v * opacity + page[n] * (1 - opacity));
      const [one, other] = [light(ink), light(page)].sort((a, b) => b - a);
      return [text.textContent, (one + 0.05) / (other + 0.05)];
    });
}"""


@pytest.fixture(scope="module", params=["light", "dark"])
def look(request, chromium):
    context = chromium.new_context(viewport={"width": 1440, "height": 1000}, color_scheme=request.param)
    yield context.new_page()
    context.close()


def findings(page) -> list[str]:
    """What axe-core finds serious or critical on the page, what is listed above left out."""
    page.evaluate(AXE)
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{rule['id']} {node['target']} {node['html'][:120]}: {node['failureSummary']}"
        for rule in found if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
        if not any(rule["id"] == one and part in f"{node['target']} {node['html']}" for one, part in STREAMLITS)
    ]  # fmt: skip


def test_the_check_sees_what_is_wrong(look):
    """A picture without a name, and words too pale for their page."""
    look.set_content(
        "<html lang='en'><title>A</title><main><h1>A</h1><p style='color:#999'>pale</p><img src='data:,'></main>"
    )
    assert {"color-contrast", "image-alt"} == {one.split()[0] for one in findings(look)}


def test_every_page_of_the_navigation(chromium, address, look):
    wrong: list[str] = []
    drawn = 0
    pages = navigation(chromium, address)
    assert {"/flow", "/compare", "/whatif", "/memory", "/layernorm", "/neurons", "/study", "/glossary"} <= {*pages}
    for path in [*pages, *OPENED]:
        look.goto(address + path)
        look.locator("[data-testid=stMainBlockContainer] h1").first.wait_for(timeout=60_000)
        idle(look)
        idle(look)  # what is measured beside the page, too
        wrong += [f"{path}: {one}" for one in findings(look)]
        levels = [level for level, _ in look.evaluate(HEADINGS)]
        if levels[:1] != [1] or levels.count(1) != 1 or any(b > a + 1 for a, b in pairwise(levels)):
            wrong.append(f"{path}: headings {levels}")
        words = look.evaluate(CHART_WORDS)
        drawn += len(words)
        pale = {word: round(ratio, 2) for word, ratio in words if ratio < 4.5}
        wrong += [f"{path}: pale words of charts {pale}"] if pale else []
    assert drawn > 20 and not wrong, "\n".join(wrong)
