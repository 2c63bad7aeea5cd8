"""What a map of effects says: its columns, what stands in a part's place, and what it refuses."""

from __future__ import annotations

import copy
import math
import threading
from dataclasses import replace

import models
import pandas as pd
import pytest
import torch

from visit import Edit, Keep, VisitError, build_flow_graph, capture, effects, influence
from visit.causal.effects import divergence_bits, told_effects
from visit.exact.question import ask
from visit.models.model import wrap

PROMPT, OTHER = [5, 17, 3, 99, 41, 17, 8], [9, 2, 3, 50, 41, 20, 8]


@pytest.fixture(scope="module")
def model():
    return models.exact("llama")


@pytest.fixture(scope="module")
def acts(model):
    return capture(model, PROMPT)


def test_every_head_is_a_row_with_its_contribution_of_the_graph(model, acts):
    table = effects(model, acts, target=7)
    assert list(table) == [
        "node", "layer", "head", "neuron", "contribution", "influence", "prob", "rank", "logit", "difference",
        "d_logit", "d_difference", "kl_bits", "changed",
    ]  # fmt: skip
    graph = build_flow_graph(model, acts, target=7).nodes.set_index("id")
    assert len(table) == model.n_layers * model.n_heads
    for row in table.itertuples():
        assert row.node == f"L{row.layer}.head{row.head}"
        assert row.contribution == pytest.approx(graph.loc[row.node, "contribution"])
    assert table["difference"].isna().all() and (table["changed"] == model.d_head).all()
    before = table.attrs["before"]
    assert table["d_logit"].tolist() == pytest.approx((table["logit"] - before["logit"]).tolist())
    assert before["prob"] == pytest.approx(float(acts.logits[-1].softmax(-1)[7]))


@pytest.mark.parametrize("distractor", [None, 5])
def test_what_sentences_tell_of_heads_is_the_map_of_effects_and_takes_no_backward_pass(
    model, acts, distractor, monkeypatch
):
    whole = effects(model, acts, target=7, distractor=distractor)
    monkeypatch.setattr("visit.causal.effects.gradients_of", None)
    told = told_effects(ask(model, acts, -1, 7, distractor))
    names = ["node", "layer", "head", "contribution", "prob", "rank", "difference", "d_difference"]
    assert list(told) == names
    pd.testing.assert_frame_equal(told, pd.DataFrame(whole)[names], check_exact=False, rtol=1e-12, atol=1e-12)
    assert {name: told.attrs[name] for name in ("how", "at", "notes")} == {"how": "zero", "at": "last", "notes": []}
    before = {name: whole.attrs["before"][name] for name in ("prob", "rank", "difference")}
    assert told.attrs["before"] == pytest.approx(before, nan_ok=True)
    assert {n: v for n, v in told.attrs.items() if n != "before"} == {
        n: v for n, v in whole.attrs.items() if n != "before"
    }


@pytest.mark.parametrize("name", ["llama", "gemma3", "neox"])
def test_every_kind_of_part_has_its_contribution_of_the_graph(name):
    model = models.exact(name)
    acts = capture(model, PROMPT)
    graph = build_flow_graph(model, acts, target=7, keep=Keep(values=None, mlp_neurons=None, attn_neurons=None))
    kinds = ["head", "value", "attn_neuron", "mlp_value", "attn_out", "mlp_out"]
    nodes = graph.nodes[graph.nodes["kind"].isin(kinds)].groupby("kind").head(5)
    table = effects(model, acts, nodes["id"], target=7)
    assert table["contribution"].tolist() == pytest.approx(nodes["contribution"].tolist(), rel=1e-6, abs=1e-9)


def test_a_memory_value_taken_out_is_its_share_of_the_head_taken_out(model, acts):
    """Without one source `z` is what the others give: the same pass with that `z` written by hand."""
    z = acts.z.clone()
    z[1, -1, 2] -= acts.pattern[1, 2, -1, 3] * acts.v[1, 3, 1]
    logits = capture(model, PROMPT, edits=(Edit("L1.head2", "from", replace(acts, z=z)),)).logits[-1]
    row = effects(model, acts, ["L1.head2.value3"], target=7).iloc[0]
    assert row["logit"] == pytest.approx(float(logits[7] - logits.mean()), rel=1e-9)


def test_a_head_that_sees_one_token_is_its_only_memory_value(model, acts):
    table = effects(model, acts, ["L1.head2", "L1.head2.value0"], pos=0, target=7)
    assert table["logit"][0] == pytest.approx(table["logit"][1], rel=1e-12)


SETS = {"mean": [OTHER, PROMPT[::-1], PROMPT[1:], OTHER[2:], [4, 5, 6, 7, 8, 9]], "from": OTHER}


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize("how", ["mean", "from", "own mean", "mean of a record"])
def test_what_stands_in_a_parts_place_is_what_an_edit_puts_there(model, acts, how, at):
    """From another prompt, its mean over a set by position from the end, over a record, over the run itself."""
    source = {"own mean": None, "mean of a record": capture(model, OTHER)}.get(how, SETS.get(how))
    way = "from" if how == "from" else "mean"
    ids = ["L0.head1", "L1.mlp_value3", "L2.attn_out", "L1.head2.value3"]
    table = effects(model, acts, ids, target=7, how=way, at=at, source=source).set_index("node")
    for node in ids:
        edit = Edit(node, way, source, -1 if at == "last" else "all")
        logits = capture(model, PROMPT, edits=(edit,)).logits[-1]
        assert table.loc[node, "logit"] == pytest.approx(float(logits[7] - logits.mean()), rel=1e-9)


def test_what_has_no_partner_in_another_run_stays_and_is_named(model, acts):
    longer = [*PROMPT[:3], 60, *PROMPT[3:]]
    table = effects(model, acts, ["L0.head1"], how="from", source=longer, at="all")
    assert table["changed"][0] > 0 and table.attrs["notes"] == []
    notes = effects(model, acts, ["L0.head1"], how="from", source=PROMPT[:2] + PROMPT[3:], at="all").attrs["notes"]
    assert len(notes) == 1 and "position 2" in notes[0]


@pytest.mark.parametrize("at", ["last", "all"])
def test_its_own_numbers_in_its_place_change_nothing(model, acts, at):
    ids = ["L0.head1", "L1.head2.value3", "L1.mlp_value3", "L2.mlp_out"]
    table = effects(model, acts, ids, target=7, how="from", at=at, source=acts)
    assert (table["changed"] == 0).all() and table["d_logit"].abs().max() < 1e-12 and table["kl_bits"].max() < 1e-15


def test_influence_is_that_of_the_part_and_of_a_replacement_what_is_taken_away(model, acts):
    ids = ["L0.head1", "L1.head2.value3", "L1.mlp_value3", "L2.attn_out", "L0.mlp_out"]
    parts = influence(model, acts, target=7).set_index("node")["influence"]
    table = effects(model, acts, ids, target=7)
    assert table["influence"].tolist() == pytest.approx(parts[ids].tolist(), rel=1e-9)
    nearer = replace(
        acts, **{name: 0.75 * getattr(acts, name) for name in ("z", "v", "neurons", "attn_out", "mlp_out")}
    )
    moved = effects(model, acts, ids, target=7, how="from", source=nearer)
    assert moved["influence"].tolist() == pytest.approx((0.25 * parts[ids]).tolist(), rel=1e-9)
    assert moved["contribution"].tolist() == table["contribution"].tolist()


def test_a_small_change_has_the_effect_that_influence_foresees(model, acts):
    nearer = replace(acts, z=acts.z * (1 - 1e-5))
    table = effects(model, acts, target=7, how="from", source=nearer)
    assert (-table["d_logit"]).tolist() == pytest.approx(table["influence"].tolist(), rel=1e-3, abs=1e-10)


def test_the_neurons_are_those_with_the_largest_influence_in_the_whole_model(model, acts):
    table = effects(model, acts, "neurons", target=7)
    everything = effects(model, acts, [f"L{n}.mlp_value{i}" for n in range(3) for i in range(37)], target=7)
    strongest = everything["influence"].abs().sort_values(ascending=False)
    assert table["influence"].abs().tolist() == pytest.approx(strongest.tolist()[: len(table)])


def test_in_half_precision_rounding_is_no_effect():
    """The same weights in float32 give the same effects, although the record of every block is rounded to 8 bits."""
    half = models.small("llama", torch.bfloat16)
    full = wrap(copy.deepcopy(half.hf).float(), half.tokenizer, "full")
    rounded = effects(half, capture(half, PROMPT), target=7, at="all")
    true = effects(full, capture(full, PROMPT), target=7, at="all")
    assert (rounded["d_logit"] - true["d_logit"]).abs().max() < 0.05 * true["d_logit"].abs().max()
    late = rounded["layer"] == 2  # taken out in the last block, nothing but the last norm is left to differ
    assert (rounded["d_logit"] - true["d_logit"])[late].abs().max() < 0.02 * true["d_logit"][late].abs().max()


def test_a_record_of_an_edited_run_is_refused(model):
    with pytest.raises(VisitError, match="without edits"):
        effects(model, capture(model, PROMPT, edits=(Edit("L0.head0"),)))


def test_a_batch_larger_than_the_memory_bound_is_cut_and_gives_the_same(model, acts, monkeypatch):
    whole = effects(model, acts, target=7)
    monkeypatch.setattr("visit.causal.effects.BATCH_BYTES", 1)
    monkeypatch.setattr("visit.causal.effects.COMPARED_BYTES", 1)
    assert effects(model, acts, target=7)["logit"].tolist() == pytest.approx(whole["logit"].tolist(), rel=1e-12)


def test_the_divergence_is_exact_where_it_is_tiny_and_where_it_is_huge():
    torch.manual_seed(1)
    clean = torch.randn(1, 500, dtype=torch.float64)
    for size in (1e-6, 1e-3, 1.0, 30.0, 900.0):
        moved = clean + size * torch.randn(3, 500, dtype=torch.float64)
        true = (clean.softmax(-1) * (clean.log_softmax(-1) - moved.log_softmax(-1))).sum(-1) / math.log(2)
        assert divergence_bits(clean, moved).tolist() == pytest.approx(true.tolist(), rel=1e-7, abs=1e-15)
        assert divergence_bits(clean.float(), moved.float()).min() >= 0
    assert divergence_bits(clean, clean + 3).max() < 1e-30


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nodes": ["L9.head0"]}, "layers 0 to 2"), ({"nodes": ["L0.head9"]}, "last number there is 3"),
        ({"nodes": ["L0.mlp_value37"]}, "there is 36"), ({"nodes": ["L0.attn_neuron40"]}, "there is 39"),
        ({"nodes": ["L0.resid_mid"]}, "An effect is of a head"), ({"nodes": ["x"]}, "got 'x'"),
        ({"nodes": []}, "got none"), ({"pos": 7}, "got 7"), ({"at": "first"}, "at must be one of"),
        ({"nodes": ["L0.head1.value3"], "pos": 2}, "sees positions 0 to 2"), ({"how": "double"}, "how must be one of"),
        ({"how": "from"}, "needs a source"), ({"source": [1, 2]}, "A source belongs to"),
        ({"how": "mean", "source": 3}, "is a set of prompts"),
    ],
)  # fmt: skip
def test_a_wrong_question_gets_a_sentence(model, acts, options, says):
    with pytest.raises(VisitError, match=says):
        effects(model, acts, **options)


def test_edits_of_other_users_do_not_reach_a_map_nor_a_map_their_runs(acts, model):
    """Half of the threads edit runs of the same model, half make maps; each gets the numbers it gets alone."""
    alone = effects(model, acts, target=7)["logit"].tolist()
    edit = Edit("L1.attn_out")
    edited, wrong = capture(model, PROMPT, edits=(edit,)).logits, []

    def work(number: int) -> None:
        for _ in range(4):
            if number % 2 and not torch.equal(capture(model, PROMPT, edits=(edit,)).logits, edited):
                wrong.append(number)
            if not number % 2 and effects(model, acts, target=7)["logit"].tolist() != alone:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
