"""Figures 9 and 21 to 23 answer from their own few words and weights, with an interval, and no further."""

from __future__ import annotations

import pandas as pd
import pytest

from visit.studies.word_verdicts import feeds_rogue, fewer_function_words, shown_words_lose, wilson
from visit.text.numbers import signed


def words(deltas: dict[int, list[float]]) -> pd.DataFrame:
    """id → its shift at every layer."""
    return pd.DataFrame([
        {"layer": layer, "id": i, "token": f" w{i}", "delta": delta}
        for i, own in deltas.items() for layer, delta in enumerate(own)
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("function", "prompts", "expected"),
    [((-0.02, -0.03, -0.04), 50, True), ((0.02, 0.03, 0.04), 50, False), ((-0.02, 0.03, -0.04), 50, None),
     ((-0.02, -0.03, -0.04), 2, None)],
)  # fmt: skip
def test_the_function_words_shown_lose_gain_or_cannot_be_told(function, prompts, expected):
    table = words({**{i: [delta, delta / 2] for i, delta in enumerate(function)}, 7: [0.5, 0.5]})
    found = shown_words_lose(table, {0, 1, 2}, "ln2", prompts)
    assert found.holds is expected and "at ln2" in found.sentence and "3 of 4 words" in found.numbers
    mean = 100 * 0.75 * sum(function) / 3  # of both layers, in points
    assert f" {signed(mean)} percentage points a word" in found.sentence
    assert f"they lose in {2 if mean < 0 else 0} of 2 layers" in found.sentence


def test_too_few_function_words_decide_nothing():
    two = shown_words_lose(words({0: [-1], 1: [-1], 2: [1]}), {0, 1}, "ln1", 9)
    assert two.holds is None and "2 of the 3 words shown are function words" in two.sentence
    none = shown_words_lose(words({0: [-1]}), set(), "ln1", 9)
    assert "none of the 1 words shown is a function word" in none.sentence


def extremes(function: int, count: int = 50) -> pd.DataFrame:
    """`count` words that fall, of which the first are function words (ids from 0), and one that rises."""
    rows = [{"id": i if i < function else 1000 + i, "delta": -0.1, "falls": i + 1, "vectors": "real"}
            for i in range(count)]  # fmt: skip
    more = [{"id": 0, "delta": 0.2, "falls": 900, "vectors": "real"}, {"id": 1, "delta": -9, "falls": 1,
            "vectors": "random"}]  # fmt: skip
    return pd.DataFrame(rows + more)


@pytest.mark.parametrize(("before", "after", "expected"), [(30, 2, True), (2, 30, False), (10, 9, None)])
def test_the_words_without_the_final_norm_are_compared_with_those_of_figure_7(before, after, expected):
    found = fewer_function_words(extremes(before), extremes(after), set(range(50)), 20)
    assert found.holds is expected
    assert f"{100 * after / 50:.0f}" in found.sentence and f"{100 * before / 50:.0f}" in found.sentence
    assert "Figure 7 is needed" in fewer_function_words(None, extremes(after), set(), 20).sentence


def profile(outliers: int, hits: int, rogue: int, dims: int = 100, kind: str = "regularization") -> pd.DataFrame:
    far = set(range(hits)) | set(range(rogue, rogue + outliers - hits))
    return pd.DataFrame([
        {"series": "N1", "kind": kind, "dim": d, "weight": 1.0, "outlier": d in far, "rogue": d < rogue}
        for d in range(dims)
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("outliers", "hits", "rogue", "expected"),
    [(4, 4, 5, True), (8, 0, 50, False), (2, 0, 5, None), (3, 1, 30, None)],
)
def test_outlier_weights_feed_rogue_dimensions_beyond_chance_or_not(outliers, hits, rogue, expected):
    found = feeds_rogue(profile(outliers, hits, rogue), 30)
    assert found.holds is expected and f"{hits} of {outliers} outlier weights" in found.sentence
    assert feeds_rogue(profile(outliers, hits, rogue), 2).holds is None


def test_what_is_missing_for_figure_9_is_said():
    assert "no neuron of this layer" in feeds_rogue(profile(3, 1, 5, kind="most frequent"), 30).sentence
    assert "no rogue dimension" in feeds_rogue(profile(3, 0, 0), 30).sentence
    assert "no outlier weight" in feeds_rogue(profile(0, 0, 5), 30).sentence


def test_wilsons_interval_is_the_published_one():
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-3)  # Brown, Cai, DasGupta 2001
    assert wilson(10, 10) == pytest.approx((0.7225, 1), abs=1e-3)
    low, high = wilson(5, 10)
    assert low == pytest.approx(0.2366, abs=1e-3) and low + high == pytest.approx(1)
