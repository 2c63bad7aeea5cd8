"""The vectors that the study compares, one layer of one prompt at a time: the only place that knows how they are made.

Everything comes from `visit.decompose`; what a family adds to a vector on its way into the stream is added here.
"""

from __future__ import annotations

import weakref

import torch
from jaxtyping import Float, Int
from torch import Tensor

from visit.aim import kv_head
from visit.decompose import head_results, key_readings, memory_values, needed, query_readings
from visit.forward import Activations, capture
from visit.model import Model

_HAS_MIDDLE: weakref.WeakKeyDictionary[Model, bool] = weakref.WeakKeyDictionary()
PARTS = ("resid_pre", "q", "k", "v", "pattern", "z", "attn_out", "resid_mid", "resid_post", "rotary")


def _in_stream(model: Model, layer: int, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    """A vector as it stands in the stream, its length aside.

    A family with a norm after W_O would multiply by that norm's gain here (method section 1; the positive factor r_t
    changes no reading). Neither family of `visit.families` has one.
    """
    return x


def heads(model: Model, acts: Activations, layer: int, t: int) -> Float[Tensor, "head d_model"]:
    """What each head writes: `z_j @ W_O[j]`."""
    return _in_stream(model, layer, head_results(model, acts, layer, t))


def values(
    model: Model, acts: Activations, layer: int, sources: Int[Tensor, "head n"]
) -> Float[Tensor, "head n d_model"]:
    """The memory values of each head's own sources: `v_i @ W_O[j]`."""
    return _in_stream(model, layer, memory_values(model, acts, layer, sources))


def sources(acts: Activations, layer: int, t: int, count: int) -> Int[Tensor, "head n"]:
    """The `count` positions that each head attends to most, the most attended first; equal ones in their order."""
    pattern = needed(acts, "pattern")[layer, :, t, : t + 1]
    return pattern.argsort(dim=-1, descending=True, stable=True)[:, :count]


def queries(
    model: Model, acts: Activations, layer: int, t: int, seen_by: Int[Tensor, "head n"]
) -> Float[Tensor, "head n d_model"]:
    """Each head's query at `t` as its sources see it, through the circuit; without rotation one for all sources."""
    columns = seen_by.unbind(1) if model.family.rotary else seen_by[:, :1].unbind(1)
    return torch.stack([query_readings(model, acts, layer, t, column) for column in columns], dim=1)


def keys(
    model: Model, acts: Activations, layer: int, t: int, at: Int[Tensor, "head n"]
) -> Float[Tensor, "head n d_model"]:
    """The keys of each head's own sources as `t` sees them, through the circuit."""
    return key_readings(model, acts, layer, t, at)


def ln1_gain(model: Model, layer: int) -> Float[Tensor, " d_model"] | None:
    """The gain that takes queries and keys into the stream's space; None where a block has no norm before attention."""
    if not model.family.ln1:
        return None
    return model.module(model.family.ln1, layer).weight.detach().to(model.wide)


# ---- read naively: at the head's own place in a vector of zeros (the paper's footnote 6) --------------------------


def has_places(model: Model) -> bool:
    """Whether the heads side by side are as wide as the stream, so that each has a place in it."""
    return model.n_heads * model.d_head == model.d_model


def z_in_place(model: Model, acts: Activations, layer: int, t: int) -> Float[Tensor, "head d_model"]:
    return _in_place(needed(acts, "z")[layer, t].to(model.wide)[:, None])[:, 0]


def query_in_place(model: Model, acts: Activations, layer: int, t: int) -> Float[Tensor, "head n d_model"]:
    """`q` as it was captured, before any rotation: the same for all sources."""
    return _in_place(needed(acts, "q")[layer, t].to(model.wide)[:, None])


def keys_in_place(
    model: Model, acts: Activations, layer: int, at: Int[Tensor, "head n"]
) -> Float[Tensor, "head n d_model"]:
    """`k` before any rotation; a key that several heads share stands at the place of each of them."""
    shared = torch.tensor([kv_head(model, head) for head in range(model.n_heads)], device=at.device)
    return _in_place(needed(acts, "k")[layer, at, shared[:, None]].to(model.wide))


def _in_place(x: Float[Tensor, "head n d_head"]) -> Float[Tensor, "head n d_model"]:
    alone = torch.diag_embed(x.permute(1, 2, 0), dim1=1, dim2=2)  # [n, head, head, d_head]: one head kept, zeros else
    return alone.flatten(2).transpose(0, 1)


# ---- states ----------------------------------------------------------------------------------------------------------


def state(model: Model, acts: Activations, name: str, layer: int, t: int) -> Float[Tensor, " d_model"]:
    """A state of the stream, or attn_out, at one position."""
    return needed(acts, name)[layer, t].to(model.wide)


def has_resid_mid(model: Model) -> bool:
    """Whether there is a stream between attention and MLP: not in a parallel block. Asked of the model itself, once."""
    if model not in _HAS_MIDDLE:
        _HAS_MIDDLE[model] = capture(model, [0], parts=("resid_mid",)).resid_mid is not None
    return _HAS_MIDDLE[model]
