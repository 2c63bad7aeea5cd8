"""Small random models of every family, built from a config: noise on every parameter, no network."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig, PreTrainedTokenizerFast

from visit.listed import MINI_FOLDER
from visit.model import Model, wrap

IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
# name -> a config with every awkward option of its family on
CONFIGS: dict[str, Any] = {
    "gpt2": lambda v: GPT2Config(n_layer=3, n_embd=24, n_head=4, n_inner=40, n_positions=64, vocab_size=v, **IDS),
    "gpt2-untied-scaled": lambda v: GPT2Config(
        n_layer=2, n_embd=24, n_head=3, n_positions=64, vocab_size=v, tie_word_embeddings=False,
        scale_attn_by_inverse_layer_idx=True, **IDS
    ),
    "llama": lambda v: LlamaConfig(
        num_hidden_layers=3, hidden_size=24, num_attention_heads=4, num_key_value_heads=2, head_dim=10,
        intermediate_size=37, max_position_embeddings=64, vocab_size=v, **IDS
    ),
    "llama-biased-tied": lambda v: LlamaConfig(
        num_hidden_layers=2, hidden_size=24, num_attention_heads=6, num_key_value_heads=1, head_dim=8,
        intermediate_size=33, max_position_embeddings=64, vocab_size=v, tie_word_embeddings=True,
        attention_bias=True, mlp_bias=True, **IDS
    ),
}  # fmt: skip
NAMES = list(CONFIGS)


def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(MINI_FOLDER)


@cache
def small(name: str, dtype: torch.dtype = torch.float64) -> Model:
    """A random model of the named configuration with the embedded tokenizer; the same one for every test."""
    words = tokenizer()
    torch.manual_seed(7)
    hf = AutoModelForCausalLM.from_config(CONFIGS[name](len(words) + 5), attn_implementation="eager", dtype=dtype)
    with torch.no_grad():
        for parameter in hf.parameters():  # norms start at 1 and biases at 0: noise makes them count
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return wrap(hf, words, name)
