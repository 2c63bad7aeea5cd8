"""The map of patches: what each cell says, which cells are marked, and the same as a file."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from visit.errors import VisitError
from visit.figures.grids import SHADES, grid_data, grid_svg, grid_table
from visit.figures.patching import patch_chart, patch_grid
from visit.files.chart_file import chart_file
from visit.files.patch_picture import patch_file

TOKENS = [("The", "The"), (" Japan", " France"), (" not", None), (" is", " is")]
EFFECTS = [[0.0, 1.0, None, 0.0], [0.0, 0.97, None, -0.21], [0.0, 0.02, None, 1.05]]  # layer, pos


def sums(exact: bool = True, verified: tuple[tuple[int, int], ...] = ()) -> pd.DataFrame:
    """As `visit.patch` gives it of a site of sums."""
    rows = [
        {"id": f"L{layer}.resid_pre", "layer": layer, "head": pd.NA, "pos": pos, "token": one,
         "pos_b": None if other is None else pos, "token_b": other,
         "effect": float("nan") if effect is None else effect, "exact": exact or (layer, pos) in verified,
         "changed": 0 if pos == 0 or other is None else 4}
        for layer, line in enumerate(EFFECTS)
        for pos, (effect, (one, other)) in enumerate(zip(line, TOKENS, strict=True))
    ]  # fmt: skip
    table = pd.DataFrame(rows).astype({"pos": "Int64", "head": "Int64"})
    table.attrs = {"site": "resid", "at": "each"}
    return table


def of_heads(pos: int | None) -> pd.DataFrame:
    token = None if pos is None else " is"
    table = pd.DataFrame([
        {"id": f"L{layer}.head{head}", "layer": layer, "head": head, "pos": pos, "token": token, "pos_b": pos,
         "token_b": token, "effect": 0.84 if (layer, head) == (1, 0) else -0.004, "exact": True,
         "changed": 4}
        for layer in range(2) for head in range(3)
    ]).astype({"pos": "Int64", "head": "Int64"})  # fmt: skip
    table.attrs = {"site": "heads", "at": "all" if pos is None else "last"}
    return table


def cell(table: pd.DataFrame, row: int, column: int, chosen: str = "") -> dict:
    return grid_data(patch_grid(table, chosen))["rows"][row]["cells"][column]


def test_a_cell_says_which_value_stands_where_and_how_far_the_answer_moves():
    found = cell(sums(), 1, 1, "L1.resid_pre@1")
    assert found["t"] == (
        "Block 1, “·Japan” ← “·France” (position 1)\n"
        "with B’s value the answer moves 97 % of the way (measured)\neffect: +0.970"
    )
    assert (found["id"], found["w"], found["c"], found["f"]) == (
        "L1.resid_pre@1",
        "0.97",
        f"p{round(0.97 * SHADES)}",
        1,
    )
    against = cell(sums(), 1, 3)
    assert against["c"] == f"n{round(0.21 * SHADES)}" and against["w"] == "−0.21" and against["f"] == 0
    assert "moves away from B’s, by 21 % of the way" in against["t"]
    assert "the answer stays as it is" in cell(sums(), 2, 3)["t"]
    assert "both runs hold the same there" in cell(sums(), 1, 0)["t"] and not cell(sums(), 1, 0)["w"]
    assert cell(sums(), 0, 3)["c"] == f"p{SHADES}", "what goes beyond B has the full colour, and its number"
    assert cell(sums(), 0, 3)["w"] == "1.05"


def test_columns_are_tokens_of_a_over_those_of_b_where_they_differ_and_lonely_ones_are_empty():
    found = patch_grid(sums())
    assert found.columns == ["The", "·Japan\n← ·France", "·not\n–", "·is"]
    assert found.rows == ["block 2", "block 1", "block 0"]
    assert all(line["cells"][2] is None for line in grid_data(found)["rows"])


def test_what_was_measured_is_marked_while_others_are_estimates():
    table = sums(exact=False, verified=((0, 1),))
    assert cell(table, 2, 1)["m"] == 1 and "(measured)" in cell(table, 2, 1)["t"]
    assert cell(table, 1, 1)["m"] == 0 and "(estimated)" in cell(table, 1, 1)["t"]
    part = table[table["pos"] > 1]  # of a long prompt, where nothing of what is shown was measured
    part.attrs = table.attrs
    assert patch_grid(part).mark and patch_grid(table).mark and not patch_grid(sums()).mark, (
        "where all is measured no dot tells anything"
    )
    assert not any(c["m"] for line in grid_data(patch_grid(sums()))["rows"] for c in line["cells"] if c)


@pytest.mark.parametrize(("pos", "where", "said"), [(None, "all", "every position"), (3, "3", "“·is” (position 3)")])
def test_heads_stand_at_their_layer(pos, where, said):
    found = cell(of_heads(pos), 0, 0)
    assert found["id"] == f"L1.head0@{where}" and found["t"].startswith("L1 H0, ") and said in found["t"]


def test_one_scale_for_every_map_with_as_a_in_the_middle_and_as_b_at_its_end():
    steps = grid_data(patch_grid(sums()))["scale"]
    assert steps == grid_data(patch_grid(of_heads(None)))["scale"]
    assert steps[0] == [f"n{SHADES}", "−1 away from B"] and steps[2] == ["p0", "0 as A"]
    assert steps[-1] == [f"p{SHADES}", "1 as B"]


def test_the_table_says_the_same():
    shown = grid_table(patch_grid(sums()))
    assert len(shown) == 9 and list(shown["effect"])[:3] == ["+0.000", "+0.020", "+1.050"]


def test_the_drawing_of_the_grid_has_both_tokens_the_scale_and_the_dots():
    drawn = grid_svg(patch_grid(sums(exact=False, verified=((0, 1), (1, 1)))))
    assert ">·Japan</text>" in drawn and ">← ·France</text>" in drawn and "\n" not in drawn
    assert ">1 as B</text>" in drawn and drawn.count("<circle") == 3 and "all others are estimates" in drawn
    width = float(drawn.split('width="')[1].split('"')[0])
    assert all(float(x) < width for x in re.findall(r'<rect x="([\d.]+)', drawn))
    assert "<circle" not in grid_svg(patch_grid(sums()))


@pytest.mark.parametrize("table", [sums(exact=False, verified=((0, 1),)), of_heads(None)], ids=["sums", "heads"])
def test_it_is_a_drawing_a_picture_and_a_page(table):
    chart = patch_chart(table, ["A <b>", "second line"])
    made = {kind: chart_file(chart, kind, "label", "title", {"prompt": "<b>"}) for kind in ("svg", "png", "html")}
    assert made["png"].startswith(b"\x89PNG") and b"1 as B" in made["svg"] and b"<b>" not in made["html"]
    assert b"currentColor" not in made["svg"]
    words = made["svg"].decode()
    assert "0.84" in words if table.attrs["site"] == "heads" else ("·Japan" in words and "← ·France" in words)


def test_a_long_prompt_makes_no_wide_picture():
    table = sums()
    words = {"token": " x", "id": 0}
    about = {"m_a": -2.0, "m_b": 2.0, "target": words, "distractor": words, "model": "visit-mini"}
    table.attrs |= {**about, "prompt": "A very long text " * 60, "prompt_b": "Another <b>"}
    drawn = patch_file(table, "svg").decode()
    assert float(drawn.split('width="')[1].split('"')[0]) < 700
    assert "Another &lt;b&gt;" in drawn and "In A" in drawn


def test_heads_at_each_position_are_no_map():
    table = of_heads(None)
    table.attrs["at"] = "each"
    with pytest.raises(VisitError, match="three axes"):
        patch_file(table, "svg")
