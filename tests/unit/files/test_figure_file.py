"""A figure as a file: whole, with its caption and what made it, at a width in print, as vectors or pixels."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as tree

import pandas as pd
import pytest

import visit
from visit.drawing.draw import compose, default_detail, draw
from visit.figures.grids import Grid, grid_svg
from visit.figures.lens_map import reading_map
from visit.figures.svg import chart_svg
from visit.files import figure_file
from visit.files.chart_file import chart_alone
from visit.files.figure_file import FIGURE_KINDS, WIDTHS, figure_bytes, figure_svg, smallest_words
from visit.files.trace_picture import trace_file
from visit.text.citation import bibtex
from visit.text.visible import text_width

META = {"model": "visit-mini", "revision": "r1", "versions": {"visit": "1"}, "prompt": "<b>&"}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def graph():
    model = visit.load_model("visit-mini")
    return visit.build_flow_graph(model, visit.capture(model, "The capital of Japan is the city of"))


def a_grid() -> Grid:
    cells = pd.DataFrame({
        "row": [0, 0, 1], "column": [0, 1, 1], "strength": [1.0, 0.0, float("nan")], "hue": ["p", "n", "a"],
        "text": ["+1 <x>", "0", ""], "id": ["a", "b", "c"], "framed": [True, False, False], "name": ["x", "y", "z"],
    })  # fmt: skip
    return Grid("a map", cells, ["layer 1", "layer 0"], ["H0", "H1"], {"name": ""}, "layer")


def test_a_grid_is_drawn_cell_by_cell():
    root = tree.fromstring(grid_svg(a_grid()))
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert words == ["layer", "H0", "H1", "layer 1", "layer 0", "+1 <x>", "0"]
    boxes = list(root.iter(f"{SVG}rect"))[1:]
    assert len(boxes) == 3
    assert boxes[0].get("stroke") and not boxes[1].get("stroke")
    assert len({box.get("fill") for box in boxes}) == 3


def test_a_figure_has_its_caption_its_provenance_and_a_width_in_print():
    made = figure_svg(grid_svg(a_grid()), "What <i>this</i> is", META, 84)
    root = tree.fromstring(made)
    assert float(root.get("width")) == pytest.approx(84 / 25.4 * 96, abs=0.01)
    about = json.loads(root.find(f"{SVG}metadata").text)
    assert (about["model"], about["revision"], about["cite"], about["prompt"]) == ("visit-mini", "r1", bibtex(), "<b>&")
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert words[-2:] == ["What <i>this</i> is", "visit-mini · r1 · visit 1"]
    inner = root.find(f"{SVG}svg")
    left, top, wide, high = map(float, inner.get("viewBox").split())
    outer = list(map(float, root.get("viewBox").split()))
    assert outer[:3] == [left, top, wide] and outer[3] > high


def test_a_caption_is_broken_into_lines_and_nothing_of_it_is_cut():
    long = "Every part over the set, and " + "unbroken" * 30 + ": a caption of several lines <i> & more of it"
    made = [tree.fromstring(figure_svg(grid_svg(a_grid()), caption, META)) for caption in ("short", long)]
    lines = [root.findall(f"{SVG}text") for root in made]
    room = float(made[1].get("viewBox").split()[2]) - 12
    told = [text.text for text in lines[1]]
    assert "".join(told).replace(" ", "").startswith(long.replace(" ", "")), "all of it"
    assert all(text_width(line, 12.0) <= room for line in told)
    heights = [float(root.get("height")) for root in made]
    assert heights[1] - heights[0] == pytest.approx(17 * (len(lines[1]) - len(lines[0])), abs=0.02), (
        "none below the edge"
    )
    assert max(float(text.get("y")) for text in lines[1]) < float(made[1].get("viewBox").split()[3])


def test_the_smallest_words_are_told_in_points_at_a_width():
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 480 10">'
        '<text font-size="8">a</text><text font-size="12"/></svg>'
    )
    # 480 px are 127 mm; at half of that 8 px become 4, which are 3 pt
    assert smallest_words(svg, 63.5) == pytest.approx(3.0)


@pytest.mark.parametrize("width", WIDTHS.values())
def test_every_kind_of_file_is_what_it_says(width):
    svg = figure_svg(grid_svg(a_grid()), "a map", META, width)
    made = {kind: figure_bytes(svg, kind, 1) for kind in FIGURE_KINDS}
    assert made["pdf"].startswith(b"%PDF-")
    assert b"/Subtype /Image" not in made["pdf"], "a vector drawing"
    assert made["svg"].decode() == svg
    sizes = [int.from_bytes(figure_bytes(svg, "png", scale)[16:20], "big") for scale in (1, 2, 4)]
    wide = float(re.search(r'width="([\d.]+)"', svg)[1])
    assert sizes == pytest.approx([wide, 2 * wide, 4 * wide], abs=4)


def test_a_graph_is_cropped_to_what_is_open(graph):
    whole, cropped = (visit.draw(graph, default_detail(graph), crop=crop) for crop in (False, True))
    sizes = [float(re.search(r"viewBox='0 0 (\d+)", svg)[1]) for svg in (whole, cropped)]
    assert sizes[1] < 0.7 * sizes[0]
    assert tree.fromstring(cropped).find(f"{SVG}svg") is not None
    assert visit.draw(graph, "states", crop=True) == visit.draw(graph, "states"), "nothing is open"
    figure = tree.fromstring(figure_svg(cropped, "The flow graph", META))
    assert [text.text for text in figure.iter(f"{SVG}text")][-1] == "The flow graph", "its legend says what made it"


@pytest.mark.parametrize("width", [0, -3, 9.9, 10_000])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(visit.VisitError, match="from 10 to 2,000 mm; got"):
        figure_svg(grid_svg(a_grid()), "a map", META, width)


def test_an_unknown_kind_is_refused():
    with pytest.raises(visit.VisitError, match="kind"):
        figure_bytes("<svg/>", "bmp")


@pytest.mark.parametrize(("mm", "points"), [(84, 5.0), (174, 6.0)])
def test_words_of_a_figure_are_as_large_in_print_as_is_asked(mm, points):
    """A graph, a chart, a grid and a trace: none has smaller words than asked, and none is drawn in another width."""
    model = visit.load_model("visit-mini")
    acts = visit.capture(model, "The capital of Japan is the city of")
    graph = visit.build_flow_graph(model, acts, layers=[3, 4, 5], target=" Tokyo")
    folded = {3: "states", 4: "words", 5: "states"}
    table, traced = visit.lens_map(model, acts), visit.trace(model, acts.prompt, "Japan", samples=1)
    drawings = [
        lambda words: draw(graph, folded, crop=True, words=words),
        lambda words: chart_alone(chart_svg(reading_map(table, ["", "", ""]), "a map", words)),
        lambda words: grid_svg(a_grid(), words),
        lambda words: trace_file(traced, "svg", words).decode(),
    ]
    for drawing in drawings:
        made = figure_file.drawn_with_words(drawing, points, mm)
        assert smallest_words(made, mm) > points - 0.06
        whole = tree.fromstring(figure_svg(made, "a map", META, mm))
        assert float(whole.attrib["width"]) == pytest.approx(mm * 96 / 25.4, abs=0.02)
    assert "·Tokyo" in figure_file.drawn_with_words(drawings[0], points, mm), "words are cut last"
    as_drawn = drawings[0](1.0)
    assert figure_file.drawn_with_words(drawings[0], None, mm) == as_drawn


def test_a_narrowed_graph_has_the_same_parts_in_the_same_order():
    model = visit.load_model("visit-mini")
    graph = visit.build_flow_graph(model, visit.capture(model, "The capital of Japan"), layers=[4])
    wide, narrow = (compose(graph, "everything", words).sheet for words in (1.0, 2.0))
    assert narrow.width == pytest.approx(wide.width / 2)
    assert list(wide.pills) == list(narrow.pills)
    for one, other in zip(wide.pills.values(), narrow.pills.values(), strict=True):
        assert (one.y, one.h) == (other.y, other.h) and other.w > 0
        assert text_width(other.word, 12 * (1.08 if other.role == "state" else 1)) <= other.w
    inside = sorted(wide.pills.values(), key=lambda pill: pill.x)
    assert [p.id for p in sorted(narrow.pills.values(), key=lambda pill: pill.x)] == [p.id for p in inside]
