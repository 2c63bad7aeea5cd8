"""Two graphs side by side: the same component at the same place in the same units, and a drawing of what differs."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from functools import cache

import pandas as pd
import pytest

import visit
from visit.analyses.divergence import part
from visit.analyses.graph_difference import Comparison, compare, own_id, said_by, single_parts
from visit.drawing.pair import both_data, common_detail, difference_data, difference_graph
from visit.exact.question import Question
from visit.files.flow_page import difference_file
from visit.graph.build import build_folded_graph
from visit.narrate.comparison import contrast, contrast_parts

JAPAN = "The capital of Japan is the city of"
NOT = "The capital of Japan is not the city of"
FRANCE = "The capital of France is the city of"


@cache
def mini():
    return visit.load_model("visit-mini")


@cache
def found(a: str = JAPAN, b: str = NOT) -> Comparison:
    graphs = [visit.build_flow_graph(mini(), visit.capture(mini(), text)) for text in (a, b)]
    return compare(*graphs)


def places(data: dict) -> dict[str, tuple[float, float]]:
    """Common id → where its box stands."""
    boxes = re.finditer(r"data-i='(\d+)'><rect x='([\d.]+)' y='([\d.]+)'", data["svg"])
    ids = {m: data["nodes"][int(m[1])]["id"] for m in boxes}
    return {data.get("names", {}).get(i, i): (float(m[2]), float(m[3])) for m, i in ids.items()}


@pytest.mark.parametrize("level", ["states", "words", "everything"])
@pytest.mark.parametrize("other", [NOT, FRANCE, "Cairo is known as the capital of"])
def test_the_same_component_stands_at_the_same_place(level, other):
    one = found(JAPAN, other)
    detail = {4: level, 5: "words"}
    a, b = (places(data) for data in both_data(one, detail))
    whole = places(difference_data(one, detail))
    assert set(a) == set(b) == set(whole) and len(a) > 60
    for name in a:
        for side in (b, whole):  # a held place is a thinner pill in the middle of its line
            assert abs(a[name][0] - side[name][0]) < 1 and abs(a[name][1] - side[name][1]) <= 2.5


def test_both_sides_are_drawn_in_the_same_units():
    a, b = both_data(found(), "words")
    assert a["legend"]["widths"] == b["legend"]["widths"] and a["legend"]["fill"] == b["legend"]["fill"]
    assert a["group"] == b["group"] is not None


def test_absent_is_drawn_only_where_the_token_is_missing():
    data = both_data(found(), "words")
    assert data[0]["svg"].count(">absent<") > 0 and data[1]["svg"].count(">absent<") == 0
    lone = {n["id"] for n in data[0]["nodes"] if n["title"].startswith("Absent")}
    assert lone and all(data[0]["names"][i].endswith("value5b") for i in lone), "5 is “·not”"
    entry = next(n for n in data[0]["nodes"] if n["id"] in lone)
    assert entry["w"] == [] and "no token" in entry["how"] and "pin" not in entry


def test_a_selection_is_shared_by_its_common_name():
    one = found()
    node = "L4.head1.value3"
    a, b = both_data(one, "words", selected=node)
    assert a["selected"] == node and b["selected"] == own_id(node, "b", one.pairing) == node
    lone = "L4.head1.value5b"
    a, b = both_data(one, "words", selected=lone)
    assert b["selected"] == "L4.head1.value5" and a["names"][a["selected"]] == lone


def test_the_difference_graph_carries_what_changed():
    flow = difference_graph(found())
    by_id = found().nodes.set_index("id")
    for edge in flow.links:
        if edge.kind in ("add", "residual") and edge.contribution is not None:
            row = by_id.loc[edge.source]
            assert edge.contribution == pytest.approx(row["difference"], abs=1e-5)
    lone = flow.by_id["L4.head1.value5b"]
    assert lone.only_b and lone.counterpart is not None and lone.status == "only B"


def test_the_difference_shows_both_words_and_both_numbers():
    data = difference_data(found(JAPAN, FRANCE), "words")
    entry = next(n for n in data["nodes"] if n["id"] == "L7.resid_post")
    assert entry["w"][0] == "·Tokyo" and entry["w2"][0] == "·Paris" and len(entry["f"]) == len(entry["f2"])
    assert "·Tokyo→·Paris" in data["svg"] and entry["kept"] == "In both, with another top word."


@pytest.mark.parametrize("kind", ["svg", "html", "png"])
def test_the_difference_as_a_file(kind):
    made = difference_file(found(), kind, {4: "words"})
    if kind == "png":
        assert isinstance(made, bytes) and made.startswith(b"\x89PNG")
    else:
        assert "B − A" in made.decode()
    if kind == "svg":
        ET.fromstring(made)


def test_hostile_prompts_stay_text():
    texts = "<script>alert(1)</script>\x00\x1b '\"", "</svg><img src=x onerror=alert(2)> & ]]>"
    one = found(*texts)
    for data in (*both_data(one, "everything"), difference_data(one, "everything")):
        root = ET.fromstring(data["svg"])
        assert not [e for e in root.iter() if e.tag.rpartition("}")[2] in ("script", "img")]
    ET.fromstring(difference_file(one, "svg", "words"))


# ---- the sentences -------------------------------------------------------------------------------------------------


def said(a: str, b: str) -> str:
    one = found(a, b)
    records = [visit.capture(mini(), text) for text in (a, b)]
    table = part(mini(), records[0], mini(), records[1], one.pairing)
    return " ".join("".join(text for text, _ in sentence) for sentence in contrast(one, table))


def test_the_sentences_name_the_head_and_what_it_takes_instead():
    text = said(JAPAN, FRANCE)
    assert "“·Japan” → “·France”" in text and "A gives “·Tokyo”" in text and "B gives “·Paris”" in text
    where = "at “·Japan” / “·France” (position 3), in the embedding"
    assert f"As the plain lens reads them, the runs first diverge (by 0.1 bit or more) {where}" in text
    head = found(JAPAN, FRANCE).nodes.query("kind == 'head'").set_index("id")["contribution_a"].idxmax()
    assert head.replace("L", "L").replace(".head", " H") in text


def test_a_comparison_of_folded_graphs_says_the_same_from_all_single_parts():
    one = found(JAPAN, FRANCE)
    records = [visit.capture(mini(), text) for text in (JAPAN, FRANCE)]
    targets = [one.meta["target"]["id"], one.meta["b"]["target"]["id"]]
    asked = [Question(mini(), acts, acts.index(-1), word) for acts, word in zip(records, targets, strict=True)]
    parts = single_parts(*asked, one.pairing)
    heads = parts[parts["kind"] == "head"].set_index("id")
    truth = one.nodes[one.nodes["kind"] == "head"].set_index("id")
    assert len(heads) == len(truth) == mini().n_layers * mini().n_heads
    for name in ("contribution_a", "contribution_b", "difference"):
        assert heads[name].to_list() == pytest.approx(truth.loc[heads.index, name].to_list(), abs=1e-4)
    kept = one.tables["changes"].query("kind == 'mlp_value'")["difference"].abs().max()
    assert parts.query("kind == 'mlp_value'")["difference"].abs().max() >= kept - 1e-4
    graphs = [build_folded_graph(mini(), acts) for acts in records]
    folded = compare(*graphs, one.pairing)
    assert len(folded.nodes) < 0.3 * len(one.nodes)
    first, second = (["".join(t for t, _ in s) for s in c] for c in (contrast(one), contrast(folded, None, parts)))
    assert second[:-1] == first[:-1] and second[-1].startswith("Of single heads and neurons, ")


@pytest.mark.parametrize(
    ("tops", "bottoms", "distractor", "expected"),
    [
        ((" Mary", " Ann"), (" the", " a"), " John", (" Mary", False)),  # a mover
        ((" the", " a"), (" John", " Jack"), " John", (" John", True)),  # a suppressor of the repeated name
        ((" the", " a"), (" Johnny", " John"), " John", (" Johnny", True)),
        ((" Mary", " a"), (" John", " Jack"), " John", (" Mary", False)),  # it says both: what it recalls is told
        ((" the", " a"), (" John", " Jack"), None, (" the", False)),  # without a distractor nothing is pushed down
    ],
)
def test_what_a_memory_value_says_is_what_its_push_comes_from(tops, bottoms, distractor, expected):
    assert said_by(tops, bottoms, " Mary", distractor) == expected


def test_the_sentence_of_a_suppressor_reads_the_negative_of_its_memory_value():
    """It recalled “the” from “John” before: the value was read without its sign."""
    one = found(JAPAN, FRANCE)
    records = [visit.capture(mini(), text) for text in (JAPAN, FRANCE)]
    asked = [Question(mini(), acts, acts.index(-1), int(acts.logits[-1].argmax())) for acts in records]
    parts = single_parts(*asked, one.pairing)
    assert not parts["negated_a"].fillna(False).any()
    first = parts["contribution_a"].where(parts["kind"] == "head").idxmax()
    parts.loc[first, ["word_a", "negated_a"]] = " Kyoto", True
    told = "".join(text for text, _ in contrast_parts(one, None, parts)["strongest"])
    assert "it suppresses: the negative of its memory value from “·Japan” reads “·Kyoto”; in B it recalls " in told


def test_a_folded_comparison_has_the_whole_ones_rows():
    records = [visit.capture(mini(), text) for text in (JAPAN, FRANCE)]
    whole = found(JAPAN, FRANCE)
    graphs = [build_folded_graph(mini(), acts, opened=[4]) for acts in records]
    folded = compare(*graphs, whole.pairing)
    ids = [i for i in folded.nodes["id"] if not i.endswith(".heads.rest")]
    assert set(whole.nodes.loc[whole.nodes["layer"] == 4, "id"]) <= set(ids)
    names = ["contribution_a", "contribution_b", "prob_a", "prob_b", "difference"]
    one, two = (c.nodes.set_index("id").loc[ids, names].astype(float) for c in (whole, folded))
    pd.testing.assert_frame_equal(one, two, atol=1e-4, rtol=1e-4)
    assert all(g.meta["ledger"]["holds"] for g in (folded.a, folded.b))
    detail = dict.fromkeys(whole.meta["layers"], "states") | {4: "words"}
    pictures = [[[n["id"] for n in side["nodes"]] for side in both_data(c, detail)] for c in (whole, folded)]
    assert pictures[0] == pictures[1]


def test_one_prompt_twice_is_said_to_be_one_prompt():
    assert "nothing to tell apart" in said(JAPAN, JAPAN)


def test_prompts_without_a_common_token_are_said_to_have_none():
    assert "no token in common" in said("Opel", " Tokyo is big")


def test_the_ids_in_the_sentences_are_nodes():
    one = found()
    ids = {i for sentence in contrast(one) for _, i in sentence if i is not None}
    assert ids and ids <= set(one.nodes["id"])


def test_the_open_block_is_the_one_that_moves_both_sides():
    detail = common_detail(found(JAPAN, FRANCE))
    assert list(detail.values()).count("words") == 1 and set(detail) == set(range(mini().n_layers))


def test_the_caption_names_a_part_of_a_character_as_one():
    from visit.drawing.draw import flow_data

    flow = build_folded_graph(mini(), visit.capture(mini(), "東"), pos=0)
    assert "at position 0 (東 1/3)" in flow_data(flow)["legend"]["caption"]
