"""Small GGUF files of random models, written with `gguf`'s writer in llama.cpp's layout."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers as hf
from gguf.quants import quantize
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, GPT2TokenizerFast

Q = gguf.GGMLQuantizationType
_ROTARY = {
    "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96, "max_position_embeddings": 128,
}  # fmt: skip
# file's architecture -> a config of its family; heads as wide as d_model / heads where the file cannot say otherwise
CONFIGS: dict[str, Any] = {
    "llama": lambda v: hf.LlamaConfig(
        **_ROTARY, vocab_size=v, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 5e4}
    ),
    "qwen2": lambda v: hf.Qwen2Config(**_ROTARY, vocab_size=v, tie_word_embeddings=True),
    "qwen3": lambda v: hf.Qwen3Config(**_ROTARY, head_dim=24, vocab_size=v),
    "gpt2": lambda v: hf.GPT2Config(n_layer=2, n_embd=64, n_head=4, n_positions=96, vocab_size=v),
    "gemma2": lambda v: hf.Gemma2Config(
        **_ROTARY, head_dim=256, vocab_size=v, sliding_window=4, final_logit_softcapping=20.0
    ),
    "gemma3": lambda v: hf.Gemma3TextConfig(**_ROTARY, head_dim=256, vocab_size=v, sliding_window=4),
    "bloom": lambda v: hf.BloomConfig(n_layer=2, hidden_size=64, n_head=4, vocab_size=v),
    "falcon": lambda v: hf.FalconConfig(
        num_hidden_layers=2, hidden_size=64, num_attention_heads=4, vocab_size=v, max_position_embeddings=128
    ),
    "stablelm": lambda v: hf.StableLmConfig(
        **_ROTARY, vocab_size=v, use_qkv_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    ),
}  # fmt: skip


TEXT = (
    "The capital of Japan is the city of Tokyo. A test of a small tokenizer, and a second sentence of it, in 12 words."
)
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|endoftext|>"]


@cache
def tokenizer() -> Any:
    """A byte-level tokenizer with merges (the embedded model's has none), as GPT-2's is made."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        [TEXT] * 20, vocab_size=352, min_frequency=2, show_progress=False, special_tokens=SPECIAL
    )
    return GPT2TokenizerFast(tokenizer_object=trained._tokenizer)


def random_model(architecture: str) -> Any:
    """A Hugging Face model of the file's family: noise on every parameter."""
    torch.manual_seed(11)
    config = CONFIGS[architecture](len(spelled(architecture)))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def write(
    path: Path, architecture: str, model: Any, kind: Q = Q.F32, words: bool = True, name: str = "small", **extra: Any
) -> Path:
    """One file. `kind`: the type of its matrices (vectors stay float32); `extra`: keys of the header, `a__b` = a.b."""
    writer, config = gguf.GGUFWriter(path, architecture), model.config
    file_type = {Q.F32: 0, Q.F16: 1, Q.Q4_1: 3, Q.Q8_0: 7, Q.BF16: 32}
    writer.add_name(name)
    writer.add_file_type(file_type[kind])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(getattr(config, "max_position_embeddings", None) or 2048)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    kv_heads = getattr(config, "num_key_value_heads", None) or (1 if architecture == "falcon" else 4)
    writer.add_head_count_kv(kv_heads)
    norm = getattr(config, "rms_norm_eps", None)
    epsilon = getattr(config, "layer_norm_epsilon", None) or getattr(config, "layer_norm_eps", None)
    writer.add_layer_norm_rms_eps(norm) if norm else writer.add_layer_norm_eps(epsilon)
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    if rope:
        writer.add_rope_freq_base(rope["rope_theta"])
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if architecture in ("llama", "stablelm"):
        writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1)))
    if architecture in ("qwen3", "gemma2", "gemma3"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if architecture in ("gemma2", "gemma3"):
        writer.add_sliding_window(config.sliding_window)
    if architecture == "gemma2":
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_vocab_size(config.vocab_size)
    if words:
        _add_words(writer, architecture)
    for key, value in extra.items():
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)]
        add(key.replace("__", "."), value)
    for name, tensor in tensors(architecture, model).items():
        matrix = tensor.ndim > 1 and tensor.shape[-1] % 32 == 0
        used = kind if matrix else Q.F32
        raw = quantize(tensor, used) if used not in (Q.F32, Q.F16) else tensor.astype("f4" if used is Q.F32 else "f2")
        writer.add_tensor(name, raw, raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_words(writer: gguf.GGUFWriter, architecture: str) -> None:
    tokens = spelled(architecture)
    if "gemma" in architecture:
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([-float(i) for i in range(len(tokens))])
    else:
        merges = json.loads(tokenizer().backend_tokenizer.to_str())["model"]["merges"]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("default")
        writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    for name, token in (("pad", 0), ("eos", 1), ("bos", 2), ("unk", 3)):
        getattr(writer, f"add_{name}_token_id")(token)


def spelled(architecture: str) -> list[str]:
    """The file's tokens: byte-level pieces, or for Gemma SentencePiece's (a word's beginning is `▁`)."""
    known = tokenizer().get_vocab()
    if "gemma" not in architecture:
        return sorted(known, key=lambda token: known[token])
    words = ["▁" + word for word in TEXT.split()]
    pieces = [word[:i] for word in words for i in range(2, len(word) + 1)]
    return list(dict.fromkeys([*SPECIAL[:-1], *sorted(set("▁" + TEXT)), *pieces]))


def tensors(architecture: str, model: Any) -> dict[str, np.ndarray]:
    """The model's weights under the file's names, in the file's layout."""
    kind = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    found = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        path, _, ending = name.rpartition(".")
        there = table.get_name(path) or table.get_name(path.removeprefix("transformer."))
        assert there, name
        laid = _laid(architecture, there, weight.numpy(), model.config)
        found[f"{there}.{ending}"] = np.ascontiguousarray(laid)
    return found


def _laid(architecture: str, name: str, weight: np.ndarray, config: Any) -> np.ndarray:
    last = name.split(".")[-1]
    if architecture == "llama" and last in ("attn_q", "attn_k"):
        heads = config.num_attention_heads if last == "attn_q" else config.num_key_value_heads
        return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
    if architecture == "gpt2" and weight.ndim == 2 and last in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
        return weight.T
    if architecture == "bloom" and last == "attn_qkv":
        rows = weight.reshape(config.n_head, 3, -1, *weight.shape[1:])
        return rows.swapaxes(0, 1).reshape(weight.shape)
    if architecture in ("gemma2", "gemma3") and "norm" in last:
        return weight + 1
    return weight
