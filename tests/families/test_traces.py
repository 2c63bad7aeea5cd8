"""A causal trace is that of full passes of the model's own code with noise and restored states, in every family."""

from __future__ import annotations

import models
import pytest
import torch

from visit import Edit, capture, load_model, trace
from visit.activations.sites import in_record

LONG = [5, 17, 3, 99, 41, 17, 8, 200, 31]
SUBJECT = (2, 4)  # with a clean token between
SAMPLES, SEED = 2, 3


def noises(model, acts, subject, samples, seed):
    """The definition: 3 × the standard deviation of all numbers of the subject's embeddings, one draw after another."""
    rows = in_record(model, acts, "embed", 0)[list(subject)].double()
    dice = torch.Generator().manual_seed(seed)
    draws = [torch.randn(*rows.shape, generator=dice, dtype=torch.float64) for _ in range(samples)]
    return [3 * rows.std() * draw for draw in draws]


def prob(model, ids, target, pos, noise=None, subject=(), restored=()):
    """The target's probability in the model's own code."""
    edits = list(restored)
    if noise is not None:
        whole = torch.zeros(len(ids), model.d_model, dtype=torch.float64)
        whole[list(subject)] = noise
        edits.insert(0, Edit("embed", "add", source=whole, pos=list(subject)))
    logits = capture(model, ids, ("logits",), edits).logits[pos]
    return float(logits.double().softmax(-1)[target])


def check(model, ids, subject, target, cells, window, pos=-1, rel=1e-7):
    acts = capture(model, ids)
    table = trace(model, ids, list(subject), target, SAMPLES, SEED, window=window, pos=pos)
    found = table.set_index(["site", "layer", "pos"])
    drawn = noises(model, acts, subject, SAMPLES, SEED)
    corrupted = [prob(model, ids, target, pos, noise, subject) for noise in drawn]
    assert table.attrs["clean"] == pytest.approx(prob(model, ids, target, pos), rel=rel)
    assert table.attrs["corrupted"] == pytest.approx(sum(corrupted) / SAMPLES, rel=rel)
    assert table.attrs["ledger"]["holds"], table.attrs["ledger"]
    for site, layer, at in cells:
        row = found.loc[site, layer, at]
        blocks = range(int(row["first"]), int(row["last"]) + 1)
        name = "resid_post" if site == "resid" else site
        edits = [Edit(f"L{n}.{name}", "from", acts, at) for n in blocks]
        after = [prob(model, ids, target, pos, noise, subject, edits) for noise in drawn]
        assert row["prob"] == pytest.approx(sum(after) / SAMPLES, rel=rel), (site, layer, at)
        each = torch.tensor(after) - torch.tensor(corrupted)
        assert row["effect"] == pytest.approx(float(each.mean()), rel=1e-5, abs=rel), (site, layer, at)
        half = 12.706 * float(each.std()) / SAMPLES**0.5  # Student's t with one degree of freedom
        assert row["high"] - row["effect"] == pytest.approx(half, rel=1e-3, abs=rel)
        assert row["effect"] - row["low"] == pytest.approx(half, rel=1e-3, abs=rel)


@pytest.mark.parametrize("name", models.NAMES)
def test_a_trace_is_what_full_passes_with_noise_and_restored_states_give(name):
    model = models.exact(name)
    last, end = model.n_layers - 1, len(LONG) - 1
    cells = [("resid", 0, 2), ("resid", 1, 4), ("resid", 0, 6), ("resid", last, end), ("resid", last, 4)]
    cells += [(site, layer, at) for site in ("attn_out", "mlp_out") for layer, at in ((0, 4), (1, 3), (last, end))]
    check(model, LONG, SUBJECT, 7, cells, window=2)


def test_an_earlier_position_is_looked_at_as_if_the_prompt_ended_there():
    model = models.exact("gemma3")
    check(model, LONG, SUBJECT, 7, [("resid", 0, 3), ("mlp_out", 1, 6), ("attn_out", 2, 5)], window=1, pos=6)


def test_on_the_embedded_model():
    model = load_model("visit-mini")
    ids = capture(model, "The capital of Japan is the city of").token_ids
    japan = [model.vocabulary[i] for i in ids].index(" Japan")
    last = model.n_layers - 1
    cells = [("resid", 2, japan), ("resid", last, len(ids) - 1), ("attn_out", 4, len(ids) - 1), ("mlp_out", 1, japan)]
    check(model, ids, (japan,), model.token_id(" Tokyo"), cells, window=None, rel=2e-5)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_half_precision_differs_by_its_rounding_alone(name):
    """The checks hold to what bfloat16 rounds, and a cell that restores nothing new has no effect."""
    model = models.small(name, torch.bfloat16)
    table = trace(model, LONG, list(SUBJECT), 7, SAMPLES, SEED)
    assert table.attrs["ledger"]["holds"], table.attrs["ledger"]
    last = table[(table["site"] == "resid") & (table["layer"] == model.n_layers - 1) & (table["pos"] < len(LONG) - 1)]
    assert last["effect"].abs().max() <= 1e-6
