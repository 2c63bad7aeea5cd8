"""One neuron at every token of a set: what a capture of each prompt alone shows, whole or in halves."""

from __future__ import annotations

import json
import math
from collections import defaultdict

import models
import numpy as np
import pytest
import torch

from visit import VisitError, __main__, capture, load_model
from visit.analyses.neuron_tokens import (
    CONTEXT_WINDOW,
    CONTEXTS,
    neuron_tokens,
    token_contexts,
    token_means,
    token_sums,
    token_tables,
    tokens_job,
)
from visit.runs.prompts import Row
from visit.runs.sums import merge

# tolerances: a Llama norms in float32 whatever its type, and batches round differently
SET = [[(7 * i + 3 * j * j) % 2100 for j in range(1 + i % 19)] for i in range(40)]
SET += [[5, 17, 3, 9], [5, 17, 3], [5, 17, 3, 9, 2], [5]]  # beginnings in common, lengths of 1
LAYER, NEURON = 1, 6


@pytest.fixture(scope="module", params=["gpt2", "llama", "neox", "gemma3"])
def model(request):
    return models.exact(request.param)


def by_hand(model):
    """All contexts and all tokens, prompt by prompt, without batches: {(ids up to here): (value, number, times)}."""
    contexts, tokens = {}, defaultdict(list)
    for number, ids in enumerate(SET):
        column = capture(model, ids).neurons[LAYER, :, NEURON].tolist()
        for pos, value in enumerate(column):
            start = tuple(ids[: pos + 1])
            first = contexts.get(start, (value, number, 0))
            contexts[start] = (*first[:2], first[2] + 1)
            tokens[ids[pos]].append(value)
    return contexts, tokens


def run_of(model, prompts=SET):
    run = tokens_job(model, [Row(p) for p in prompts], LAYER, NEURON)
    run.update(run.items)
    return run


def test_the_top_contexts_are_those_of_single_captures_first_position_included(model):
    found = token_contexts(model, run_of(model).snapshot(), SET)
    contexts, _ = by_hand(model)
    for sign in (1, -1):
        rows = found[sign * found["activation"] > 0]
        best = sorted((c for c in contexts.items() if sign * c[1][0] > 0), key=lambda c: -sign * c[1][0])[:CONTEXTS]
        assert rows["activation"].tolist() == pytest.approx([value for _, (value, _, _) in best], rel=1e-6, abs=1e-6)
        for row, (start, (_, number, times)) in zip(rows.to_dict("records"), best, strict=True):
            ids = SET[row["number"]]
            pos = row["position"]
            assert (row["number"], row["prompts"], tuple(ids[: pos + 1])) == (number, times, start)
            words = [model.vocabulary[i] for i in ids]
            assert row["token"] == words[pos]
            assert row["before"] == "".join(words[max(0, pos - CONTEXT_WINDOW) : pos])
            assert row["after"] == "".join(words[pos + 1 : pos + CONTEXT_WINDOW + 1])
    assert len(found) and (found["position"] == 0).any(), "the first position is looked at like any other"


def test_means_are_over_all_places_of_a_token(model):
    sums = run_of(model).snapshot()
    _, tokens = by_hand(model)
    assert sums.prompts == len(SET) and sums.positions == sum(map(len, SET))
    table = token_means(model, sums, top=10_000)
    assert set(table["token_id"]) == set(tokens) and table["mean"].is_monotonic_decreasing
    for row in table.to_dict("records"):
        own = tokens[row["token_id"]]
        assert row["token"] == model.vocabulary[row["token_id"]] and row["count"] == len(own)
        assert (row["mean"], row["max"], row["min"]) == pytest.approx(
            (np.mean(own), max(own), min(own)), rel=1e-6, abs=1e-6
        )
    assert token_means(model, sums, 3)["mean"].tolist() == pytest.approx(table["mean"].tolist()[:3])


@pytest.mark.parametrize("split", [1, 20, 41])
def test_tables_of_merged_parts_are_those_of_the_whole(model, split):
    whole = token_tables(model, run_of(model).snapshot(), SET)
    both = merge(run_of(model, SET[:split]).sums, run_of(model, SET[split:]).sums)
    assert both.prompts == len(SET)
    for name, table in token_tables(model, both, SET).items():
        numbers = table.select_dtypes("number").columns
        for column in table.columns:
            close = column in numbers and column not in ("number", "position", "prompts", "token_id", "count")
            expected = whole[name][column].tolist()
            assert table[column].tolist() == (pytest.approx(expected, rel=1e-6, abs=1e-6) if close else expected)


def test_memory_does_not_grow(model):
    run = run_of(model, SET[:5])
    run.update(run.items)
    run.update([Row(p) for p in SET])
    size = sum(array.nbytes for array in run.state().values())
    run.update([Row(p) for p in SET * 3])
    assert sum(array.nbytes for array in run.state().values()) <= size + 2 * CONTEXTS * 40
    assert len(run.sums.positive) <= CONTEXTS


def test_a_context_met_again_in_another_rounding_is_counted(monkeypatch):
    monkeypatch.setattr("visit.analyses.neuron_tokens.CONTEXTS", 2)
    found = token_sums(10, [])
    for value in (2.0, 1.0, 1.0 - 1e-7, 1.0 + 1e-7):
        found = merge(found, token_sums(10, [([7 if value > 1.5 else 8], np.array([value]))]))
    assert [row[1:] for row in found.positive.tolist()] == [(2.0, 0, 0, 1), (1.0, 1, 0, 3)]
    found = merge(found, token_sums(10, [([9, 9], np.array([0.0, -3.0]))]))
    assert len(found.positive) == 2, "zero and below are no positive activation"


def test_batches_stay_small_however_large_the_model(monkeypatch):
    model, sizes = models.small("gpt2"), []
    whole = token_tables(model, run_of(model).snapshot(), SET)
    plain = model.hf.forward
    monkeypatch.setattr(model.hf, "forward", lambda ids, **more: sizes.append(ids.numel()) or plain(ids, **more))
    monkeypatch.setattr("visit.analyses.neuron_tokens.MOST_NUMBERS", 50 * model.n_layers * model.d_mlp)
    few = token_tables(model, run_of(model).snapshot(), SET)
    assert max(sizes) <= 50 and len(sizes) > 10
    assert few["tokens"]["activation"].tolist() == pytest.approx(
        whole["tokens"]["activation"].tolist(), rel=1e-6, abs=1e-6
    )


def test_no_numbers_and_foreign_states_and_wrong_neurons_are_refused():
    model = models.small("gpt2")
    broken = type(model.hf)(model.hf.config).double()
    with torch.no_grad():
        broken.transformer.wte.weight[17] = math.nan
    broken.config._attn_implementation = "eager"
    from visit.models.model import wrap

    broken = wrap(broken, models.tokenizer(), "broken")
    with pytest.raises(VisitError, match=r"no numbers .* for \[5, 17\]"):
        neuron_tokens(broken, [[5], [5, 17]], LAYER, NEURON)
    with pytest.raises(VisitError, match="Neurons of gpt2 run from 0 to 39; got 40"):
        tokens_job(model, [], 0, 40)
    for nothing in ([], "a prompt"):
        with pytest.raises(VisitError, match="list of at least one prompt"):
            neuron_tokens(model, nothing, 0, 0)


def test_the_command_gives_the_tables_and_they_are_true(capsys, tmp_path):
    file = tmp_path / "few.txt"
    texts = ["The capital of Japan is the city of", "The capital of France is the city of", "Mary and John went to"]
    file.write_text("\n".join(texts))
    assert __main__.main(["neurons", "--prompts", str(file), "--layer", "3", "--neuron", "17", "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert len(tables["tokens"]) and len(tables["token_means"]) and "similar" in tables
    model = load_model("visit-mini")
    for row in tables["tokens"]:
        acts = capture(model, texts[row["number"]])
        assert float(acts.neurons[3, row["position"], 17]) == pytest.approx(row["activation"], rel=1e-4)
        assert acts.tokens[row["position"]] == row["token"]
        assert row["before"] + row["token"] in "".join(acts.tokens)
    shared = [row for row in tables["tokens"] if row["position"] <= 2 and row["number"] == 0]
    assert shared and all(row["prompts"] == 2 for row in shared), "a beginning in common is one row"
