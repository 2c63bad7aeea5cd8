"""The drawing of the flow graph: the open block, widths, colours, the data for the page, a real graph drawn whole."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from xml.etree import ElementTree

import models
import pytest
from drawings import FAMILIES, SVG, every_level, families
from graphs import change, make_graph

from visit import build_flow_graph, capture
from visit.analyses.overview import block_moves
from visit.drawing.draw import component_source, compose, default_detail, draw, flow_data
from visit.drawing.edges import gauge, route
from visit.drawing.inspector import inspect
from visit.drawing.layout import WORK_Y, block_levels, place, shown
from visit.drawing.records import BAR_Y, NAME_Y
from visit.drawing.style import band_colours, page_colours, pill_class, pill_colours, rank_bounds
from visit.errors import VisitError
from visit.graph.build import build_folded_graph


def test_bars_over_folded_states_show_where_the_target_rises():
    graph = make_graph(layers=tuple(range(12)))
    for node in list(graph.by_id.values()):
        if node.kind in ("resid_pre", "resid_post"):
            change(graph, node.id, prob=0.0 if node.layer < 8 else 0.9)
    sheet = compose(graph, "states").sheet
    assert [bar.share for bar in sheet.bars] == [0.0] * 9 + [0.9] * 4  # what enters block 0, and what leaves each
    pills = {p.x: p for p in sheet.pills.values() if p.role == "state"}
    assert all(pills[bar.x].w == bar.w and pills[bar.x].y >= BAR_Y for bar in sheet.bars)
    data = flow_data(graph, "states")
    assert data["open"] == [] and data["rise"][0] == 8
    assert "bar over a folded block" in data["legend"]["words"]
    opened = compose(graph, "words")
    assert opened.sheet.bars == [] and opened.legend.words == ""


def test_a_wide_frame_begins_with_whole_pills_before_the_open_block():
    picture = compose(make_graph(layers=tuple(range(12))), {7: "words"})
    ((layer, left, right, wide),) = flow_data(make_graph(layers=tuple(range(12))), {7: "words"})["open"]
    opened = next(block for block in picture.sheet.blocks if block.level == "words")
    assert 0 < opened.x - wide < 260 and (layer, left, right) == (7, opened.x, opened.right)
    states = [p for p in picture.sheet.pills.values() if p.role == "state"]
    assert not any(p.x < wide < p.right for p in states)
    assert flow_data(make_graph(layers=(0, 1)), {0: "words"})["open"][0][3] == 0


def test_the_block_that_moves_the_target_most_is_open():
    graph = make_graph(layers=(0, 1, 2))
    change(graph, "L1.mlp_out", contribution=-99.0)
    assert default_detail(graph) == {0: "states", 1: "words", 2: "states"}


# ---- widths, colours -------------------------------------------------------------------------------------------------


def test_widths_grow_with_the_number_and_by_a_power_below_one():
    flow = make_graph()
    measure = gauge(flow)
    edges = sorted((e for e in flow.links if e.kind in ("add", "residual")), key=lambda e: e.norm)
    widths = [measure(e) for e in edges]
    assert widths == sorted(widths) and widths[-1] == 14.0 and 0 < measure.power < 1
    assert widths[0] / widths[-1] > edges[0].norm / edges[-1].norm


def test_width_by_contribution_uses_its_size():
    flow = make_graph()
    measure = gauge(flow, "contribution")
    edge = max((e for e in flow.links if e.contribution is not None), key=lambda e: abs(e.contribution))
    assert measure(edge) == 14.0 and measure.number(edge) == abs(edge.contribution)


@pytest.mark.parametrize(
    ("rank", "look"),
    [(1, "t5"), (2, "t4"), (224, "t1"), (225, "g"), (50033, "g"), (50034, "b1"), (50257, "b5"), (None, "o")],
)
def test_colour_is_the_rank_from_both_ends(rank, look):
    node = make_graph().by_id["L9.attn_out"]._replace(rank=rank)
    assert pill_class("rank", 50257, 1.0)(node) == look


def test_colour_by_contribution_ends_at_the_largest_part_and_not_at_the_stream():
    graph = make_graph()
    parts = ["attn_out", "head", "value", "mlp_out", "mlp_value", "rest", "attn_bias", "mlp_bias"]
    for node in list(graph.by_id.values()):
        if node.kind in parts:
            change(graph, node.id, contribution=0.01)
    for node_id, value in (("L9.head1", -2.0), ("L9.head0", 1.0), ("L9.resid_mid", 50.0)):
        change(graph, node_id, contribution=value)
    looks = compose(graph, "everything", color_by="contribution").looks
    assert looks["L9.head1"] == "b5" and looks["L9.head0"] == "t5" and looks["L9.resid_mid"] == "t5"
    assert looks["L9.head2"] == "g" and looks["L9.head0.query"] == "o"


@pytest.mark.parametrize("d_vocab", [2, 10, 300, 1000, 50257, 256000])
def test_steps_of_the_rank_scale_rise(d_vocab):
    bounds = rank_bounds(d_vocab)
    assert bounds[0] == 1 and all(a < b for a, b in pairwise(bounds))
    assert bounds[-1] == max(10, int(d_vocab**0.5))


@pytest.mark.parametrize("palette", ["safe", "paper"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_of_words_is_at_least_4_5(theme, palette):
    page = page_colours(theme)
    pairs = [(fill, word) for fill, _, word in pill_colours(theme, palette).values()]
    pairs += [(pill_colours(theme, palette)[look][0], page["tag"]) for look in "go"]
    pairs += [(page["page"], page[name]) for name in ("ink", "quiet", "tag")]
    pairs += [(page["panel"], page["quiet"]), (page["r"], page["ink"])]
    pairs += [(band_colours(theme, palette)["t2"], page["ink"])]  # the target among the predictions
    for back, front in pairs:
        assert contrast(back, front) >= 4.5, (back, front)


def contrast(a: str, b: str) -> float:
    """WCAG's contrast ratio of two colours."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_gold_is_as_wide_as_the_pattern_at_every_level():
    flow = make_graph()
    for level in ("words", "everything"):
        sheet = place(flow, block_levels(flow, level))
        bands = {b.target: b for b in route(flow, sheet, gauge(flow), lambda node: "g") if b.look == "a"}
        strong, weak = bands["L9.head0.value0"], bands["L9.head0.value2"]
        assert strong.width / weak.width == pytest.approx((0.6 / 0.3) ** gauge(flow).power)


def test_missing_numbers_of_a_table_are_missing_everywhere():
    text = json.dumps(flow_data(make_graph(), "everything"), allow_nan=False)
    assert "NaN" not in text and '"nan' not in text


# ---- data for the page -----------------------------------------------------------------------------------------------


@families
@every_level
def test_data_describe_the_drawing(family, level):
    graph = make_graph(**FAMILIES[family])
    data = flow_data(graph, level)
    root = ElementTree.fromstring(data["svg"])
    groups = [e for e in root.iter(SVG + "g") if e.get("data-i")]
    assert [int(e.get("data-i")) for e in groups] == list(range(len(data["nodes"])))
    size = len(data["nodes"]) + data["junctions"]
    assert all(0 <= a < size and 0 <= b < size and a != b for a, b, *_ in data["links"])
    paths = [int(e.get("data-e")) for e in root.iter(SVG + "path") if e.get("class") != "sign"]
    assert len(set(paths)) == len(paths) and max(paths, default=0) < len(data["links"])


def test_contributions_travel_with_the_links():
    graph = make_graph()
    data = flow_data(graph, "words")
    ids = [node["id"] for node in data["nodes"]]
    sums = {}
    for source, target, kind, contribution, _ in data["links"]:
        if kind in "ar" and ids[target] == "L9.resid_mid":
            sums[ids[source]] = contribution
    assert set(sums) == {"L9.resid_pre", "L9.attn_out"}
    whole = graph.nodes.set_index("id").loc["L9.resid_mid", "contribution"]
    assert sum(sums.values()) == pytest.approx(whole, abs=0.02)


def test_the_component_brings_all_colours():
    source = component_source()
    for scope in (".visit.light.safe", ".visit.dark.paper"):
        assert f"{scope} .t5{{" in source["css"]
    assert source["js"].count("export default function flow(") == 1 and "innerHTML" not in source["js"]


def test_the_inspector_speaks_the_words_of_the_field():
    graph = make_graph(layers=(2, 7))
    assert inspect(graph, "L7.head1")["title"] == "Head L7 H1 at position 5"
    assert inspect(graph, "L7.head1")["how"].startswith("z₁ @ W_O[1]: what head 1 writes")
    assert inspect(graph, "L7.head1.value3")["title"] == "Memory value of head L7 H1 from position 3 (·John)"
    assert inspect(graph, "L7.head1.value3")["source"] == "·John"
    assert inspect(graph, "L3-6.rest")["title"] == "The blocks 3 to 6 that are not shown: 30 % of the sum"
    assert inspect(graph, "L7.head1.rest")["title"].endswith("that are not shown: 20 % of the sum")
    assert len(inspect(graph, "logits")["words"]) == 10
    with pytest.raises(KeyError):
        inspect(graph, "L99.head0")


def test_missing_numbers_have_a_reason():
    facts = {name: (value, reason) for name, value, reason in inspect(make_graph(), "L9.head0.query")["facts"]}
    assert facts["contribution in logits"] == ("–", "adds nothing to the stream")
    assert facts["coefficient"] == ("–", "none: read as it is")
    facts = {name: (value, reason) for name, value, reason in inspect(make_graph(), "L9.head0")["facts"]}
    assert float(facts["contribution in logits"][0]) and facts["contribution in logits"][1] == ""


def test_every_kind_has_a_title_and_a_line():
    graph = make_graph(gated=True, layers=(1, 4))
    for entry in flow_data(graph, "everything")["nodes"]:
        assert entry["title"] != entry["id"] and "None" not in entry["title"], entry
        assert entry["how"] and "\n" not in entry["how"] and "{" not in entry["how"] and "None" not in entry["how"]


def test_pictures_are_the_same_each_time():
    assert draw(make_graph()) == draw(make_graph())
    assert compose(make_graph(), "words").looks["L9.resid_pre"] == "t5"
    assert NAME_Y < WORK_Y


# ---- a real graph ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    pytest.importorskip("torch", reason="torch is not installed: no real graph")
    import visit

    model = visit.load_model("visit-mini")
    acts = visit.capture(model, "The capital of Japan is the city of")
    return visit.build_flow_graph(
        model, acts, layers=[0, 1, 5], keep=visit.Keep(heads=3, attn_neurons=5, mlp_neurons=6)
    )


@every_level
def test_a_real_graph_is_drawn_whole(real, level):
    data = flow_data(real, level)
    ElementTree.fromstring(data["svg"])
    flow = real
    assert {entry["id"] for entry in data["nodes"]} == shown(flow, block_levels(flow, level))
    assert json.dumps(data, allow_nan=False)
    ElementTree.fromstring(draw(real, level, theme="dark", color_by="contribution", width_by="contribution"))


def test_shares_and_gaps_of_a_real_graph_are_said(real):
    data = flow_data(real, "words")
    rests = [entry["title"] for entry in data["nodes"] if entry["id"].endswith(".rest")]
    assert len(rests) == 3 * (3 + 1 + 1) + 1 and sum("of the sum" in title for title in rests) >= 15
    texts = [e.text for e in ElementTree.fromstring(data["svg"]).iter(SVG + "text")]
    assert "blocks 2–4" in texts and sum(t.startswith("rest ") and t.endswith(" %") for t in texts if t) >= 15


def test_gold_of_a_real_graph_is_its_pattern(real):
    flow = real
    sheet = place(flow, block_levels(flow, "words"))
    measure = gauge(flow)
    for band in route(flow, sheet, measure, lambda node: "g"):
        if band.look == "a":
            pattern = flow.by_id[band.target].coefficient
            assert band.width == pytest.approx(max(0.9, 10 * pattern**measure.power), rel=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox", "gemma2"])
def test_a_graph_that_is_taken_apart_in_its_open_block_only_draws_the_same_picture(name):
    model = models.small(name)
    acts = capture(model, "The capital of Japan")
    detail = {0: "states", 1: "words"}
    whole, folded = build_flow_graph(model, acts), build_folded_graph(model, acts, opened=[1])
    assert len(folded.nodes) < 0.6 * len(whole.nodes)
    moves = block_moves(model, acts, -1, whole.meta["target"]["id"])
    assert default_detail(whole)[max(moves, key=moves.__getitem__)] == "words"
    one, two = flow_data(whole, detail, width_by="norm"), flow_data(folded, detail, width_by="norm")
    assert two["nodes"] == one["nodes"] and two["junctions"] == one["junctions"]
    assert sorted(map(str, two["links"])) == sorted(map(str, one["links"]))
    boxes = [re.findall(r"<g class='n[^>]*>|<text.*?</text>|<rect[^>]*>", data["svg"]) for data in (one, two)]
    assert boxes[0] == boxes[1]


def test_influence_is_drawn_with_its_sign_its_units_and_only_where_it_was_computed():
    model = models.small("llama")
    acts = capture(model, [5, 17, 3, 99, 41])
    graph = build_flow_graph(model, acts, influence=True)
    look = {"width_by": "influence", "color_by": "influence", "sort_by": "influence"}
    picture = compose(graph, "everything", **look)
    for pill in picture.sheet.pills.values():
        moved, look_of = pill.node.influence, picture.looks[pill.id]
        assert (look_of == "o") == (moved is None)
        assert moved is None or look_of == "g" or look_of[0] == ("t" if moved > 0 else "b")
    widest = max((e for e in graph.links if e.kind in ("add", "residual")), key=lambda e: abs(e.influence))
    assert picture.measure.number(widest) == picture.measure.largest == abs(widest.influence)
    assert "influence" in picture.legend.fill_title and "|influence| in logits" in picture.legend.width_title
    assert "of all |influence|" in picture.legend.caption
    heads = [p for p in picture.sheet.pills.values() if p.node.kind == "head" and p.node.layer == 1]
    by_row = [abs(p.node.influence) for p in sorted(heads, key=lambda p: p.y)]
    assert by_row == sorted(by_row, reverse=True)
    data = flow_data(graph, "everything", **look)
    assert data["facts"][-1].startswith("influence") and len(data["facts"]) == len(data["terms"]) == 7
    assert all(len(node["f"]) == 7 for node in data["nodes"])
    assert inspect(graph, "L1.head0")["facts"][-1][1].startswith(("+", "-"))
    assert inspect(graph, "L1.resid_post")["facts"][-1][2].startswith("a state is")
    plain = build_flow_graph(model, acts)
    assert len(flow_data(plain)["facts"]) == 6 and all(len(node["f"]) == 6 for node in flow_data(plain)["nodes"])
    for name in look:
        with pytest.raises(VisitError, match="without influence"):
            compose(plain, **{name: "influence"})


def test_a_difference_by_influence_has_both_sides_and_their_change():
    from visit import compare
    from visit.drawing.pair import both_data, difference_data, difference_picture

    model = models.small("gpt2")
    a, b = (build_flow_graph(model, capture(model, ids), influence=True) for ids in ([5, 17, 3, 9], [5, 17, 4, 9]))
    found = compare(a, b)
    graph, _ = difference_picture(found)
    edge = next(e for e in graph.links if (e.source, e.target) == ("L1.head2", "L1.attn_out"))
    moved = [one.by_id["L1.head2"].influence for one in (a, b)]
    assert edge.influence == pytest.approx(moved[1] - moved[0])
    look = {"width_by": "influence", "sort_by": "influence"}
    data = difference_data(found, "everything", **look)
    assert "change of the influence" in data["legend"]["width_title"]
    assert all(len(node["f"]) == 7 and len(node["f2"]) == 7 for node in data["nodes"] if "f2" in node)
    assert both_data(found, "everything", color_by="influence", **look)
