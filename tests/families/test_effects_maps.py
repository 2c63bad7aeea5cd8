"""A map of effects is that of full passes of the model's own code with the same edits, in every family."""

from __future__ import annotations

import models
import pytest
import torch

from visit import Edit, capture, effects

LONG = [5, 17, 3, 99, 41, 17, 8, 200, 31, 12, 77]  # the windows of the small models see 4 of them


def edits(model, t, at):
    """Node -> the edit of the model's own pass that takes it out at position `t`, or everywhere."""
    last, where = model.n_layers - 1, t if at == "last" else "all"
    nodes = ["L0.head1", f"L{last}.head0", "L1.mlp_value5", "L0.attn_neuron3", "L0.attn_out", "L1.mlp_out"]
    nodes += [f"L0.head2.value{max(0, t - 2)}", f"L{last}.head1.value{t}"]
    return {node: Edit(node, pos=where) for node in nodes}


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize("name", models.NAMES)
def test_a_map_is_what_full_passes_with_the_same_edits_give(name, at):
    model = models.exact(name)
    acts = capture(model, LONG)
    for t in (len(LONG) - 1, 6, 0):
        asked = edits(model, t, at)
        table = effects(model, acts, list(asked), pos=t, target=7, distractor=9, at=at).set_index("node")
        clean = acts.logits[t].log_softmax(-1)
        assert table.attrs["before"]["prob"] == pytest.approx(float(clean[7].exp()), rel=1e-8)
        for node, edit in asked.items():
            logits = capture(model, LONG, parts=("logits",), edits=(edit,)).logits[t]
            row, after = table.loc[node], logits.log_softmax(-1)
            assert row["prob"] == pytest.approx(float(after[7].exp()), rel=1e-8), node
            assert row["rank"] == 1 + int((logits > logits[7]).sum()), node
            bits = float((clean.exp() * (clean - after)).sum()) / torch.log(torch.tensor(2.0)).item()
            assert row["kl_bits"] == pytest.approx(bits, rel=1e-7, abs=1e-11), node
            if model.logit_cap is not None:  # the target's logit is taken before the soft-cap
                logits = model.logit_cap * torch.atanh(logits / model.logit_cap)
            assert row["logit"] == pytest.approx(float(logits[7] - logits.mean()), rel=1e-7, abs=1e-8), node
            assert row["difference"] == pytest.approx(float(logits[7] - logits[9]), rel=1e-7, abs=1e-8), node
