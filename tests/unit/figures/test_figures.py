"""Charts hold the numbers of their tables and no markup of a prompt."""

from __future__ import annotations

import models
import pytest

import visit
from visit import build_flow_graph, capture

PROMPT = "<b>Mary</b> and John"


def test_the_sankey_carries_contributions_and_escapes_words():
    model = models.small("gpt2")
    graph = build_flow_graph(model, capture(model, PROMPT), layers=[1])
    figure = visit.figures.flow_graph(graph).to_dict()
    sankey = figure["data"][0]
    edges = graph.edges[graph.edges["kind"].isin(["add", "residual"])]
    assert sum(sankey["link"]["value"]) == pytest.approx(edges["contribution"].abs().sum())
    assert len(sankey["link"]["source"]) == (edges["contribution"] != 0).sum()
    text = str(figure)
    assert "<b>" not in text and "&lt;b&gt;" in text
