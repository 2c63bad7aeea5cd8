"""The first oracle: GPT-2 and Llama as plain formulas in float64, from the weights alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def layer_norm(x: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w + b


def rms_norm(x: Tensor, w: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """q, k, v `[head, pos, d_head]` → pattern `[head, query, key]`, z `[pos, head · d_head]`."""
    scores = (q @ k.mT * scale).masked_fill(torch.ones(q.shape[1], q.shape[1]).triu(1).bool(), -math.inf)
    pattern = scores.softmax(-1)
    return pattern, (pattern @ v).transpose(0, 1).flatten(1)


def split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(0, 1)


def gpt2(w: dict[str, Tensor], ids: Tensor, c) -> tuple[dict[str, list[Tensor]], Tensor]:
    seen: dict[str, list[Tensor]] = {n: [] for n in ("resid_pre", "pattern", "z", "attn_out", "neurons", "mlp_out")}
    x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][: len(ids)]
    for n in range(c.n_layer):
        p = {k.removeprefix(f"transformer.h.{n}."): v for k, v in w.items() if k.startswith(f"transformer.h.{n}.")}
        normed = layer_norm(x, p["ln_1.weight"], p["ln_1.bias"], c.layer_norm_epsilon)
        qkv = (normed @ p["attn.c_attn.weight"] + p["attn.c_attn.bias"]).chunk(3, -1)
        scale = (c.n_embd // c.n_head) ** -0.5 / ((n + 1) if c.scale_attn_by_inverse_layer_idx else 1)
        pattern, z = attend(*(split(part, c.n_head) for part in qkv), scale)
        attn = z @ p["attn.c_proj.weight"] + p["attn.c_proj.bias"]
        normed = layer_norm(x + attn, p["ln_2.weight"], p["ln_2.bias"], c.layer_norm_epsilon)
        u = normed @ p["mlp.c_fc.weight"] + p["mlp.c_fc.bias"]
        a = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
        mlp = a @ p["mlp.c_proj.weight"] + p["mlp.c_proj.bias"]
        for name, part in zip(seen, (x, pattern, z, attn, a, mlp), strict=True):
            seen[name].append(part)
        x = x + attn + mlp
    x = layer_norm(x, w["transformer.ln_f.weight"], w["transformer.ln_f.bias"], c.layer_norm_epsilon)
    return seen, x @ w["lm_head.weight"].T


def llama(w: dict[str, Tensor], ids: Tensor, c) -> tuple[dict[str, list[Tensor]], Tensor]:
    seen: dict[str, list[Tensor]] = {n: [] for n in ("resid_pre", "pattern", "z", "attn_out", "neurons", "mlp_out")}
    x, dh, heads, groups = w["model.embed_tokens.weight"][ids], c.head_dim, c.num_attention_heads, c.num_key_value_heads
    angle = torch.arange(len(ids)).double()[:, None] / c.rope_parameters["rope_theta"] ** (
        torch.arange(0, dh, 2).double() / dh
    )
    cos, sin = angle.cos(), angle.sin()

    def turn(t: Tensor) -> Tensor:  # pairs (i, i + d_head/2) as complex numbers
        a, b = t.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    for n in range(c.num_hidden_layers):
        p = {k.removeprefix(f"model.layers.{n}."): v for k, v in w.items() if k.startswith(f"model.layers.{n}.")}

        def linear(name: str, y: Tensor, p: dict[str, Tensor] = p) -> Tensor:
            return y @ p[f"{name}.weight"].T + p.get(f"{name}.bias", torch.zeros(()).double())

        normed = rms_norm(x, p["input_layernorm.weight"], c.rms_norm_eps)
        q, k, v = (
            split(linear(f"self_attn.{m}_proj", normed), h) for m, h in zip("qkv", (heads, groups, groups), strict=True)
        )
        k, v = (t.repeat_interleave(heads // groups, 0) for t in (turn(k), v))
        pattern, z = attend(turn(q), k, v, dh**-0.5)
        attn = linear("self_attn.o_proj", z)
        normed = rms_norm(x + attn, p["post_attention_layernorm.weight"], c.rms_norm_eps)
        gate = linear("mlp.gate_proj", normed)
        a = gate * gate.sigmoid() * linear("mlp.up_proj", normed)
        mlp = linear("mlp.down_proj", a)
        for name, part in zip(seen, (x, pattern, z, attn, a, mlp), strict=True):
            seen[name].append(part)
        x = x + attn + mlp
    return seen, rms_norm(x, w["model.norm.weight"], c.rms_norm_eps) @ w["lm_head.weight"].T
