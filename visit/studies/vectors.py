"""The vectors that the study compares, one layer of one prompt at a time: the only place that knows how they are made.

Everything comes from `visit.exact` (`decompose`, `circuits`), which knows what a family adds on the way into the
stream.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from visit.activations.forward import Activations
from visit.exact.circuits import key_readings, query_readings
from visit.exact.decompose import head_results, memory_values, needed
from visit.exact.question import kv_head
from visit.models.model import Model

PARTS = ("resid_pre", "q", "k", "v", "pattern", "z", "attn_out", "resid_mid", "resid_post", "rotary")


def heads(model: Model, acts: Activations, layer: int, t: int) -> Float[Tensor, "head d_model"]:
    """What each head writes: `z_j @ W_O[j]`."""
    return head_results(model, acts, layer, t)


def values(
    model: Model, acts: Activations, layer: int, sources: Int[Tensor, "head n"]
) -> Float[Tensor, "head n d_model"]:
    """The memory values of each head's own sources: `v_i @ W_O[j]` (before a post-norm times its gain)."""
    return memory_values(model, acts, layer, sources)


def sources(acts: Activations, layer: int, t: int, count: int) -> Int[Tensor, "head n"]:
    """The `count` positions that each head attends to most, the most attended first; equal ones in their order.

    In a windowed layer positions outside the window have pattern 0 and come last.
    """
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
    norm = model.block_norm("ln1", layer)
    return None if norm is None else model.gain(norm)


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
    """Whether there is a stream between attention and MLP: not where they stand side by side."""
    return not model.family.parallel
