"""The maps of a causal trace: every colour that a cell can have stands in the legend."""

from __future__ import annotations

import pandas as pd
import pytest

from visit.figures.tracing import TAKES_AWAY, trace_grid


@pytest.mark.parametrize(("least", "legend"), [(0.0, False), (-0.001, False), (-0.2, True)])
def test_a_cell_that_lowers_the_answer_has_its_colour_in_the_legend(least, legend):
    """Vermilion cells of the windows, too, whose maps have no legend of their own."""
    rows = [
        {"site": site, "layer": 0, "pos": pos, "token": " a", "prob": 0.5, "effect": effect, "low": float("nan"),
         "high": float("nan"), "first": 0, "last": 0}
        for site, effects in (("resid", (0.1, 0.5)), ("mlp_out", (least, 0.2))) for pos, effect in enumerate(effects)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    about = {"clean": 0.9, "corrupted": 0.3, "window": 3, "position": 1, "tokens": [" a", " b"]}
    table.attrs = {**about, "subject": {"positions": [0], "text": " a"}}
    words = [words for _, words in trace_grid(table, "resid", range(2)).scale]
    assert (TAKES_AWAY in words) == legend and "100 % back" in words
    assert not trace_grid(table, "mlp_out", range(2)).scale
