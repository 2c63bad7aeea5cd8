"""Exact sums: what heads, memory values, neurons and biases add to the stream, and to a target's logit.

Everything here is linear in what was captured, so every sum can be checked; `visit.ledger` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from visit.activations.record import Activations
from visit.errors import VisitError
from visit.models.attention import kv_heads
from visit.models.model import Model


def post_scale(model: Model, acts: Activations, layer: int, part: str, pos: int | slice) -> Tensor | float:
    """r_t = 1/rms of the whole output of W_O ("attn") or W_out ("mlp") at a position: what a post-norm multiplies with.

    Frozen, it makes the norm linear, so that a part of the output is a part of the stream (method section 1). 1 in a
    family without post-norms; for a slice of positions `[pos, 1]`.
    """
    norm = model.post_norm(part, layer)
    if norm is None:
        return 1.0
    raw = raw_output(model, acts, layer, part, pos)
    return torch.rsqrt(raw.pow(2).mean(-1, keepdim=True) + model.epsilon(norm))


def raw_output(
    model: Model, acts: Activations, layer: int, part: str, pos: int | slice
) -> Float[Tensor, "... d_model"]:
    """The whole output of W_O ("attn") or W_out ("mlp"), before a post-norm: all coefficients times their rows.

    Made from the coefficients, so that it is there whatever was captured; the ledger compares it with `attn_raw`,
    `mlp_raw`.
    """
    path = model.family.w_o if part == "attn" else model.family.w_out
    terms = needed(acts, "z").flatten(-2) if part == "attn" else needed(acts, "neurons")
    raw, bias = terms[layer, pos].to(model.wide) @ model.weight(path, layer), model.bias(path, layer)
    return raw if bias is None else raw + bias


def _values_upto(model: Model, acts: Activations, layer: int, upto: int) -> Float[Tensor, "source head d_head"]:
    v = needed(acts, "v")[layer, : upto + 1].to(model.wide)
    return v[:, kv_heads(model)]


def memory_values(
    model: Model, acts: Activations, layer: int, sources: Int[Tensor, "head shown"], pos: int | None = None
) -> Float[Tensor, "head shown d_model"]:
    """What each head would write for its chosen source positions: `v_i @ W_O[j]` (method section 4, OV).

    `pos`: the position that it is written at, which a post-norm's length depends on; None leaves that factor out.
    """
    v = needed(acts, "v")[layer, sources, kv_heads(model)[:, None]].to(model.wide)
    found = torch.einsum("hie,hed->hid", v, model.W_O(layer))
    return found if pos is None else found * post_scale(model, acts, layer, "attn", pos)


def value_norms(model: Model, acts: Activations, layer: int, upto: int) -> Float[Tensor, "head source"]:
    """‖v_i W_O[j]‖ as written at `upto`, for sources 0..upto.

    Of many sources from `W_O W_Oᵀ`, never all vectors at once; of few the vectors themselves are less work.
    """
    v = _values_upto(model, acts, layer, upto)
    if len(v) <= model.d_head:
        norms = torch.einsum("ihe,hed->hid", v, model.W_O(layer)).norm(dim=-1)
        return norms * post_scale(model, acts, layer, "attn", upto)
    gram = torch.einsum("hed,hfd->hef", model.W_O(layer), model.W_O(layer))
    squares = torch.einsum("ihe,hef,ihf->hi", v, gram, v)
    return squares.clamp_min(0).sqrt() * post_scale(model, acts, layer, "attn", upto)


def value_parts(
    model: Model, acts: Activations, layer: int, upto: int, directions: Float[Tensor, "d_model word"]
) -> Float[Tensor, "head source word"]:
    """⟨v_i W_O[j], direction⟩ as written at `upto`, for sources 0..upto: before the pattern."""
    v = _values_upto(model, acts, layer, upto)
    found = torch.einsum("ihe,hew->hiw", v, model.W_O(layer) @ directions)
    return found * post_scale(model, acts, layer, "attn", upto)


def head_results(model: Model, acts: Activations, layer: int, pos: int) -> Float[Tensor, "head d_model"]:
    """What each head writes into the stream at one position: `z_j @ W_O[j]`, past the post-norm where there is one."""
    z = needed(acts, "z")[layer, pos].to(model.wide)
    return torch.einsum("he,hed->hd", z, model.W_O(layer)) * post_scale(model, acts, layer, "attn", pos)


def rows_and_bias(
    model: Model, acts: Activations, layer: int, part: str, pos: int
) -> tuple[Float[Tensor, "row d_model"], Float[Tensor, " d_model"] | None]:
    """(rows, bias) that a sub-layer's coefficients (z or neurons) are summed with, as the stream at `pos` gets them."""
    rows = model.W_O(layer).flatten(0, 1) if part == "attn" else model.W_out(layer)
    bias = model.b_O(layer) if part == "attn" else model.b_out(layer)
    scale = post_scale(model, acts, layer, part, pos)
    if isinstance(scale, float):
        return rows, bias
    return rows * scale, None if bias is None else bias * scale


def needed(acts: Activations, name: str) -> Tensor:
    """A quantity of the record; one that was not captured gives a `VisitError` that names it."""
    part = getattr(acts, name)
    if part is None:
        raise VisitError(f"This needs {name!r}, which was not captured. Capture with parts=None, or name it in parts.")
    return part


# ---- contributions (method sections 2.7 and 3) --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Attribution:
    """The final norm frozen at one position, pointed at a target.

    A part c of the stream contributes `⟨c, direction⟩` logits; all parts plus `constant` give the target's logit minus
    the mean logit (with a distractor: minus the distractor's), before any soft-cap.
    """

    direction: Float[Tensor, " d_model"]
    constant: float

    def of(self, parts: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
        return parts.to(self.direction.dtype) @ self.direction


def attribution(
    model: Model, acts: Activations, pos: int, target: int, distractor: int | None = None, raw: bool = False
) -> Attribution:
    """Freeze the final norm at `pos` and point it at `target`.

    `U_w − mean_u U_u` (the share of "target's logit minus the mean logit"); with a distractor `U_w − U_distractor`;
    `raw=True`: `U_w` alone, the form of ledger identity 7. Units: logits.
    """
    x = needed(acts, "resid_post")[-1, pos].to(model.wide)
    reference = torch.zeros_like(x) if raw else model.W_U_mean if distractor is None else model.W_U(distractor)
    word = model.W_U(target) - reference
    direction = model.final_gain * word
    if model.ln_final is not None:
        centred = x - x.mean() if model.family.norm == "layer" else x
        direction = direction * torch.rsqrt(centred.pow(2).mean() + model.final_eps)
        if model.family.norm == "layer":  # ⟨c − mean(c), g⟩ = ⟨c, g − mean(g)⟩
            direction = direction - direction.mean()
    constant = 0.0 if model.final_bias is None else float(model.final_bias @ word)
    if model.b_U is not None:
        away = 0.0 if raw else model.b_U.mean() if distractor is None else model.b_U[distractor]
        constant += float(model.b_U[target] - away)
    return Attribution(direction, constant)
