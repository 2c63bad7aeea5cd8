"""Which words are function words, and the test whether a norm takes from them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import visit
from visit import capture_many
from visit.analyses.function_words import function_words, is_function_word, word_classes
from visit.analyses.norm_sets import shift_sums
from visit.analyses.norm_tables import (
    class_shifts,
    class_summary,
    filter_in_plain_words,
    filter_sentence,
    filter_test,
    filter_verdict,
)
from visit.analyses.norms import NORMS, parts_for
from visit.runs.prompts import shipped_set

PARTS = parts_for(NORMS)
TOKYO = "The capital of Japan is the city of"


@pytest.fixture(scope="module")
def mini():
    return visit.load_model("visit-mini")


def test_words_are_matched_without_their_space_and_in_lower_case(mini):
    listed = function_words()
    assert {"the", "of", "and", "was", "not", "herself", "'s"} <= listed
    assert not {"city", "#", "articles", "apple"} & listed
    kinds = dict(zip(mini.vocabulary, word_classes(mini), strict=True))
    assert kinds[" the"] == kinds["After"] == "function"
    assert kinds[" Tokyo"] == kinds[" city"] == "content"
    assert kinds["Tokyo"] == kinds[" "] == kinds["\\xe9"] == "other"
    assert kinds[","] == kinds["."] == "function", "punctuation is what a real model's norm takes from most of all"
    own = dict(zip(mini.vocabulary, word_classes(mini, [" City"]), strict=True))
    assert own[" city"] == "function" and own[" the"] == "content"
    assert function_words("# not these\nA b\n c") == {"a", "b", "c"}


def test_marks_are_function_words_one_by_one_and_letters_are_not():
    listed = function_words()
    assert all(is_function_word(token, listed) for token in (",", " (", '."', " …", ").", "?!\n", " THE", "n't"))
    assert not any(is_function_word(token, listed) for token in (" ai", "$,", " ", "", "3.", "a.", "city"))


def shifts_of(function, content, layers=2):
    rows = [
        (layer, "ln1", kind, i, kind, 0.1, delta)
        for layer in range(layers) for kind, deltas in (("function", function), ("content", content))
        for i, delta in enumerate(deltas)
    ]  # fmt: skip
    columns = ["layer", "norm", "kind", "id", "token", "before_prob", "delta"]
    return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})


@pytest.mark.parametrize(
    ("function", "content", "verdict", "says"),
    [
        ([-0.3, -0.2, -0.25], [0.1, 0.2], "yes", "fall more than content words"),
        ([0.01, 0.02, 0.03], [0.3, 0.4], "yes", "rise less than content words"),
        ([0.3, 0.4, 0.5], [-0.1, 0.1], "no", "rise more than content words"),
        ([-0.1, -0.1], [-0.4, -0.5], "no", "fall less than content words"),
        ([-1.0, 1.0, 0.1], [0.1, -0.1], "undecided", "cannot be told apart from content words"),
    ],
)
def test_the_verdict_comes_from_the_interval(function, content, verdict, says):
    test = filter_test(shifts_of(function, content), draws=400)
    assert test["falls_more"].tolist() == [verdict] * 3
    assert test["difference"].tolist() == pytest.approx([np.mean(function) - np.mean(content)] * 3)
    assert (test["low"] <= test["high"]).all()
    assert f"function words {says} at ln1 (" in filter_sentence(test)
    plain = {
        "fall more": "loses 40.0 percentage points more",
        "rise less": "gains 33.0 percentage points less",
        "rise more": "gains 40.0 percentage points more",
        "fall less": "loses 35.0 percentage points less",
    }
    told = next((words for verb, words in plain.items() if says.startswith(verb)), "cannot be told apart")
    assert told in filter_in_plain_words(test)
    agrees = {"fall more than content words": True, "rise less than content words": None}
    assert filter_verdict(test) is agrees.get(says, None if verdict == "undecided" else False)
    alone = filter_test(shifts_of(function, content, layers=1), draws=400)
    assert len(alone) == 1 and f"At ln1 of layer 0 function words {says} (" in filter_sentence(alone)


def test_the_interval_is_that_of_two_means_and_comes_back_with_the_seed():
    generator = np.random.default_rng(0)
    function, content = generator.normal(-1, 1, 300), generator.normal(0, 2, 900)
    shifts = shifts_of(function, content)
    test = filter_test(shifts, draws=4000)
    error = np.sqrt(function.var() / 300 + content.var() / 900)
    assert (test["high"] - test["low"]).tolist() == pytest.approx([2 * 1.96 * error] * 3, rel=0.05)
    pd.testing.assert_frame_equal(test, filter_test(shifts, draws=4000))
    assert filter_test(shifts, seed=1)["low"].tolist() != filter_test(shifts, seed=2)["low"].tolist()


def test_classes_sum_up_their_words(mini):
    sums = shift_sums(mini, capture_many(mini, [TOKYO, "The cat is"], parts=PARTS, pos=-1))
    shifts = class_shifts(mini, sums, "ln2")
    kinds = word_classes(mini)
    assert len(shifts) == mini.n_layers * (kinds.count("function") + kinds.count("content"))
    summary = class_summary(shifts)
    assert len(summary) == 2 * mini.n_layers
    own = shifts[(shifts["layer"] == 3) & (shifts["kind"] == "content")]
    row = summary[(summary["layer"] == 3) & (summary["kind"] == "content")].iloc[0]
    assert row["mean"] == pytest.approx(own["delta"].mean())
    assert row["after_mass"] - row["before_mass"] == pytest.approx(own["delta"].sum())
    final = filter_test(class_shifts(mini, sums, "final"))
    assert len(final) == 1 and filter_sentence(final).startswith("At the final norm")


def test_visit_mini_at_its_fact_prompts(mini):
    """What this small model shows of the paper's effect: late ln1 raise function words less than content words."""
    prompts = list(shipped_set("facts").prompts)
    sums = shift_sums(mini, capture_many(mini, prompts, parts=PARTS, pos=-1))
    first = filter_test(class_shifts(mini, sums, "ln1"))
    assert first["falls_more"].tolist() == ["undecided"] * 4 + ["yes"] * 5
    late = class_summary(class_shifts(mini, sums, "ln1")).query("layer >= 4 and kind == 'content'")
    assert (late["mean"] > 0).all()
