"""Whose words are whose? I_k of heads with the states they are added to, and of memory values with their head.

The paper's Figures 2, 3, 5, 16 and 17 for one prompt; a study stacks the tables of many prompts and averages.
"""

from __future__ import annotations

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from visit.activations.record import Activations
from visit.analyses.heads import TOP_HEADS, places
from visit.errors import check_positive
from visit.exact.decompose import head_results, memory_values, needed
from visit.exact.question import counted
from visit.lenses.logit import lens_logits, top_of
from visit.lenses.similarity import ranks, shared
from visit.models.model import Model

TOP_VALUES = 3  # per head, by attention: Figure 5
VECTORS = 4096  # memory values held at once
_SCORE_COLUMNS = ["figure", "layer", "head", "rank_in_layer", "with_w_o", "other", "source_pos", "source_rank", "score"]


def alignment_scores(
    model: Model, acts: Activations, pos: int = -1, k: int = 50, values: int | None = TOP_VALUES
) -> pd.DataFrame:
    """I_k of every head with the states it is added to, and of its memory values with the head: a row per score.

    Columns: `figure` (of the paper), `layer`, `head`, `rank_in_layer` (of the head's norm ‖z_j W_O‖, 1 = longest),
    `with_w_o`, `other` ("attn_out"; "block", the block's output; "final", the last state; "head"), `source_pos` and
    `source_rank` (of a memory value, 1 = most attended; else missing), `score` (I_k in [0, 1]; chance: k / d_vocab).
    Figure 2: all heads, `z_j W_O` and, without W_O, `z_j` at its own place in a vector of zeros as wide as the stream
    (the paper's footnote 6); those rows are left out of a model whose heads side by side have another width.
    Figure 3: of these the rows with W_O of each layer's three longest heads. Figure 5: each head's three most attended
    memory values with the head itself. Figure 16, per head Figure 17: its `values` most attended (None = all), there
    where `values` asks for more than three.
    Mean over prompts: `pd.concat(tables).groupby(["figure", "with_w_o", "other", "layer"])["score"].mean()`.
    Needs v, pattern, z, attn_out, resid_post of all positions. Raises `VisitError` for a wrong position, k or count.
    Source: paper sections 3.1 to 3.3, App. D.2.
    """
    t = acts.index(pos)
    counted(model, k, most=True)
    check_positive("values", values)
    with torch.no_grad():
        results = torch.stack([head_results(model, acts, layer, t) for layer in range(model.n_layers)])
        tops = _tops(model, results.flatten(0, 1), k).unflatten(0, results.shape[:2])
        table = places(model).assign(rank_in_layer=ranks(results.norm(dim=-1)).flatten().tolist())
        heads = _of_heads(model, acts, t, table, tops, k)
        memory = _of_values(model, acts, t, table, tops, min(values or t + 1, t + 1))
    parts = [heads.assign(figure=2), heads[heads["with_w_o"] & (heads["rank_in_layer"] <= TOP_HEADS)].assign(figure=3)]
    parts.append(memory[memory["source_rank"] <= TOP_VALUES].assign(figure=5))
    if values is None or values > TOP_VALUES:
        parts.append(memory.assign(figure=16))
    whole = pd.concat(parts, ignore_index=True)
    return whole.astype({"source_pos": "Int64", "source_rank": "Int64"})[_SCORE_COLUMNS]


def _tops(model: Model, vectors: Float[Tensor, "n d_model"], k: int) -> Int[Tensor, "n k"]:
    return torch.cat([top_of(logits, k)[1] for _, logits in lens_logits(model, vectors)])


def _of_heads(model: Model, acts: Activations, t: int, table: pd.DataFrame, tops: Tensor, k: int) -> pd.DataFrame:
    """Heads against what they are added to, with W_O and, where it can be, without."""
    states = torch.cat([needed(acts, name)[:, t].to(model.wide) for name in ("attn_out", "resid_post")])
    attn_out, block = _tops(model, states, k).unflatten(0, (2, model.n_layers, 1))
    sides = {True: tops}
    if model.n_heads * model.d_head == model.d_model:
        sides[False] = _tops(model, _in_place(model, acts, t), k).view_as(tops)
    found = [
        table.assign(with_w_o=side, other=name, score=shared(own, other).flatten().tolist())
        for side, own in sides.items()
        for name, other in (("attn_out", attn_out), ("block", block), ("final", block[-1:]))
    ]
    return pd.concat(found).assign(source_pos=None, source_rank=None)


def _in_place(model: Model, acts: Activations, t: int) -> Float[Tensor, "n d_model"]:
    """Each head's z, the other heads' places filled with zeros: no W_O mixes it into the stream's directions."""
    z = needed(acts, "z")[:, t].to(model.wide)
    alone = torch.diag_embed(z.transpose(1, 2), dim1=1, dim2=2)  # [layer, head, head, d_head]
    return alone.flatten(2).flatten(0, 1)


def _of_values(model: Model, acts: Activations, t: int, table: pd.DataFrame, tops: Tensor, count: int) -> pd.DataFrame:
    """The `count` most attended memory values of every head against the head."""
    sources = needed(acts, "pattern")[:, :, t, : t + 1].argsort(dim=-1, descending=True, stable=True)[..., :count]
    scores = [_layer_of_values(model, acts, n, sources[n], tops[n]) for n in range(model.n_layers)]
    found = table.loc[table.index.repeat(count)].assign(with_w_o=True, other="head")
    found["source_pos"] = sources.flatten().tolist()
    found["source_rank"] = [*range(1, count + 1)] * len(table)
    return found.assign(score=torch.stack(scores).flatten().tolist())


def _layer_of_values(
    model: Model, acts: Activations, layer: int, sources: Int[Tensor, "head shown"], tops: Int[Tensor, "head k"]
) -> Float[Tensor, "head shown"]:
    """I_k of memory values with their heads, some thousand vectors at a time."""
    parts = []
    for some in sources.split(max(1, VECTORS // model.n_heads), dim=1):
        vectors = memory_values(model, acts, layer, some)
        words = _tops(model, vectors.flatten(0, 1), tops.shape[-1]).unflatten(0, vectors.shape[:2])
        parts.append(shared(words, tops[:, None]))
    return torch.cat(parts, dim=1)
