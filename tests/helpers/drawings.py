"""Kinds of graphs and levels that every test of the drawing goes through."""

from __future__ import annotations

import pytest
from graphs import make_graph

from visit.drawing.layout import block_levels, place
from visit.drawing.records import LEVELS

SVG = "{http://www.w3.org/2000/svg}"
FAMILIES = {
    "sequential": {},
    "no rest, no bias": {"rests": False, "biases": False},
    "parallel, two norms": {"parallel": True},
    "parallel, one norm": {"parallel": True, "norms": 1},
    "gated": {"gated": True, "biases": False},
    "post-norm": {"norms": 0, "gated": True, "biases": False},
    "gap": {"layers": (2, 3, 7)},
    "gap of one block": {"layers": (0, 2)},
    "twelve blocks": {"layers": tuple(range(12)), "heads": 5},
    "one value": {"values": 1},
    "nothing kept": {"heads": 0, "neurons": 0, "attn_neurons": 0},
    "small vocabulary": {"d_vocab": 300},
}
families = pytest.mark.parametrize("family", FAMILIES)
every_level = pytest.mark.parametrize("level", LEVELS)


def layout(level, parts="both", sort_by="norm", **options):
    flow = make_graph(**options)
    return flow, place(flow, block_levels(flow, level), parts, sort_by)
