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


# variants of families that TransformerLens 4.3 itself cannot read
BEYOND = {
    "neox-sequential": "its NeoX is parallel", "opt-without-final-norm": "it expects a final norm",
    "falcon-40b": "it splits Falcon's q,k,v as of one key/value head", "falcon-11b": "it expects two norms",
    "phi-normed": "its Phi has no norms of queries and keys",
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in models.NAMES if n not in BEYOND])
def test_the_bridge_reads_the_same_numbers(name):
    from transformer_lens.model_bridge.sources.transformers import boot

    model = models.small(name, torch.float32)
    acts = capture(model, IDS)
    theirs = copy.deepcopy(model.hf)
    theirs.config.architectures = [type(theirs).__name__]
    bridge = boot(model_name=model.hf.config.model_type, hf_model=theirs, tokenizer=model.tokenizer)
    logits, cache = bridge.run_with_cache(torch.tensor([IDS]))
    assert torch.allclose(logits[0], acts.logits, atol=1e-4)
    compared = 0
    for part, place in NAMES.items():
        for layer in range(model.n_layers) if getattr(acts, part) is not None else ():
            key = place.format(layer)
            found, true = getattr(acts, part)[layer], cache[key][0]
            true = true.reshape(found.shape)
            assert (found - true).abs().max() <= 1e-4 * true.abs().max(), key
            compared += 1
    assert compared == (len(NAMES) - int(model.family.parallel)) * model.n_layers
