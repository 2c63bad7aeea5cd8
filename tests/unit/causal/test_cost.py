"""The forecast counts what the map computes: every block of every changed run, times its positions."""

from __future__ import annotations

import models
import pytest
import torch

from visit import VisitError, capture, effects
from visit.causal import block
from visit.causal.cost import effects_cost, patching_seconds
from visit.causal.patching import PatchingJob
from visit.causal.two_runs import two_runs

PROMPT = [5, 17, 3, 99, 41, 17, 8]


@pytest.mark.parametrize("at", ["last", "all"])
def test_seconds_are_those_of_the_blocks_that_the_map_computes(monkeypatch, at):
    """With one second a token and block, and states read for nothing, the map and its backward pass."""
    model = models.small("llama", torch.float32)
    acts = capture(model, PROMPT)
    tokens = 0

    def counted(model, acts, layer, x, first, seam):
        nonlocal tokens
        tokens += (len(x) - 1) * x.shape[1]  # the unchanged run rides along
        return block.run_block(model, acts, layer, x, first, seam)

    monkeypatch.setattr("visit.causal.triangle.run_block", counted)
    effects(model, acts, at=at)
    monkeypatch.setattr("visit.causal.cost._seconds", lambda *_: (1.0, 0.0))
    cost = effects_cost(model, acts, "heads", at)
    assert cost.parts == 12 and cost.seconds == tokens + 3 * model.n_layers * len(PROMPT)


def test_it_grows_with_what_is_asked_and_refuses_what_the_map_refuses():
    model = models.small("gemma3", torch.float32)
    acts = capture(model, PROMPT)
    few, many = effects_cost(model, acts, ["L2.head0"]), effects_cost(model, acts, "heads", "all")
    assert 0 < few.seconds < many.seconds and 0 < few.bytes < many.bytes
    assert effects_cost(model, acts, "neurons").parts == 100
    with pytest.raises(VisitError, match="layers 0 to 2"):
        effects_cost(model, acts, ["L9.head0"])


@pytest.mark.parametrize(("site", "at"), [("resid", "each"), ("heads", "all")])
def test_the_seconds_of_patches_are_those_of_blocks_from_their_own_and_from_where_the_prompts_differ(
    monkeypatch, site, at
):
    """With one second a token and block. Before block 0 the stream differs only where the tokens do."""
    model = models.small("llama", torch.float32)
    job = PatchingJob.of(two_runs(model, PROMPT, [*PROMPT[:4], 42, *PROMPT[5:]]), site, at)
    monkeypatch.setattr("visit.causal.cost._seconds", lambda *_: (1.0, 0.0))
    layers, after = model.n_layers, [3, 2, 1]  # positions from the differing one on: how many are left to compute
    works = (
        [(layers - n) * left for n in range(layers) for left in after if n or left == 3] if site == "resid"
        else [(layers - n) * 3 for n in range(layers) for _ in range(model.n_heads)]
    )  # fmt: skip
    assert patching_seconds(job) == sum(works)
    assert patching_seconds(job, 2) == 3 * layers * len(PROMPT) + sum(sorted(works)[-2:])


@pytest.mark.parametrize("tokens", [1, 2, 9, 15, 33, 60])
def test_prompts_of_any_length_have_a_forecast(tokens):
    """A block is timed on about 64 tokens: many short runs, some, or one."""
    model = models.small("llama", torch.float32)
    acts = capture(model, (PROMPT * 9)[:tokens])
    for at in ("last", "all"):
        assert effects_cost(model, acts, "heads", at).seconds > 0
