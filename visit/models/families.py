"""One row of module paths per Hugging Face architecture: data, no torch.

Every path was resolved and checked by the identities of the ledger (`visit.ledger`) on small random models.
Paths of blocks, embeddings and final norm start at the language model, all others at one block.
A new family is a `replace(...)` of the nearest row plus a row in the tests' table of small configurations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from visit.errors import VisitError


@dataclass(frozen=True)
class Family:
    """Where one architecture keeps its parts. Paths are dotted attribute names; None = the family has no such part.

    The attention module, whose second output is the pattern, is the parent of `w_o`.
    """

    name: str
    model_types: tuple[str, ...]
    blocks: str
    qkv: tuple[str, ...]  # three paths: q, k, v; one path: fused, as `fused` says
    w_o: str
    w_in: str
    w_gate: str | None
    w_out: str
    act: str  # the non-linearity of the neurons
    ln1: str | None
    ln2: str | None
    ln_final: str  # may be absent in a checkpoint (OPT)
    pos_embed: str | None
    rotary: (
        str | None
    )  # the module that gives cos and sin; a path that starts with "block." is one block's sin|cos table
    norm: Literal["layer", "rms"]
    special: str  # what is special about it, in words for the user
    when: tuple[tuple[str, Any], ...] = ()  # config values that tell rows of one model_type apart
    fused: Literal["thirds", "grouped"] = "thirds"  # [q|k|v], or per key/value head [its queries…, k, v]
    parallel: bool = False  # attention and MLP read the same stream and are added together
    post_attn: str | None = None  # a norm between W_O and the stream
    post_mlp: str | None = None  # a norm between W_out and the stream
    q_norm: str | None = None  # present in a checkpoint or not
    k_norm: str | None = None
    heads_first: bool = False  # these norms see [batch, head, pos, d_head], not [batch, pos, head, d_head]
    unit_gain: bool = False  # a norm's gain is 1 + its weight
    pairs: Literal["half", "interleaved"] = "half"  # which dimensions a rotation turns together
    pos_offset: int = 0  # rows of the position table before position 0
    project_out: str | None = None  # a matrix between the final norm and the unembedding, present or not
    scale: Literal["scaling", "d_head", "one"] = "scaling"  # of q·k: the module's own number, d_head^-1/2, or none
    alibi: bool = False
    cap_scores: bool = False  # the config's soft-cap of attention scores is applied
    float32_inside: bool = True  # Hugging Face computes a norm or a softmax in float32 whatever the model's type
    refused: tuple[tuple[str, Any, str], ...] = ()  # config name, its value, why VISIT cannot read it

    @property
    def attention(self) -> str:
        """The attention module of a block."""
        return self.w_o.rpartition(".")[0]

    @property
    def shared_norm(self) -> bool:
        """Attention and MLP read the output of one norm."""
        return self.parallel and self.ln2 is None


GPT2 = Family(
    name="GPT-2",
    model_types=("gpt2",),
    blocks="transformer.h",
    qkv=("attn.c_attn",),
    w_o="attn.c_proj",
    w_in="mlp.c_fc",
    w_gate=None,
    w_out="mlp.c_proj",
    act="mlp.act",
    ln1="ln_1",
    ln2="ln_2",
    ln_final="transformer.ln_f",
    pos_embed="transformer.wpe",
    rotary=None,
    norm="layer",
    float32_inside=False,
    special="LayerNorm, learned positions, fused q,k,v, biases everywhere",
    refused=(("add_cross_attention", True, "its blocks hold a cross-attention that VISIT has no terms for"),),
)

GPT_NEO = replace(
    GPT2,
    name="GPT-Neo",
    model_types=("gpt_neo",),
    qkv=("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
    w_o="attn.attention.out_proj",
    scale="one",
    float32_inside=True,
    special="LayerNorm, learned positions, every second block attends to a window only, scores are not scaled",
    refused=(),
)

GPT_J = replace(
    GPT_NEO,
    name="GPT-J",
    model_types=("gptj",),
    qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    w_o="attn.out_proj",
    w_in="mlp.fc_in",
    w_out="mlp.fc_out",
    ln2=None,
    pos_embed=None,
    rotary="block.attn.embed_positions",
    pairs="interleaved",
    scale="d_head",
    parallel=True,
    special="attention and MLP side by side after one shared LayerNorm, rotary positions in neighbouring pairs, "
    "a bias of the unembedding",
)

NEOX_SEQUENTIAL = replace(
    GPT2,
    name="GPT-NeoX, sequential",
    model_types=("gpt_neox",),
    when=(("use_parallel_residual", False),),
    blocks="gpt_neox.layers",
    qkv=("attention.query_key_value",),
    fused="grouped",
    w_o="attention.dense",
    w_in="mlp.dense_h_to_4h",
    w_out="mlp.dense_4h_to_h",
    ln1="input_layernorm",
    ln2="post_attention_layernorm",
    ln_final="gpt_neox.final_layer_norm",
    pos_embed=None,
    rotary="gpt_neox.rotary_emb",
    float32_inside=True,
    special="LayerNorm, rotary positions in a part of each head, q,k,v fused head by head",
    refused=(),
)

NEOX = replace(
    NEOX_SEQUENTIAL,
    name="GPT-NeoX / Pythia",
    when=(("use_parallel_residual", True),),
    parallel=True,
    special="attention and MLP side by side, each after its own LayerNorm, rotary positions in a part of each head, "
    "q,k,v fused head by head",
)

OPT = replace(
    GPT_NEO,
    name="OPT",
    model_types=("opt",),
    blocks="model.decoder.layers",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    w_o="self_attn.out_proj",
    w_in="fc1",
    w_out="fc2",
    act="activation_fn",
    ln1="self_attn_layer_norm",
    ln2="final_layer_norm",
    ln_final="model.decoder.final_layer_norm",
    pos_embed="model.decoder.embed_positions",
    pos_offset=2,
    project_out="model.decoder.project_out",
    scale="scaling",
    special="LayerNorm, learned positions, ReLU neurons, in some sizes a matrix before the unembedding",
    refused=(
        (
            "do_layer_norm_before",
            False,
            "its norms stand after each sum instead of before the sub-layers, so that the stream is no sum of what is "
            "added (OPT-350m is the one such size; choose opt-125m or opt-1.3b)",
        ),
    ),
)

BLOOM = replace(
    GPT2,
    name="BLOOM",
    model_types=("bloom",),
    act="mlp.gelu_impl",
    qkv=("self_attention.query_key_value",),
    fused="grouped",
    w_o="self_attention.dense",
    w_in="mlp.dense_h_to_4h",
    w_out="mlp.dense_4h_to_h",
    ln1="input_layernorm",
    ln2="post_attention_layernorm",
    pos_embed=None,
    scale="d_head",
    alibi=True,
    float32_inside=True,
    special="LayerNorm (also of the embedding), positions as a slope on the scores (ALiBi), q,k,v fused head by head",
    refused=(
        (
            "apply_residual_connection_post_layernorm",
            True,
            "its residual stream starts again from the norm's output in every block",
        ),
        ("slow_but_exact", True, "it adds up its products in slices (set slow_but_exact to false in its config.json)"),
    ),
)

_FALCON_ALIBI = (
    ("alibi", True, "this version of transformers adds its ALiBi twice, so that its own logits are off by several %"),
)
FALCON_SEQUENTIAL = replace(
    BLOOM,
    name="Falcon, sequential",
    model_types=("falcon",),
    act="mlp.act",
    when=(("new_decoder_architecture", False), ("parallel_attn", False)),
    rotary="transformer.rotary_emb",
    alibi=False,
    float32_inside=False,
    special="LayerNorm, rotary positions, q,k,v fused in groups",
    refused=_FALCON_ALIBI,
)
FALCON_7B = replace(
    FALCON_SEQUENTIAL,
    name="Falcon 7B",
    when=(("new_decoder_architecture", False), ("parallel_attn", True)),
    ln2=None,
    parallel=True,
    special="attention and MLP side by side after one shared LayerNorm, rotary positions, one key/value head for all",
)
FALCON_11B = replace(
    FALCON_7B,
    name="Falcon 2 11B",
    when=(("new_decoder_architecture", True), ("num_ln_in_parallel_attn", 1)),
    special="attention and MLP side by side after one shared LayerNorm, rotary positions, grouped key/value heads",
)
FALCON_40B = replace(
    FALCON_7B,
    name="Falcon 40B / 180B",
    when=(("new_decoder_architecture", True), ("num_ln_in_parallel_attn", 2)),
    ln1="ln_attn",
    ln2="ln_mlp",
    special="attention and MLP side by side, each after its own LayerNorm, rotary positions, grouped key/value heads",
)

LLAMA = replace(
    GPT_NEO,
    name="Llama",
    model_types=("llama",),
    act="mlp.act_fn",
    blocks="model.layers",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    w_o="self_attn.o_proj",
    w_in="mlp.up_proj",
    w_gate="mlp.gate_proj",
    w_out="mlp.down_proj",
    ln1="input_layernorm",
    ln2="post_attention_layernorm",
    ln_final="model.norm",
    pos_embed=None,
    rotary="model.rotary_emb",
    norm="rms",
    scale="scaling",
    special="RMSNorm, rotary positions, grouped key/value heads, gated MLP, no biases by default",
    refused=(),
)
MISTRAL = replace(
    LLAMA,
    name="Mistral",
    model_types=("mistral",),
    special="as Llama; in some releases every block attends to a window only",
)
QWEN2 = replace(LLAMA, name="Qwen2", model_types=("qwen2",), special="as Llama, with biases of q, k and v")
QWEN3 = replace(
    LLAMA,
    name="Qwen3",
    model_types=("qwen3",),
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
    special="as Llama, with a norm of every query and key and a head width of its own",
)
GEMMA = replace(
    LLAMA,
    name="Gemma",
    model_types=("gemma",),
    unit_gain=True,
    special="as Llama; embeddings scaled by √d_model, norms with gain 1 + weight",
    refused=(("use_bidirectional_attention", True, "its attention looks ahead, and no analysis here allows for that"),),
)
GEMMA2 = replace(
    GEMMA,
    name="Gemma 2",
    model_types=("gemma2",),
    ln2="pre_feedforward_layernorm",
    post_attn="post_attention_layernorm",
    post_mlp="post_feedforward_layernorm",
    cap_scores=True,
    special="norms before and after each sub-layer, soft-caps on scores and logits, every second block attends to a "
    "window only",
)
GEMMA3 = replace(
    GEMMA2,
    name="Gemma 3 (text)",
    model_types=("gemma3_text",),
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
    heads_first=True,
    cap_scores=False,
    special="norms before and after each sub-layer and of every query and key; most blocks attend to a window only, "
    "with a rotation of their own",
)
OLMO2 = replace(
    LLAMA,
    name="OLMo 2",
    model_types=("olmo2",),
    ln1=None,
    ln2=None,
    post_attn="post_attention_layernorm",
    post_mlp="post_feedforward_layernorm",
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
    special="norms after each sub-layer only (attention and MLP read the stream itself), a norm over all queries and "
    "over all keys of a position",
)
STABLELM = replace(
    LLAMA,
    name="StableLM",
    model_types=("stablelm",),
    when=(("use_parallel_residual", False),),
    norm="layer",
    q_norm="self_attn.q_layernorm",
    k_norm="self_attn.k_layernorm",
    heads_first=True,
    special="LayerNorm, rotary positions in a part of each head, gated MLP, in some releases a norm per query and key",
)
STABLELM_PARALLEL = replace(
    STABLELM,
    name="StableLM, parallel",
    when=(("use_parallel_residual", True),),
    ln2=None,
    parallel=True,
    special="attention and MLP side by side after one shared LayerNorm, rotary positions in a part of each head, gated "
    "MLP",
)
PHI = replace(
    GPT_J,
    name="Phi",
    model_types=("phi",),
    act="mlp.activation_fn",
    blocks="model.layers",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    w_o="self_attn.dense",
    w_in="mlp.fc1",
    w_out="mlp.fc2",
    ln1="input_layernorm",
    ln_final="model.final_layernorm",
    rotary="model.rotary_emb",
    q_norm="self_attn.q_layernorm",
    k_norm="self_attn.k_layernorm",
    heads_first=True,
    pairs="half",
    scale="scaling",
    special="attention and MLP side by side after one shared LayerNorm, rotary positions in a part of each head, "
    "biases everywhere, also of the unembedding",
)

FAMILIES: tuple[Family, ...] = (
    GPT2, GPT_NEO, GPT_J, NEOX, NEOX_SEQUENTIAL, OPT, BLOOM, FALCON_7B, FALCON_11B, FALCON_40B, FALCON_SEQUENTIAL, PHI,
    LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3, STABLELM, STABLELM_PARALLEL, OLMO2,
)  # fmt: skip
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def family_of(config: Any) -> Family:
    """The row for a Hugging Face config. A `VisitError` says why there is none, or why this variant cannot be read."""
    kind = str(getattr(config, "model_type", None))
    _check_kind(config, kind)
    for family in FAMILIES:
        if kind in family.model_types and all(_value(config, name) == wanted for name, wanted in family.when):
            for name, value, why in family.refused:
                if _value(config, name) == value:
                    raise VisitError(f"VISIT cannot read this {family.name} model ({name} = {value}): {why}.")
            return family
    known = ", ".join(dict.fromkeys(t for family in FAMILIES for t in family.model_types))
    raise VisitError(
        f"VISIT reads the architectures {known}; this model's config says {kind!r}, "
        "for which no module paths are known yet. Choose a model of a supported architecture."
    )


def _check_kind(config: Any, kind: str) -> None:
    """What no row can read: encoders, mixtures of experts, weights packed by a quantisation, vision beside text."""
    experts = next((n for n in _EXPERTS if isinstance(getattr(config, n, None), int) and getattr(config, n) > 1), None)
    if experts:
        raise VisitError(
            f"This {kind} model is a mixture of experts ({experts} = {getattr(config, experts)}): a router chooses "
            "each token's neurons, and VISIT has no decomposition of that yet. Choose a dense model."
        )
    if getattr(config, "is_encoder_decoder", False):
        raise VisitError(f"This {kind} model has an encoder; VISIT reads decoders. Choose a causal language model.")
    if getattr(config, "quantization_config", None):
        raise VisitError(
            f"The weights of this {kind} model are quantised, so that its matrices cannot be read row by row. "
            "Choose the unquantised model, in bfloat16 if memory is short."
        )
    if kind == "gemma3":
        raise VisitError(
            "This Gemma 3 model reads pictures too; VISIT reads text models. Choose one of type gemma3_text "
            "(gemma-3-270m or gemma-3-1b)."
        )


def _value(config: Any, name: str) -> Any:
    """A config value as the model's own code takes it: what Falcon leaves open, and what BLOOM does in one slice."""
    found = getattr(config, name, None)
    if name == "slow_but_exact":
        return bool(found) and getattr(config, "pretraining_tp", 1) > 1
    if name == "num_ln_in_parallel_attn" and found is None:
        return 2 if getattr(config, "new_decoder_architecture", False) else None
    return found


def supported() -> list[dict[str, str]]:
    """The families as a table: `family`, `model_type`, `special` and, where a variant cannot be read, `refused`."""
    return [
        {
            "family": family.name,
            "model_type": ", ".join(family.model_types),
            "special": family.special,
            "refused": "; ".join(f"{name} = {value}" for name, value, _ in family.refused),
        }
        for family in FAMILIES
    ]
