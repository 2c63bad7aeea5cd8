"""Two names over sets on a trained model: the heads, their roles and their signs, and the measured numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import visit
from visit.runs.prompts import shipped_set

# of 16 prompts: contribution, effect when zeroed, effect with the partner's values
MEASURED = {
    "L23.head3": (2.21, -2.39, -2.44), "L29.head1": (1.36, -1.39, -1.50), "L23.head0": (1.14, -0.04, 0.00),
    "L23.head1": (0.45, 0.52, 0.07), "L23.head2": (0.45, 0.04, -0.10), "L23.head7": (0.36, -0.06, -0.27),
    "L24.head4": (-1.21, 0.92, 1.13), "L29.head0": (-0.90, 0.92, 0.98), "L20.head0": (-0.03, -1.79, -1.75),
    "L19.head2": (-0.01, -0.54, -0.63),
}  # fmt: skip
ROLES = {
    "L23.head3": "suppressor", "L24.head4": "negative mover", "L20.head0": "inhibitor",
    "L19.head2": "inhibitor", "L23.head0": "mover", "L23.head1": "mover",
}  # fmt: skip


@pytest.mark.parametrize(("how", "column"), [("zero", 1), ("from", 2)])
def test_sixteen_prompts_give_the_measured_numbers(smollm2, how, column):
    rows = pd.read_csv(Path(__file__).parent / "names16.csv")
    table = visit.head_question(smollm2, rows, how).set_index("node")
    assert table.attrs["before"]["answer"] == pytest.approx(5.01, abs=0.01) and table.attrs["prompts"] == 16
    for node, numbers in MEASURED.items():
        assert table.loc[node, "contribution"] == pytest.approx(numbers[0], abs=0.1), node
        assert table.loc[node, "effect"] == pytest.approx(numbers[column], abs=0.1), node


def test_the_shipped_set_shows_the_same_heads_with_the_same_signs_and_roles(smollm2):
    table = visit.head_question(smollm2, shipped_set("ioi", "smollm2")).set_index("node")
    assert table["effect"].sort_values().index[:3].tolist() == ["L23.head3", "L20.head0", "L29.head1"]
    assert set(table["effect"].sort_values().index[-5:]) & {"L29.head0", "L24.head4"} == {"L29.head0", "L24.head4"}
    for node, role in ROLES.items():
        assert table.loc[node, "role"] == role, node
    for node, (contribution, effect, _) in MEASURED.items():
        for name, expected in (("contribution", contribution), ("effect", effect)):
            if abs(expected) > 0.5:
                low, high = table.loc[node, [f"{name}_low", f"{name}_high"]]
                assert (low > 0) if expected > 0 else (high < 0), (node, name)
    assert abs(table.loc["L23.head0", "effect"]) < 0.3 < table.loc["L23.head0", "contribution"]
