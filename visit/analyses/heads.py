"""All heads of the model at one position: how much each writes, what it reads, whom it agrees with, what it may be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from visit.activations.forward import Activations
from visit.analyses.head_roles import role_scores
from visit.exact.decompose import head_results, needed, value_norms
from visit.exact.question import aimed, counted
from visit.lenses.logit import columns_of, read
from visit.models.attention import window
from visit.models.model import Model

WORDS = 10  # of each head in the table
TOP_HEADS = 3  # per layer, by norm: those that set the words of attn_out (paper 3.2)


def head_map(
    model: Model,
    acts: Activations,
    pos: int = -1,
    target: int | str | None = None,
    distractor: int | str | None = None,
    k: int = 50,
    words: bool = True,
) -> pd.DataFrame:
    """Every head at one position: a row per layer and head.

    Columns: `node` (id in the flow graph), `layer`, `head`, `norm` (‖z_j W_O‖), `share` (of Σ norms of the layer's
    heads), `rank_in_layer` (by norm, 1 = longest), `top3`; `intersection_attn_out`, `intersection_block`,
    `intersection_final`: I_k with what attention adds, with the block's output, with the last state; `tokens`, `probs`
    (10), `entropy` (bits), `prob` and `rank` of the target (None: the prediction at `pos`), `contribution` (logits);
    the source that moves most, by pattern · ‖v_i W_O‖: `source_pos`, `source_token`, `source_pattern`, `source_share`
    (of Σ moved); over the whole prompt `previous_token`, `same_token`, `first_position`, `induction` and the `role`
    that they carry (`head_roles.role_scores`). `words=False` reads no head: the columns from `intersection_attn_out`
    to `rank` are left out, and with them a product over the vocabulary of all heads, nearly all of the time.
    Raises `VisitError` for a wrong position, k or word.
    Source: paper sections 3.1, 3.2; contribution and roles ours.
    """
    t, wanted, frozen = aimed(model, acts, pos, target, distractor)
    counted(model, k, most=True)
    with torch.no_grad():
        results = torch.stack([head_results(model, acts, layer, t) for layer in range(model.n_layers)])
        contribution = frozen.of(results).flatten().tolist()
        sources = [_main_source(model, acts, layer, t) for layer in range(model.n_layers)]
        norm = results.norm(dim=-1)
        read_too = _readings(model, acts, t, results, wanted, k) if words else {}
    table = places(model)
    table.insert(0, "node", [f"L{layer}.head{head}" for layer, head in table.itertuples(index=False)])
    columns = {
        "norm": norm, "share": norm / norm.sum(1, keepdim=True).clamp_min(1e-30), "rank_in_layer": ranks(norm),
        "top3": ranks(norm) <= TOP_HEADS,
    }  # fmt: skip
    table = table.assign(**{name: column.flatten().tolist() for name, column in columns.items()}, **read_too)
    table["contribution"] = contribution
    windows = [window(model, layer) for layer in range(model.n_layers)]
    return pd.concat([table, pd.concat(sources, ignore_index=True), role_scores(acts, windows).iloc[:, 2:]], axis=1)


def _readings(
    model: Model, acts: Activations, t: int, results: Float[Tensor, "layer head d_model"], wanted: int, k: int
) -> dict[str, list[Any]]:
    """What every head reads, and I_k of it with what it is added to."""
    layers, heads = results.shape[:2]
    n = layers * heads
    states = [needed(acts, name)[:, t].to(model.wide) for name in ("attn_out", "resid_post")]
    found = read(model, torch.cat([results.flatten(0, 1), *states]), wanted, max(k, WORDS))
    tops = found.top_ids[:, :k]
    own, attn_out, block = tops[:n].view(layers, heads, k), tops[n : n + layers, None], tops[n + layers :, None]
    first = replace(found, top_ids=found.top_ids[:, :WORDS], top_probs=found.top_probs[:, :WORDS])
    columns = columns_of(model, first)
    return {
        **{
            f"intersection_{name}": shared(own, other).flatten().tolist()
            for name, other in (("attn_out", attn_out), ("block", block), ("final", block[-1:]))
        },
        **{name: columns[name][:n] for name in ("tokens", "probs", "entropy", "prob", "rank")},
    }


def places(model: Model) -> pd.DataFrame:
    """Every `layer` and `head`, in order."""
    pairs = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    return pd.DataFrame(pairs, columns=["layer", "head"])


def ranks(norms: Float[Tensor, "layer head"]) -> Int[Tensor, "layer head"]:
    """The place of each head in its layer, 1 = longest; equal ones keep their order."""
    return norms.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1) + 1


def shared(a: Int[Tensor, "... k"], b: Int[Tensor, "... k"]) -> Float[Tensor, "..."]:
    """I_k from the ids of the k top words: how many of them two readings have in common, of k (paper eq. 3)."""
    common = (a[..., :, None] == b[..., None, :]).any(-1).sum(-1)
    return common / a.shape[-1]


def _main_source(model: Model, acts: Activations, layer: int, t: int) -> pd.DataFrame:
    """For each head of a layer the source whose memory value moves most."""
    pattern = needed(acts, "pattern")[layer, :, t, : t + 1].to(model.wide)
    moved = pattern * value_norms(model, acts, layer, t)
    best = moved.argmax(-1)
    places = best.tolist()
    share = moved / moved.sum(-1, keepdim=True).clamp_min(1e-30)
    return pd.DataFrame(
        {
            "source_pos": places,
            "source_token": [acts.tokens[i] for i in places],
            "source_pattern": pattern.gather(1, best[:, None])[:, 0].tolist(),
            "source_share": share.gather(1, best[:, None])[:, 0].tolist(),
        }
    )
