"""Distances between two passes are what their formulas say, and nothing parts before the first different token."""

from __future__ import annotations

import math

import models
import pytest
import torch

from visit import VisitError, capture
from visit.analyses.divergence import part
from visit.analyses.parting import MEASURES, first_parting
from visit.analyses.token_alignment import pair, pair_tokens
from visit.lenses.logit import final_norm, intersection, unembed

A = [5, 17, 3, 99, 41, 17, 8]
B = [5, 17, 3, 77, 60, 41, 17, 8]


def table_of(name: str, a=A, b=B, **options):
    model = models.small(name)
    left, right = capture(model, a), capture(model, b)
    return model, left, right, part(model, left, model, right, pair(model, left, model, right), **options)


@pytest.mark.parametrize("name", models.KINDS)
def test_nothing_parts_before_the_first_different_token(name):
    _, _, _, table = table_of(name)
    before = table[table["pos_a"] < 3]
    assert (before[list(MEASURES)] == 0).all(axis=None) and (before["word_a"] == before["word_b"]).all()
    after = table[table["pos_a"] >= 3]
    assert (after.loc[after["depth"] > 0, ["js", "cosine", "cosine_centred"]] > 0).all(axis=None)
    first = first_parting(table)
    assert (first["pos_a"], first["pos_b"]) == (3, 4), "99 is replaced by the last of 77, 60"


@torch.no_grad()
def test_the_divergence_is_its_formula():
    model, left, right, table = table_of("gpt2")
    for row in table[(table["depth"] == 2) & (table["pos_a"] > 3)].to_dict("records"):
        states = left.resid_post[1, row["pos_a"]], right.resid_post[1, row["pos_b"]]
        p, q = (unembed(model, final_norm(model, x[None]))[0].softmax(-1) for x in states)
        m = (p + q) / 2
        bits = 0.5 * float((p * (p / m).log2()).sum() + (q * (q / m).log2()).sum())
        assert row["js"] == pytest.approx(bits, rel=1e-9) and 0 < row["js"] <= 1
        assert row["apart"] == pytest.approx(1 - intersection(model, *states), abs=1e-6)
        assert row["cosine"] == pytest.approx(1 - float(states[0] @ states[1] / states[0].norm() / states[1].norm()))


def test_the_centred_distance_leaves_out_a_dimension_that_drowns_the_others():
    from visit.analyses.divergence import _angles

    torch.manual_seed(0)
    states = torch.randn(12, 40, dtype=torch.float64)
    states[:, 7] += 1000  # a rogue dimension: every state points the same way
    x, y = states[:6], states[6:]
    found = _angles(x, y, x, y)
    assert max(found["cosine"]) < 0.001 and min(found["cosine_centred"]) > 0.3
    rest = torch.cat([x[1:], y[1:]])
    keep = [d for d in range(40) if d != 7]
    u, v = ((s - rest.mean(0))[:, keep] for s in (x, y))
    true = [1 - float(torch.dot(a, b) / a.norm() / b.norm()) for a, b in zip(u, v, strict=True)]
    assert found["cosine_centred"] == pytest.approx(true)


def test_one_prompt_does_not_part_from_itself():
    _, _, _, table = table_of("llama", A, A)
    assert (table[list(MEASURES)] == 0).all(axis=None) and first_parting(table) is None


def test_too_few_states_for_a_mean_are_said_to_be_missing():
    _, _, _, table = table_of("gpt2", [5, 6], [5, 9])
    last = table[table["pos_a"] == 1]
    assert last["cosine_centred"].isna().all() and last["cosine"].gt(0).all()


def test_a_page_of_pairs_is_a_part_of_the_whole():
    _, _, _, whole = table_of("gpt2")
    _, _, _, page = table_of("gpt2", pairs=slice(4, 7))
    rows = whole[whole["pair"].between(4, 6)].reset_index(drop=True)
    assert page["pair"].tolist() == rows["pair"].tolist() and len(page) == len(rows) > 0
    for name in MEASURES:
        assert page[name].tolist() == pytest.approx(rows[name].tolist(), rel=1e-9)


def test_two_models_part_where_their_weights_do():
    model = models.small("gpt2")
    other = models.small("gpt2", torch.float32)  # other weights of the same shape: drawn in another type
    left, right = capture(model, A), capture(other, A)
    table = part(model, left, other, right, pair_tokens(A, A))
    assert first_parting(table)["depth"] == 0 and table["js"].gt(0).all()


def test_models_of_other_depths_cannot_be_compared_block_by_block():
    shallow, deep = models.small("gpt2-untied-scaled"), models.small("gpt2")
    with pytest.raises(VisitError, match="as many layers"):
        part(shallow, capture(shallow, A), deep, capture(deep, A), pair_tokens(A, A))


def test_first_parting_of_a_measure_without_numbers_is_none():
    _, _, _, table = table_of("gpt2", [5, 6], [5, 9])
    assert first_parting(table.assign(js=math.nan)) is None
