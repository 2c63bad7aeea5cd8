"""Roles are criteria that hold, each with its number: recomputed here from the record by hand."""

from __future__ import annotations

from dataclasses import replace

import models
import pytest
import torch

from visit import VisitError, capture, effects, load_model, paths, read_vectors, roles
from visit.analyses.heads import named_from, role_scores
from visit.causal.thresholds import COSTS
from visit.exact.decompose import attribution, head_results
from visit.text.node_id import NodeId

NAMES = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def mini():
    return load_model("visit-mini")


@pytest.fixture(scope="module")
def acts(mini):
    return capture(mini, NAMES)


@pytest.fixture(scope="module")
def table(mini, acts):
    return roles(mini, acts)


def test_every_number_listed_passes_its_threshold(table):
    assert len(table) and list(table) == ["node", "role", "criterion", "number", "threshold", "word"]
    for row in table.itertuples():
        below = any(word in row.criterion for word in ("below", "less than", "at most"))
        assert row.number <= row.threshold if below else row.number >= row.threshold, row


def test_movers_and_suppressors_are_the_heads_whose_values_read_the_word(mini, acts, table):
    """Looked for in all heads and places one by one, through the public readings."""
    t, found = len(acts.tokens) - 1, set()
    for i in range(1, t):
        word = acts.token_ids[i]
        if acts.tokens[i] not in (" Mary", " John", " store", " drink", " gave", " went"):
            continue
        direction = attribution(mini, acts, t, word).direction
        for layer in range(mini.n_layers):
            for head in range(mini.n_heads):
                if acts.pattern[layer, head, t, i] <= 0.2:
                    continue
                value = acts.v[layer, i, head // (mini.n_heads // mini.n_kv_heads)] @ mini.W_O(layer)[head]
                added = float(acts.z[layer, t, head] @ mini.W_O(layer)[head] @ direction)
                ranks = read_vectors(mini, torch.stack([value, -value]), target=word)["rank"]
                found |= (
                    {(f"L{layer}.head{head}", "mover", acts.tokens[i])} if ranks[0] <= 10 and added > 0.1 else set()
                )
                against = ranks[1] <= 10 and added < -0.1
                found |= {(f"L{layer}.head{head}", "suppressor", acts.tokens[i])} if against else set()
    listed = table[table["role"].isin(["mover", "suppressor"])]
    assert found and set(zip(listed["node"], listed["role"], listed["word"], strict=True)) == found


def test_a_head_that_steers_adds_nothing_and_costs(mini, acts, table):
    """Every head that looks at the name said twice, tried by hand; the thresholds are those listed."""
    john = mini.token_id(" John")
    places = [i for i, token in enumerate(acts.token_ids) if token == john]
    prediction = int(acts.logits[-1].argmax())
    assert len(places) == 2 and prediction != john
    everything = effects(mini, acts, target=prediction, distractor=john)
    looks = acts.pattern[:, :, -1][:, :, places].sum(-1).flatten() > 0.2
    steers = everything[looks.numpy() & (everything["contribution"] < 0.1) & (everything["d_difference"] < -0.3)]
    listed = table[(table["role"] == "inhibitor") & (table["word"] == " John")]
    assert set(listed["node"]) == set(steers["node"])


def test_roles_of_the_pattern_speak_with_the_words_of_the_heads_table(acts, table):
    hints = role_scores(acts)
    hints = hints[hints["role"].notna()]
    listed = table[table["word"].isna()]
    expected = {f"L{r.layer}.head{r.head}": r.role for r in hints.itertuples()}
    assert {row.node: f"{row.role} ({row.number:.2f})" for row in listed.itertuples()} == expected
    assert set(listed["threshold"]) <= set(named_from(acts).values())


def test_only_the_words_asked_for(mini, acts):
    table = roles(mini, acts, words=[" Mary"])
    assert set(table["word"].dropna()) <= {" Mary"}


def test_windows_and_positions_of_any_family_are_no_obstacle():
    for name in ("gemma3", "gpt_neo", "bloom"):
        model = models.small(name, torch.float32)
        acts = capture(model, [5, 17, 3, 99, 41, 17, 8, 200])
        for pos in (0, 1, -1):
            assert set(roles(model, acts, pos=pos)["role"]) <= {
                "mover", "suppressor", "inhibitor", "previous token", "same token", "first position", "induction"
            }  # fmt: skip


def test_a_word_that_is_not_there_and_a_record_of_one_position_get_a_sentence(mini, acts):
    with pytest.raises(VisitError, match="' Paris' does not stand"):
        roles(mini, acts, words=[" Paris"])
    with pytest.raises(VisitError, match="kept position"):
        roles(mini, replace(acts, positions=(3,)))


PARTNER = "When Paul and Sarah went to the store, David gave a drink to"


def test_an_inhibitor_adds_nothing_and_moves_the_queries_of_the_movers(mini, acts, table):
    """Each number is that of path patching to those movers together; without a partner effects alone tell them."""
    found = roles(mini, acts, abc=PARTNER)
    known = table["criterion"].tolist()
    assert found[found["criterion"].isin(known)].reset_index(drop=True).equals(table)
    rows = found[(found["role"] == "inhibitor") & ~found["criterion"].isin(known)]
    movers = table[(table["role"] == "mover") & (table["word"] == " Mary")]["node"].unique()
    line = [{"prompt": NAMES, "target": " Mary", "distractor": " John", "abc": PARTNER}]
    sent = paths(mini, line, None, list(movers), "q")
    sent = sent[sent["receiver"] == "together"].set_index("sender")["effect"]
    direct = attribution(mini, acts, -1, mini.token_id(" Mary"), mini.token_id(" John")).direction
    assert len(rows) >= 2
    for node, own in rows.groupby("node"):
        place = NodeId.parse(node)
        adds = float(head_results(mini, acts, place.layer, -1)[place.head] @ direct)
        adding, moving = own["number"]
        assert adding == pytest.approx(abs(adds), abs=1e-5) and adding < own["threshold"].iloc[0]
        assert moving == pytest.approx(sent[node], abs=1e-3) and moving < own["threshold"].iloc[1]
    strong = {node for node in sent.index if sent[node] < -COSTS}
    assert set(rows["node"]) <= strong


def test_a_partner_of_another_length_is_refused(mini, acts):
    with pytest.raises(VisitError, match="as many tokens"):
        roles(mini, acts, abc="Paul and Sarah")
