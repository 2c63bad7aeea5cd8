"""Where a head looks, whatever the words: four simple rules of attention, each with the score that it rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from visit.activations.forward import Activations
from visit.exact.decompose import needed

RULES = ("previous token", "same token", "first position", "induction")
NAMED_FROM = 0.4  # of the way from uniform attention (0) to all attention where the rule says (1)
LEAST_QUERIES = 3  # one query may look at the right token for another reason: after a second "of", at the subject


def role_scores(acts: Activations, windows: Sequence[int | None] | None = None) -> pd.DataFrame:
    """How much every head attends where a simple rule says, over the whole prompt: a row per layer and head.

    Columns: `layer`, `head`; `previous_token`, `same_token` (earlier occurrences of the query's own token),
    `first_position`, `induction` (the tokens after these occurrences): attention to such sources, summed per query and
    averaged over the queries that have one, in [0, 1]. A query for which two rules name the same source tells them not
    apart and does not count; where no query counts (nothing is repeated) the score is missing. `role`: "induction
    (0.98)", the rule that comes nearest to 1, counted from what uniform attention would score; missing below 0.4 of
    that way or for fewer than 3 queries. `windows`: per layer how many positions a query sees (None: all before it);
    a source outside is none. Raises `VisitError` for a record of one position. Source: ours.
    """
    acts.index(0)
    pattern = needed(acts, "pattern")
    n_layers, n_heads = pattern.shape[:2]
    wide = torch.promote_types(pattern.dtype, torch.float32)
    sources = _sources(torch.tensor(acts.token_ids, device=pattern.device))
    sizes = [None] * n_layers if windows is None else list(windows)
    known = {size: _weights(sources, size, wide) for size in set(sizes)}
    scores = torch.cat([own.to(wide).flatten(1) @ known[size][0].T for own, size in zip(pattern, sizes, strict=True)])
    chance = [known[size][1] for size in sizes for _ in range(n_heads)]
    table = pd.DataFrame(scores.tolist(), columns=[rule.replace(" ", "_") for rule in RULES])
    table.insert(0, "layer", [layer for layer in range(n_layers) for _ in range(n_heads)])
    table.insert(1, "head", [*range(n_heads)] * n_layers)
    return table.assign(role=[_role(row, own) for row, own in zip(scores.tolist(), chance, strict=True)])


def _weights(
    sources: Bool[Tensor, "rule query key"], size: int | None, wide: torch.dtype
) -> tuple[Tensor, list[float]]:
    """How a layer's pattern is summed for each rule `[rule, query · key]`, and what uniform attention would score.

    Missing: no weight where no query counts (0 / 0), no chance where fewer than 3 do.
    """
    seen = torch.ones(sources.shape[1:], dtype=torch.bool, device=sources.device).tril()
    seen = seen if size is None else seen.triu(1 - size)
    own = sources & seen
    queries = own.any(-1).sum(-1)
    weights = (own / queries[:, None, None]).flatten(1).to(wide)
    uniform = weights @ (seen.to(wide) / seen.sum(-1, keepdim=True)).flatten()
    return weights, uniform.masked_fill(queries < LEAST_QUERIES, math.nan).tolist()


def _sources(ids: Tensor) -> Bool[Tensor, "rule query key"]:
    """Where each rule says to look; a query for which two rules name the same source is left out of both."""
    at = torch.arange(len(ids), device=ids.device)
    past = at[:, None] > at
    same = (ids[:, None] == ids) & past
    after = same.roll(1, dims=1) & past & (at > 0)
    rules = torch.stack([at[:, None] - 1 == at, same, (at == 0) & past, after])
    shared = rules & (rules.sum(0) > 1)
    return rules & ~shared.any(-1, keepdim=True)


def _role(scores: list[float], chance: list[float]) -> str | None:
    """The rule whose score goes furthest beyond chance, with that score; None where none goes far enough."""
    beyond = [-1.0 if math.isnan(c) else (s - c) / (1 - c) for s, c in zip(scores, chance, strict=True)]
    best = max(range(len(RULES)), key=beyond.__getitem__)
    return f"{RULES[best]} ({scores[best]:.2f})" if beyond[best] >= NAMED_FROM else None
