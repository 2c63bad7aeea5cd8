"""The five steps of the guide: every number is the pass's own, and a cause is told by what was measured alone."""

from __future__ import annotations

import models
import pytest
import torch

import visit
from visit import Edit, ablate, capture, trace
from visit.analyses.neurons import active_neurons
from visit.analyses.norms import token_shift
from visit.analyses.overview import lens_map, movers
from visit.causal.effects import told_effects
from visit.exact.question import ask
from visit.narrate.flow import gathered
from visit.narrate.guide import (
    guide_steps,
    head_verdict,
    layer_norm_steps,
    memory_steps,
    neuron_steps,
    set_steps,
    trace_steps,
    whatif_steps,
)
from visit.narrate.head_sets import set_story, with_band
from visit.narrate.traces import trace_story
from visit.runs.prompts import Row
from visit.text.numbers import percent, short, signed
from visit.text.visible import as_word, quoted

PROMPT = [5, 17, 3, 99, 41, 17, 8]


def text(sentences) -> str:
    return " ".join("".join(piece for piece, _ in s) for s in sentences)


def told(model, acts, target, distractor=None):
    found = gathered(model, acts, -1, target, distractor)
    source = int(found.strongest["source_pos"])
    without = ablate(model, acts, Edit(f"embed.pos{source}", "mean", pos=source), -1, target, distractor)
    measured = told_effects(ask(model, acts, -1, target, distractor))  # as the pages measure it
    return found, measured, without, guide_steps(found, measured, without.table)


@pytest.fixture(scope="module")
def mini():
    return visit.load_model("visit-mini")


@pytest.mark.parametrize("name", ["visit-mini", "llama"])
def test_every_number_of_the_steps_is_the_passes_own(name, mini):
    model = mini if name == "visit-mini" else models.exact(name)
    acts = capture(model, "The capital of Japan is the city of" if name == "visit-mini" else PROMPT)
    target = int(acts.logits[-1].argmax())
    _, measured, without, steps = told(model, acts, target)
    prob = float(acts.logits[-1].double().softmax(-1)[target])
    assert percent(prob) in text(steps[0].said) and as_word(model.vocabulary[target]) in text(steps[0].said)
    assert steps[0].node == "logits"

    map_ = lens_map(model, acts, target, [len(acts.token_ids) - 1])
    row = map_[map_["state"] == steps[1].node].iloc[0]
    assert row["rank"] == 1 and percent(row["prob"]) in text(steps[1].said)
    assert (map_.loc[map_["depth"] >= row["depth"], "rank"] == 1).all()  # it stays the first choice

    heads = movers(model, acts, -1, target)
    heads = heads[heads["kind"] == "head"]
    best = heads.loc[heads["contribution"].idxmax()]
    assert steps[2].node == best["node"] and signed(best["contribution"]) in text(steps[2].said)
    assert signed(heads["contribution"].sum()) in text(steps[2].said)

    source = int(best["source_pos"])
    assert steps[3].node == f"{best['node']}.value{source}" and steps[3].tokens == (source,)
    assert quoted(acts.tokens[source]) in text(steps[3].said) and short(best["pattern"]) in text(steps[3].said)

    run = capture(model, acts.token_ids, edits=[Edit(best["node"], "zero", pos=-1)])  # by a pass of its own
    assert percent(float(run.logits[-1].double().softmax(-1)[target])) in text(steps[4].said)
    assert percent(prob) in text(steps[4].said) and steps[4].said[0][1] == (
        f"L{best['layer']} H{best['head']}",
        best["node"],
    )
    if source < len(acts.token_ids) - 1:
        assert percent(float(without.edited.logits[-1].double().softmax(-1)[target])) in text(steps[4].said)
    else:
        assert "its own position" in text(steps[4].said)
    assert len(measured) == model.n_layers * model.n_heads


def test_the_word_japan_is_the_cause_and_the_head_that_fetches_it_is_not(mini):
    acts = capture(mini, "The capital of Japan is the city of")
    steps = told(mini, acts, int(acts.logits[-1].argmax()))[3]
    assert "“·Japan”" in text(steps[3].said)
    last = text(steps[4].said)
    assert "Is L4 H1 the cause? Not by itself." in last and "others make up for it" in last
    assert "Is “·Japan” the cause? Yes: without it the answer is another." in last


def test_nothing_is_called_a_cause_before_it_was_measured(mini):
    acts = capture(mini, "The capital of Japan is the city of")
    steps = guide_steps(gathered(mini, acts, -1, int(acts.logits[-1].argmax())))
    assert len(steps) == 5 and "has to be measured" in text(steps[4].said)
    assert not any(word in text(s.said) for s in steps for word in ("because", "Yes", "Not by itself"))


def test_a_verdict_follows_the_measured_change():
    before = {"rank": 1, "prob": 0.9, "difference": float("nan")}

    def row(prob, rank=1, contribution=2.0):
        return {"contribution": contribution, "prob": prob, "rank": rank, "d_difference": float("nan")}

    assert head_verdict(row(0.2, 3), before).startswith("Yes")
    assert head_verdict(row(0.89), before) == "Not by itself."
    assert head_verdict(row(0.95), before) == "Not by itself."
    assert head_verdict(row(0.7), before).startswith("In part")
    lower = before | {"rank": 7, "prob": 0.1}
    assert head_verdict(row(0.012, 20), lower) == "Yes, as far as one head can be."


def test_a_weak_guess_and_a_word_that_is_not_the_guess_are_said_first(mini):
    acts = capture(mini, "The capital of United Kingdom is the city of")
    weak = guide_steps(gathered(mini, acts, -1, int(acts.logits[-1].argmax())))
    assert "weak guess" in text(weak[0].said)
    acts = capture(mini, "The capital of Japan is the city of")
    other = guide_steps(gathered(mini, acts, -1, mini.token_id(" Osaka")))
    assert text(other[0].said).startswith("You ask about “·Osaka”") and "“·Tokyo” with 99.5 %" in text(other[0].said)


def test_where_no_head_adds_to_it_there_is_none_to_follow():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    for target in range(60):
        found = gathered(model, acts, -1, target)
        if found.strongest is None:
            break
        found.moved.loc[found.moved["kind"] == "head", "contribution"] = -torch.rand(1).item()
    assert found.strongest is None
    steps = guide_steps(found)
    assert len(steps) == 5 and steps[2].node is None and steps[3].tokens == ()
    assert "None: no head adds" in text(steps[2].said) and "none to remove" in text(steps[4].said)


@pytest.mark.parametrize("name", ["visit-mini", "llama"])
def test_the_steps_of_other_pages_carry_the_numbers_of_their_tables(name, mini):
    model = mini if name == "visit-mini" else models.exact(name)
    acts = capture(model, "The capital of Japan is the city of" if name == "visit-mini" else PROMPT)
    target = int(acts.logits[-1].argmax())
    found, measured, without, _ = told(model, acts, target)
    head = found.strongest
    steps = memory_steps(found, measured)
    assert signed(head["source_contribution"]) in text(steps[3].said) and "the cause?" in text(steps[4].said)

    steps = whatif_steps(found, ["L0 H1"], measured, without.table)
    assert "L0 H1" in text(steps[1].said)
    lowest = measured.loc[measured["prob"].idxmin()]
    assert steps[2].said[0][1][1] == lowest["node"] and percent(lowest["prob"]) in text(steps[2].said)
    made = trace(model, acts.prompt if name == "visit-mini" else list(acts.token_ids), [3], target, samples=2)
    steps = trace_steps(found, acts.tokens[3], made)
    assert percent(made.attrs["corrupted"]) in text(steps[1].said) and len(steps) == 5
    for step, sentence in zip(steps[1:], trace_story(made), strict=False):
        assert sentence in text(step.said)
    assert "not traced yet" in text(trace_steps(found, acts.tokens[3], None)[2].said)

    steps = whatif_steps(found, [])
    assert "measured" in text(steps[2].said) and "Nothing is changed" in text(steps[1].said)

    shift = token_shift(model, acts, 0, "ln1", -1, target)
    steps = layer_norm_steps(found, shift)
    own = shift[shift["id"] == target].iloc[0]
    assert f"rank {own['before_rank']:,} → {own['after_rank']:,}" in text(steps[1].said)
    assert as_word(shift.loc[shift["delta"].idxmax(), "token"]) in text(steps[2].said)

    layer = model.n_layers - 1
    table = active_neurons(model, acts, layer, -1, kind="mlp", top=5, by="norm", target=target)
    best = table[table["neuron"].notna()].sort_values("contribution").iloc[-1]
    out = ablate(model, acts, Edit(best["node"], "zero", pos=-1), -1, target)
    steps = neuron_steps(found, table, out.table)
    assert steps[2].node == best["node"] and signed(best["contribution"]) in text(steps[2].said)
    whole = float(movers(model, acts, -1, target).set_index("node").loc[f"L{layer}.mlp_out", "contribution"])
    assert signed(whole) in text(steps[3].said)
    assert percent(float(out.edited.logits[-1].double().softmax(-1)[target])) in text(steps[4].said)


def test_the_steps_of_a_set_carry_the_numbers_of_its_table_and_before_a_run_none():
    rows = [Row([5, 17, 3, 99, 41], 31, 7, line=2), Row([7, 70, 12, 4], 12, 9, line=3)]
    table = visit.head_question(models.small("gpt2"), rows)
    first = Row("Mary and John met, John gave it to", " Mary", " John", 2)
    steps = set_steps("ioi, 2 prompts", first, "difference", "heads", table)
    assert "over ioi, 2 prompts" in text(steps[0].said) and "target − distractor" in text(steps[0].said)
    assert "target is “·Mary”, its distractor “·John”" in text(steps[1].said)
    assert steps[2].said == set_story(table)[:1]
    most = table.loc[table["contribution"].abs().idxmax()]
    assert with_band(most, "contribution") in text(steps[3].said) and with_band(most, "effect") in text(steps[3].said)
    before = set_steps("own, 1 prompt", Row("Mary", line=1), "logit", "neurons", None)
    assert "has to be measured" in text(before[2].said) and "target is" not in text(before[1].said)
    assert "every neuron" in text(before[0].said) and len(before) == 5
