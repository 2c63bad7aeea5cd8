"""The lens map's rows: what says nothing is folded and named, what tells something never is, and all can be read."""

from __future__ import annotations

import pandas as pd
import pytest

from visit.drawing.style import page_colours, pill_colours
from visit.figures.lens_rows import empty_runs, rows_of

WORDS = {"the", "of", "and"}


def function_word(token: str) -> bool:
    return token.strip().lower() in WORDS


def table(rows: list[list[tuple[str, float]]], target: dict[int, float] | None = None) -> pd.DataFrame:
    """A lens map of these (word, probability) cells from the embedding up. `target`: its probability by depth."""
    cells = [
        {
            "depth": d, "state": f"L{d - 1}.resid_post" if d else "L0.resid_pre", "pos": p, "token": f" t{p}",
            "top": word, "top_prob": share, "tokens": [word, "ation", " next"], "probs": [share, 0.0, 0.0],
            "prob": (target or {}).get(d, 0.0), "rank": 1 if (target or {}).get(d, 0.0) > 0.5 else 900, "entropy": 1.0,
        }
        for d, row in enumerate(rows)
        for p, (word, share) in enumerate(row)
    ]  # fmt: skip
    return pd.DataFrame(cells)


COMMA, SPACE, FAINT, THE, PARIS = (",", 0.9), (" ", 0.6), (" Paris", 0.04), (" the", 0.8), (" Paris", 0.7)
EMPTY = [COMMA, SPACE, FAINT, COMMA, THE]
END = [[PARIS] * 5] * 3  # the last quarter of twelve rows


def test_runs_of_signs_white_space_function_words_and_faint_words_fold():
    rows = [[PARIS] * 5, *[EMPTY] * 8, *END]
    assert empty_runs(table(rows), function_word) == [[1, 2, 3, 4, 5, 6, 7, 8]]
    (fold,) = rows_of(table(rows), 1000, "target", " Paris", function_word)["folds"]
    assert fold["name"] == "blocks 0–7"
    assert fold["reads"] == "punctuation, white space and nothing above 5 %"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([PARIS, PARIS, COMMA, COMMA, COMMA], "two of five positions read a word"),
        ([("ation", 0.3), ("ation", 0.3), COMMA, COMMA, COMMA], "pieces of words are read"),
    ],
)
def test_a_row_that_tells_something_parts_a_run(row, why):
    rows = [[PARIS] * 5, EMPTY, EMPTY, EMPTY, row, EMPTY, EMPTY, EMPTY, EMPTY, *END]
    assert empty_runs(table(rows), function_word) == [[1, 2, 3], [5, 6, 7, 8]], why


def test_a_function_word_that_is_predicted_there_and_a_row_that_knows_the_target_stand():
    rows = [[PARIS] * 5, *[[THE, THE, COMMA, COMMA, COMMA]] * 8, *[[THE, THE, PARIS, PARIS, PARIS]] * 3]
    assert empty_runs(table(rows), function_word) == []  # the model goes on with " the" at both positions
    rows = [[PARIS] * 5, *[EMPTY] * 8, *END]
    assert empty_runs(table(rows, {4: 0.06}), function_word) == [[1, 2, 3], [5, 6, 7, 8]]


def test_the_last_quarter_short_runs_and_the_embedding_are_never_folded():
    assert empty_runs(table([EMPTY] * 13), function_word) == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert empty_runs(table([[PARIS] * 5, EMPTY, EMPTY, [PARIS] * 5, EMPTY, EMPTY, *END]), function_word) == []


def test_every_row_is_there_with_its_classes_and_grey_words():
    found = rows_of(table([EMPTY, [PARIS] * 5], {1: 0.7}), 1000, "target", " Paris", function_word)
    assert [row["name"] for row in found["rows"]] == ["block 0", "embedding"]
    assert [cell["c"] for cell in found["rows"][0]["cells"]] == ["t4"] * 5
    assert [cell["q"] for cell in found["rows"][1]["cells"]] == [0, 1, 1, 0, 0]  # white space, and what is below 5 %
    assert found["words"] == [("␣", "a space")]
    by_rank = rows_of(table([EMPTY, [PARIS] * 5], {1: 0.7}), 1000, "rank", " Paris", function_word)
    assert by_rank["rows"][0]["cells"][0]["c"] == "t5" and by_rank["rows"][1]["cells"][0]["c"] == "g"
    whole = rows_of(table([EMPTY, EMPTY]), 1000, "top", " Paris", function_word, whole=True)
    assert "next: ·next" in whole["rows"][0]["cells"][0]["t"] and "…ation" not in whole["rows"][0]["cells"][0]["t"]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_can_be_read_on_every_fill_and_grey_ones_where_they_are_grey(theme):
    def contrast(a: str, b: str) -> float:
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    page, pills = page_colours(theme), pill_colours(theme, "safe")
    for name, (fill, _, word) in pills.items():
        assert contrast(fill, word) >= 4.5, name
    assert contrast(page["page"], page["tag"]) >= 4.5
    for name in ("t1", "b1", "e1"):
        assert contrast(pills[name][0], page["tag"]) >= 4.5, name
