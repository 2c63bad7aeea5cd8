"""The reading's sentences carry the numbers of the pass, and say so where there is no story."""

from __future__ import annotations

import re

import models
import pytest
import torch

from visit import capture
from visit.analyses.overview import lens_map, movers, predictions
from visit.exact.decompose import attribution
from visit.lenses.logit import final_norm, unembed
from visit.narrate.flow import story
from visit.text.numbers import signed

PROMPT = [5, 17, 3, 99, 41, 17, 8]


@pytest.mark.parametrize("name", models.KINDS)
@pytest.mark.parametrize("distractor", [None, 11])
def test_movers_add_up_to_the_logit(name, distractor):
    model = models.exact(name)
    acts = capture(model, PROMPT)
    table = movers(model, acts, 5, 9, distractor)
    logits = unembed(model, final_norm(model, acts.resid_post[-1, 5:6]))[0].detach()  # before any soft-cap
    true = logits[9] - (logits.mean() if distractor is None else logits[distractor])
    assert table["contribution"].sum() == pytest.approx(float(true), rel=1e-10)
    heads = table[table["kind"] == "head"]
    assert len(heads) == model.n_layers * model.n_heads and heads["source_pos"].notna().all()


def test_the_lens_map_reads_every_state():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    table = lens_map(model, acts, 9)
    assert len(table) == (model.n_layers + 1) * len(PROMPT)
    last = table[(table["depth"] == model.n_layers) & (table["pos"] == 4)].iloc[0]
    probs = acts.logits[4].softmax(-1)
    assert last["top"] == model.vocabulary[int(probs.argmax())]
    assert last["prob"] == pytest.approx(float(probs[9])) and last["rank"] == 1 + int((probs > probs[9]).sum())
    assert lens_map(model, acts, 9, [2, -1])["pos"].unique().tolist() == [2, 6]
    assert predictions(model, acts, 4, 3)["prob"].tolist() == pytest.approx(probs.topk(3).values.tolist())


def text(sentences) -> str:
    return "\n".join("".join(piece for piece, _ in s) for s in sentences)


def test_every_piece_names_a_node_and_the_numbers_are_the_passes():
    for name in models.KINDS:
        model = models.small(name)
        acts = capture(model, PROMPT)
        for target in (9, int(acts.logits[-1].argmax())):
            sentences = story(model, acts, -1, target)
            assert sentences and all(piece for s in sentences for piece, _ in s)
            ids = [node for s in sentences for _, node in s if node]
            assert ids and all(re.fullmatch(r"L\d+\.(head\d+(\.value\d+)?|resid_p(re|ost)|mlp_out)", i) for i in ids)
            rank = 1 + int((acts.logits[-1] > acts.logits[-1, target]).sum())
            assert (f"rank {rank}" in text(sentences)) == (rank > 1)
            frozen = attribution(model, acts, len(PROMPT) - 1, target)
            named = next((i for i in ids if i.endswith("mlp_out")), None)
            if named:
                layer = int(named[1 : named.index(".")])
                added = float(frozen.of(acts.mlp_out[layer, -1]))
                assert signed(added) in text(sentences)


def test_where_nothing_carries_it_says_so(monkeypatch):
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    quiet = type(acts)(**{**vars(acts), **{p: torch.zeros_like(getattr(acts, p)) for p in ("z", "v", "mlp_out")}})
    pushed = {t: movers(model, quiet, -1, t).set_index("node").loc["L0.resid_pre", "contribution"] for t in range(20)}
    assert min(pushed.values()) < 0 < max(pushed.values())
    for target, contribution in pushed.items():
        assert ("No head and no MLP" in text(story(model, quiet, -1, target))) == (contribution <= 0)
    monkeypatch.setattr("visit.narrate.flow.CARRIES", 0.5)  # a small model has few parts, so that each is large
    spread = [t for t in range(60) if "No single part" in text(story(model, acts, -1, t))]
    assert 0 < len(spread) < 60
