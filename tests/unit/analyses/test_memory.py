"""The attention memory adds up, reads what the flow graph reads, and finds visit-mini's name mover."""

from __future__ import annotations

import math

import models
import pandas as pd
import pytest
import torch

import visit
from visit import Keep, VisitError, build_flow_graph, capture, head_memory, intersection, read_vectors
from visit.analyses import overlap as alignment
from visit.analyses.attention_memory import head_summary, head_terms, query_key_readings, value_life
from visit.analyses.heads import head_map
from visit.analyses.overlap import alignment_scores
from visit.exact.circuits import as_seen, key_readings, query_readings
from visit.exact.decompose import attribution, memory_values, rows_and_bias, value_norms
from visit.models.attention import first_visible, qk_norm

PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]
TWO_NAMES = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module", params=models.KINDS)
def model(request):
    return models.exact(request.param)


@pytest.fixture(scope="module")
def acts(model):
    return capture(model, PROMPT)


def heads_of(model):
    return [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]


def result(model, acts, layer, head, pos):
    return acts.z[layer, pos, head] @ rows_of(model, acts, layer, pos)[head]


def rows_of(model, acts, layer, pos):
    """W_O as the stream at `pos` gets it."""
    return rows_and_bias(model, acts, layer, "attn", pos)[0].unflatten(0, (model.n_heads, -1))


# ---- sums ------------------------------------------------------------------------------------------------------------


def test_rows_miss_the_head_by_rounding_alone(model, acts):
    for layer, head in heads_of(model):
        for pos in (0, 4, -1):
            table = head_memory(model, acts, layer, head, pos, k=1)
            assert len(table) == acts.index(pos) + 2 and pd.isna(table["source_pos"].iloc[-1])
            assert table["share"].iloc[-1] < 1e-12
            assert table["share"][:-1].sum() == pytest.approx(1, rel=1e-12)
            assert (table["pattern"][:-1] * table["value_norm"][:-1]).tolist() == table["moved"][:-1].tolist()


def test_rows_and_miss_add_up_to_the_head_for_every_word(model, acts):
    """A contribution is one shadow of the vectors: the sum must hold in the direction of many words."""
    for target in range(0, model.d_vocab, model.d_vocab // 15):
        table = head_memory(model, acts, 1, 1, target=target, distractor=target + 1, k=1, sources=[])
        true = attribution(model, acts, 8, target, target + 1).of(result(model, acts, 1, 1, 8))
        assert table["contribution"].sum() == pytest.approx(float(true), rel=1e-11, abs=1e-12)


def test_in_float32_the_miss_is_small_and_the_sum_holds():
    for name in models.KINDS:
        model = models.small(name, torch.float32)
        acts = capture(model, PROMPT)
        for layer, head in heads_of(model):
            table = head_memory(model, acts, layer, head, target=9, k=1)
            found = head_summary(model, acts, layer, head, target=9)
            assert table["share"].iloc[-1] < 1e-5
            assert table["share"].iloc[-1] == found["relative_miss"]
            largest = table["contribution"].abs().max()
            assert table["contribution"].sum() == pytest.approx(found["contribution"], abs=1e-5 * largest)


def test_heads_and_bias_add_up_to_attn_out(model, acts):
    for target, distractor in ((7, None), (7, 11)):
        table = head_map(model, acts, 4, target, distractor)
        frozen = attribution(model, acts, 4, target, distractor)
        for layer in range(model.n_layers):
            bias = rows_and_bias(model, acts, layer, "attn", 4)[1]
            heads = table.loc[table["layer"] == layer, "contribution"].sum()
            added = heads + (0.0 if bias is None else float(frozen.of(bias)))
            assert added == pytest.approx(float(frozen.of(acts.attn_out[layer, 4])), rel=1e-10, abs=1e-12)


# ---- readings --------------------------------------------------------------------------------------------------------


def test_heads_values_and_keys_read_what_the_flow_graph_reads(model, acts):
    graph = build_flow_graph(model, acts, pos=5, target=9, keep=Keep(values=None, attn_neurons=0, mlp_neurons=0))
    nodes = graph.nodes.set_index("id")
    heads = head_map(model, acts, 5, 9).set_index("node")
    for layer, head in heads_of(model):
        name = f"L{layer}.head{head}"
        same(nodes.loc[name], heads.loc[name], ["prob", "rank", "entropy", "norm", "contribution"])
        same(nodes.loc[name], head_summary(model, acts, layer, head, 5, 9), ["tokens", "prob", "rank", "norm", "probs"])
        table = head_memory(model, acts, layer, head, 5, 9)
        for i, row in table[:-1].iterrows():
            if i < first_visible(model, layer, 5):
                assert row["pattern"] == row["contribution"] == 0
                continue
            value, key = nodes.loc[f"{name}.value{i}"], nodes.loc[f"{name}.key{i}"]
            same(value, row, ["tokens", "probs", "prob", "rank", "entropy", "contribution", "source_token"])
            same(value, {"coefficient": row["pattern"], "norm": row["value_norm"]}, ["coefficient", "norm"])
            same(key, {"tokens": row["key_tokens"], "probs": row["key_probs"]}, ["tokens", "probs"])
        query = nodes.loc[f"{name}.query"]
        seen = 0 if pd.isna(query["source_pos"]) else int(query["source_pos"])
        row = table.iloc[seen]
        same(query, {"tokens": row["query_tokens"], "probs": row["query_probs"]}, ["tokens", "probs"])


def same(found, true, names):
    for name in names:
        exact = name in ("tokens", "rank", "source_rank", "source_token")
        assert found[name] == (true[name] if exact else pytest.approx(true[name], rel=1e-8, abs=1e-14)), name


def test_keys_and_queries_reproduce_the_score(model, acts):
    """Identity 6 for every source of every head; with the gain folded in they pair with the normed stream."""
    t, group = 8, model.n_heads // model.n_kv_heads
    if model.family.q_norm and qk_norm(model, "q", 1) is not None:
        pytest.skip("identity 6 has the factors of the norms of queries and keys")
    norm = model.block_norm("ln1", 1)
    x = acts.resid_pre[1]
    x = x - x.mean(-1, keepdim=True) if model.family.norm == "layer" else x
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + model.epsilon(norm))
    shift = acts.ln1_out[1] - x * model.gain(norm)  # the norm's bias
    for head in range(model.n_heads):
        q, k = acts.q[1, t, head], acts.k[1, :, head // group]
        every = torch.arange(t + 1)
        seen = as_seen(model, acts, 1, q.expand(t + 1, -1), torch.full_like(every, t), every)
        score = (seen * k).sum(-1)
        back = as_seen(model, acts, 1, k, every, t)
        read = query_key_readings(model, acts, 1, head, t, list(range(t + 1)))
        of_query = (acts.ln1_out[1] * read["query_"]).sum(-1) + seen @ model.b_K(1)[head // group]
        of_key = read["key_"] @ acts.ln1_out[1, t] + back @ model.b_Q(1)[head]
        folded = (x * read["query_gain_"] + shift * read["query_"]).sum(-1) + seen @ model.b_K(1)[head // group]
        for found in (of_query, of_key, folded):
            assert (found - score).abs().max() < 1e-12 * score.abs().max()


def test_one_heads_keys_and_queries_are_those_of_the_ledger(model, acts):
    every = torch.arange(9).expand(model.n_heads, -1)
    keys = key_readings(model, acts, 1, 8, every)
    for head in range(model.n_heads):
        found = query_key_readings(model, acts, 1, head, 8, list(range(9)))
        assert torch.allclose(found["key_"], keys[head], rtol=1e-12, atol=1e-12)
        for i in range(9):
            query = query_readings(model, acts, 1, 8, torch.full((model.n_heads,), i))[head]
            assert torch.allclose(found["query_"][i % len(found["query_"])], query, rtol=1e-12, atol=1e-12)


def test_a_value_is_asked_for_its_own_source_token(model, acts):
    table = head_memory(model, acts, 0, 1, 6, target=9)
    values, _, _ = head_terms(model, acts, 0, 1, 6)
    for i in range(7):
        own = read_vectors(model, values[i], target=PROMPT[i], k=3).iloc[0]
        assert table["source_prob"][i] == pytest.approx(own["prob"], rel=1e-10)
        assert table["source_rank"][i] == own["rank"]


def test_the_negated_words_stand_where_the_head_pushes_away(model, acts):
    signs = set()
    for head in range(model.n_heads):
        for target in (9, 100, 300):
            table = head_memory(model, acts, 1, head, target=target, k=4)
            whole = head_summary(model, acts, 1, head, target=target, k=4)
            away = whole["contribution"] < 0
            signs.add(away)
            assert table["negated_tokens"][:-1].notna().all() == away == (whole["negated_tokens"] is not None)
            if away:
                values, _, _ = head_terms(model, acts, 1, head, 8)
                assert table["negated_tokens"][:-1].tolist() == read_vectors(model, -values, k=4)["tokens"].tolist()
                negated = read_vectors(model, -result(model, acts, 1, head, 8), k=4)
                assert whole["negated_tokens"] == negated["tokens"][0]
    assert signs == {True, False}


def test_words_of_some_sources_leave_the_numbers_of_all(model, acts):
    whole = head_memory(model, acts, 1, 0, target=9)
    some = head_memory(model, acts, 1, 0, target=9, sources=[2, -3, 2])
    numbers = ["source_pos", "pattern", "moved", "share", "contribution"]
    pd.testing.assert_frame_equal(whole[numbers], some[numbers])
    assert some.index[some["tokens"].notna()].tolist() == [2, 6]
    assert some.index[some["rank"].notna()].tolist() == [2, 6]
    for name in ("tokens", "key_tokens", "query_gain_tokens"):
        assert some[name][6] == whole[name][6]


def test_the_first_position_is_marked_and_the_columns_are_always_the_same(model, acts):
    first, last = head_memory(model, acts, 0, 0, 0), head_memory(model, acts, 1, 1)
    assert first.columns.tolist() == last.columns.tolist() and first.dtypes.tolist() == last.dtypes.tolist()
    assert last["is_sink"].tolist() == [True] + [False] * 9
    assert first["share"][0] == pytest.approx(1)
    assert last["source_token"][:-1].tolist() == list(acts.tokens)


# ---- all heads -------------------------------------------------------------------------------------------------------


def test_the_map_of_heads_written_out(model, acts):
    table = head_map(model, acts, 6, target=9, k=20).set_index(["layer", "head"])
    final = acts.resid_post[-1, 6]
    for layer in range(model.n_layers):
        results = torch.stack([result(model, acts, layer, j, 6) for j in range(model.n_heads)])
        norms = results.norm(dim=1)
        for j in range(model.n_heads):
            row = table.loc[(layer, j)]
            assert row["share"] == pytest.approx(float(norms[j] / norms.sum()), rel=1e-12)
            assert row["rank_in_layer"] == 1 + int((norms > norms[j]).sum())
            assert row["top3"] == (row["rank_in_layer"] <= 3)
            others = {"attn_out": acts.attn_out[layer, 6], "block": acts.resid_post[layer, 6], "final": final}
            for name, other in others.items():
                assert row[f"intersection_{name}"] == pytest.approx(intersection(model, results[j], other, k=20))
            memory = head_memory(model, acts, layer, j, 6, k=1, sources=[])[:-1]
            main = memory.loc[memory["moved"].idxmax()]
            for name, true in (("pos", "source_pos"), ("token", "source_token"), ("share", "share")):
                assert row[f"source_{name}"] == (main[true] if name != "share" else pytest.approx(main[true]))
            assert row["source_pattern"] == pytest.approx(main["pattern"])
            assert row["tokens"] == read_vectors(model, results[j])["tokens"][0]


def test_a_values_life_is_what_each_head_remembers(model, acts):
    table = value_life(model, acts, 5, target=9, k=4, pos=-1)
    assert len(table) == model.n_layers * model.n_heads
    for _, row in table.iterrows():
        memory = head_memory(model, acts, row["layer"], row["head"], target=9, k=4, sources=[5]).iloc[5]
        same(row, memory, ["tokens", "probs", "prob", "rank", "entropy", "source_prob", "source_rank"])
        assert row["norm"] == pytest.approx(memory["value_norm"], rel=1e-12)


def test_the_numbers_of_all_heads_are_the_same_without_their_words(model, acts):
    whole, numbers = head_map(model, acts, 6, target=9), head_map(model, acts, 6, target=9, words=False)
    assert list(whole.columns.drop(list(numbers.columns))) == [
        "intersection_attn_out", "intersection_block", "intersection_final", "tokens", "probs", "entropy",
        "prob", "rank",
    ]  # fmt: skip
    pd.testing.assert_frame_equal(whole[numbers.columns], numbers)


def test_lengths_of_few_and_of_many_memory_values_are_those_of_the_vectors(model):
    acts = capture(model, [7 * i % 2100 for i in range(60)])
    for t in (3, 59):
        everywhere = torch.arange(t + 1).expand(model.n_heads, -1)
        true = memory_values(model, acts, 1, everywhere, t).norm(dim=-1)
        assert (value_norms(model, acts, 1, t) - true).abs().max() <= 1e-9 * true.max()


# ---- alignment -------------------------------------------------------------------------------------------------------


def test_scores_of_heads_are_intersections_written_out(model, acts):
    table = alignment_scores(model, acts, 6, k=15)
    layer = 1
    others = {"attn_out": acts.attn_out[layer, 6], "block": acts.resid_post[layer, 6], "final": acts.resid_post[-1, 6]}
    fits = model.n_heads * model.d_head == model.d_model
    for head in range(model.n_heads):
        with_w_o = result(model, acts, layer, head, 6)
        without = torch.zeros(model.n_heads * model.d_head, dtype=torch.float64)
        without[head * model.d_head : (head + 1) * model.d_head] = acts.z[layer, 6, head]
        rows = table[(table["figure"] == 2) & (table["layer"] == layer) & (table["head"] == head)]
        assert len(rows) == (6 if fits else 3)
        for _, row in rows.iterrows():
            vector = with_w_o if row["with_w_o"] else without
            assert row["score"] == pytest.approx(intersection(model, vector, others[row["other"]], k=15))
    longest = table[table["figure"] == 3]
    assert len(longest) == 3 * 3 * model.n_layers and longest["with_w_o"].all()
    expected = table[(table["figure"] == 2) & table["with_w_o"] & (table["rank_in_layer"] <= 3)]
    assert longest["score"].tolist() == expected["score"].tolist()


def test_scores_of_values_are_intersections_with_their_own_head(model, acts, monkeypatch):
    whole = alignment_scores(model, acts, 6, k=15, values=None)
    monkeypatch.setattr(alignment, "VECTORS", 2 * model.n_heads)
    pd.testing.assert_frame_equal(whole, alignment_scores(model, acts, 6, k=15, values=None))
    every = whole[whole["figure"] == 16]
    assert len(every) == model.n_layers * model.n_heads * 7
    for (layer, head), rows in every.groupby(["layer", "head"]):
        values, pattern, output = head_terms(model, acts, layer, head, 6)
        order = pattern.argsort(descending=True).tolist()
        assert rows["source_pos"].tolist() == order
        assert rows["source_rank"].tolist() == list(range(1, 8))
        true = [intersection(model, values[i], output, k=15) for i in order]
        assert rows["score"].tolist() == pytest.approx(true)
    top = alignment_scores(model, acts, 6, k=15)
    assert top["figure"].unique().tolist() == [2, 3, 5]
    assert top.loc[top["figure"] == 5, "score"].tolist() == every.loc[every["source_rank"] <= 3, "score"].tolist()


def test_one_position_has_one_memory_and_its_head_reads_the_same(model, acts):
    table = alignment_scores(model, acts, 0, k=15, values=None)
    assert (table.loc[table["figure"] == 16, "score"] == 1).all()


# ---- the embedded model, bad input -----------------------------------------------------------------------------------


def test_visit_minis_name_mover_is_found_by_contribution():
    model = visit.load_model("visit-mini")
    acts = capture(model, TWO_NAMES)
    mary = acts.tokens.index(" Mary")
    best = head_map(model, acts, target=" Mary").nlargest(1, "contribution").iloc[0]
    assert (best["source_token"], best["source_pos"]) == (" Mary", mary)
    assert best["tokens"][0] == " Mary" and best["top3"]
    table = head_memory(model, acts, best["layer"], best["head"], target=" Mary")
    main = table.loc[table["moved"].idxmax()]
    assert main["source_pos"] == mary and main["source_rank"] == 1 and main["share"] > 0.9
    assert main["contribution"] > 0.9 * best["contribution"]
    life = value_life(model, acts, mary, target=" Mary").set_index(["layer", "head"])
    assert life["source_rank"].idxmin() == (best["layer"], best["head"])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, a: head_memory(m, a, 3, 0), "Layers of gpt2 run from 0 to 2; got 3"),
        (lambda m, a: head_memory(m, a, 0, -1), "Heads of gpt2 run from 0 to 3; got -1"),
        (lambda m, a: head_summary(m, a, 0, 4), "Heads of gpt2 run from 0 to 3; got 4"),
        (lambda m, a: head_memory(m, a, 0, 0, 9), "from 0 to 8 .* got 9"),
        (lambda m, a: head_memory(m, a, 0, 0, k=0), "k must be at least 1; got 0"),
        (lambda m, a: head_memory(m, a, 0, 0, 3, sources=[1, 4]), "sees positions 0 to 3; got 4"),
        (lambda m, a: head_memory(m, a, 0, 0, target="two words"), "exactly one token"),
        (lambda m, a: head_map(m, a, target=7, distractor=7), "must differ"),
        (lambda m, a: head_map(m, a, k=10**6), "k must be from 1 to"),
        (lambda m, a: value_life(m, a, 12), "got 12"),
        (lambda m, a: alignment_scores(m, a, -10), "got -10"),
        (lambda m, a: alignment_scores(m, a, k=0), "got 0"),
        (lambda m, a: alignment_scores(m, a, values=0), "values must be at least 1"),
    ],
)
def test_a_wrong_call_gets_a_sentence(call, says):
    model = models.small("gpt2")
    with pytest.raises(VisitError, match=says):
        call(model, capture(model, PROMPT))


def test_records_that_cannot_answer_are_refused():
    model = models.small("llama")
    (single,) = visit.capture_many(model, [PROMPT], pos=-1)
    parts = [p for p in visit.activations.record.PARTS if p != "rotary"]
    for call in (head_map, alignment_scores, lambda m, a: head_memory(m, a, 0, 0), lambda m, a: value_life(m, a, 1)):
        with pytest.raises(VisitError, match="kept position 8 only"):
            call(model, single)
    with pytest.raises(VisitError, match="rotary"):
        head_memory(model, capture(model, PROMPT, parts=parts), 0, 0)
    assert not math.isnan(head_map(model, capture(model, PROMPT))["contribution"].sum())


@pytest.mark.parametrize("name", models.KINDS)
def test_a_value_is_compared_with_what_its_own_head_writes(name):
    model = models.small(name)
    acts = capture(model, PROMPT)
    table = value_life(model, acts, 2, pos=-1).set_index(["layer", "head"])
    group = model.n_heads // model.n_kv_heads
    for layer, head in ((0, 0), (1, model.n_heads - 1)):
        value = acts.v[layer, 2, head // group] @ model.W_O(layer)[head]
        rows_and_bias = acts.z[layer, -1, head] @ model.W_O(layer)[head]
        assert table.loc[(layer, head), "intersection_head"] == pytest.approx(intersection(model, value, rows_and_bias))
    with pytest.raises(VisitError, match="looks back only"):
        value_life(model, acts, 3, pos=2)
