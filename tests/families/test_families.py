"""Which architectures are read, which are refused and with which sentence."""

from __future__ import annotations

import models
import pytest
import torch
import transformers as hf
from transformers import AutoModelForCausalLM

from visit import VisitError, capture
from visit.models.attention import first_visible, score_scale, vector_norm, window
from visit.models.families import FAMILIES, family_of
from visit.models.model import wrap


def test_every_row_is_some_small_models_row_and_the_other_way_round():
    met = {family_of(config(50)).name for config in models.CONFIGS.values()}
    assert met == {family.name for family in FAMILIES}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (hf.OPTConfig(do_layer_norm_before=False), "OPT model.*after each sum.*opt-125m"),
        (hf.BloomConfig(apply_residual_connection_post_layernorm=True), "BLOOM model.*starts again"),
        (hf.BloomConfig(slow_but_exact=True, pretraining_tp=2), "BLOOM model.*in slices"),
        (hf.FalconConfig(alibi=True), "Falcon.*ALiBi twice"),
        (hf.MixtralConfig(), "mixture of experts.*num_local_experts = 8"),
        (hf.Qwen2MoeConfig(), "mixture of experts"),
        (hf.T5Config(), "encoder"),
        (hf.BertConfig(), "'bert'.*no module paths"),
        (hf.Gemma3Config(), "pictures.*gemma3_text"),
        (hf.LlamaConfig(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}), "quantised"),
        (hf.GPT2Config(add_cross_attention=True), "cross-attention"),
    ],
)
def test_what_cannot_be_read_exactly_is_refused_with_the_reason(config, says):
    with pytest.raises(VisitError, match=says):
        family_of(config)


def test_bloom_in_one_slice_is_read():
    assert family_of(hf.BloomConfig(slow_but_exact=True, pretraining_tp=1)).name == "BLOOM"


def test_key_value_heads_are_counted_in_the_weights():
    """Falcon 7B's config says as many as heads; its weights hold one."""
    model = models.small("falcon-7b")
    assert model.hf.config.num_kv_heads == 4 and model.n_kv_heads == 1
    assert [models.small(n).n_kv_heads for n in ("falcon-40b", "falcon-sequential", "bloom", "neox", "phi")] == [
        2, 4, 6, 4, 2
    ]  # fmt: skip


def test_the_same_array_stands_under_two_names_where_there_is_one_norm_or_none():
    shared = capture(models.small("gptj"), [5, 9, 7])
    assert shared.resid_mid is None and shared.ln2_out.data_ptr() == shared.ln1_out.data_ptr()
    after = capture(models.small("olmo2"), [5, 9, 7])
    assert after.ln2_out.data_ptr() == after.resid_mid.data_ptr()
    assert torch.equal(after.ln1_out, after.resid_pre)
    only = capture(models.small("gptj"), [5, 9, 7], parts=("ln2_out",))
    assert only.ln1_out is None and torch.equal(only.ln2_out, shared.ln2_out)


def test_windows_scales_and_norms_are_those_of_the_layer():
    assert [window(models.small("gemma2"), layer) for layer in range(3)] == [4, None, 4]
    assert [window(models.small("gpt_neo"), layer) for layer in range(3)] == [None, 4, 4]
    assert window(models.small("mistral"), 0) is None and first_visible(models.small("mistral-window"), 0, 9) == 6
    assert score_scale(models.small("gpt_neo"), 0) == 1 and score_scale(models.small("gemma2"), 0) == 7**-0.5
    assert score_scale(models.small("gpt2-untied-scaled"), 1) == pytest.approx(8**-0.5 / 2)
    assert vector_norm(models.small("phi"), "q", 0) is None
    assert (
        vector_norm(models.small("phi-normed"), "q", 0).centred and not vector_norm(models.small("qwen3"), "k", 0).whole
    )
    assert vector_norm(models.small("olmo2"), "k", 0).whole


def test_a_wrong_path_does_not_pass_the_ledger():
    """What the ledger is for: a row that reads the wrong place is seen, whatever the family."""
    from dataclasses import replace

    from visit import ledger

    model = models.small("gemma2")
    for name, wrong in (("unit_gain", False), ("scale", "d_head"), ("cap_scores", False)):
        other = replace(model, family=replace(model.family, **{name: wrong}))
        assert not ledger(other, capture(other, [5, 9, 7, 30, 2]))["holds"].all(), name
    model = models.small("gptj")
    other = replace(model, family=replace(model.family, pairs="half"))
    assert not ledger(other, capture(other, [5, 9, 7, 30, 2]))["holds"].all()


def test_more_heads_than_tokens_and_as_many():
    """Norms of queries see heads and positions in either order: as many of both must not mix them up."""
    from visit import ledger

    for name in ("gemma3", "qwen3", "stablelm-normed-parallel", "phi-normed", "olmo2"):
        model = models.small(name)
        for length in (1, 2, model.n_kv_heads, model.n_heads):
            assert ledger(model, capture(model, list(range(3, 3 + length))))["holds"].all(), (name, length)


def test_rotation_of_a_batch_is_that_of_each_prompt_where_it_depends_on_length():
    from visit import capture_many

    model = models.small("llama-longrope", torch.float32)
    prompts = [list(range(2, 2 + n)) for n in (3, 12, 3, 12, 5)]
    for prompt, many in zip(prompts, capture_many(model, prompts, batch=4), strict=True):
        single = capture(model, prompt)
        assert (many.resid_post - single.resid_post).abs().max() < 1e-5 * single.resid_post.abs().max()
        assert torch.equal(many.rotary, single.rotary)


def test_a_model_without_a_length_takes_its_tokenizers():
    config = models.CONFIGS["bloom"](300)
    words = models.tokenizer()
    named = wrap(AutoModelForCausalLM.from_config(config, attn_implementation="eager"), words, "x").max_tokens
    assert named == (words.model_max_length if words.model_max_length < 1 << 20 else 2048)


@pytest.mark.parametrize("name", models.NAMES)
def test_a_saved_folder_of_every_family_loads_exactly(name, tmp_path):
    from visit import ledger, load_model

    before = models.small(name, torch.float32)
    before.hf.save_pretrained(tmp_path)
    before.tokenizer.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert model.family == before.family and model.n_kv_heads == before.n_kv_heads
    acts = capture(model, [5, 9, 7, 30, 2, 8])
    assert torch.equal(acts.logits, capture(before, [5, 9, 7, 30, 2, 8]).logits)
    assert ledger(model, acts)["holds"].all()
