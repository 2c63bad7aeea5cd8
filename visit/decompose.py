"""Exact sums: what heads, memory values, neurons and biases add to the stream, and to a target's logit.

Everything here is linear in what was captured, so every sum can be checked; `visit.ledger` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from visit.errors import VisitError
from visit.forward import Activations
from visit.model import Model


def _kv_heads(model: Model, device: torch.device) -> Int[Tensor, " head"]:
    """The key/value head that each head reads."""
    return torch.arange(model.n_heads, device=device) // (model.n_heads // model.n_kv_heads)


def memory_values(
    model: Model, acts: Activations, layer: int, sources: Int[Tensor, "head shown"]
) -> Float[Tensor, "head shown d_model"]:
    """What each head would write for its chosen source positions: `v_i @ W_O[j]` (method section 4, OV)."""
    v = needed(acts, "v")[layer, sources, _kv_heads(model, sources.device)[:, None]].to(model.wide)
    return torch.einsum("hie,hed->hid", v, model.W_O(layer))


def value_norms(model: Model, acts: Activations, layer: int, upto: int) -> Float[Tensor, "head source"]:
    """‖v_i W_O[j]‖ for sources 0..upto, from `W_O W_Oᵀ`: the vectors of all heads and sources are never held."""
    v = needed(acts, "v")[layer, : upto + 1].to(model.wide)[:, _kv_heads(model, model.device)]
    gram = torch.einsum("hed,hfd->hef", model.W_O(layer), model.W_O(layer))
    return torch.einsum("ihe,hef,ihf->hi", v, gram, v).clamp_min(0).sqrt()


def value_parts(
    model: Model, acts: Activations, layer: int, upto: int, directions: Float[Tensor, "d_model word"]
) -> Float[Tensor, "head source word"]:
    """⟨v_i W_O[j], direction⟩ for sources 0..upto: what each memory value adds, before the pattern."""
    v = needed(acts, "v")[layer, : upto + 1].to(model.wide)[:, _kv_heads(model, model.device)]
    return torch.einsum("ihe,hew->hiw", v, model.W_O(layer) @ directions)


def head_results(model: Model, acts: Activations, layer: int, pos: int) -> Float[Tensor, "head d_model"]:
    """What each head writes into the stream at one position: `z_j @ W_O[j]`."""
    return torch.einsum("he,hed->hd", needed(acts, "z")[layer, pos].to(model.wide), model.W_O(layer))


def needed(acts: Activations, name: str) -> Tensor:
    """A quantity of the record; one that was not captured gives a `VisitError` that names it."""
    part = getattr(acts, name)
    if part is None:
        raise VisitError(f"This needs {name!r}, which was not captured. Capture with parts=None, or name it in parts.")
    return part


# ---- queries and keys, read in the residual space (method section 4) ------------------------------------------------


def rotate(x: Tensor, cos: Tensor, sin: Tensor, back: bool = False) -> Tensor:
    """Rotate the last axis by the run's own cos and sin (half-split pairs); `back`: the transpose, R^T."""
    n = cos.shape[-1]
    turned, rest = x[..., :n], x[..., n:]
    sin = -sin if back else sin
    half = torch.cat((-turned[..., n // 2 :], turned[..., : n // 2]), dim=-1)
    return torch.cat((turned * cos + half * sin, rest), dim=-1)


def query_readings(
    model: Model, acts: Activations, layer: int, pos: int, sources: Tensor
) -> Float[Tensor, "head d_model"]:
    """Head j's query at `pos` as position `i = sources[j]` sees it: `(R_i^T R_t q_j) @ W_K[j]^T`.

    Without rotation `q_j @ W_K[j]^T`, whatever the source.
    """
    q = needed(acts, "q")[layer, pos].to(model.wide)
    if model.family.rotary:
        cos, sin = needed(acts, "rotary").to(model.wide)
        q = rotate(rotate(q, cos[pos], sin[pos]), cos[sources], sin[sources], back=True)
    keys = model.W_K(layer)[_kv_heads(model, q.device)]
    return torch.einsum("he,hde->hd", q, keys)


def key_readings(
    model: Model, acts: Activations, layer: int, pos: int, sources: Int[Tensor, "head shown"]
) -> Float[Tensor, "head shown d_model"]:
    """Keys of `sources` as position `pos` sees them: `(R_t^T R_i k_i) @ W_Q[j]^T`; `k_i @ W_Q[j]^T` unrotated."""
    k = needed(acts, "k")[layer, sources, _kv_heads(model, sources.device)[:, None]].to(model.wide)
    if model.family.rotary:
        cos, sin = needed(acts, "rotary").to(model.wide)
        k = rotate(rotate(k, cos[sources], sin[sources]), cos[pos], sin[pos], back=True)
    return torch.einsum("hie,hde->hid", k, model.W_Q(layer))


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
    centred = x - x.mean() if model.family.norm == "layer" else x
    scale = torch.rsqrt(centred.pow(2).mean() + model.final_eps)
    direction = model.final_gain * word * scale
    if model.family.norm == "layer":  # ⟨c − mean(c), g⟩ = ⟨c, g − mean(g)⟩
        direction = direction - direction.mean()
    constant = 0.0 if model.final_bias is None else float(model.final_bias @ word)
    if model.b_U is not None:
        away = 0.0 if raw else model.b_U.mean() if distractor is None else model.b_U[distractor]
        constant += float(model.b_U[target] - away)
    return Attribution(direction, constant)
