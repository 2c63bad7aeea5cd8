"""Queries and keys read in the residual space (method section 4, QK): as the position that meets them sees them.

The score is `q·k`. Moved through the other side's weights, a query becomes a direction that `ln1_out` of the source is
measured along, and a key one for `ln1_out` of the query's position; the ledger's identity 6 checks both.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from visit.activations.record import Activations
from visit.exact.decompose import needed
from visit.models.attention import VectorNorm, kv_heads, rotate, rotation_set, vector_norm
from visit.models.model import Model


def rotation(model: Model, acts: Activations, layer: int) -> tuple[Tensor, Tensor] | None:
    """cos and sin `[pos, d_rotary]` of this run in a layer; None in a family without rotation."""
    if not model.family.rotary:
        return None
    cos, sin = needed(acts, "rotary")[rotation_set(model, layer)].to(model.wide)
    return cos, sin


def rotated(model: Model, acts: Activations, layer: int, x: Float[Tensor, "pos head d_head"]) -> Tensor:
    """Queries or keys of all positions as they enter the product."""
    turn = rotation(model, acts, layer)
    if turn is None:
        return x
    return rotate(x, turn[0][:, None], turn[1][:, None], pairs=model.family.pairs)


def as_seen(
    model: Model, acts: Activations, layer: int, x: Float[Tensor, "... d_head"], at: int | Tensor, seen: int | Tensor
) -> Float[Tensor, "... d_head"]:
    """`R_seen^T R_at x`: queries or keys of positions `at` as positions `seen` meet them (tensors match x's axes)."""
    turn = rotation(model, acts, layer)
    if turn is None:
        return x
    (cos, sin), pairs = turn, model.family.pairs
    return rotate(rotate(x, cos[at], sin[at], pairs=pairs), cos[seen], sin[seen], back=True, pairs=pairs)


def through_norm(norm: VectorNorm | None, x: Float[Tensor, "head ... d_head"], heads: Tensor) -> Tensor:
    """`C(γ ⊙ x)`: past the norm of the other side, whose positive factor s the lens does not see."""
    if norm is None:
        return x
    gain = norm.gain[heads]
    return norm.centre(gain.view(gain.shape[0], *[1] * (x.dim() - 2), gain.shape[1]) * x)


def query_readings(
    model: Model, acts: Activations, layer: int, pos: int, sources: Int[Tensor, " head"]
) -> Float[Tensor, "head d_model"]:
    """Head j's query at `pos` as position `i = sources[j]` sees it: `C(γ_K ⊙ R_i^T R_t q_j) @ W_K[j]^T`.

    Without rotation the same whatever the source; without norms of the keys C and γ_K are the identity.
    """
    groups = kv_heads(model)
    q = needed(acts, "q")[layer, pos].to(model.wide)
    q = through_norm(vector_norm(model, "k", layer), as_seen(model, acts, layer, q, pos, sources), groups)
    return torch.einsum("he,hde->hd", q, model.W_K(layer)[groups])


def key_readings(
    model: Model, acts: Activations, layer: int, pos: int, sources: Int[Tensor, "head shown"]
) -> Float[Tensor, "head shown d_model"]:
    """Keys of `sources` as position `pos` sees them: `C(γ_Q ⊙ R_t^T R_i k_i) @ W_Q[j]^T`."""
    k = needed(acts, "k")[layer, sources, kv_heads(model)[:, None]].to(model.wide)
    k = as_seen(model, acts, layer, k, sources, pos)
    every = torch.arange(model.n_heads, device=model.device)
    return torch.einsum("hie,hde->hid", through_norm(vector_norm(model, "q", layer), k, every), model.W_Q(layer))
