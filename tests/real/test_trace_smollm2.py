"""The causal trace of a fact on a trained model: where it passes, and that cells are those of full passes."""

from __future__ import annotations

import pytest
import torch

import visit
from visit.activations.sites import in_record

JAPAN = "The capital of Japan is the city of"
SUBJECT, END, TOKYO = 3, 7, " Tokyo"


def test_a_fact_passes_from_the_subject_to_the_end_at_block_23(smollm2):
    """As patching shows it: the subject's column holds the answer up to block 17 or more, the last from 23 on."""
    acts = visit.capture(smollm2, JAPAN)
    table = visit.trace(smollm2, JAPAN, "Japan", TOKYO, samples=2)
    about = table.attrs
    assert about["ledger"]["holds"] and about["ledger"]["max_rel_error"] < 1e-5
    assert about["clean"] == pytest.approx(0.854, abs=0.01) and about["corrupted"] < 0.1
    effect = table.set_index(["site", "layer", "pos"])["effect"]
    lost = about["clean"] - about["corrupted"]
    assert all(effect["resid", layer, SUBJECT] > 0.5 * lost for layer in range(16))
    assert effect["resid", 28, SUBJECT] < 0.1 * lost and effect["resid", 21, END] < 0.5 * lost
    assert all(effect["resid", layer, END] > 0.5 * lost for layer in range(23, 30))
    attention = table[table["site"] == "attn_out"]
    best = attention.loc[attention["effect"].idxmax()]
    assert best["pos"] == END and best["first"] <= 23 <= best["last"] and about["window"] == 6
    _cells_are_full_passes(smollm2, acts, table)


def _cells_are_full_passes(model, acts, table):
    rows = in_record(model, acts, "embed", 0)[[SUBJECT]]
    dice = torch.Generator().manual_seed(0)
    draws = [torch.randn(1, model.d_model, generator=dice, dtype=torch.float64) for _ in range(2)]
    noises = [(3 * float(rows.double().std()) * draw).float() for draw in draws]
    for site, layer, pos in (("resid", 12, SUBJECT), ("attn_out", 22, END), ("mlp_out", 1, SUBJECT)):
        row = table.set_index(["site", "layer", "pos"]).loc[site, layer, pos]
        name = "resid_post" if site == "resid" else site
        back = [visit.Edit(f"L{n}.{name}", "from", acts, pos) for n in range(row["first"], row["last"] + 1)]
        found = []
        for noise in noises:
            edits = [visit.Edit("embed", "add", noise, SUBJECT), *back]
            logits = visit.capture(model, JAPAN, ("logits",), edits).logits[-1]
            found.append(float(logits.softmax(-1)[model.token_id(TOKYO)]))
        assert row["prob"] == pytest.approx(sum(found) / 2, rel=1e-4), (site, layer, pos)
