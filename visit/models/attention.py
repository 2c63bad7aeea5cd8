"""What stands between q·k and the pattern: scale, soft-cap, slopes, window, rotation, norms of queries and keys.

Each is read from the model's own modules and config, per layer; families without one get None (or 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from visit.models.model import Model

GROWING = ("dynamic", "longrope")  # rotations that depend on the longest position of the run


def kv_heads(model: Model) -> Tensor:
    """`[head]`: the key/value head that each head reads."""
    return torch.arange(model.n_heads, device=model.device) // (model.n_heads // model.n_kv_heads)


def score_scale(model: Model, layer: int) -> float:
    """What q·k is multiplied with."""
    if model.family.scale == "scaling":
        return float(model.module(model.family.attention, layer).scaling)
    return 1.0 if model.family.scale == "one" else model.d_head**-0.5


def score_cap(model: Model) -> float | None:
    """The soft-cap c of the scores, `c · tanh(score / c)`."""
    cap = getattr(model.hf.config, "attn_logit_softcapping", None) if model.family.cap_scores else None
    return None if cap is None else float(cap)


def soft_cap(x: Tensor, cap: float | None) -> Tensor:
    """`c · tanh(x / c)`; x itself without a cap."""
    return x if cap is None else torch.tanh(x / cap) * cap


def window(model: Model, layer: int) -> int | None:
    """How many positions a query of this layer sees, its own among them; None = all before it."""
    attention, config = model.module(model.family.attention, layer), model.hf.config
    if hasattr(attention, "attention_type"):  # GPT-Neo
        return config.window_size if attention.attention_type == "local" else None
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    return getattr(config, "sliding_window", None) if "mistral" in model.family.model_types else None


def first_visible(model: Model, layer: int, pos: int) -> int:
    """The first position that a query at `pos` sees."""
    size = window(model, layer)
    return 0 if size is None else max(0, pos + 1 - size)


def visible_keys(model: Model, layer: int, length: int) -> Bool[Tensor, "query key"]:
    """Which keys each query sees: none of the future, and in a windowed layer the nearest only."""
    seen = torch.ones(length, length, dtype=torch.bool, device=model.device).tril()
    size = window(model, layer)
    return seen if size is None else seen.triu(1 - size)


def slopes(model: Model) -> Float[Tensor, " head"] | None:
    """ALiBi: what each head's scores gain per position of the key (Press et al. 2022, as BLOOM does it)."""
    if not model.family.alibi:
        return None
    whole = 2 ** math.floor(math.log2(model.n_heads))
    found = [2.0 ** (-8.0 * (n + 1) / whole) for n in range(whole)]
    found += [2.0 ** (-4.0 * (2 * n + 1) / whole) for n in range(model.n_heads - whole)]
    return torch.tensor(found, dtype=model.wide, device=model.device)


def pattern_of(
    model: Model, layer: int, scores: Float[Tensor, "head query key"], heads: Int[Tensor, " head"] | None = None
) -> Float[Tensor, "head query key"]:
    """The pattern that follows from q·k of all pairs of positions, rotated and not yet scaled (method, identity 9).

    Scale, soft-cap, ALiBi, mask and window, softmax. `heads`: which heads the scores are of (None: all).
    """
    scores = soft_cap(scores * score_scale(model, layer), score_cap(model))
    steep = slopes(model)
    if steep is not None:
        steep = steep if heads is None else steep[heads]
        scores = scores + steep[:, None, None] * torch.arange(scores.shape[-1], device=scores.device)
    return scores.masked_fill(~visible_keys(model, layer, scores.shape[-1]), -math.inf).softmax(-1)


# ---- rotation --------------------------------------------------------------------------------------------------------


def rotation_sets(model: Model) -> list[str | None]:
    """The rotations of a model by the layer types that they serve: one, but two in Gemma 3."""
    parameters = getattr(model.hf.config, "rope_parameters", None) or {}
    used = set(getattr(model.hf.config, "layer_types", None) or ())
    return sorted(k for k, v in parameters.items() if isinstance(v, dict) and k in used) or [None]


def rotation_set(model: Model, layer: int) -> int:
    """Which of the rotations serves a layer."""
    sets = rotation_sets(model)
    return 0 if sets == [None] else sets.index(model.hf.config.layer_types[layer])


def grows(model: Model) -> bool:
    """Whether the rotation of a prompt depends on the longest prompt of its batch."""
    parameters = getattr(model.hf.config, "rope_parameters", None) or {}
    each = [v for v in parameters.values() if isinstance(v, dict)] or [parameters]
    return any(p.get("rope_type") in GROWING for p in each)


def table_rotation(model: Model, length: int) -> Float[Tensor, "two pos d_rotary"]:
    """cos and sin of a family whose blocks hold them as a table `[pos, sin|cos]` of one number per pair (GPT-J)."""
    assert model.family.rotary is not None
    table: Any = model.blocks[0]
    for name in model.family.rotary.removeprefix("block.").split("."):
        table = getattr(table, name)
    sin, cos = table[:length].to(model.dtype).chunk(2, dim=-1)
    return torch.stack([cos, sin]).repeat_interleave(2, dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, back: bool = False, pairs: str = "half") -> Tensor:
    """Rotate the last axis by the run's own cos and sin; `back`: the transpose, R^T.

    `pairs`: "half" turns dimensions i and i + n/2 together, "interleaved" 2i and 2i + 1. Dimensions past n stay.
    """
    n = cos.shape[-1]
    turned, rest = x[..., :n], x[..., n:]
    sin = -sin if back else sin
    if pairs == "half":
        half = torch.cat((-turned[..., n // 2 :], turned[..., : n // 2]), dim=-1)
    else:
        half = torch.stack((-turned[..., 1::2], turned[..., ::2]), dim=-1).flatten(-2)
    return torch.cat((turned * cos + half * sin, rest), dim=-1)


# ---- norms of queries and keys ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class VectorNorm:
    """A norm of every query or key: `γ ⊙ C(x) · s + β`, C centring for a LayerNorm, s = 1/rms of C(x)."""

    gain: Float[Tensor, "head d_head"]
    bias: Float[Tensor, "head d_head"] | None
    centred: bool
    epsilon: float
    whole: bool  # one statistic for all heads of a position together (OLMo 2)

    def centre(self, x: Float[Tensor, "... head d_head"]) -> Float[Tensor, "... head d_head"]:
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def scale(self, x: Float[Tensor, "... head d_head"]) -> Float[Tensor, "... head 1"]:
        """s of raw queries or keys."""
        squares = self.centre(x).pow(2)
        mean = squares.mean((-2, -1), keepdim=True) if self.whole else squares.mean(-1, keepdim=True)
        return torch.rsqrt(mean + self.epsilon)


def vector_norm(model: Model, name: str, layer: int) -> VectorNorm | None:
    """The norm of "q" or "k" in a layer; None where this model has none."""
    module = qk_norm(model, name, layer)
    if module is None:
        return None
    heads = model.n_heads if name == "q" else model.n_kv_heads
    each = list(module.norms) if hasattr(module, "norms") else [module]  # StableLM: a module per head
    gain = torch.stack([model.gain(one) for one in each])
    biases = [model.shift(one) for one in each]
    bias = None if any(b is None for b in biases) else torch.stack([b for b in biases if b is not None])

    def shaped(x: Tensor) -> Tensor:
        return x.reshape(-1, model.d_head).expand(heads, -1)

    return VectorNorm(
        gain=shaped(gain), bias=None if bias is None else shaped(bias), centred=isinstance(each[0], nn.LayerNorm),
        epsilon=model.epsilon(each[0]), whole=gain.shape[-1] != model.d_head,
    )  # fmt: skip


def qk_norm(model: Model, name: str, layer: int) -> Any:
    """The module that norms "q" or "k" in a layer; None where this model has none."""
    path = model.family.q_norm if name == "q" else model.family.k_norm
    module = model.blocks[layer]
    for part in (path or "").split("."):
        module = getattr(module, part, None)
    return module
