"""Bands of resampled prompts, and the verdicts on the paper's claims: planted curves, both ways and undecided."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from studies import plan_block

from visit.analyses.norm_tables import filter_test
from visit.runs.prompts import Row
from visit.studies.plan import GROUPS, CellBlock
from visit.studies.settings import Settings
from visit.studies.sums import Cells, cells_of, no_prompts, weights
from visit.studies.tables import figure_table
from visit.studies.verdicts import interval, judged, spearman, verdicts
from visit.studies.word_verdicts import filters_words


def test_resampled_sets_are_poisson_and_depend_on_the_prompt_alone():
    rows = [Row(f"prompt {n}") for n in range(400)]
    drawn = weights(0, rows, 200)
    assert drawn.shape == (400, 201) and (drawn[:, 0] == 1).all()
    assert drawn[:, 1:].mean() == pytest.approx(1, abs=0.02) and drawn[:, 1:].var() == pytest.approx(1, abs=0.03)
    assert np.array_equal(weights(0, rows[7:9], 200), drawn[7:9])
    assert not np.array_equal(weights(1, rows[:1], 200), drawn[:1])


def test_the_band_is_that_of_the_mean():
    """For n numbers of spread s the band of the mean is about ± 1.96 s / √n wide, and it covers as often as it says."""
    rows = [Row(f"prompt {n}") for n in range(100)]
    block = plan_block()
    generator = np.random.default_rng(5)
    x = generator.normal(0.4, 0.1, 100)
    cells = cells_of([block], {block.name: [np.full((1, 1, 1, 1), v) for v in x]}, np.ones((100, 1), int),
                        weights(0, rows, 1000))  # fmt: skip
    found, low, high = interval(cells[block.name].mean[:, 0, 0, 0, 0, 0])
    assert found == pytest.approx(x.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * x.std() / 10, rel=0.12)


# ---- verdicts ------------------------------------------------------------------------------------------------------


def planted(curve, prompts=40, noise=0.01, figure="2b", series=("attn_out", "block", "final"), groups=("all",)):
    """Sums in which every prompt has this curve over layers, and some noise of its own."""
    curve = np.array(curve, float)
    blocks = [CellBlock(figure, name, ("intersection",), tuple(range(len(curve))), groups=groups) for name in series]
    generator = np.random.default_rng(0)
    rows = [Row(f"prompt {n}") for n in range(prompts)]
    numbers = {
        block.name: [(curve + generator.normal(0, noise, len(curve)))[None, :, None, None] for _ in rows]
        for block in blocks
    }
    start = no_prompts(blocks, Settings(figures=(figure,), draws=300))
    cells = cells_of(blocks, numbers, np.ones((prompts, len(groups)), int), weights(0, rows, 300))
    return replace(start, cells=cells, prompts=prompts)


META = {"random_pairs": {"intersection": 0.01}, "n_heads": 4, "d_vocab": 1000}


def test_a_planted_rise_is_a_yes_a_fall_a_no_and_noise_undecided():
    rising, falling = np.linspace(0.1, 0.6, 8), np.linspace(0.6, 0.1, 8)
    claim = "Overlap with attn_out rises with depth"
    for curve, noise, expected in ((rising, 0.01, True), (falling, 0.01, False), (np.full(8, 0.3), 0.2, None)):
        found = next(v for v in verdicts(planted(curve, noise=noise), META)["2b"] if v.claim == claim)
        assert found.holds is expected and found.sentence.startswith(claim)
        assert {True: ": yes,", False: ": no,", None: ": undecided,"}[expected] in found.sentence
    found = next(v for v in verdicts(planted(rising), META)["2b"] if v.claim == claim)
    assert (
        "ρ = 1.0" in found.sentence
        and "interval [1.0, 1.0]" in found.numbers
        and found.whole == f"{found.sentence} ({found.numbers})"
    )


def test_overlap_is_compared_with_random_vectors():
    for height, expected in ((0.3, True), (0.002, False)):
        found = verdicts(planted(np.full(8, height), noise=0.0005), META)["2b"][0]
        assert found.holds is expected and "unrelated vectors 0.5" in found.sentence
    alike = verdicts(planted(np.full(8, 0.3), figure="19", series=("naive", "circuit")), META)["19"]
    assert [v.holds for v in alike] == [False, False]
    apart = verdicts(planted(np.full(8, 0.02), figure="19", series=("naive", "circuit")), META)["19"]
    assert [v.holds for v in apart] == [True, True] and "up to 0.06 counts" in apart[0].numbers


def test_an_answer_names_its_size_in_words_beside_unrelated_vectors():
    """2 of 50 words and 0.4 by chance is a yes of another kind than 30 of 50."""
    meta = META | {"random_pairs": {"intersection": 0.4 / 50}}
    said = {height: verdicts(planted(np.full(8, height), noise=0.0005), meta)["2b"][0] for height in (0.6, 0.04, 0.02)}
    assert all(v.holds for v in said.values())
    assert said[0.6].sentence.endswith("yes, 30.0 of 50 words; unrelated vectors 0.40")
    assert said[0.04].sentence.endswith("yes, 2.0 of 50 words; unrelated vectors 0.40")
    assert said[0.02].sentence.endswith("yes, but by less than a word: 1.0 of 50 words; unrelated vectors 0.40")
    low = verdicts(planted(np.full(8, 0.01), figure="19", series=("naive",), noise=0.0005), meta)["19"][0]
    assert low.sentence.endswith("yes, 0.50 of 50 words; unrelated vectors 0.40"), "hardly any is what was claimed"


@pytest.mark.parametrize(
    ("gap", "said"),
    [(0.1, "yes, by 5.0 of 50 words"), (0.01, "yes, but by less than a word (0.50 of 50)"),
     (-0.01, "no, by less than a word the other way (0.50 of 50)"), (-0.1, "no, by 5.0 of 50 words the other way")],
)  # fmt: skip
def test_a_shift_below_one_word_is_said_to_be_one(gap, said):
    sums = planted(np.full(8, 0.3), figure="15", series=("after", "before", "block"), noise=0.0005)
    after = sums.cells["15/after"]
    sums.cells["15/before"] = replace(after, total=after.total - gap * after.count[:, :, None, None, None])
    found = verdicts(sums, META)["15"][0]
    assert found.sentence == f"Attention moves the stream towards its own words: {said}"


def probable(curve, noise, groups=("all",)):
    return planted(curve, noise=noise, figure="14", series=("prediction",), groups=groups)


def test_ranks_of_noise_do_not_hide_that_the_prediction_rises():
    """A curve that falls from 9e-8 to 4e-8 over twenty layers and then climbs to a half: what happens on SmolLM2."""
    meta = META | {"d_vocab": 50_000}
    curve = np.append(np.linspace(9e-8, 4e-8, 20), [0.002, 0.02, 0.1, 0.3, 0.4, 0.5])
    assert float(spearman(curve[None], list(range(26)))[0]) < 0.5, "its bare ranks say nothing"
    found = verdicts(probable(curve, 1e-9), meta)["14"][0]
    assert (
        found.holds is True and "half of its 0.50 after layer 25 is there from layer 23 [23, 23] on" in found.sentence
    )
    assert "below 0.0002 layers count as equal" in found.numbers
    late = np.append(np.full(28, 1e-8), [0.1, 0.5])
    assert float(spearman(np.maximum(late, 2e-4)[None], list(range(30)))[0]) < 0.5, "so many ties allow no more"
    found = verdicts(probable(late, 1e-9), meta)["14"][0]
    assert found.holds is True and "ρ = 1.0" in found.sentence, "a share of what the ties allow"
    nothing = verdicts(probable(np.linspace(1e-8, 9e-8, 8), 1e-9), meta)["14"][0]
    assert nothing.holds is None and nothing.sentence.endswith("no layer reads more than 0.0002, which is noise")
    falls = verdicts(probable(np.linspace(0.5, 0.1, 8), 1e-3), meta)["14"][0]
    assert falls.holds is False and "is there from layer 0 [0, 0] on" in falls.sentence


def test_two_probabilities_of_noise_are_not_compared():
    """Half of the layers at 1e-8, where a difference of 1e-9 would be certain with enough prompts."""
    meta, curve = META | {"d_vocab": 50_000}, np.append(np.full(4, 1e-8), [0.1, 0.3, 0.4, 0.5])
    found = verdicts(probable(curve, 0, GROUPS), meta)["14"]
    assert found[1].holds is None and "both lie below 0.0002" in found[1].sentence
    assert found[2].holds is None and "below" not in found[2].sentence, "equal, and far above noise"


def test_a_drop_at_the_end_is_seen_only_where_there_is_one():
    claim = "Overlap drops in the last layer"
    for curve, expected in (([0.1, 0.2, 0.5, 0.3], True), ([0.1, 0.2, 0.3, 0.5], False)):
        assert next(v for v in verdicts(planted(curve), META)["2b"] if v.claim == claim).holds is expected
    flat = planted(np.full(24, 0.3), noise=0.2, prompts=20)  # the highest of 24 noisy layers is high by chance
    assert next(v for v in verdicts(flat, META)["2b"] if v.claim == claim).holds is not True
    few = next(v for v in verdicts(planted([0.3]), META)["2b"] if v.claim == claim)
    assert few.holds is None and "1 layer is too few" in few.sentence


def test_few_prompts_or_layers_decide_nothing():
    few = verdicts(planted(np.linspace(0.1, 0.6, 8), prompts=4), META)["2b"]
    assert [v.holds for v in few] == [None] * len(few) and "4 prompts are too few" in few[0].sentence
    flat = verdicts(planted([0.1, 0.5, 0.6]), META)["2b"][1]
    assert flat.holds is None and "3 layers are too few" in flat.sentence


def test_nan_decides_nothing():
    draws = np.full(20, np.nan)
    found = judged("Claim", "is", [draws], 100)
    assert found.holds is None and "nan" not in found.sentence
    some = np.append(draws, np.ones(30))
    some[0] = 1.0
    assert interval(some) == (1, 1, 1), "sets without such a prompt are passed over"


def test_both_sides_of_a_limit():
    draws = np.linspace(0.4, 0.6, 101)
    draws[0] = 0.5
    cases = [({"above": 0.3}, True), ({"above": 0.7}, False), ({"above": 0.5}, None)]
    cases += [({"above": 0.3, "below": True}, False), ({"above": 0.7, "below": True}, True)]
    cases += [({"above": 0.7, "against": 0.3}, None), ({"above": 0.9, "against": 0.7}, False)]
    for how, expected in cases:
        assert judged("Claim", "is", [draws], 100, **how).holds is expected, how


def test_spearman_with_equal_values():
    curves = np.array([[1.0, 2, 3, 4], [4, 3, 2, 1], [1, 1, 2, 2], [5, 5, 5, 5]])
    found = spearman(curves, [0, 1, 2, 3])
    assert found[:3] == pytest.approx([1, -1, 2 / 5**0.5]) and math.isnan(found[3])


@pytest.mark.parametrize(
    ("function", "prompts", "expected"),
    [((-0.3, -0.3), 10, True), ((-0.3, 0.01), 10, True), ((0.01, 0.01), 10, None), ((0.4, 0.5), 10, False),
     ((-0.3, -0.3), 2, None)],
)  # fmt: skip
def test_a_norm_filters_function_words_where_they_lose_not_where_they_gain_less(function, prompts, expected):
    """Two layers; content words gain 0.1 to 0.2 in both."""
    rows = [
        (layer, "ln1", kind, i, kind, 0.1, delta + 0.01 * i)
        for layer in (0, 1) for kind, deltas in (("function", [function[layer]] * 3), ("content", [0.1, 0.2, 0.15]))
        for i, delta in enumerate(deltas)
    ]  # fmt: skip
    names = ["layer", "norm", "kind", "id", "token", "before_prob", "delta"]
    found = filters_words(filter_test(pd.DataFrame(rows, columns=names).astype({"layer": "Int64"}), draws=200), prompts)
    assert found.holds is expected
    assert ("needed to decide" in found.sentence) == (prompts < 5)


def test_cells_without_a_prompt_are_missing_not_zero():
    cells = Cells(np.zeros((2, 1, 1, 1, 1, 1)), np.zeros((2, 1, 1)))
    assert np.isnan(cells.mean).all()
    assert figure_table(no_prompts([plan_block()], Settings(figures=("2b",), draws=1)), "2b").empty
