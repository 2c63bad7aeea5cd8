"""One block run again from its weights, for many changed runs at once: what maps of effects are made with.

A forward pass of the model's own code computes every position of every run. Where runs differ from a clean one by one
change, most of that is known already: blocks before the change, positions before it. So a block is computed here from
its weights, in five steps, for the runs and positions that can differ only:

1. the norm (or none) gives what queries, keys and values are made of; each may have a norm of its own;
2. queries meet the clean run's keys before the first computed position, shared by all runs and not copied, and then
   their own run's: rotation of the clean run, scale, soft-cap, slopes, window (identity 9 of the ledger);
3. the pattern mixes the values into `z`; W_O and its post-norm give `attn_out`;
4. the MLP reads the stream after attention, or beside it in a parallel block, and gives `neurons` and `mlp_out`;
5. the stream is the sum.

At the seams `q`, `k`, `v` (before the rotation), `z`, `attn_out`, `neurons`, `mlp_out` a change can be written. No
module of the model is called but its non-linearity, so that hooks of another thread never see these runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from visit.activations.record import Activations
from visit.exact.circuits import rotation
from visit.exact.decompose import needed
from visit.models.attention import (
    VectorNorm,
    first_visible,
    rotate,
    score_cap,
    score_scale,
    slopes,
    soft_cap,
    vector_norm,
    visible_keys,
)
from visit.models.model import Model

Seam = Callable[[str, Tensor], Tensor]  # a seam's name and what stands there [run pos width] -> what shall stand there


def run_block(
    model: Model, acts: Activations, layer: int, x: Float[Tensor, "run pos d_model"], first: int, seam: Seam
) -> Float[Tensor, "run pos d_model"]:
    """The block's output for runs whose stream enters as `x` at positions `first`, `first` + 1, …

    `acts`: the clean run, whose keys and values stand for every position before `first`. `seam` is called with "q"
    `[run pos head·d_head]`, "k" and "v" `[run pos kv_head·d_head]`, "z" `[run pos head·d_head]`, "attn_out", "neurons",
    "mlp_out" and returns what stands there; keys and values that heads share may come back one a head
    `[run pos head·d_head]`. Source: ours.
    """
    normed = block_norm(model, model.block_norm("ln1", layer), x)
    z = seam("z", _attention(model, acts, layer, normed, first, seam))
    return add_sublayers(model, layer, x, normed, seam("attn_out", attention_output(model, layer, z)), seam)


def attention_output(model: Model, layer: int, z: Float[Tensor, "run pos width"]) -> Float[Tensor, "run pos d_model"]:
    """`attn_out` of what the heads give: past W_O, and the post-norm where there is one."""
    return block_norm(model, model.post_norm("attn", layer), _linear(model, model.family.w_o, layer, z))


def add_sublayers(
    model: Model, layer: int, x: Tensor, normed: Tensor, attn_out: Tensor, seam: Seam
) -> Float[Tensor, "run pos d_model"]:
    """The block's output where attention's is known: the MLP, and the sum (steps 4 and 5). `normed`: x past `ln1`."""
    family = model.family
    after = x if family.parallel else x + attn_out
    read = normed if family.shared_norm else block_norm(model, model.block_norm("ln2", layer), after)
    act, up = model.module(family.act, layer), _linear(model, family.w_in, layer, read)
    neurons = act(up) if family.w_gate is None else act(_linear(model, family.w_gate, layer, read)) * up
    mlp_out = _linear(model, family.w_out, layer, seam("neurons", neurons))
    mlp_out = seam("mlp_out", block_norm(model, model.post_norm("mlp", layer), mlp_out))
    return after + mlp_out + attn_out if family.parallel else after + mlp_out


def block_norm(model: Model, norm: Any, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    """x past a norm's module, from its gain and bias; x itself where there is no norm."""
    if norm is None:
        return x
    gain, width = model.gain(norm), x.shape[-1:]
    if model.family.norm == "layer":
        return functional.layer_norm(x, width, gain, model.shift(norm), model.epsilon(norm))
    return functional.rms_norm(x, width, gain, model.epsilon(norm))


def _linear(model: Model, path: str, layer: int, x: Tensor) -> Tensor:
    bias, weight = model.bias(path, layer), model.weight(path, layer)
    return x @ weight if bias is None else torch.addmm(bias, x.flatten(0, -2), weight).unflatten(0, x.shape[:-1])


def _attention(model: Model, acts: Activations, layer: int, x: Tensor, first: int, seam: Seam) -> Tensor:
    """`z` `[run pos head·d_head]` of the normed stream: step 2 and the first half of 3."""
    q, k, v = (
        seam(name, part.flatten(2)).unflatten(2, (-1, model.d_head))
        for name, part in zip("qkv", projected(model, layer, x), strict=True)
    )
    q, k = (_turned(model, acts, layer, part, first) for part in (q, k))
    low, count = first_visible(model, layer, first), x.shape[1]
    past_k, past_v = (needed(acts, name)[layer, low:first].to(model.wide) for name in "kv")
    past_k = _turned(model, acts, layer, past_k, low)
    q = q.unflatten(2, (model.n_kv_heads, -1))  # [run pos kv_head its_heads d_head]
    (k, own_k), (v, own_v) = (_by_group(model, part) for part in (k, v))
    scores = torch.cat(
        [torch.einsum("rqgje,kge->rgjqk", q, past_k), torch.einsum(f"rqgje,{own_k}->rgjqk", q, k)], dim=-1
    )  # fmt: skip
    scores = soft_cap(scores * score_scale(model, layer), score_cap(model))
    steep = slopes(model)
    if steep is not None:
        at = torch.arange(low, first + count, device=scores.device)
        scores = scores + steep.view(model.n_kv_heads, -1)[:, :, None, None] * at
    seen = visible_keys(model, layer, first + count)[first:, low:]
    pattern = scores.masked_fill(~seen, -math.inf).softmax(-1)
    before, own = pattern.split([first - low, count], dim=-1)
    z = torch.einsum("rgjqk,kge->rqgje", before, past_v) + torch.einsum(f"rgjqk,{own_v}->rqgje", own, v)
    return z.flatten(2)


def _by_group(model: Model, x: Float[Tensor, "run pos heads d_head"]) -> tuple[Tensor, str]:
    """Keys or values as the product takes them, and its axes: one a group of heads, or one a head."""
    if x.shape[2] == model.n_kv_heads:
        return x, "rkge"
    return x.unflatten(2, (model.n_kv_heads, -1)), "rkgje"


def projected(model: Model, layer: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries `[run pos head d_head]`, keys and values `[run pos kv_head d_head]`, past the norms that they have."""
    made = [_linear(model, path, layer, x) for path in model.family.qkv]
    q, k, v = model.split_qkv(made[0]) if len(made) == 1 else (part.unflatten(-1, (-1, model.d_head)) for part in made)
    return _normed(vector_norm(model, "q", layer), q), _normed(vector_norm(model, "k", layer), k), v


def _normed(norm: VectorNorm | None, x: Float[Tensor, "run pos head d_head"]) -> Tensor:
    if norm is None:
        return x
    found = norm.gain * norm.centre(x) * norm.scale(x)
    return found if norm.bias is None else found + norm.bias


def _turned(model: Model, acts: Activations, layer: int, x: Float[Tensor, "... pos head d_head"], first: int) -> Tensor:
    """Queries or keys as they enter the product, turned by the clean run's own cos and sin from `first` on."""
    turn = rotation(model, acts, layer)
    if turn is None:
        return x
    cos, sin = (part[first : first + x.shape[-3], None] for part in turn)
    return rotate(x, cos, sin, pairs=model.family.pairs)
