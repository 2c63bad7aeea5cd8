"""A map of patches told: by rules with numbers, and nothing that was not measured."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from visit.narrate.patching import patch_story, scale_story

TOKENS = [("The", "The"), (" Japan", " France"), (" city", " city"), (" of", " of")]


def stream(*columns: list[float], exact: bool = True, verified: tuple[tuple[int, int], ...] = ()) -> pd.DataFrame:
    """The stream's map, a list of effects by block for each position."""
    rows = [
        {"id": f"L{layer}.resid_pre", "layer": layer, "head": pd.NA, "pos": pos, "token": TOKENS[pos][0],
         "token_b": TOKENS[pos][1], "effect": effect, "exact": exact or (layer, pos) in verified,
         "changed": 4 * (pos > 0)}
        for pos, column in enumerate(columns) for layer, effect in enumerate(column)
    ]  # fmt: skip
    table = pd.DataFrame(rows).astype({"pos": "Int64", "head": "Int64"})
    table.attrs = {"site": "resid"}
    return table


def heads(effects: list[float], exact: list[bool] | None = None) -> pd.DataFrame:
    rows = [
        {"id": f"L0.head{n}", "layer": 0, "head": n, "pos": pd.NA, "token": None, "token_b": None, "effect": effect,
         "exact": exact is None or exact[n], "changed": 4}
        for n, effect in enumerate(effects)
    ]  # fmt: skip
    table = pd.DataFrame(rows).astype({"pos": "Int64", "head": "Int64"})
    table.attrs = {"site": "heads"}
    return table


def text(table: pd.DataFrame) -> str:
    return " ".join("".join(piece for piece, _ in sentence) for sentence in patch_story(table))


NOTHING = [0.0] * 6


def test_the_course_of_the_answer_is_told_from_the_carrier_to_the_last_position():
    told = text(stream(NOTHING, [1, 1, 0.97, 0.6, 0.04, 0.01], NOTHING, [0, 0, 0.1, 0.38, 0.69, 0.8]))
    assert told == (
        "B’s “·France” put where A has “·Japan” (position 1) carries nearly the whole answer up to block 2: put in "
        "before any of these blocks, it moves at least 90 % of the way. Before block 3 it is on its way: 60 % there, "
        "38 % at the "
        "last position, “·of” (position 3). From block 4 on the last position, “·of” (position 3), carries it: 69 % "
        "before block 4, 80 % before block 5."
    )


def test_every_number_leads_to_the_cell_that_it_was_measured_in():
    columns = NOTHING, [1, 1, 0.97, 0.6, 0.04, 0.01], NOTHING, [0, 0, 0.1, 0.38, 0.69, 0.8]
    for piece, cell in patch_story(stream(*columns))[0]:
        if cell is not None:
            layer, pos = map(int, re.fullmatch(r"L(\d)\.resid_pre@(\d)", cell).groups())
            assert piece == f"{100 * columns[pos][layer]:.0f} %"


@pytest.mark.parametrize(
    ("carrier", "last", "said"),
    [
        ([0.89, 0.89, 0.5, 0.49, 0, 0], [0, 0, 0, 0, 0, 0.9], "carries most of the answer up to block 2"),
        ([0.9, 0.89, 0.9, 0, 0, 0], [0, 0, 0, 0, 0, 0.9], "carries nearly the whole answer up to block 0"),
        ([1, 1, 1, 1, 1, 0.2], [0, 0, 0, 0, 0, 0.49], "never carries half of it before a block"),
        ([1, 1, 1, 0, 0, 0], [0, 0, 0.6, 0.4, 0.5, 0.7], "From block 4 on the last position"),
        ([0.49, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0.6, 0.7], "No single position carries the answer from the start"),
    ],
)
def test_the_thresholds_of_the_course(carrier, last, said):
    assert said in text(stream(NOTHING, carrier, NOTHING, last))


def test_a_place_on_the_way_is_named_and_a_prompt_that_differs_at_its_end_has_none():
    carrier, way = [1, 1, 0.2, 0, 0, 0], [0, 0, 0.5, 0.7, 0.2, 0]
    told = text(stream(NOTHING, carrier, way, [0, 0, 0, 0.3, 0.8, 0.9]))
    assert told.endswith("On its way it also stands at “·city” (position 2): 70 % before block 3.")
    at_end = text(stream(NOTHING, NOTHING, NOTHING, [1.0] * 6))
    assert at_end.startswith("B’s value at “·of” (position 3) carries nearly the whole answer up to block 5")
    assert "From block" not in at_end


def test_heads_are_named_by_what_they_move_on_either_side():
    assert text(heads([0.84, 0.24, -0.21, 0.05, 0.1])) == (
        "Of all 5 heads, B’s value of L0 H0 moves the answer most: 84 % of the way; next L0 H1 (24 %), L0 H4 (10 %). "
        "Away from B’s answer: L0 H2 (−21 %)."
    )
    assert "moves the answer most, and by 4 % of the way only." in text(heads([0.04, -0.02]))
    assert "L0 H1 moves the answer most, and away from B’s: 40 % of the way" in text(heads([0.1, -0.4]))


def test_of_a_map_of_estimates_only_what_was_measured_is_told():
    told = text(heads([0.84, 0.24, -0.9, 2.0], [True, True, False, False]))
    assert told.startswith("Of the 2 measured (the others are estimates from one backward pass, which miss what is")
    assert "L0 H0 moves the answer most: 84 %" in told and "H2" not in told and "H3" not in told
    column = [0.3, 0.4, 0.2, 0, 0, 0]
    course = text(stream(NOTHING, column, NOTHING, NOTHING, exact=False, verified=((1, 1),)))
    assert "B’s stream before block 1 at “·Japan” (position 1) moves the answer most: 40 % of the way" in course
    assert "carries" not in course and "measured" in course
    verified = ((0, 1), (1, 1), (4, 3))
    places = text(stream(NOTHING, column, NOTHING, [0, 0, 0, 0, 0.25, 0], exact=False, verified=verified))
    assert "Of the 3 measured" in places and "40 % of the way; next block 4 at “·of”" in places
    assert "(30 %)" not in places, "the same position one block before says nothing new"


def test_what_0_and_1_are():
    attrs = {
        "m_a": -11.09,
        "m_b": 9.0,
        "target": {"id": 1, "token": " Paris"},
        "distractor": {"id": 0, "token": " Tokyo"},
    }
    assert scale_story(attrs) == (
        "In A “·Tokyo” leads “·Paris” by 11.1 logits: that is 0. In B “·Paris” leads “·Tokyo” by 9.0: that is 1."
    )
    assert "In A “·Paris” leads “·Tokyo” by 2.0" in scale_story({**attrs, "m_a": 2.0})
