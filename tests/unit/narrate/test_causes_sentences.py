"""Sentences of causes say what was measured, and no more: on made rows, and on a model's own map."""

from __future__ import annotations

import math

import pytest

from visit import capture, effects, load_model, read_vectors
from visit.causal.named_heads import named_heads
from visit.causal.thresholds import changed_by
from visit.narrate.causes import cause_story, effect_text

NAN = float("nan")


def told(contribution, before, after, how="zero"):
    """The text of a part, by the difference of the logits before and after."""
    row = {"contribution": contribution, "difference": after, "d_difference": after - before, "prob": 0.5}
    return effect_text(row, {"difference": before, "prob": 0.5}, how)


@pytest.mark.parametrize(
    ("contribution", "before", "after", "says"),
    [
        (1.1, 5.0, 5.0, "adds +1.1 directly; without it still 5.0: others make up for it"),
        (-0.03, 5.0, 3.2, "adds nothing directly; without it 5.0 → 3.2: it steers others that do"),
        (0.02, 5.0, 6.2, "adds nothing directly; without it 5.0 → 6.2: it holds back others that do"),
        (0.02, 5.0, 5.0, "adds nothing directly; without it still 5.0"),
        (2.2, 5.0, 2.6, "adds +2.2 directly; without it 5.0 → 2.6"),
        (2.2, 5.0, 4.0, "adds +2.2 directly; without it 5.0 → 4.0: others make up for a part of it"),
        (0.5, 5.0, 5.5, "adds +0.50 directly; without it 5.0 → 5.5: others more than make up for it"),
        (1.0, 5.0, 3.0, "adds +1.0 directly; without it 5.0 → 3.0: more than it adds, so others build on it"),
        (-1.2, 5.0, 6.1, "takes 1.2 directly; without it 5.0 → 6.1"),
        (-1.2, 5.0, 5.0, "takes 1.2 directly; without it still 5.0: others take as much instead"),
        (-0.26, 6.1, 5.0, "takes 0.26 directly; without it 6.1 → 5.0: it steers others that do"),
    ],
)
def test_contribution_and_effect_stand_side_by_side(contribution, before, after, says):
    assert told(contribution, before, after) == says


def test_without_a_distractor_the_numbers_are_probabilities_and_the_words_follow_them():
    """The first page's head: it adds, and without it nothing happens, whatever the centred logit does."""
    row = {"contribution": 2.5, "prob": 0.994, "difference": NAN, "d_logit": -2.4, "d_difference": NAN}
    before = {"prob": 0.995, "difference": NAN}
    assert effect_text(row, before) == "adds +2.5 directly; without it 99.5 % → 99.4 %: others make up for it"
    assert changed_by(row, before) == pytest.approx(math.log(0.994 / 0.006) - math.log(0.995 / 0.005))
    assert abs(changed_by({**row, "prob": 1.0}, {**before, "prob": 0.0})) < 40  # certainty is rounding


def test_what_was_put_in_its_place_is_named():
    assert "with its mean instead 5.0 → 4.0" in told(1.0, 5.0, 4.0, "mean")
    assert "with the other run's instead" in told(1.0, 5.0, 4.0, "from")


@pytest.fixture(scope="module")
def named():
    mini = load_model("visit-mini")
    acts = capture(mini, "When Mary and John went to the store, John gave a drink to")
    return mini, acts, named_heads(mini, acts, effects(mini, acts, target=" Mary", distractor=" John"))


def test_named_heads_are_the_most_of_each_side_and_their_parts_add_up(named):
    mini, acts, found = named
    table = effects(mini, acts, target=" Mary", distractor=" John")
    assert set(found["side"]) == {"for", "against", "steers"} and found["side"].value_counts().max() <= 5
    assert (found["target_part"] + found["distractor_part"]).tolist() == pytest.approx(found["contribution"].tolist())
    sides = found.groupby("side")
    assert (sides.get_group("for")["contribution"] >= 0.1).all()
    assert (sides.get_group("against")["contribution"] <= -0.1).all()
    most = table.loc[table["contribution"].idxmax(), "node"]
    assert found["node"].iloc[0] == most
    steering = table[(table["contribution"].abs() < 0.1) & (table["d_difference"].abs() > 0.3)]
    largest = steering["d_difference"].abs().idxmax()
    assert steering.loc[largest, "node"] in set(sides.get_group("steers")["node"])


def test_what_is_recalled_is_what_the_memory_value_reads(named):
    mini, acts, found = named
    for row in found.itertuples():
        group = row.head // (mini.n_heads // mini.n_kv_heads)
        value = acts.v[row.layer, row.source_pos, group] @ mini.W_O(row.layer)[row.head]
        reads = read_vectors(mini, -value if row.kind == "suppresses" else value)["tokens"][0]
        assert set(row.recalls) <= set(reads) and row.source_token == acts.tokens[row.source_pos]
        assert row.source_pattern == pytest.approx(float(acts.pattern[row.layer, row.head, -1, row.source_pos]))
        if row.kind in ("copies", "suppresses"):
            assert row.source_token in row.recalls and row.source_token in (" Mary", " John")


def test_the_story_names_every_head_with_a_link_and_never_says_because(named):
    sentences = cause_story(named[2])
    links = [node for sentence in sentences for _, node in sentence if node]
    assert links == named[2]["node"].tolist()
    text = " ".join("".join(piece for piece, _ in sentence) for sentence in sentences)
    assert "because" not in text.lower() and text.count("without it") == len(links)
    assert text.startswith("Most for “·Mary” over “·John”:") and "L4 H1 copies “·Mary”" in text


def test_where_no_head_does_anything_it_says_so(named):
    empty = named[2].iloc[:0]
    empty.attrs = named[2].attrs
    assert "No head adds" in "".join(piece for piece, _ in cause_story(empty)[0])
