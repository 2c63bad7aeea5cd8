"""Every word on every colour that is made in Python can be read: 4.5 : 1, in both themes and palettes."""

from __future__ import annotations

import tomllib
from itertools import product
from pathlib import Path

import pytest
from contrast import blend, contrast

from visit.drawing.records import Pill
from visit.drawing.style import DOWN, SERIES, page_colours, pill_colours, scale
from visit.drawing.svg import Ink, draw_pill
from visit.graph.flowgraph import Node

ROOT = Path(__file__).parents[3]
THEMES = tomllib.loads((ROOT / ".streamlit/config.toml").read_text(encoding="utf-8"))["theme"]


def test_the_measure_is_the_published_one():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(("theme", "palette"), [*product(("light", "dark"), ("safe", "paper"))])
def test_the_words_of_pills_and_chips(theme, palette):
    page = page_colours(theme)
    for name, (fill, _, word) in pill_colours(theme, palette).items():
        words = [word, page["tag"]] if name in ("g", "o") else [word]
        assert min(contrast(fill, one) for one in words) >= 4.5, name


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_grey_words_of_the_lens_map(theme):
    """They stand on no fill and on the palest of each hue: `lens_rows`."""
    fills = [page_colours(theme)["page"], *(pill_colours(theme, "safe")[name][0] for name in ("t1", "e1", "b1"))]
    assert min(contrast(page_colours(theme)["tag"], fill) for fill in fills) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_on_the_page_and_on_panels(theme):
    ours, page = THEMES[theme], page_colours(theme)
    for back in (ours["backgroundColor"], ours["secondaryBackgroundColor"], page["page"], page["panel"]):
        for word in (page["ink"], page["quiet"], page["tag"], ours["textColor"], ours["primaryColor"]):
            assert contrast(word, back) >= 4.5, (word, back)
        assert contrast(blend(ours["textColor"], back, 0.6), back) >= 4.5  # a caption of Streamlit's
        assert contrast(blend(ours["textColor"], back, 0.8), back) >= 4.5  # the words of a chart's axes: page.css
    chosen = blend(ours["primaryColor"], ours["backgroundColor"], 0.14)  # the chosen token: tokens.css
    assert contrast(ours["primaryColor"], chosen) >= 4.5


def test_lines_of_charts_stand_out_from_both_pages():
    pages = [THEMES[theme]["backgroundColor"] for theme in ("light", "dark")]
    assert min(contrast(line, page) for line in SERIES for page in pages) >= 3


def test_first_and_last_ranks_differ_without_colour():
    """What is last, or speaks against the target, bears a sign in the drawing and in its legend."""
    for color_by in ("rank", "contribution"):
        for look, words in scale(color_by, 50_257, 3.0):
            assert words.startswith(DOWN) == (look[0] == "b"), words
    node = Node("L1.head0", "head", layer=1, tokens=("x",), probs=(0.5,))
    pill = Pill(node.id, node, "pill", 10.0, 20.0, 80.0, 18.0, "x")
    drawn = {look: draw_pill(pill, look, 0, Ink("light")) for look in ("t5", "b5", "g", "da", "db")}
    assert [look for look, text in drawn.items() if "<path" in text] == ["b5", "da", "db"]
    assert len({text.partition("<path d=")[2][:20] for text in drawn.values()}) == 4  # none, down, left, right
