"""The lens reads what the formula says, whatever the chunks, signs and ties."""

from __future__ import annotations

import math

import models
import pytest
import torch

from visit import VisitError, capture, intersection, read_vectors
from visit.lenses import logit as lens
from visit.lenses.logit import final_norm, lens_logits, read, top_of, unembed

PROMPT = [5, 17, 3, 99, 41]


@pytest.mark.parametrize("name", models.NAMES)
def test_readings_are_softmax_of_norm_and_unembedding(name):
    model = models.small(name)
    x = torch.randn(7, model.d_model, dtype=torch.float64)
    table = read_vectors(model, x, target=9, distractor=11, k=4)
    logits = unembed(model, final_norm(model, x))
    cap = model.logit_cap  # of a probability, not of a rank
    probs = (logits if cap is None else cap * (logits / cap).tanh()).softmax(-1).detach()
    for i, row in table.iterrows():
        top = probs[i].topk(4)
        assert row["tokens"] == [model.vocabulary[j] for j in top.indices]
        assert row["probs"] == pytest.approx(top.values.tolist(), rel=1e-12)
        assert row["bottom_tokens"][0] == model.vocabulary[int(probs[i].argmin())]
        assert row["prob"] == pytest.approx(float(probs[i, 9]), rel=1e-12)
        assert row["rank"] == 1 + int((logits[i] > logits[i, 9]).sum())
        assert row["distractor_rank"] == 1 + int((logits[i] > logits[i, 11]).sum())
        assert row["entropy"] == pytest.approx(float(-(probs[i] * probs[i].log2()).sum()), rel=1e-10)
        assert 0 <= row["entropy"] <= math.log2(model.d_vocab)


def test_chunks_and_tiles_change_nothing(monkeypatch):
    model = models.small("gpt2")
    x = torch.randn(23, model.d_model, dtype=torch.float64)
    whole = read(model, x, 5)
    for chunk, tile in ((1, 1), (5 * 8 * model.d_vocab, 2 * 8 * model.d_vocab)):
        monkeypatch.setattr(lens, "CHUNK_BYTES", chunk)
        monkeypatch.setattr(lens, "TILE_BYTES", tile)
        parts = read(model, x, 5)
        assert torch.equal(whole.top_ids, parts.top_ids) and torch.equal(whole.rank, parts.rank)
        assert torch.allclose(whole.entropy, parts.entropy, rtol=1e-12) and torch.allclose(whole.prob, parts.prob)


def test_each_row_can_be_asked_for_words_of_its_own(monkeypatch):
    model = models.small("llama")
    x = torch.randn(11, model.d_model, dtype=torch.float64)
    words = torch.randint(model.d_vocab, (11, 2))
    single = [read(model, x[i : i + 1], int(words[i, j])) for i in range(11) for j in range(2)]
    for chunk in (lens.CHUNK_BYTES, 4 * 8 * model.d_vocab):
        monkeypatch.setattr(lens, "CHUNK_BYTES", chunk)
        monkeypatch.setattr(lens, "TILE_BYTES", chunk // 2)
        found = read(model, x, words)
        assert found.rank.flatten().tolist() == [int(one.rank) for one in single]
        assert found.prob.flatten().tolist() == pytest.approx([float(one.prob) for one in single], rel=1e-12)


def test_rank_survives_probabilities_that_underflow():
    logits = torch.tensor([[0.0, 500.0, -400.0, -300.0]])  # exp of the last three differences is 0 in float32
    for word, rank in ((1, 1), (0, 2), (3, 3), (2, 4)):
        *_, prob, found = lens._read_tile(logits.clone(), word, 2)
        assert int(found) == rank and float(prob) == (1.0 if rank == 1 else 0.0)


def test_no_number_is_no_first_place():
    logits = torch.tensor([[0.0, float("nan"), 2.0]])
    assert int(lens._read_tile(logits, 1, 2)[-1]) == 3


def test_length_is_discarded():
    model = models.small("llama")
    x = torch.randn(3, model.d_model, dtype=torch.float64) * 50
    once, thrice = read(model, x, 5), read(model, 3 * x, 5)
    assert torch.equal(once.rank, thrice.rank) and torch.allclose(3 * once.norm, thrice.norm)


def test_intersection_is_the_share_of_common_top_words():
    model = models.small("gpt2")
    a, b = torch.randn(2, 6, model.d_model, dtype=torch.float64)
    tops = [{*map(int, row)} for row in read(model, torch.cat([a, b]), k=50).top_ids]
    expected = [len(tops[i] & tops[i + 6]) / 50 for i in range(6)]
    assert intersection(model, a, b).tolist() == pytest.approx(expected)
    assert intersection(model, a[0], a[0]) == 1.0
    assert intersection(model, a[0], b[0], k=model.d_vocab) == 1.0


def test_half_precision_is_read_in_float32():
    model = models.small("llama", torch.bfloat16)
    acts = capture(model, PROMPT)
    found = read(model, acts.resid_post[-1], 9)
    assert found.prob.dtype == torch.float32
    true = acts.logits.float().softmax(-1)[:, 9]
    assert (found.prob - true).abs().max() < 3e-2 * true.max()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: read_vectors(m, torch.zeros(2, 3)), r"\[n, 24\]"),
        (lambda m: read_vectors(m, torch.zeros(24), target="two words"), "exactly one token"),
        (lambda m: intersection(m, torch.zeros(2, 24), torch.zeros(3, 24)), "2 and 3"),
        (lambda m: intersection(m, torch.zeros(24), torch.zeros(24), k=0), "got 0"),
    ],
)
def test_a_wrong_call_gets_a_sentence(call, says):
    with pytest.raises(VisitError, match=says):
        call(models.small("gpt2"))


@pytest.mark.parametrize("width", [5, 700, 64 * 50, 64 * 50 + 17])
@pytest.mark.parametrize("largest", [True, False])
def test_the_largest_are_found_as_topk_finds_them(width, largest):
    torch.manual_seed(3)
    logits = torch.randn(9, width, dtype=torch.float64)
    logits[0, -5:] = torch.tensor([50.0, -50, 40, -40, 30])  # at the very end, behind the last whole stretch
    logits[1, :5] = torch.tensor([50.0, 49, 48, 47, 46])  # all in one stretch
    values, places = top_of(logits, 5, largest)
    true = logits.topk(5, dim=-1, largest=largest)
    assert torch.equal(values, true.values) and torch.equal(places, true.indices)


@pytest.mark.parametrize("name", ["gpt2", "phi"])
def test_few_rows_give_the_logits_of_many(name):
    """With a bias of the unembedding (phi) and without."""
    model = models.exact(name)
    x = torch.randn(9, model.d_model, dtype=model.wide)
    whole = unembed(model, final_norm(model, x))
    for count in (1, 2, 8):
        ((_, few),) = lens_logits(model, x[:count])
        assert few.is_contiguous()
        torch.testing.assert_close(few, whole[:count], rtol=1e-12, atol=1e-12)
