"""Small random models of every family, built from a config: noise on every parameter, no network."""

from __future__ import annotations

import copy
import os
from functools import cache
from typing import Any

import pytest
import torch
import transformers as hf
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from visit.models.catalog import MINI_FOLDER
from visit.models.model import Model, wrap

IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
# as the config classes call them: three blocks, 24 wide, 4 heads; the odd numbers are on purpose
_GPT = {"num_hidden_layers": 3, "hidden_size": 24, "num_attention_heads": 4, "max_position_embeddings": 64, **IDS}
_ROTARY = {**_GPT, "num_key_value_heads": 2, "head_dim": 10, "intermediate_size": 37}
_WINDOWS = ["sliding_attention", "full_attention", "sliding_attention"]


def _plain(config: Any, base: dict[str, Any], **options: Any) -> Any:
    return lambda v: config(**{**base, "vocab_size": v, **options})


def _partial(part: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": part}}


# name -> a config with awkward options of its family on
CONFIGS: dict[str, Any] = {
    "gpt2": lambda v: hf.GPT2Config(n_layer=3, n_embd=24, n_head=4, n_inner=40, n_positions=64, vocab_size=v, **IDS),
    "gpt2-untied-scaled": lambda v: hf.GPT2Config(
        n_layer=2, n_embd=24, n_head=3, n_positions=64, vocab_size=v, tie_word_embeddings=False,
        scale_attn_by_inverse_layer_idx=True, **IDS
    ),
    "llama": _plain(hf.LlamaConfig, _ROTARY),
    "llama-biased-tied": _plain(
        hf.LlamaConfig, _ROTARY, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=1, head_dim=8,
        tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
    ),
    "llama-yarn": _plain(
        hf.LlamaConfig, _ROTARY, rope_parameters={
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16,
        },
    ),
    "llama-longrope": _plain(
        hf.LlamaConfig, _ROTARY, rope_parameters={
            "rope_type": "longrope", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 8,
            "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4], "long_factor": [2.0, 3.0, 4.0, 5.0, 6.0],
        },
    ),
    "gpt_neo": lambda v: hf.GPTNeoConfig(
        num_layers=3, hidden_size=24, num_heads=4, intermediate_size=37, window_size=4, max_position_embeddings=64,
        attention_types=[[["global", "local"], 1], [["local"], 1]], vocab_size=v, **IDS
    ),
    "gptj": lambda v: hf.GPTJConfig(
        n_layer=3, n_embd=24, n_head=3, rotary_dim=4, n_inner=37, n_positions=64, vocab_size=v,
        tie_word_embeddings=False, **IDS
    ),
    "neox": _plain(hf.GPTNeoXConfig, _GPT, intermediate_size=37, **_partial(0.5)),
    "neox-sequential": _plain(
        hf.GPTNeoXConfig, _GPT, intermediate_size=37, use_parallel_residual=False, attention_bias=False, **_partial(1.0)
    ),
    "opt": _plain(hf.OPTConfig, _GPT, ffn_dim=37, word_embed_proj_dim=24),
    "opt-projected": _plain(
        hf.OPTConfig, _GPT, ffn_dim=37, word_embed_proj_dim=16, enable_bias=False, layer_norm_elementwise_affine=False
    ),
    "opt-without-final-norm": _plain(
        hf.OPTConfig, _GPT, ffn_dim=37, word_embed_proj_dim=24, _remove_final_layer_norm=True
    ),
    "bloom": lambda v: hf.BloomConfig(n_layer=3, hidden_size=24, n_head=6, vocab_size=v, **IDS),
    "falcon-7b": _plain(hf.FalconConfig, _GPT, bias=True, num_kv_heads=4),
    "falcon-40b": _plain(
        hf.FalconConfig, _GPT, num_attention_heads=6, new_decoder_architecture=True, num_kv_heads=2, ffn_hidden_size=37
    ),
    "falcon-11b": _plain(
        hf.FalconConfig, _GPT, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1,
        tie_word_embeddings=False,
    ),
    "falcon-sequential": _plain(
        hf.FalconConfig, _GPT, parallel_attn=False, multi_query=False, num_kv_heads=4, bias=True
    ),
    "phi": _plain(hf.PhiConfig, _GPT, intermediate_size=37, num_key_value_heads=2, **_partial(0.67)),
    "phi-normed": _plain(hf.PhiConfig, _GPT, intermediate_size=37, qk_layernorm=True, **_partial(0.34)),
    "mistral-window": _plain(hf.MistralConfig, _ROTARY, sliding_window=4),
    "mistral": _plain(hf.MistralConfig, _ROTARY, sliding_window=None, tie_word_embeddings=True),
    "qwen2": _plain(hf.Qwen2Config, {**_ROTARY, "head_dim": 6}, tie_word_embeddings=True),
    "qwen2-window": _plain(
        hf.Qwen2Config, {**_ROTARY, "head_dim": 6}, use_sliding_window=True, sliding_window=4, layer_types=_WINDOWS
    ),
    "qwen3": _plain(hf.Qwen3Config, _ROTARY),
    "qwen3-window": _plain(
        hf.Qwen3Config, _ROTARY, use_sliding_window=True, sliding_window=4, layer_types=_WINDOWS, attention_bias=True
    ),
    "gemma": _plain(hf.GemmaConfig, _ROTARY, num_key_value_heads=1),
    "gemma2": _plain(
        hf.Gemma2Config, _ROTARY, sliding_window=4, layer_types=_WINDOWS, query_pre_attn_scalar=7,
        attn_logit_softcapping=3.0, final_logit_softcapping=5.0,
    ),
    "gemma3": _plain(
        hf.Gemma3TextConfig, _ROTARY, sliding_window=4, layer_types=_WINDOWS, query_pre_attn_scalar=7,
        final_logit_softcapping=5.0,
    ),
    "olmo2": _plain(hf.Olmo2Config, {**_ROTARY, "head_dim": 6}, num_key_value_heads=2),
    "stablelm": _plain(hf.StableLmConfig, {**_ROTARY, "head_dim": 6}, use_qkv_bias=True, **_partial(0.34)),
    "stablelm-normed-parallel": _plain(
        hf.StableLmConfig, {**_ROTARY, "head_dim": 6}, use_parallel_residual=True, qk_layernorm=True, **_partial(0.67)
    ),
}  # fmt: skip
# one of each shape that an analysis meets: plain, grouped, side by side with two norms and with one, a matrix before
# the unembedding, norms after the sub-layers and caps, no norm before them, norms of queries and keys
KINDS = ["gpt2", "llama", "neox", "falcon-7b", "opt-projected", "gemma3", "olmo2", "stablelm-normed-parallel"]
# what identities run on: these, with VISIT_MATRIX=full all configurations, with VISIT_MATRIX=rest the others (.ci/run)
MATRIX = {"full": list(CONFIGS), "rest": [name for name in CONFIGS if name not in KINDS]}
NAMES = MATRIX.get(os.environ.get("VISIT_MATRIX", ""), KINDS)
ORACLES = [n for n in CONFIGS if n.split("-")[0] == "gpt2" or n in ("llama", "llama-biased-tied")]


def at_length(names: list[str]) -> list[Any]:
    """Parameters of a test that takes hundreds of passes of each: half of KINDS is left to the slow lane."""
    first = names if names is MATRIX["full"] else ("gpt2", "llama", "neox", "gemma3")
    return [n if n in first or n not in KINDS else pytest.param(n, marks=pytest.mark.slow) for n in names]


def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(MINI_FOLDER)


@cache
def small(name: str, dtype: torch.dtype = torch.float64) -> Model:
    """A random model of the named configuration with the embedded tokenizer; the same one for every test."""
    words = tokenizer()
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(CONFIGS[name](len(words) + 5), attn_implementation="eager", dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():  # norms start at 1 and biases at 0: noise makes them count
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return wrap(model, words, name)


class _Wide(TorchFunctionMode):
    """Every float32 that Hugging Face's code asks for is a float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            return args[0].double()
        args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        kwargs = {name: torch.float64 if a is torch.float32 else a for name, a in (kwargs or {}).items()}
        return func(*args, **kwargs)


@cache
def exact(name: str) -> Model:
    """`small(name)` with every norm, softmax and rotation computed in float64: what is left of an error is a bug."""
    model = copy.deepcopy(small(name).hf)
    for module in [model, *(m for m in model.modules() if "norm" in type(m).__name__.lower())]:
        module.forward = _in_float64(module.forward)
    return wrap(model, small(name).tokenizer, name)


def _in_float64(forward: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        with _Wide():
            return forward(*args, **kwargs)

    return run
