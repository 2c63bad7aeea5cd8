"""What holds for every page as it opens: everyone can read and walk it, it is short, and it asks no other host.

Pages are those of the navigation, whichever they are; each is loaded once in light and once in dark, and all tests ask
what was seen then. A finding of axe-core that is "serious" or "critical" fails, unless it is listed below: those lie
inside Streamlit's own widgets, by rule and selector, with the reason why no option of ours mends them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import axe_playwright_python
import pytest
from browser import ROOT, foreign_requests, idle, navigation, soon

SCREEN = 900

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
    "/heads?lines=16&node=L0.head2&ends=movers&opened=lines", "/heads?lines=16&asks=neurons&set_b=names",
]  # fmt: skip
RUNS = ("Measure", "Patch the paths")  # buttons that are pressed first: what they run is what is looked at

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

# nothing fades, as the hint of a button that was pressed does: it is pale meanwhile
AT_REST = """() => !document.querySelector('[data-testid=stTooltipContent]') && document.getAnimations()
  .every((one) => one.playState !== "running" || one.effect.getComputedTiming().endTime === Infinity)"""

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
    context = chromium.new_context(viewport={"width": 1440, "height": SCREEN}, color_scheme=request.param)
    yield context.new_page()
    context.close()


@dataclass
class Seen:
    """What one page was like as it opened."""

    findings: list[str]
    headings: list[int]
    chart_words: dict[str, float]  # word -> contrast with the page
    height: int  # px, of what is scrolled
    icon: str
    asked: list[str] = field(default_factory=list)  # of other hosts, its parts unfolded


@pytest.fixture(scope="module")
def seen(chromium, address, look) -> dict[str, Seen]:
    found = {}
    asked = foreign_requests(look, address)
    for path in [*navigation(chromium, address), "/home", *OPENED]:
        asked.clear()
        look.goto(address + path)
        look.locator("[data-testid=stMainBlockContainer] h1").first.wait_for(timeout=60_000)
        idle(look)
        idle(look)  # what is measured beside the page, too
        if path in OPENED:
            for name in RUNS:
                run = look.get_by_role("button", name=name, exact=True)
                while run.count():
                    run.first.click()
                    look.get_by_role("progressbar").first.wait_for(state="detached", timeout=60_000)
                    idle(look)
        found[path] = Seen(
            findings(look),
            [level for level, _ in look.evaluate(HEADINGS)],
            dict(look.evaluate(CHART_WORDS)),
            look.locator("[data-testid=stMainBlockContainer]").evaluate("e => e.scrollHeight"),
            look.evaluate("() => document.querySelector(\"link[rel='shortcut icon']\").href"),
        )
        if path not in OPENED:
            for unfold in look.locator("[data-testid=stExpander] summary").all()[:6]:
                unfold.click()
            idle(look)
        found[path].asked += asked
    return found


def findings(page) -> list[str]:
    """What axe-core finds serious or critical on the page at rest, twice; what is listed above is left out.

    A part that is drawn anew while it looks is pale for a moment: that is no finding.
    """
    found = findings_now(page)
    if found and page.locator("[data-testid=stApp]").count():
        idle(page)
        return [one for one in findings_now(page) if one in found]
    return found


def findings_now(page) -> list[str]:
    page.mouse.move(2, 2)
    page.wait_for_function(AT_REST)
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


def test_the_watch_sees_a_request_to_another_host(chromium, address):
    """Of an icon in the tab too: it is what Streamlit's own icons were."""
    tab = chromium.new_page()
    asked = foreign_requests(tab, address)
    tab.goto(f"{address}/_stcore/health")
    tab.evaluate("() => { const i = new Image(); i.src = 'http://elsewhere.invalid/icon.svg' }")
    soon(lambda: tab.evaluate("1") and asked)  # what the browser tells is heard while one talks to it
    assert [one.split()[1] for one in asked] == ["http://elsewhere.invalid/icon.svg"]
    tab.close()


def test_axe_finds_nothing_serious(seen):
    named = {"/flow", "/compare", "/whatif", "/trace", "/heads", "/memory", "/layernorm", "/neurons", "/study",
             "/glossary"}  # fmt: skip
    assert named <= {*seen} and not [f"{path}: {one}" for path, page in seen.items() for one in page.findings]


def test_what_a_button_unfolds_can_be_read(address, look):
    """It hangs on the page's body, outside of what knows that the page is dark."""
    look.goto(address + "/flow")
    look.locator(".visit .n").first.wait_for(timeout=60_000)
    idle(look)
    look.get_by_role("button", name="Save run").click()
    look.get_by_role("button", name="Record it").wait_for()
    assert not findings(look)


def test_headings_begin_with_the_one_title_and_leave_no_level_out(seen):
    levels = {path: page.headings for path, page in seen.items()}
    assert not {
        path: found
        for path, found in levels.items()
        if found[:1] != [1] or found.count(1) != 1 or any(b > a + 1 for a, b in pairwise(found))
    }


def test_the_words_of_charts_can_be_read(seen):
    assert sum(len(page.chart_words) for page in seen.values()) > 20
    pale = {path: {w: r for w, r in page.chart_words.items() if r < 4.5} for path, page in seen.items()}
    assert not any(pale.values()), pale


def test_no_page_is_longer_than_two_and_a_half_screens(seen):
    """Until a part is opened; the glossary, a list of terms, is to be read through."""
    heights = {path: page.height for path, page in seen.items() if path not in OPENED and path != "/glossary"}
    assert not {path: height for path, height in heights.items() if height > 2.5 * SCREEN}


def test_no_page_asks_another_host(seen):
    assert {f"/{file.stem}" for file in (ROOT / "pages").glob("*.py")} <= {*seen}
    assert all(page.icon.startswith("data:image/svg+xml") for page in seen.values())
    assert not [one for page in seen.values() for one in page.asked]
