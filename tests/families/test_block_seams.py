"""A query, key or value written at a seam of `run_block` is what a full pass with the same edit gives."""

from __future__ import annotations

from dataclasses import replace

import models
import pytest
import torch

from visit import Edit, capture
from visit.causal.block import run_block

IDS = [5, 17, 3, 99, 41, 17, 8, 200, 31, 12]  # the windows of the small models see 4 of them
POS = 7


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_one_heads_query_key_or_value_written_at_a_seam_is_the_edit_of_a_full_pass(name, kind):
    model = models.exact(name)
    acts, layer, head = capture(model, IDS), 1, model.n_heads - 1
    own = head if kind == "q" else head // (model.n_heads // model.n_kv_heads)
    moved = getattr(acts, kind).clone()
    moved[layer, POS, own] += torch.linspace(-1, 1, model.d_head, dtype=moved.dtype)
    node = f"L{layer}.head{head}.{ {'q': 'query', 'k': f'key{POS}', 'v': f'value{POS}'}[kind] }"
    edit = Edit(node, "from", replace(acts, **{kind: moved}), POS if kind == "q" else "all")
    oracle = capture(model, IDS, edits=(edit,))

    def written(seam, value):
        if seam == kind:
            value = value.unflatten(2, (-1, model.d_head))
            value = value if kind == "q" else value.repeat_interleave(model.n_heads // model.n_kv_heads, 2)
            value[0, 0, head] = moved[layer, POS, own]
            value = value.flatten(2)
        return value

    found = run_block(model, acts, layer, acts.resid_pre[layer, None, POS:], POS, written)[0]
    assert (oracle.resid_post[layer, POS:] - acts.resid_post[layer, POS:]).abs().max() > 1e-6
    assert torch.allclose(found, oracle.resid_post[layer, POS:], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["k", "v"])
def test_a_shared_key_or_value_written_once_acts_on_its_whole_group(kind):
    model = models.exact("llama")
    acts, word = capture(model, IDS), {"k": "key", "v": "value"}[kind]
    moved = getattr(acts, kind).clone()
    moved[1, POS, 1] *= -0.5
    oracle = capture(model, IDS, edits=(Edit(f"L1.kv_head1.{word}{POS}", "from", replace(acts, **{kind: moved})),))

    def written(seam, value):
        if seam == kind:
            value.unflatten(2, (-1, model.d_head))[0, 0, 1] = moved[1, POS, 1]
        return value

    found = run_block(model, acts, 1, acts.resid_pre[1, None, POS:], POS, written)[0]
    assert torch.allclose(found, oracle.resid_post[1, POS:], rtol=1e-9, atol=1e-10)
