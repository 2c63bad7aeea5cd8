"""A role is named where the attention carries it, and nowhere else."""

from __future__ import annotations

import math

import pytest
import torch

from visit import Activations, VisitError, capture_many
from visit.analyses.heads import RULES, role_scores

IDS = (1, 5, 6, 7, 8, 9, 5, 6, 7, 8)  # 5 6 7 8, twice


def record(rows: torch.Tensor, ids: tuple[int, ...] = IDS) -> Activations:
    """One layer and one head with this pattern `[query, key]`."""
    return Activations("", ids, tuple(map(str, ids)), tuple(range(len(ids))), pattern=rows[None, None])


def looking(at, share: float = 1.0, length: int = len(IDS)) -> torch.Tensor:
    """`share` of the attention of query t at `at(t)`, the rest spread over all it can see."""
    rows = torch.ones(length, length, dtype=torch.float64).tril()
    rows = rows / rows.sum(1, keepdim=True) * (1 - share)
    for t in range(length):
        rows[t, at(t)] += share
    return rows


LOOKS = {
    "previous token": lambda t: max(t - 1, 0),
    "same token": lambda t: t - 5 if t >= 6 else t,
    "first position": lambda t: 0,
    "induction": lambda t: t - 4 if t >= 6 else t,
}


@pytest.mark.parametrize("name", RULES)
def test_a_pattern_that_follows_one_rule_gets_its_role_and_full_score(name):
    row = role_scores(record(looking(LOOKS[name]))).iloc[0]
    assert row["role"] == f"{name} (1.00)"
    others = [row[rule.replace(" ", "_")] for rule in RULES if rule != name]
    assert row[name.replace(" ", "_")] == pytest.approx(1) and max(others) == pytest.approx(0)


@pytest.mark.parametrize("name", RULES)
def test_half_of_the_attention_is_a_role_and_a_quarter_is_none(name):
    assert role_scores(record(looking(LOOKS[name], 0.5))).iloc[0]["role"].startswith(name)
    assert role_scores(record(looking(LOOKS[name], 0.25))).iloc[0]["role"] is None


@pytest.mark.parametrize("ids", [IDS, tuple(range(3)), (4,) * 7, (4, 5) * 4, (4,), (4, 4), tuple(range(300))])
def test_uniform_attention_has_no_role_in_any_prompt(ids):
    table = role_scores(record(looking(lambda t: 0, 0.0, len(ids)), ids))
    assert table["role"].isna().all()


def test_a_rule_that_the_prompt_cannot_show_has_no_score():
    row = role_scores(record(looking(LOOKS["previous token"]), tuple(range(10)))).iloc[0]
    assert math.isnan(row["same_token"]) and math.isnan(row["induction"])
    assert row["role"] == "previous token (1.00)"


def test_one_repetition_is_no_proof_of_a_role():
    """After the second "of" of "The capital of Japan is the city of" any head that looks at the subject "inducts"."""
    ids = (1, 2, 3, 4, 5, 6, 7, 3)
    row = role_scores(record(looking(lambda t: 3 if t == 7 else t, length=8), ids)).iloc[0]
    assert row["induction"] == pytest.approx(1) and row["role"] is None


def test_a_source_that_two_rules_name_counts_for_neither():
    """In a b a, what followed the first a is also the token before the second."""
    ids = (9, 1, 2, 1, 3, 4, 5)
    row = role_scores(record(looking(LOOKS["previous token"], length=7), ids)).iloc[0]
    assert math.isnan(row["induction"])
    assert row["previous_token"] == pytest.approx(1)


def test_scores_are_the_mean_attention_written_out():
    torch.manual_seed(0)
    length = 12
    ids = tuple(torch.randint(4, (length,)).tolist())
    rows = torch.rand(length, length, dtype=torch.float64).tril()
    rows = rows / rows.sum(1, keepdim=True)
    found: dict[str, list[float]] = {rule: [] for rule in RULES}
    for t in range(length):
        same = {i for i in range(t) if ids[i] == ids[t]}
        wanted = [{t - 1} & {*range(t)}, same, {0} & {*range(t)}, {i + 1 for i in same if i + 1 < t}]
        for n, (rule, sources) in enumerate(zip(RULES, wanted, strict=True)):
            others = set().union(*(s for m, s in enumerate(wanted) if m != n))
            if sources and not sources & others:
                found[rule].append(float(rows[t, sorted(sources)].sum()))
    row = role_scores(record(rows, ids)).iloc[0]
    assert any(found.values())
    for rule, values in found.items():
        mean = sum(values) / len(values) if values else math.nan
        assert row[rule.replace(" ", "_")] == pytest.approx(mean, nan_ok=True), rule


def test_a_record_of_one_position_is_refused():
    import models

    (acts,) = capture_many(models.small("gpt2"), [list(IDS)], pos=-1)
    with pytest.raises(VisitError, match="kept position 9 only"):
        role_scores(acts)


@pytest.mark.parametrize("size", [2, 4])
def test_uniform_attention_in_a_window_has_no_role(size):
    length = 25
    rows = torch.ones(length, length, dtype=torch.float64).tril().triu(1 - size)
    acts = record(rows / rows.sum(1, keepdim=True), tuple(range(length)))
    assert role_scores(acts, [size])["role"].isna().all()
    looked = record(looking(LOOKS["previous token"], 1.0, length), tuple(range(length)))
    assert role_scores(looked, [size])["role"].item() == "previous token (1.00)"
