"""The causal trace: its subject, its four checks, its job, its words, and what it refuses."""

from __future__ import annotations

import models
import numpy as np
import pytest

from visit import VisitError, capture, load_model, trace
from visit.causal import block, tracing
from visit.causal.cost import trace_cost
from visit.causal.trace_plan import TRACE_SITES, guessed_subject, subject_positions, window_blocks
from visit.causal.tracing import TraceJob
from visit.exact.question import ask
from visit.narrate.traces import trace_story
from visit.runs.job import finish

JAPAN = "The capital of Japan is the city of"
IDS = [5, 17, 3, 99, 41, 17, 8]


@pytest.fixture(scope="module")
def mini():
    return load_model("visit-mini")


def job(model, ids, subject, samples=2, **options):
    return TraceJob.of(ask(model, capture(model, ids)), subject, samples=samples, **options)


# ---- the table and its checks ----------------------------------------------------------------------------------------
def test_a_row_a_site_block_and_position_and_nothing_before_the_subject_moves(mini):
    table = trace(mini, JAPAN, "Japan", samples=2)
    tokens = table.attrs["tokens"]
    assert list(table) == ["site", "layer", "pos", "token", "prob", "effect", "low", "high", "first", "last"]
    assert len(table) == 3 * mini.n_layers * len(tokens) and table["site"].unique().tolist() == list(TRACE_SITES)
    assert table.attrs["subject"] == {"positions": [3], "tokens": [" Japan"], "text": " Japan"}
    before = table[table["pos"] < 3]
    assert (before["effect"] == 0).all() and (before["prob"] == table.attrs["corrupted"]).all()
    assert table["effect"].to_numpy() == pytest.approx((table["prob"] - table.attrs["corrupted"]).to_numpy(), abs=1e-6)
    end = table[(table["site"] == "resid") & (table["layer"] == mini.n_layers - 1) & (table["pos"] == len(tokens) - 1)]
    assert float(end["prob"].iloc[0]) == pytest.approx(table.attrs["clean"], abs=1e-6)


def test_equal_seeds_give_equal_bits_and_more_samples_begin_with_the_same_draws(mini):
    first, again = (job(mini, JAPAN, "Japan", 3) for _ in range(2))
    assert finish(first).equals(finish(again))
    fewer, other = job(mini, JAPAN, "Japan", 2), job(mini, JAPAN, "Japan", 2, seed=1)
    finish(fewer), finish(other)
    assert np.array_equal(fewer.probs, first.probs[..., :2]) and not np.array_equal(fewer.probs, other.probs)


def test_the_four_checks_are_named_and_a_wrong_one_is_seen(mini, monkeypatch):
    found = trace(mini, JAPAN, "Japan", samples=1).attrs["ledger"]
    assert found["holds"] and 0 < found["max_rel_error"] <= found["tolerance"]
    names = [one["name"] for one in found["checks"]]
    assert len(names) == 4 and names[0].startswith("nothing put back") and names[3].startswith("noise of 0")

    def wrong(model, acts, layer, x, first, seam):
        return block.run_block(model, acts, layer, x, first, seam) * (1.001 if layer == 5 else 1)

    monkeypatch.setattr(tracing, "run_block", wrong)
    found = trace(mini, JAPAN, "Japan", samples=1).attrs["ledger"]
    assert not found["holds"] and {one["holds"] for one in found["checks"]} == {True, False}


def test_windows_are_a_fifth_of_the_blocks_and_at_least_three():
    """ROME: 10 of 48, from 5 before the block to 4 behind it; at the ends as many as there are."""
    assert window_blocks(48, None)[0] == range(5) and window_blocks(48, None)[20] == range(15, 25)
    assert window_blocks(8, None)[4] == range(3, 6) and window_blocks(8, None)[7] == range(6, 8)
    assert window_blocks(30, None)[10] == range(7, 13) and window_blocks(30, 1)[10] == range(10, 11)
    assert window_blocks(2, None) == [range(1), range(2)]


def test_nothing_is_computed_before_the_place_that_is_restored(monkeypatch):
    model, seen = models.small("llama"), []

    def counted(model, acts, layer, x, first, seam):
        seen.append((first, x.shape[1]))
        return block.run_block(model, acts, layer, x, first, seam)

    monkeypatch.setattr(tracing, "run_block", counted)
    one = job(model, IDS, [3], 1)
    one.update(one.items[1:])
    assert {(first, first + count) for first, count in seen} == {(p, len(IDS)) for p in range(3, len(IDS))}


# ---- as a job --------------------------------------------------------------------------------------------------------
def test_it_goes_on_from_where_it_was_stopped(mini):
    whole, begun, resumed = (job(mini, JAPAN, "Japan") for _ in range(3))
    begun.update(begun.items[:4])
    halfway = begun.snapshot()
    assert halfway.attrs["samples"] == 0 and halfway["prob"].isna().any() and halfway.attrs["ledger"]["holds"]
    kept = begun.state()
    begun.update(begun.items[4:6])  # a state stays what it was
    resumed.load(kept)
    resumed.update(resumed.items[4:])
    assert resumed.snapshot().equals(finish(whole))
    with pytest.raises(VisitError, match="another run"):
        job(mini, JAPAN, "Japan", 3).load(kept)


def test_after_one_sample_the_whole_map_is_there_without_a_band(mini):
    one = job(mini, JAPAN, "Japan", 3)
    per_sample = 1 + len(one.question.acts.token_ids) - 4  # of the positions from the subject on
    one.update(one.items[: 1 + per_sample])
    table = one.snapshot()
    assert table.attrs["samples"] == 1 and table["prob"].notna().all() and table["low"].isna().any()
    assert one.doing(1 + per_sample) == "1 of 3 samples of the noise"


def test_the_forecast_counts_the_blocks_that_are_computed(monkeypatch):
    model, tokens = models.small("llama"), 0
    question = ask(model, capture(model, IDS))

    def counted(model, acts, layer, x, first, seam):
        nonlocal tokens
        tokens += len(x) * x.shape[1]
        return block.run_block(model, acts, layer, x, first, seam)

    monkeypatch.setattr(tracing, "run_block", counted)
    finish(TraceJob.of(question, [3], samples=2))
    monkeypatch.setattr("visit.causal.cost._seconds", lambda *_: (1.0, 0.0))
    captures = 2 * 2 * model.n_layers * len(IDS)  # of two samples, for the checks and for the cells
    assert trace_cost(question, (3,), 2, None).seconds == tokens + captures
    assert trace_cost(question, (3,), 2, None).parts == 3 * model.n_layers * 4


# ---- the subject -----------------------------------------------------------------------------------------------------
def test_a_subject_is_found_as_text_wherever_it_stands(mini):
    acts = capture(mini, JAPAN)
    assert subject_positions(acts, "Japan") == subject_positions(acts, " Japan") == subject_positions(acts, 3) == (3,)
    assert subject_positions(acts, [3, 2, 3]) == (2, 3) and subject_positions(acts, "capital of Japan") == (1, 2, 3)
    twice = capture(mini, "When Mary and John went to the store, John gave a drink to")
    named = [i for i, token in enumerate(twice.tokens) if token == " John"]
    assert len(named) == 2 and subject_positions(twice, "John") == tuple(named)


@pytest.mark.parametrize(
    ("subject", "says"),
    [
        ("Norway", "must stand in the prompt; got “Norway”"), ("apan", "whole tokens.*“·Japan”"),
        ("", "at least one"), ([], "at least one"), ("of Jap", "whole tokens"), (99, "from 0 to 7"),
        (True, "whole number"), (2.5, "text in the prompt, or positions"),
    ],
)  # fmt: skip
def test_a_subject_that_is_not_there_is_refused_in_a_sentence(mini, subject, says):
    with pytest.raises(VisitError, match=says):
        trace(mini, JAPAN, subject)


def test_the_last_token_alone_is_no_subject_and_what_comes_later_is_not_seen(mini):
    with pytest.raises(VisitError, match="brings the whole answer back"):
        trace(mini, JAPAN, [7])
    with pytest.raises(VisitError, match="position 2 does not see"):
        trace(mini, JAPAN, "Japan", pos=2)


@pytest.mark.parametrize(
    ("prompt", "guessed"),
    [
        (JAPAN, [" Japan"]),
        ("Paris is the capital of", ["Paris"]),
        ("the old city lies in the", [" old", " city", " lies"]),
        ("When Mary and John went to the store, John gave a drink to", [" Mary"]),  # the answer is said again
        ("When Mary and John went to the store, Mary gave a drink to", [" John"]),
        ("First comes April, then comes", [" April"]),  # a capital that begins a sentence is no name beside one
        ("Paris is in France, and Rome is in", [" Rome"]),  # of equal names the last
        ("Lionel Messi plays the sport of", ["Lionel", " Messi"]),
        ("Present walk, past walked. Present give, present go, past", [" present", " go"]),  # written small, too
        ("of the", ["of"]),
    ],
)
def test_the_subject_is_guessed_as_the_word_that_the_answer_hangs_on(mini, prompt, guessed):
    acts = capture(mini, prompt)
    found = guessed_subject(ask(mini, acts))
    text = [acts.tokens[p] for p in found]
    assert "".join(text).strip() == "".join(guessed).strip()


def test_a_prompt_of_one_token_has_no_subject(mini):
    acts = capture(mini, "Japan")
    assert guessed_subject(ask(mini, acts)) == ()


# ---- what is refused, and what is said -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"samples": 0}, "samples must be from 1 to 1,000; got 0"), ({"samples": 1001}, "from 1 to 1,000"),
        ({"samples": 1.5}, "whole number"), ({"noise": 0}, "nothing is made unreadable"), ({"noise": -1}, "above 0"),
        ({"noise": float("nan")}, "above 0"), ({"noise": "3"}, "above 0"), ({"seed": -1}, "seed"),
        ({"window": 0}, "window must be at least 1"), ({"window": 99}, "at most 8"),
        ({"target": " Tokyo Paris"}, "exactly one token.*first one"),
    ],
)  # fmt: skip
def test_a_mistake_gets_a_sentence(mini, options, says):
    with pytest.raises(VisitError, match=says):
        trace(mini, JAPAN, "Japan", **options)


def test_an_edited_record_is_refused(mini):
    acts = capture(mini, JAPAN, edits=[__import__("visit").Edit("L0.head0")])
    with pytest.raises(VisitError, match="without edits"):
        TraceJob.of(ask(mini, acts), "Japan")


def test_a_target_that_has_nothing_to_lose_is_said(mini):
    table = trace(mini, JAPAN, "Japan", " Paris", samples=1)
    assert any("has only" in note for note in table.attrs["notes"])
    assert not trace(mini, JAPAN, "Japan", samples=1).attrs["notes"]


def test_the_sentence_says_what_was_measured(mini):
    table = trace(mini, JAPAN, "Japan", samples=3)
    told = trace_story(table)
    assert told[0].startswith("With “·Japan” made unreadable “·Tokyo” falls from 99.5 % to ")
    assert "block" in told[1] and "because" not in " ".join(told)
    assert any("windows of 3 blocks" in one for one in told)


def test_words_that_stand_apart_are_named_apart(mini):
    assert trace_story(trace(mini, JAPAN, [1, 2, 4], samples=1))[0].startswith(
        "With “·capital of … is” made unreadable "
    )
