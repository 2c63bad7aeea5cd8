"""Numbers in the tables of pages are written as everywhere, and a column still sorts by its values."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from visit.app.widgets import in_cells

TABLE = pd.DataFrame({"p": [0.9857, 4e-6, math.nan, 1.0], "rank": [49152.0, 7, math.nan, 1],
                      "d": [-0.41, 3e-6, 0.0, 2e-5], "layer": [3.0, 4, 5, math.nan], "word": ["a", "b", None, "d"]},
                     index=[2, 2, 0, 1])  # fmt: skip


@pytest.fixture
def shown() -> dict[str, list[str]]:
    cells = in_cells(TABLE, percents=["p"], counts=["rank"], changes=["d"])
    rows = cells._translate(False, False)["body"]
    texts = [[cell["display_value"] for cell in row if cell["type"] == "td"] for row in rows]
    return dict(zip(TABLE, map(list, zip(*texts, strict=True)), strict=True))


def test_what_is_small_is_not_called_none(shown):
    assert shown["p"] == ["99 %", "< 0.001 %", "–", "100 %"]


def test_ranks_have_commas_changes_their_sign_and_noise_none(shown):
    assert shown["rank"] == ["49,152", "7", "–", "1"]
    assert shown["d"] == ["-0.410", "0", "0", "+2e-05"]
    assert shown["layer"] == ["3", "4", "5", "–"]


def test_a_column_still_holds_its_values():
    pd.testing.assert_frame_equal(in_cells(TABLE, ["p"], ["rank"], ["d"]).data, TABLE.reset_index(drop=True))


def test_no_page_leaves_percentages_to_streamlit():
    app = Path(in_cells.__code__.co_filename).parent
    assert not [file.name for file in app.glob("*.py") for sign in ('format="percent"', 'f %%"')
                if sign in file.read_text(encoding="utf-8")]  # fmt: skip
