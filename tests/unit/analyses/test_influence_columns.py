"""Where contribution stands in a table, influence stands beside it when asked for, and is that of `visit.influence`."""

from __future__ import annotations

import models
import pytest

from visit import capture, head_memory, influence
from visit.analyses.heads import head_map
from visit.analyses.neurons import active_neurons
from visit.analyses.overview import movers

PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]


@pytest.mark.parametrize("name", models.KINDS)
def test_tables_have_it_and_their_sums(name):
    model = models.exact(name)
    acts = capture(model, PROMPT)
    true = influence(model, acts, -2, 31).set_index("node")["influence"]
    heads = head_map(model, acts, -2, 31, words=False, influence=True).set_index("node")["influence"]
    assert len(heads) == model.n_layers * model.n_heads and (heads - true[heads.index]).abs().max() < 1e-12
    moved = movers(model, acts, -2, 31, influence=True).set_index("node")
    parts = moved[moved["kind"].isin(["head", "mlp_out", "attn_bias"])]["influence"]
    assert (parts - true[parts.index]).abs().max() < 1e-12
    assert moved.loc[moved["kind"].isin(["resid_pre", "constant"]), "influence"].isna().all()
    rows = head_memory(model, acts, 1, 2, -2, 31, sources=[0, 1], influence=True)
    assert rows["influence"].sum() == pytest.approx(true["L1.head2"], rel=1e-9)
    for row in rows[:-1].itertuples():
        if (node := f"L1.head2.value{row.source_pos}") in true:
            assert row.influence == pytest.approx(true[node], rel=1e-9, abs=1e-12)
    for kind, total in (("mlp", "L1.mlp_out"), ("attention", "L1.attn_out")):
        table = active_neurons(model, acts, 1, -2, kind, 5, "influence", 31)
        assert table["influence"].sum() == pytest.approx(true[total], rel=1e-9)
        shown = table["influence"][:5].abs().tolist()
        assert shown == sorted(shown, reverse=True)
        if kind == "mlp":
            neurons = true[true.index.str.startswith("L1.mlp_value")].abs().nlargest(5)
            assert table["node"][:5].tolist() == neurons.index.tolist()


def test_what_nobody_asked_for_is_not_there(monkeypatch):
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    monkeypatch.setattr("visit.exact.gradients.gradients", lambda *_: pytest.fail("a backward pass nobody asked for"))
    for table in (
        head_map(model, acts, words=False), movers(model, acts, -1, 31), head_memory(model, acts, 1, 2),
        active_neurons(model, acts, 1),
    ):  # fmt: skip
        assert "influence" not in table
