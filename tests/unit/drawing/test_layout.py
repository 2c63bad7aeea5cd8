"""Where everything stands: nothing overlaps, nothing is missing, rows and columns are straight."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from drawings import FAMILIES, every_level, families, layout
from graphs import make_graph

from visit.drawing.edges import gauge, route
from visit.drawing.layout import block_levels, place, share_text, shown
from visit.drawing.records import LEVELS, STREAM_Y
from visit.text.visible import text_width


@families
@every_level
def test_nothing_overlaps_and_everything_is_inside(family, level):
    _, sheet = layout(level, **FAMILIES[family])
    for a, b in combinations(sheet.pills.values(), 2):
        apart = a.right <= b.x or b.right <= a.x or a.bottom <= b.y or b.bottom <= a.y
        assert apart, (a.id, b.id)
    for pill in sheet.pills.values():
        assert pill.x >= 0 and pill.right <= sheet.width
        assert pill.y >= 0 and pill.bottom <= sheet.height


@families
@every_level
def test_every_node_of_the_level_is_placed_once_and_every_link_leads_to_placed_nodes(family, level):
    flow, sheet = layout(level, **FAMILIES[family])
    assert set(sheet.pills) == shown(flow, block_levels(flow, level))
    ends = {*sheet.pills, *sheet.junctions}
    bands = route(flow, sheet, gauge(flow), lambda node: "g")
    assert all(band.source in ends and band.target in ends for band in bands)
    reached = {band.target for band in bands}
    begins = {i for i in sheet.pills if not flow.into[i]}
    if family == "nothing kept":  # sums of hidden rests alone, which come from nowhere
        begins |= {"L9.attn_out", "L9.mlp_out"}
    tags = {i for i, p in sheet.pills.items() if p.role == "tag"}
    assert set(sheet.pills) - reached - tags <= begins


@every_level
def test_words_and_tags_fit_their_pills(level):
    _, sheet = layout(level, words=["W" * 40, "m" * 9, " Internationalization"], layers=(3, 4))
    for pill in sheet.pills.values():
        if pill.role in ("bead", "card"):
            continue
        sizes = {"rest": (11, 0), "tag": (11, 0), "state": (12.9, 11)}.get(pill.role, (12, 11))
        used = text_width(pill.word, sizes[0]) + (text_width(pill.tag, sizes[1]) + 6 if pill.tag else 0)
        assert used <= pill.w - 6, (pill.id, pill.word, pill.tag)


def test_names_of_columns_do_not_run_into_each_other():
    for level in LEVELS:
        _, sheet = layout(level, layers=(3, 4, 7), gated=True)
        lines = {}
        for caption in sheet.captions:
            w = text_width(caption.text, 13 if caption.kind == "title" else 11)
            lines.setdefault(caption.y, []).append((caption.x - (w / 2 if caption.middle else 0), w, caption.text))
        for line in lines.values():
            line.sort()
            assert all(a[0] + a[1] <= b[0] for a, b in pairwise(line)), line


def test_states_of_the_stream_stand_on_one_straight_line():
    _, sheet = layout("everything", layers=(2, 3, 7))
    states = [p for p in sheet.pills.values() if p.node.kind.startswith("resid")]
    assert len(states) == 2 + 2 * 3
    assert {p.cy for p in states} == {STREAM_Y}
    order = [p.id for p in sorted(states, key=lambda p: p.x)]
    assert order == [
        "L2.resid_pre", "L2.resid_mid", "L2.resid_post", "L3.resid_mid", "L3.resid_post",
        "L7.resid_pre", "L7.resid_mid", "L7.resid_post",
    ]  # fmt: skip


def test_a_row_is_one_head_from_query_to_output():
    _, sheet = layout("everything")
    for h in range(3):
        row = [p for p in sheet.pills.values() if p.node.head == h and p.node.kind != "attn_neuron"]
        others = [p for p in sheet.pills.values() if p.node.head not in (None, h)]
        top, bottom = min(p.y for p in row), max(p.bottom for p in row)
        assert not any(top < p.cy < bottom for p in others)
        first = [p for p in row if p.node.kind in ("query", "head")]
        assert {p.y for p in first} == {top}
        by_x = sorted(row, key=lambda p: p.x)
        kinds = list(dict.fromkeys(p.node.kind for p in by_x if p.node.kind != "rest"))
        assert kinds == ["query", "key", "value", "head"]


def test_key_and_value_of_one_position_stand_on_one_line():
    _, sheet = layout("everything")
    for pill in sheet.pills.values():
        if pill.node.kind == "key":
            assert sheet.pills[pill.id.replace("key", "value")].y == pill.y


def test_bands_of_heads_pass_beside_the_rows_of_w_o():
    _, sheet = layout("everything", attn_neurons=12)
    heads = {p.cy for p in sheet.pills.values() if p.node.kind == "head"}
    rows = [p for p in sheet.pills.values() if p.node.kind == "attn_neuron"]
    assert len(rows) == 12
    assert not any(p.y < y < p.bottom for p in rows for y in heads)


@pytest.mark.parametrize("sort_by", ["norm", "contribution", "index"])
def test_heads_are_sorted_as_asked(sort_by):
    _, sheet = layout("words", sort_by=sort_by, heads=6)
    heads = sorted((p for p in sheet.pills.values() if p.node.kind == "head"), key=lambda p: p.y)
    number = {
        "norm": lambda n: -n.norm,
        "contribution": lambda n: -abs(n.contribution),
        "index": lambda n: n.head,
    }[sort_by]
    keys = [number(p.node) for p in heads]
    assert keys == sorted(keys) and len(set(keys)) > 1


def test_rows_by_index_keep_their_place_between_prompts():
    _, one = layout("words", sort_by="index", seed=0)
    _, two = layout("words", sort_by="index", seed=5, words=["a", "b", "c"])
    assert {i: (p.x, p.y) for i, p in one.pills.items()} == {i: (p.x, p.y) for i, p in two.pills.items()}


def test_rows_can_follow_another_graph():
    one, two = make_graph(heads=6, seed=0), make_graph(heads=6, seed=5)

    def rows(flow, order):
        sheet = place(flow, block_levels(flow, "words"), order=order)
        return {i: p.y for i, p in sheet.pills.items() if p.node.kind in ("head", "mlp_value")}

    assert rows(two, None) != rows(one, None)
    assert rows(two, one) == rows(one, None)


def test_levels_show_what_they_promise():
    kinds = {}
    for level in LEVELS:
        _, sheet = layout(level)
        kinds[level] = {p.node.kind for p in sheet.pills.values()}
    assert kinds["states"] == {
        "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "head", "ln_final", "logits",
    }  # fmt: skip
    assert kinds["words"] - kinds["states"] == {"value", "mlp_value", "rest"}
    hidden = {"ln1_out", "ln2_out", "query", "key", "attn_neuron", "mlp_key", "attn_bias", "mlp_bias"}
    assert kinds["everything"] - kinds["words"] == hidden


def test_a_block_can_have_its_own_level():
    flow = make_graph(layers=(1, 2, 3))
    sheet = place(flow, block_levels(flow, {2: "words"}))
    assert {p.node.layer for p in sheet.pills.values() if p.node.kind == "value"} == {2}
    assert {b.layer: b.level for b in sheet.blocks} == {1: "states", 2: "words", 3: "states"}
    with pytest.raises(ValueError, match="detail must be one of"):
        block_levels(flow, "word")


@pytest.mark.parametrize(("parts", "gone"), [("attention", "mlp_value"), ("mlp", "value")])
def test_one_workshop_alone(parts, gone):
    _, sheet = layout("everything", parts=parts)
    kinds = {p.node.kind for p in sheet.pills.values()}
    assert gone not in kinds and {"attn_out", "mlp_out"} <= kinds


def test_twelve_folded_blocks_fit_one_screen_and_a_block_at_words_a_thousand_pixels():
    _, sheet = layout("states", layers=tuple(range(12)), heads=12)
    assert sheet.width <= 1075  # the column that a 1,440 px window leaves beside the sidebar
    _, sheet = layout("words", heads=12, neurons=12, final=False)
    assert sheet.width <= 1000


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "rest"), (0.12, "rest 12 %"), (0.004, "rest 0.4 %"), (-1e-8, "rest < 0.1 %"), (1.0, "rest 100 %")],
)
def test_rest_says_its_share(share, text):
    assert share_text(share) == text
