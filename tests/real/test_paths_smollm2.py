"""Path patching on SmolLM2: who moves the queries of the movers, on the sixteen two-name prompts that were measured."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import visit

MOVERS = ["L23.head0", "L23.head1", "L23.head2", "L23.head7"]


@pytest.fixture(scope="module")
def lines():
    return pd.read_csv(Path(__file__).parent / "names16.csv")


def test_two_heads_move_the_movers_queries_against_the_repeated_name(smollm2, lines):
    """−1.09, −.39, −.09, all others far below the first; all movers together and each by itself."""
    table = visit.paths(smollm2, lines, None, MOVERS, "q")
    assert table.attrs["prompts"] == 16 and table.attrs["notes"] == []
    assert table.attrs["difference"] == pytest.approx(5.01, abs=0.01)
    effects = table.set_index(["receiver", "sender"])["effect"]
    together = effects["together"]
    assert len(together) == 23 * 9
    measured = {"L20.head0": -1.09, "L19.head2": -0.39, "L21.head8": -0.09}
    for head, effect in measured.items():
        assert together[head] == pytest.approx(effect, abs=0.02), head
    assert together.drop(list(measured)).abs().max() < 0.1
    for mover in MOVERS:
        assert effects[mover].idxmin() == "L20.head0" and effects[mover]["L20.head0"] < -0.1, mover


def test_paths_to_the_logits_are_strongest_from_the_heads_that_add_most(smollm2, lines):
    table = visit.paths(smollm2, lines).set_index("sender")
    assert len(table) == 30 * 9
    for head, sign in (("L23.head3", -1), ("L29.head1", -1), ("L23.head0", -1), ("L24.head4", 1), ("L29.head0", 1)):
        assert table.loc[head, "effect"] * sign > 0.8, head
        assert table.loc[head, "direct"] * sign > 0.8, head
    assert abs(table.loc["L20.head0", "direct"]) < 0.1  # it says next to nothing to the answer itself


def test_the_inhibitor_is_found_by_its_path_to_the_movers_of_one_prompt(smollm2, lines):
    row = lines.iloc[2]
    table = visit.roles(smollm2, visit.capture(smollm2, row["prompt"]), abc=row["abc"])
    by_effect = set(visit.roles(smollm2, visit.capture(smollm2, row["prompt"]))["criterion"])
    inhibitors = table[(table["role"] == "inhibitor") & ~table["criterion"].isin(by_effect)]
    assert inhibitors["node"].tolist() == ["L20.head0", "L20.head0"]
    assert inhibitors["number"].iloc[1] < -2 and "L23 H0" in inhibitors["criterion"].iloc[1]
