"""Contribution beside effect: which of the two a part lives by."""

from __future__ import annotations

import pandas as pd
import pytest

from visit.causal.agreement import AGREEMENT_KINDS, beside_effect, kind


@pytest.mark.parametrize(
    ("contribution", "effect", "expected"),
    [
        (1.14, 0.0, "others make up"),  # L23 H0 of SmolLM2 on two names
        (-0.03, 1.8, "steers others"),  # L20 H0
        (1.0, 0.9, "adds by itself"), (-1.0, -1.1, "adds by itself"), (0.05, -0.02, "little"),
        (-1.0, 0.2, "others make up"), (1.0, -0.2, "others make up"), (0.5, 1.0, "others build on it"),
        (0.0, -0.5, "steers others"), (1.0, 0.5, "make up in part"), (0.05, 0.29, "little"),
    ],
)  # fmt: skip
def test_a_part_is_called_by_how_its_effect_differs_from_what_it_adds(contribution, effect, expected):
    assert kind(contribution, effect) == expected and expected in AGREEMENT_KINDS


def test_what_is_lost_has_the_sign_of_a_contribution_and_the_kind_is_that_of_the_answer():
    rows = pd.DataFrame({
        "node": ["L4.head1", "L7.mlp_value17"], "contribution": [1.0, 0.0], "d_logit": [-0.9, 0.0],
        "d_difference": [float("nan")] * 2, "prob": [0.86, 0.85],
    })  # fmt: skip
    rows.attrs = {"before": {"prob": 0.85, "difference": float("nan")}}
    found = beside_effect(rows)
    assert found["effect"].tolist() == [0.9, 0.0] and found["name"].tolist() == ["L4 H1", "L7 N17"]
    assert found["kind"].tolist() == ["others make up", "little"], "its logit falls, its odds do not"
    rows = rows.assign(d_difference=[-0.8, -2.0])
    rows.attrs = {"before": {"prob": 0.85, "difference": 3.0}}
    found = beside_effect(rows)
    assert found["effect"].tolist() == [0.8, 2.0] and found["kind"].tolist() == ["adds by itself", "steers others"]
