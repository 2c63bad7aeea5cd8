"""One head made again with some of its keys, memory values or links edited (method, identity 9).

In four steps, for all queries of the run: scores from q and k, with an edited key in its column for the queries that
see it so; the pattern (scale, soft-cap, ALiBi, window, softmax); edited links; z as the sum of values, an edited one
where a query sees it so. The same steps without the edits are subtracted, so that own values give a difference of
exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.record import Applied
from visit.models.attention import pattern_of, rotate, visible_keys
from visit.models.model import Model


def edited_head(
    model: Model, layer: int, head: int, qkv: dict[str, Tensor], turn: tuple[Tensor, Tensor] | None,
    edits: Sequence[Applied],
) -> tuple[Float[Tensor, "query d_head"], Float[Tensor, "query key"], Float[Tensor, "query key"]]:  # fmt: skip
    """(what changes in the head's z, its pattern before, its pattern after). `qkv`: `[pos, head, d_head]`."""
    group = head // (model.n_heads // model.n_kv_heads)
    q, k, v = qkv["q"][:, head], qkv["k"][:, group], qkv["v"][:, group]
    q, k, v = (x.to(model.wide) for x in (q, k, v))
    every = torch.arange(len(q), device=q.device)
    own_keys, keys = _per_query(k, edits, "key")
    own_values, values = _per_query(v, edits, "value")

    def turned(x: Tensor, at: Tensor | int) -> Tensor:
        return x if turn is None else rotate(x, turn[0][at], turn[1][at], pairs=model.family.pairs)

    asked = turned(q, every)
    scores = asked @ turned(k, every).T

    def pattern(columns: dict[int, Tensor]) -> Tensor:
        seen = scores.clone()
        for source, vectors in columns.items():
            seen[:, source] = (asked * turned(vectors, source)).sum(-1)
        return pattern_of(model, layer, seen[None], torch.tensor([head], device=q.device))[0]

    def result(weights: Tensor, columns: dict[int, Tensor]) -> Tensor:
        z = weights @ v
        for source, vectors in columns.items():
            z = z + weights[:, source : source + 1] * (vectors - v[source])
        return z

    before, after = pattern(own_keys), pattern(keys)
    sees = visible_keys(model, layer, len(q))
    for edit in edits:
        if edit.site.node.kind == "link":
            after = _linked(after, edit, sees)
    return result(after, values) - result(before, own_values), before, after


def _per_query(
    x: Float[Tensor, "pos d_head"], edits: Sequence[Applied], what: str
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Source position -> its key or value as each query sees it, `[query, d_head]`: before the edits, and after."""
    own: dict[int, Tensor] = {}
    found: dict[int, Tensor] = {}
    for edit in edits:
        source = edit.site.source_pos
        if edit.site.node.kind in (what, f"kv_{what}") and source is not None:
            own[source] = x[source].expand(len(x), -1)
            found[source] = edit.edited(found.get(source, own[source]), whole=x, rows=source)
    return own, found


def _linked(pattern: Float[Tensor, "query key"], edit: Applied, sees: Tensor) -> Float[Tensor, "query key"]:
    """The pattern with one weight edited at the queries that see its source; renormalised if the edit says so."""
    source = edit.site.source_pos
    assert source is not None
    changed = pattern.clone()
    changed[:, source] = torch.where(
        sees[:, source], edit.edited(pattern[:, source : source + 1])[:, 0], pattern[:, source]
    )
    if edit.site.node.part != "renormalised":
        return changed
    total = changed.sum(-1, keepdim=True)
    other = (changed != pattern).any(-1, keepdim=True) & (total != 0)  # a query that sees nothing else keeps its link
    kept = torch.where(total != 0, changed, pattern)
    return torch.where(other, changed / torch.where(total == 0, torch.ones_like(total), total), kept)
