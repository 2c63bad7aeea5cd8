"""Contribution beside effect: which of the two a part lives by."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import visit
from visit.causal.agreement import AGREEMENT_KINDS, beside_effect, kind
from visit.exact.question import ask
from visit.figures.effects import effects_grid
from visit.figures.head_sets import set_grid
from visit.lessons.grammar import parse_query
from visit.lessons.queries import LearnerRun, answer


@pytest.mark.parametrize(
    ("contribution", "effect", "expected"),
    [
        (1.14, 0.0, "others make up"),  # L23 H0 of SmolLM2 on two names
        (-0.03, -1.8, "steers others"),  # L20 H0
        (1.0, -0.9, "adds by itself"), (-1.0, 1.1, "adds by itself"), (0.05, 0.02, "little"),
        (-1.0, -0.2, "others make up"), (1.0, 0.2, "others make up"), (0.5, -1.0, "others build on it"),
        (0.0, 0.5, "steers others"), (1.0, -0.5, "make up in part"), (0.05, -0.29, "little"),
    ],
)  # fmt: skip
def test_a_part_is_called_by_how_its_effect_differs_from_what_it_adds(contribution, effect, expected):
    assert kind(contribution, effect) == expected and expected in AGREEMENT_KINDS


def test_an_effect_is_how_the_answer_changes_and_the_kind_is_that_of_the_answer():
    rows = pd.DataFrame({
        "node": ["L4.head1", "L7.mlp_value17"], "contribution": [1.0, 0.0], "d_logit": [-0.9, 0.0],
        "d_difference": [float("nan")] * 2, "prob": [0.86, 0.85],
    })  # fmt: skip
    rows.attrs = {"before": {"prob": 0.85, "difference": float("nan")}}
    found = beside_effect(rows)
    assert found["effect"].tolist() == [-0.9, 0.0] and found["name"].tolist() == ["L4 H1", "L7 N17"]
    assert found["kind"].tolist() == ["others make up", "little"], "its logit falls, its odds do not"
    rows = rows.assign(d_difference=[-0.8, -2.0])
    rows.attrs = {"before": {"prob": 0.85, "difference": 3.0}}
    found = beside_effect(rows)
    assert found["effect"].tolist() == [-0.8, -2.0] and found["kind"].tolist() == ["adds by itself", "steers others"]


def test_one_prompt_and_a_set_tell_an_effect_with_one_sign_and_one_colour():
    """What if, Heads over a set, and the numbers that lessons tell: below 0 the answer falls, and the cell is of the
    colour that speaks for the target."""
    model, names = visit.load_model("visit-mini"), "When Mary and John went to the store, John gave a drink to"
    acts = visit.capture(model, names)
    one = beside_effect(visit.effects(model, acts, target=" Mary", distractor=" John")).set_index("node")
    asked = pd.DataFrame([{"prompt": names, "target": " Mary", "distractor": " John"}])
    over_set = visit.head_question(model, asked).set_index("node")
    assert np.allclose(one["effect"], over_set.loc[one.index, "effect"], atol=1e-4)
    most = one["effect"].idxmin()
    run = LearnerRun(ask(model, acts, -1, " Mary", " John"))
    assert answer(run, parse_query(f"effect of removing {most}", {})).value == pytest.approx(one["effect"].min())
    assert answer(run, parse_query("largest effect among heads", {})).value == most
    grids = effects_grid(one.reset_index(), "effect", "", ""), set_grid(over_set.reset_index(), "effect", 10.0)
    for grid in grids:
        cell = grid.cells.set_index("id").loc[most]
        assert cell["hue"] == "p" and float(cell["text"].replace("−", "-")) < 0
