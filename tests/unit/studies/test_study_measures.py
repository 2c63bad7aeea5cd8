"""How alike two lists of words are: agreement, its weights, and what chance gives."""

from __future__ import annotations

import models
import pytest
import torch

from visit.lenses.similarity import agreement, patience, rank_weights
from visit.studies.tables import chance, random_pairs


def test_rbo_of_a_case_worked_out_by_hand():
    """a = (1 2 3), b = (2 1 4), p = 0.5: shares 0, 1, 2/3 with weights 4/7, 2/7, 1/7, so 2/7 + 2/21 = 8/21."""
    a, b = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 4]])
    assert patience(3) == 0.5
    assert agreement(a, b, ("intersection", "rbo"))[:, 0].tolist() == pytest.approx([2 / 3, 8 / 21])


def test_equal_lists_agree_wholly_and_disjoint_ones_not_at_all():
    a = torch.arange(50)[None].repeat(3, 1)
    b = torch.stack([torch.arange(50), torch.arange(50).flip(0), torch.arange(50) + 50])
    found = agreement(a, b, ("intersection", "rbo"))
    assert found[0].tolist() == pytest.approx([1, 1, 0]) and found[1, 0] == pytest.approx(1) and found[1, 2] == 0
    assert 0 < found[1, 1] < 0.2, "the same words turned round agree at the bottom only, where little weight is"


def test_most_weight_lies_within_the_words_compared():
    assert patience(50) == pytest.approx(0.9)
    for k in (10, 50, 200):
        assert 1 - patience(k) ** k > 0.98, "the cut takes off less than two hundredths"
        assert rank_weights(k).sum() == pytest.approx(1)


def test_agreement_broadcasts_and_is_chunked_without_a_seam(monkeypatch):
    monkeypatch.setattr("visit.lenses.similarity.CELLS", 100 * 999)
    generator = torch.Generator().manual_seed(0)
    a = torch.stack([torch.randperm(40, generator=generator)[:10] for _ in range(2500)]).view(50, 50, 10)
    b = a[:, :1].flip(-1)
    found = agreement(a, b, ("rbo", "intersection"))
    assert found.shape == (2, 50, 50)
    for i, j in ((0, 0), (49, 49), (40, 48), (41, 1)):
        assert found[1, i, j] == len(set(a[i, j].tolist()) & set(b[i, 0].tolist())) / 10
        assert found[0, i, j] == agreement(a[i, j][None], b[i, 0][None], ("rbo",))[0, 0]


def test_chance_is_what_random_lists_score():
    generator = torch.Generator().manual_seed(1)
    lists = torch.stack([torch.randperm(200, generator=generator)[:20] for _ in range(4000)])
    found = agreement(lists[:2000], lists[2000:], ("intersection", "rbo"))
    expected = chance(200, 20, ("intersection", "rbo"))
    assert expected["intersection"] == 0.1
    for own, name in zip(found, ("intersection", "rbo"), strict=True):
        assert own.mean().item() == pytest.approx(expected[name], abs=4 * own.std().item() / 2000**0.5)


def test_random_vectors_through_a_lens_that_favours_no_word_score_k_over_v():
    """With a plain final norm and random directions for words, the lens of random vectors is a random order."""
    model = models.small("llama")
    norm, weight = model.module(model.family.ln_final), model.unembedding.weight
    kept = norm.weight.detach().clone(), weight.detach().clone()
    with torch.no_grad():
        norm.weight.fill_(1)
        weight.copy_(torch.nn.functional.normalize(torch.randn(weight.shape, dtype=weight.dtype), dim=1))
        found = random_pairs(model, 50, ("intersection", "rbo"), seed=3)
        norm.weight.copy_(kept[0]), weight.copy_(kept[1])
    expected = chance(model.d_vocab, 50, ("intersection", "rbo"))
    for name, number in found.items():
        assert number == pytest.approx(expected[name], rel=0.35), name
