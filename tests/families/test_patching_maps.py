"""A map of patches is that of full passes of the model's own code with the same edits, in every family."""

from __future__ import annotations

from functools import cache

import models
import pandas as pd
import pytest
import torch

import visit
from visit import Edit, capture, patch

# the windows of the small models see 4 tokens; each pair: B into A, one token other, several, and another length
A = (5, 17, 3, 99, 41, 17, 8)
PAIRS = {
    "one": (5, 17, 3, 60, 41, 17, 8),
    "several": (5, 9, 3, 99, 60, 17, 12),
    "longer": (5, 17, 60, 61, 99, 41, 17, 8),
}
SITES = ("resid", "attn_out", "mlp_out", "heads")


@cache
def runs(name, pair):
    """A model, both records, and the words that the runs differ by most: a random model answers nothing."""
    model = models.exact(name)
    a, b = capture(model, A), capture(model, PAIRS[pair])
    moved = uncapped(model, b.logits) - uncapped(model, a.logits)
    return model, a, b, {"target": int(moved.argmax()), "distractor": int(moved.argmin())}


def uncapped(model, logits):
    """Those of the last position before a soft-cap."""
    cap = model.logit_cap
    return logits[-1] if cap is None else cap * torch.atanh(logits[-1] / cap)


def measure(model, logits, words):
    """Target − distractor at the last position, before a soft-cap."""
    last = uncapped(model, logits)
    return float(last[words["target"]] - last[words["distractor"]])


def passed(model, a, b, words, row):
    """The effect of a row by a pass of the model's own code with the edit that it names."""
    pos = "all" if pd.isna(row.pos) else row.pos
    logits = capture(model, a.token_ids, ("logits",), [Edit(row.id, "from", b, pos)]).logits
    m_a, m_b = (measure(model, record.logits, words) for record in (a, b))
    m = measure(model, logits, words)
    return m, (m - m_a) / (m_b - m_a)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", models.at_length(models.NAMES))
def test_every_cell_is_a_pass_with_the_edit_that_it_names(name, pair):
    """Also the cells that nobody ran for: before the first difference an edit's effect is 0 indeed."""
    model, a, b, words = runs(name, pair)
    places = [(site, at) for site in SITES for at in ("each", "last", "all")]
    for site, at in places:
        table = patch(model, a, b, site, at, **words)
        assert table.attrs["m_a"] == pytest.approx(measure(model, a.logits, words), rel=1e-9)
        assert table.attrs["m_b"] == pytest.approx(measure(model, b.logits, words), rel=1e-9)
        if site == "heads" and at == "each":
            table = table[(table["head"] == 1) | (table["layer"] == 1)]
        for row in table.itertuples():
            if pd.isna(row.pos_b) and at != "all":
                assert pd.isna(row.effect) and not row.exact
                continue
            m, effect = passed(model, a, b, words, row)
            assert row.exact and row.m == pytest.approx(m, rel=1e-8, abs=1e-9), (site, at, row)
            assert row.effect == pytest.approx(effect, rel=1e-7, abs=1e-7), (site, at, row)


@pytest.mark.parametrize("name", models.NAMES)
def test_what_must_hold_of_every_map(name):
    model, a, b, words = runs(name, "one")
    stream = patch(model, a, b, **words).set_index(["layer", "pos"])
    assert (stream["effect"].xs(0, level="layer").drop(3).abs() < 1e-12).all()
    assert abs(stream.loc[(0, 3), "effect"] - 1) < 1e-9  # the one different token, before block 0, is all of B
    assert (stream["effect"].loc[:, 0:2] == 0).all() and (stream["changed"].loc[:, 0:2] == 0).all()
    everywhere = patch(model, a, b, at="all", **words)
    assert everywhere["effect"].tolist() == pytest.approx([1.0] * model.n_layers, abs=1e-9)  # B's own logits


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", ["gpt2", "neox", "llama", "gemma3", "olmo2"])
def test_attribution_is_the_slope_of_the_exact_effect(name, site):
    """A central difference in float64: a ten-thousandth of the way to B at one place, and as far on the other side."""
    model, a, b, words = runs(name, "several")
    table = patch(model, a, b, site, "each", "attribution", **words)
    m_a, m_b = (measure(model, record.logits, words) for record in (a, b))
    table = table[table["changed"] > 0].sample(12, random_state=0)
    quantity = {"resid": "resid_pre", "heads": "z"}.get(site, site)
    for row in table.itertuples():
        at = (row.layer, row.pos, row.head) if site == "heads" else (row.layer, row.pos)
        m = []
        for step in (1e-4, -1e-4):
            between = getattr(a, quantity).clone()
            between[at] += step * (getattr(b, quantity)[at] - between[at])
            source = visit.Activations(**{**vars(a), quantity: between})
            m.append(
                measure(model, capture(model, A, ("logits",), [Edit(row.id, "from", source, row.pos)]).logits, words)
            )
        slope = (m[0] - m[1]) / 2e-4 / (m_b - m_a)
        assert row.estimate == row.effect == pytest.approx(slope, rel=1e-4, abs=1e-6), row
        assert not row.exact and pd.isna(row.m)


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("site", SITES)
def test_the_largest_by_attribution_are_verified(name, site):
    model, a, b, words = runs(name, "longer")
    exact, quick = (patch(model, a, b, site, None, *how, **words) for how in (("exact",), ("attribution", 4)))
    assert quick["exact"].sum() == 4 and exact["exact"].sum() == exact["effect"].notna().sum()
    done = quick[quick["exact"]]
    assert done["effect"].tolist() == pytest.approx(exact.loc[done.index, "effect"].tolist(), rel=1e-9, abs=1e-12)
    assert done["estimate"].abs().min() >= quick.loc[~quick["exact"], "estimate"].abs().max() - 1e-15
    left = quick[~quick["exact"] & quick["effect"].notna()]
    assert left["effect"].tolist() == left["estimate"].tolist() and left["m"].isna().all()


def test_where_the_measure_is_linear_attribution_is_exact():
    """Without a final norm what the last block's MLP writes is read by the unembedding as it is."""
    model, a, b, words = runs("opt-without-final-norm", "several")
    tables = [patch(model, a, b, "mlp_out", "last", method, **words) for method in ("exact", "attribution")]
    exact, quick = (float(table["effect"].iloc[-1]) for table in tables)
    assert quick == pytest.approx(exact, rel=1e-10) and abs(exact) > 1e-3


def test_in_a_group_one_heads_key_or_value_is_its_own_and_the_shared_one_is_its_groups():
    model, a, b, _ = runs("llama", "several")  # heads 2 and 3 read kv_head 1
    for part in ("key4", "value4"):
        own, shared = (visit.ablate(model, a, Edit(f"L1.{node}.{part}", "from", b)) for node in ("head2", "kv_head1"))
        for found, heads in ((own, [2]), (shared, [2, 3])):
            z = (found.edited.z[1] != a.z[1]).any(-1).any(0)
            assert z.nonzero()[:, 0].tolist() == heads
        assert own.notes == [] and f"L1.kv_head1.{part} is shared: it is edited for H2, H3." in shared.notes
