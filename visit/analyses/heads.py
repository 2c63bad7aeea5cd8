"""All heads of the model at one position: how much each writes, what it reads, whom it agrees with, what it may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visit.activations.record import Activations
from visit.exact.decompose import head_results, needed, value_norms
from visit.exact.influence import influence_of
from visit.exact.question import ask, counted
from visit.lenses.logit import columns_of, read
from visit.lenses.similarity import ranks, shared
from visit.models.attention import window
from visit.models.model import Model
from visit.models.tokens import spelled_tokens

# ---- where a head looks, whatever the words --------------------------------------------------------------------------
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
    sources = _rule_sources(torch.tensor(acts.token_ids, device=pattern.device))
    sizes = [None] * n_layers if windows is None else list(windows)
    known = {size: _weights(sources, size, wide) for size in set(sizes)}
    scores = torch.cat([own.to(wide).flatten(1) @ known[size][0].T for own, size in zip(pattern, sizes, strict=True)])
    chance = [known[size][1] for size in sizes for _ in range(n_heads)]
    table = pd.DataFrame(scores.tolist(), columns=[rule.replace(" ", "_") for rule in RULES])
    table.insert(0, "layer", [layer for layer in range(n_layers) for _ in range(n_heads)])
    table.insert(1, "head", [*range(n_heads)] * n_layers)
    return table.assign(role=[_role(row, own) for row, own in zip(scores.tolist(), chance, strict=True)])


def named_from(acts: Activations, size: int | None = None) -> dict[str, float]:
    """Rule -> the score from which on a head is named after it: 0.4 of the way from uniform attention to all of it.

    `size`: how many positions a query of the layer sees (None: all before it). Missing as in `role_scores`.
    """
    pattern = needed(acts, "pattern")
    wide = torch.promote_types(pattern.dtype, torch.float32)
    chance = _weights(_rule_sources(torch.tensor(acts.token_ids, device=pattern.device)), size, wide)[1]
    return {rule: c + NAMED_FROM * (1 - c) for rule, c in zip(RULES, chance, strict=True)}


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


def _rule_sources(ids: Tensor) -> Bool[Tensor, "rule query key"]:
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
    influence: bool = False,
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
    `influence`: a column of it, too (logits to first order; one more run, forward and backward).
    Raises `VisitError` for a wrong position, k or word.
    Source: paper sections 3.1, 3.2; contribution and roles ours.
    """
    question = ask(model, acts, pos, target, distractor)
    t, frozen = question.pos, question.attribution
    counted(model, k, most=True)
    with torch.no_grad():
        results = torch.stack([head_results(model, acts, layer, t) for layer in range(model.n_layers)])
        contribution = frozen.of(results).flatten().tolist()
        sources = [_main_source(model, acts, layer, t) for layer in range(model.n_layers)]
        norm = results.norm(dim=-1)
        read_too = _head_readings(model, acts, t, results, question.target, k) if words else {}
    table = places(model)
    table.insert(0, "node", [f"L{layer}.head{head}" for layer, head in table.itertuples(index=False)])
    columns = {
        "norm": norm, "share": norm / norm.sum(1, keepdim=True).clamp_min(1e-30), "rank_in_layer": ranks(norm),
        "top3": ranks(norm) <= TOP_HEADS,
    }  # fmt: skip
    table = table.assign(**{name: column.flatten().tolist() for name, column in columns.items()}, **read_too)
    table["contribution"] = contribution
    if influence:
        table["influence"] = influence_of(question, table["node"])
    windows = [window(model, layer) for layer in range(model.n_layers)]
    return pd.concat([table, pd.concat(sources, ignore_index=True), role_scores(acts, windows).iloc[:, 2:]], axis=1)


def _head_readings(
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


def _main_source(model: Model, acts: Activations, layer: int, t: int) -> pd.DataFrame:
    """For each head of a layer the source whose memory value moves most."""
    pattern = needed(acts, "pattern")[layer, :, t, : t + 1].to(model.wide)
    moved = pattern * value_norms(model, acts, layer, t)
    best = moved.argmax(-1)
    places = best.tolist()
    tokens = spelled_tokens(model.tokenizer, acts.token_ids, acts.tokens)
    share = moved / moved.sum(-1, keepdim=True).clamp_min(1e-30)
    return pd.DataFrame(
        {
            "source_pos": places,
            "source_token": [tokens[i] for i in places],
            "source_pattern": pattern.gather(1, best[:, None])[:, 0].tolist(),
            "source_share": share.gather(1, best[:, None])[:, 0].tolist(),
        }
    )
