"""Maps of a set: three numbers on one scale and in one meaning of colours, what is not sure faint."""

from __future__ import annotations

import pandas as pd
import pytest

from visit.figures.grids import grid_data
from visit.figures.head_sets import FAINTNESS, SET_NUMBERS, scale_of, set_bands, set_chart, set_grid, set_title
from visit.figures.svg import chart_svg


def table(nodes: str = "heads") -> pd.DataFrame:
    rows = [("L0.head0", 0, 0, 2.0, -1.0), ("L0.head1", 0, 1, -0.5, 4.0), ("L1.head0", 1, 0, 1.0, 0.5),
            ("L1.head1", 1, 1, 0.0, -0.001)]  # fmt: skip
    names = {"layers": ["L0.attn_out", "L0.mlp_out", "L1.attn_out", "L1.mlp_out"],
             "neurons": [f"L0.mlp_value{n}" for n in range(4)]}.get(nodes)  # fmt: skip
    found = pd.DataFrame(rows, columns=["node", "layer", "head", "contribution", "effect"])
    found["influence"] = -found["effect"]
    found["node"] = names or found["node"]
    for name in SET_NUMBERS:
        found[f"{name}_low"], found[f"{name}_high"] = found[name] - 0.7, found[name] + 0.7
    if nodes == "heads":
        found["attends_target"], found["attends_distractor"] = [0.5, 0.1, None, 0.2], 0.1
        found["role"] = ["mover", None, None, None]
    before = {"answer": 5.0, "low": 4.0, "high": 6.0, "prob": 0.5, "top": 0.75}
    found.attrs = {"prompts": 16, "how": "zero", "nodes": nodes, "answer": "difference", "before": before,
                   "prompt_set": {"name": "ioi"}}  # fmt: skip
    return found


def cells(measure: str, nodes: str = "heads") -> dict[str, dict]:
    data = grid_data(set_grid(table(nodes), measure, 4.0, "L1.head0"))
    return {cell["id"]: cell for row in data["rows"] for cell in row["cells"]}


def test_blue_green_is_for_the_target_in_every_map():
    """Without L0 H0 the answer falls: it speaks for the target, as its contribution says."""
    effect, contribution = cells("effect"), cells("contribution")
    assert effect["L0.head0"]["c"][0] == "p" == contribution["L0.head0"]["c"][0]
    assert effect["L0.head1"]["c"][0] == "n" == contribution["L0.head1"]["c"][0]
    assert effect["L0.head0"]["w"] == "−1.00" and contribution["L0.head0"]["w"] == "+2.00"


def test_all_maps_share_one_scale():
    assert scale_of(table()) == 4.0 and scale_of(table(), table().assign(effect=9.0)) == 9.0
    assert cells("effect")["L0.head1"]["c"] == "n20" and cells("effect")["L0.head0"]["c"] == "p10"  # the root of 1/4
    ends = {words for _, words in set_grid(table(), "effect", 4.0).scale}
    assert {"−4.0 for the target", "+4.0 against the target", "0", "+1.0", "−1.0"} == ends
    assert "+4.0 for the target" in {words for _, words in set_grid(table(), "contribution", 4.0).scale}


def test_a_cell_whose_band_contains_0_is_faint_and_bears_no_number():
    found = cells("effect")["L1.head0"]
    assert found["w"] == "" and int(found["c"][1:]) == round(20 * FAINTNESS * (0.5 / 4) ** 0.5)
    assert "+0.50 [−0.20, 1.2]" in found["t"] and found["f"] == 1


def test_roles_are_marked_and_said():
    found = cells("effect")
    assert [cell["m"] for cell in found.values()] == [0, 0, 1, 0]  # layers upwards: L1 first
    assert "role: mover" in found["L0.head0"]["t"] and "role: none by the criteria" in found["L1.head0"]["t"]


def test_layers_have_two_columns():
    found = set_grid(table("layers"), "effect", 4.0)
    assert found.columns == ["attn_out", "mlp_out"] and found.rows == ["layer 1", "layer 0"]
    assert grid_data(found)["rows"][1]["cells"][0]["id"] == "L0.attn_out"


@pytest.mark.parametrize("nodes", ["heads", "layers", "neurons"])
def test_a_file_shows_all_three_numbers_with_what_they_are_of(nodes):
    own = table(nodes)
    svg = chart_svg(set_chart(own, set_title(own, "visit-mini")), "label")
    for text in (*SET_NUMBERS.values(), "over 16 prompts of ioi", "the target is the top word in 75 %"):
        assert text in svg
    assert ("Blue-green" in svg) == (nodes != "neurons")


def test_neurons_are_drawn_with_their_bands_the_largest_first():
    shown = set_bands(table("neurons"), 2).to_dict()
    data = next(iter(shown["datasets"].values()))
    assert [row["name"] for row in data] == ["L0 N1"] * 3 + ["L0 N0"] * 3 and data[0]["high"] == pytest.approx(4.7)
