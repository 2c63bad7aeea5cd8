"""Results show themselves in a notebook: as drawings that hold their own numbers, in a frame that reaches nothing."""

from __future__ import annotations

import html
import json
import re

import pandas as pd
import pytest

import visit

JAPAN = "The capital of Japan is the city of"
KINDS = ("graph", "comparison", "effects", "lens_map", "head_memory", "trace")


@pytest.fixture(scope="module")
def mini():
    return visit.load_model("visit-mini")


@pytest.fixture(scope="module")
def shown(mini):
    a, b = visit.capture(mini, JAPAN), visit.capture(mini, JAPAN.replace("Japan", "France"))
    graph = visit.build_flow_graph(mini, a, layers=[4])
    return {
        "graph": graph, "comparison": visit.compare(graph, visit.build_flow_graph(mini, b, layers=[4])),
        "effects": visit.effects(mini, a), "lens_map": visit.lens_map(mini, a),
        "head_memory": visit.head_memory(mini, a, 4, 1), "trace": visit.trace(mini, JAPAN, "Japan", samples=1),
    }  # fmt: skip


def page_of(result) -> str:
    frame = re.fullmatch(r'<iframe srcdoc="([^"]*)" sandbox="allow-scripts" [^>]*></iframe>', result._repr_html_())
    assert frame, "one frame, in which scripts may run and nothing else is allowed"
    return html.unescape(frame[1])


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_each_result_is_a_page_that_fetches_nothing(shown, kind):
    page = page_of(shown[kind])
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=[\"']?https?:", page)
    assert len(page) < 900_000


def test_a_cell_of_the_map_of_effects_is_what_the_table_says(shown):
    table = shown["effects"]
    data = data_of(page_of(table))
    effect = {row.node: row.d_logit for row in table.itertuples()}
    cells = [cell for row in data["rows"] for cell in row["cells"]]
    assert len(cells) == len(effect)
    for cell in cells:
        written = "0" if abs(effect[cell["id"]]) < 0.005 else f"{effect[cell['id']]:+.2f}"
        assert cell["w"] == written


def test_the_lens_map_and_the_memory_show_the_words_and_numbers_of_their_tables(shown):
    rows = data_of(page_of(shown["lens_map"]))["rows"]
    table = shown["lens_map"].set_index(["depth", "pos"])
    assert len(rows) == table.index.get_level_values("depth").nunique()
    assert rows[0]["cells"][-1]["w"].strip("·") == table.loc[(rows[0]["depth"], 7), "top"].strip()
    memory = data_of(page_of(shown["head_memory"]))
    assert memory["rows"][3]["cells"][2]["w"] == "+2.510"
    assert memory["columns"] == ["attends", "moves", "adds, logits"]


def test_what_is_made_from_a_drawn_table_is_a_plain_one(shown):
    table = shown["effects"]
    assert type(table[table["layer"] == 4]) is pd.DataFrame
    assert type(table.copy()) is pd.DataFrame
    assert "<table" in table.head(0)._repr_html_()


def test_effects_of_neurons_are_shown_as_their_table(mini):
    found = visit.effects(mini, visit.capture(mini, JAPAN), nodes=["L4.mlp_value3"])
    assert "<table" in found._repr_html_()


def test_a_token_cannot_leave_its_frame(mini):
    acts = visit.capture(mini, 'a" onload="x <script>alert(1)</script> &quot;')
    frame = visit.lens_map(mini, acts)._repr_html_()
    assert frame.count('"') == 8  # of its own four attributes
    page = html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1])
    assert "<script>alert" not in page
