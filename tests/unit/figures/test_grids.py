"""Grids of cells: what is drawn, spoken and listed of a table, and words that can be read on every fill."""

from __future__ import annotations

import models
import pandas as pd
import pytest
from contrast import contrast

from visit import capture
from visit.analyses.attention_memory import value_life
from visit.analyses.divergence import part
from visit.analyses.heads import head_map
from visit.analyses.parting import MEASURES
from visit.analyses.token_alignment import pair
from visit.drawing.style import page_colours
from visit.figures.grids import SHADES, Grid, grid_data, grid_style, grid_table, ramp
from visit.figures.heads import heads_grid, life_grid, pattern_grid
from visit.figures.parting import parting_grid

PROMPT = [5, 17, 3, 99, 41]


@pytest.fixture(scope="module")
def passed():
    model = models.small("gpt2")
    return model, capture(model, PROMPT)


def cells_of(grid: Grid) -> dict[tuple[str, str], dict]:
    data = grid_data(grid)
    return {
        (row["name"], data["columns"][n]): cell
        for row in data["rows"] for n, cell in enumerate(row["cells"]) if cell is not None
    }  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("hue", ["p", "n", "a", "d"])
def test_every_fill_has_a_word_that_can_be_read_and_grows_away_from_the_page(theme, hue):
    fills = ramp(theme, hue)
    assert len(fills) == SHADES + 1 and min(contrast(fill, word) for fill, word in fills) >= 4.5
    away = [contrast(fill, page_colours(theme)["page"]) for fill, _ in fills]
    assert away == sorted(away) and f".x .{hue}{SHADES}{{--f:{fills[-1][0]}" in grid_style(theme, ".x")


def test_heads_stand_at_their_layer_and_say_their_numbers(passed):
    model, acts = passed
    table = head_map(model, acts)
    found = heads_grid(table, "contribution", "Contribution", "L1.head2")
    cells = cells_of(found)
    assert found.rows[0] == f"layer {model.n_layers - 1}" and len(cells) == model.n_layers * model.n_heads
    for row in table.itertuples():
        cell = cells[f"layer {row.layer}", f"H{row.head}"]
        assert cell["id"] == row.node and cell["w"].split("\u2009")[-1] in (f"{row.contribution:+.2f}", "0")
        assert cell["t"].startswith(f"L{row.layer} H{row.head}\ncontribution in logits: {row.contribution:+.3f}")
        assert cell["c"][0] == ("n" if row.contribution < 0 else "p") and cell["f"] == int(row.node == "L1.head2")
    strongest = table.loc[table["contribution"].abs().idxmax()]
    assert cells[f"layer {strongest['layer']}", f"H{strongest['head']}"]["c"][1:] == str(SHADES)
    assert len(grid_table(found)) == len(table)
    assert not any(
        "reads" in cell["t"] for cell in cells_of(heads_grid(table.drop(columns=["tokens"]), "norm", "", "")).values()
    )


def test_a_pattern_looks_back_only(passed):
    _, acts = passed
    pattern = acts.pattern[1, 0].tolist()
    data = grid_data(pattern_grid(pattern, ["a", " b", "a", "a", "c"], 0, 3))
    assert data["row"] == 3 and data["columns"] == ["a", "·b", "a", "a", "c"]
    for i, row in enumerate(data["rows"]):
        assert [cell is None for cell in row["cells"]] == [j > i for j in range(5)]
        assert [cell["id"] for cell in row["cells"] if cell] == [i] * (i + 1)
        assert row["cells"][i]["t"].endswith(f"attention: {pattern[i][i]:.3f}")


def test_a_values_life_frames_the_head_looked_at(passed):
    model, acts = passed
    table = value_life(model, acts, 1, pos=4)
    cells = cells_of(life_grid(table, " b", "L0.head1"))
    assert {place for place, cell in cells.items() if cell["f"]} == {("layer 0", "H1")}
    assert len(cells) == len(table)


def test_where_two_runs_part_every_cell_is_a_pair_after_a_block(passed):
    model, acts = passed
    other = capture(model, [5, 17, 4, 99, 41])
    table = part(model, acts, model, other, pair(model, acts, model, other))
    found = parting_grid(table, "js", MEASURES["js"], 2, (2, 1))
    data = grid_data(found)
    assert [row["name"] for row in data["rows"]][-2:] == ["block 0", "embedding"] and data["column"] == 2
    assert [cell["id"] for cell in data["rows"][-1]["cells"]] == [[0, n, n] for n in range(5)]
    assert sum(cell["f"] for row in data["rows"] for cell in row["cells"]) == 1
    same = {cell["w"] for row in data["rows"] for cell in row["cells"][:2]}
    assert same == {""}  # what comes before the changed token is the same in both
    assert pd.Series(grid_table(found)["tokens"]).str.contains("(2 / 2)", regex=False).any()
