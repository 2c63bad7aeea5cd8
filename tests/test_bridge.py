"""The second oracle: TransformerLens' bridge on the same weights. Do we read at the right points?"""

from __future__ import annotations

import copy

import models
import pytest
import torch

from visit import capture

pytest.importorskip("transformer_lens", reason="TransformerLens is optional: pip install transformer_lens==4.3.0")

IDS = [5, 17, 3, 99, 41, 17, 8, 200, 31]
# their name of what we capture; {} is the layer
NAMES = {
    "resid_pre": "blocks.{}.hook_resid_pre",
    "resid_mid": "blocks.{}.hook_resid_mid",
    "resid_post": "blocks.{}.hook_resid_post",
    "attn_out": "blocks.{}.hook_attn_out",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "pattern": "blocks.{}.attn.hook_pattern",
    "v": "blocks.{}.attn.hook_v",
    "z": "blocks.{}.attn.hook_z",
    "neurons": "blocks.{}.mlp.hook_post",
}


@pytest.mark.parametrize("name", models.NAMES)
def test_the_bridge_reads_the_same_numbers(name):
    from transformer_lens.model_bridge.sources.transformers import boot

    model = models.small(name, torch.float32)
    acts = capture(model, IDS)
    bridge = boot(model_name=model.hf.config.model_type, hf_model=copy.deepcopy(model.hf), tokenizer=model.tokenizer)
    logits, cache = bridge.run_with_cache(torch.tensor([IDS]))
    assert torch.allclose(logits[0], acts.logits, atol=1e-4)
    compared = 0
    for part, theirs in NAMES.items():
        for layer in range(model.n_layers):
            key = theirs.format(layer)
            if key not in cache:
                continue
            found, true = getattr(acts, part)[layer], cache[key][0]
            true = true.reshape(found.shape)
            assert (found - true).abs().max() <= 1e-4 * true.abs().max(), key
            compared += 1
    assert compared >= (len(NAMES) - 1) * model.n_layers, f"the bridge named only {compared} of our quantities"
