"""One row of module paths per Hugging Face architecture: data, no torch.

Every path was resolved and checked by the identities of the ledger (`visit.ledger`) on small random models.
Paths of blocks, embeddings and final norm start at the language model, all others at one block.
A new family is a `replace(...)` of the nearest row plus a row in the tests' table of small configurations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from visit.errors import VisitError


@dataclass(frozen=True)
class Family:
    """Where one architecture keeps its parts. Paths are dotted attribute names; None = the family has no such part."""

    name: str
    model_types: tuple[str, ...]
    blocks: str
    attention: str  # the module whose second output is the pattern
    qkv: tuple[str, ...]  # one path: fused [q|k|v]; three paths: q, k, v
    w_o: str
    w_in: str
    w_gate: str | None
    w_out: str
    ln1: str
    ln2: str
    ln_final: str
    embed: str
    pos_embed: str | None
    rotary: str | None
    norm: Literal["layer", "rms"]
    float32_inside: bool  # Hugging Face computes a norm or a softmax in float32 whatever the model's type
    special: str  # what is special about it, in words for the user


GPT2 = Family(
    name="GPT-2",
    model_types=("gpt2",),
    blocks="transformer.h",
    attention="attn",
    qkv=("attn.c_attn",),
    w_o="attn.c_proj",
    w_in="mlp.c_fc",
    w_gate=None,
    w_out="mlp.c_proj",
    ln1="ln_1",
    ln2="ln_2",
    ln_final="transformer.ln_f",
    embed="transformer.wte",
    pos_embed="transformer.wpe",
    rotary=None,
    norm="layer",
    float32_inside=False,
    special="LayerNorm, learned positions, fused q,k,v, biases everywhere",
)

LLAMA = replace(
    GPT2,
    name="Llama",
    model_types=("llama",),
    blocks="model.layers",
    attention="self_attn",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    w_o="self_attn.o_proj",
    w_in="mlp.up_proj",
    w_gate="mlp.gate_proj",
    w_out="mlp.down_proj",
    ln1="input_layernorm",
    ln2="post_attention_layernorm",
    ln_final="model.norm",
    embed="model.embed_tokens",
    pos_embed=None,
    rotary="model.rotary_emb",
    norm="rms",
    float32_inside=True,
    special="RMSNorm, rotary positions, grouped key/value heads, gated MLP, no biases by default",
)

FAMILIES: tuple[Family, ...] = (GPT2, LLAMA)


def family_of(model_type: str) -> Family:
    """The row for a Hugging Face `model_type`; a `VisitError` names the ones there are."""
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(t for family in FAMILIES for t in family.model_types)
    raise VisitError(
        f"VISIT reads the architectures {known}; this model's config says {model_type!r}, "
        "for which no module paths are known yet. Choose a model of a supported architecture."
    )
