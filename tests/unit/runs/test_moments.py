"""Means with 95 % bands: as numpy and published tables have them, and the parts of a set merge to the whole."""

from __future__ import annotations

import numpy as np
import pytest

from visit.runs.moments import difference_band, moments_of, no_moments, student
from visit.runs.sums import load_sums, merge, state_of

TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 7: 2.3646, 15: 2.1314, 30: 2.0423, 47: 2.0117, 120: 1.9799,
         100_000: 1.9600}  # fmt: skip


@pytest.mark.parametrize("free", TABLE)
def test_the_quantile_is_that_of_printed_tables(free):
    assert student(free) == pytest.approx(TABLE[free], abs=5e-5)


def test_the_quantile_has_no_step_where_its_formula_changes():
    steps = np.diff([student(n) for n in range(1990, 2012)])
    assert (steps < 0).all() and steps == pytest.approx(steps.mean(), rel=0.05)


def test_mean_and_band_are_numpys():
    x = np.random.default_rng(1).normal(3, 2, (17, 2, 5))
    found = moments_of(x)
    half = student(16) * x.std(0, ddof=1) / np.sqrt(17)
    assert found.mean == pytest.approx(x.mean(0)) and found.count == 17
    assert found.band[0] == pytest.approx(x.mean(0) - half) and found.band[1] == pytest.approx(x.mean(0) + half)


def test_a_band_holds_the_true_mean_in_95_of_100_samples():
    x = np.random.default_rng(2).normal(0.7, 2, (6, 40_000))  # few prompts: a normal quantile would hold it in 89
    low, high = moments_of(x).band
    assert ((low < 0.7) & (high > 0.7)).mean() == pytest.approx(0.95, abs=0.005)


def test_parts_merge_to_the_whole_and_come_back_from_a_file():
    x = np.random.default_rng(3).normal(1e4, 1e-2, (23, 4))  # a large mean, where sums of squares would lose all digits
    whole = moments_of(x)
    for cut in (1, 9, 22):
        both = merge(moments_of(x[:cut]), moments_of(x[cut:]))
        assert both.count == 23 and both.mean == pytest.approx(whole.mean, rel=1e-14)
        assert both.spread == pytest.approx(whole.spread, rel=1e-6)
    one_by_one = no_moments(4)
    for row in x:
        one_by_one = merge(one_by_one, moments_of([row]))
    assert one_by_one.spread == pytest.approx(x.var(0) * 23, rel=1e-6)
    again = load_sums(no_moments(4), state_of(whole))
    assert again.count == 23 and (again.mean == whole.mean).all() and (again.spread == whole.spread).all()


def test_repeated_prompts_narrow_the_band_with_the_root_of_their_number():
    x = np.random.default_rng(4).normal(0, 1, (50, 3))
    widths = [np.subtract(*moments_of(np.tile(x, (times, 1))).band[::-1]) for times in (1, 4, 16)]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.03) and widths[1] / widths[2] == pytest.approx(2, rel=0.01)


def test_one_prompt_has_no_band():
    assert np.isnan(moments_of([[1.0, 2.0]]).band).all() and np.isnan(no_moments(2).error).all()


def test_a_difference_of_two_sets_has_welchs_band():
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 1, (5, 30_000)), rng.normal(0.4, 3, (14, 30_000))
    apart, low, high = difference_band(moments_of(a), moments_of(b))
    assert apart == pytest.approx(b.mean(0) - a.mean(0))
    assert ((low < 0.4) & (high > 0.4)).mean() == pytest.approx(0.95, abs=0.01)
    swapped = difference_band(moments_of(b), moments_of(a))
    assert swapped[1] == pytest.approx(-high) and swapped[2] == pytest.approx(-low)
