"""The attention memory: what one head recalls from every past position, and what one token is remembered as.

A head's output is a sum of memory values, `Σ_i pattern[t, i] · v_i W_O`. Each is read with the lens, next to the key
it was found by and the query that looked for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.record import Activations
from visit.analyses.heads import places
from visit.errors import VisitError
from visit.exact.circuits import as_seen, through_norm
from visit.exact.decompose import Attribution, head_results, memory_values, needed, post_scale
from visit.exact.gradients import gradients_of
from visit.exact.ledger import tolerance
from visit.exact.question import ask, check_head, counted, kv_head, visible_sources
from visit.lenses.logit import Readings, columns_of, lens_logits, read, top_of
from visit.lenses.similarity import shared
from visit.models.attention import vector_norm
from visit.models.model import Model
from visit.models.tokens import spelled_tokens
from visit.text.notebooks import drawn_table


# ---- the vectors of one head at one position, and what they read, in one pass over the -------------------------------
def head_terms(model: Model, acts: Activations, layer: int, head: int, t: int) -> tuple[Tensor, Tensor, Tensor]:
    """One head at `t`: its memory values `[source, d_model]`, its pattern `[source]`, its output `[d_model]`."""
    weights = model.W_O(layer)[head] * post_scale(model, acts, layer, "attn", t)
    values = needed(acts, "v")[layer, : t + 1, kv_head(model, head)].to(model.wide) @ weights
    pattern = needed(acts, "pattern")[layer, head, t, : t + 1].to(model.wide)
    return values, pattern, needed(acts, "z")[layer, t, head].to(model.wide) @ weights


def query_key_readings(
    model: Model, acts: Activations, layer: int, head: int, pos: int, sources: list[int]
) -> dict[str, Float[Tensor, "source d_model"]]:
    """One head's keys as `pos` sees them and its queries as each source sees them, in the residual space.

    `(R_t^T R_i k_i) @ W_Q^T` and `(R_i^T R_t q) @ W_K^T` (method section 4), past the norm of the other side where
    there is one, each also with the gain of ln1 folded in (a family without ln1 has none to fold: left out).
    Without rotation every source sees the same query: a single row. For many sources of one head, where
    `visit.exact.circuits` has few sources of all heads.
    """
    group = kv_head(model, head)
    q = needed(acts, "q")[layer, pos, head][None].to(model.wide)
    k = needed(acts, "k")[layer, sources, group].to(model.wide)
    if model.family.rotary:
        at = torch.tensor(sources, dtype=torch.long, device=q.device)
        k = as_seen(model, acts, layer, k, at, pos)
        q = as_seen(model, acts, layer, q.expand(len(sources), -1), torch.full_like(at, pos), at)
    k = through_norm(vector_norm(model, "q", layer), k[None], torch.tensor([head]))[0]
    q = through_norm(vector_norm(model, "k", layer), q[None], torch.tensor([group]))[0]
    found = {"key_": k @ model.W_Q(layer)[head].T, "query_": q @ model.W_K(layer)[group].T}
    norm = model.block_norm("ln1", layer)
    if norm is None:
        return found
    return found | {f"{name}gain_": vectors * model.gain(norm) for name, vectors in found.items()}


def read_blocks(model: Model, blocks: dict[str, Tensor], asked: Tensor, k: int) -> dict[str, list[Any]]:
    """All vectors in one pass over the vocabulary, then apart again. `asked`: `[source, 2]`, words for the values."""
    vectors = torch.cat(list(blocks.values()))
    words = asked.new_zeros(len(vectors), 2)
    words[: len(asked)] = asked  # the memory values come first; of the other vectors no rank is asked
    found = read(model, vectors, words, k)
    columns: dict[str, list[Any]] = {}
    start = 0
    for name, block in blocks.items():
        part = Readings(**{f.name: getattr(found, f.name)[start : start + len(block)] for f in fields(found)})
        start += len(block)
        if not name:
            columns |= value_columns(model, part)
            continue
        both = columns_of(model, part)
        times = len(asked) if len(block) == 1 else 1  # the query that all sources see
        columns |= {f"{name}tokens": both["tokens"] * times, f"{name}probs": both["probs"] * times}
    return columns


def value_columns(model: Model, found: Readings) -> dict[str, list[Any]]:
    """What memory values read; of each two words were asked, the target and its own source token."""
    assert found.prob is not None and found.rank is not None
    columns = columns_of(model, found)
    return {
        **{name: columns[name] for name in ("tokens", "probs", "entropy")},
        "prob": found.prob[:, 0].tolist(), "rank": found.rank[:, 0].tolist(),
        "source_prob": found.prob[:, 1].tolist(), "source_rank": found.rank[:, 1].tolist(),
    }  # fmt: skip


_READ = [f"{name}{part}" for name in ("key_", "key_gain_", "query_", "query_gain_") for part in ("tokens", "probs")]
_SOURCE_COLUMNS = [
    "source_pos", "source_token", "is_sink", "pattern", "value_norm", "moved", "share", "contribution",
    "tokens", "probs", "entropy", "prob", "rank", "source_prob", "source_rank", "negated_tokens", "negated_probs",
    *_READ,
]  # fmt: skip


def head_memory(
    model: Model,
    acts: Activations,
    layer: int,
    head: int,
    pos: int = -1,
    target: int | str | None = None,
    distractor: int | str | None = None,
    k: int = 10,
    sources: Iterable[int] | None = None,
    influence: bool = False,
) -> pd.DataFrame:
    """What one head at one position recalls: a row per past position, and a last row for what their sum misses.

    Columns: `source_pos` (missing in the last row), `source_token`, `is_sink` (the first position), `pattern`,
    `value_norm` (‖v_i W_O‖), `moved` (pattern · value_norm), `share` (of Σ moved), `contribution` (logits, of
    pattern · value). What the memory value reads: `tokens`, `probs` (top k), `entropy` (bits), `prob` and `rank` of the
    target (None: the prediction at `pos`), `source_prob` and `source_rank` of the source token; `negated_tokens`,
    `negated_probs` of −value where the whole head pushes the target away, else missing. The key as `pos` sees it and
    the query as the source sees it: `key_tokens`, `key_probs`, `query_tokens`, `query_probs`, which pair with
    `ln1_out`; with the gain of ln1 folded in (`key_gain_…`, `query_gain_…`) they pair with the stream.
    Last row: the head's output minus the sum of the rows: `moved` is its length, `share` that length over the head's;
    with its `contribution` the column adds up to the head's.
    In a layer with a window the positions outside it have pattern 0 and add nothing.
    `sources`: positions whose words are read (None = all). The others keep their numbers, so that sums hold.
    `influence`: a last column of it (logits to first order; one more run), which adds up to the head's, too.
    Raises `VisitError` for a wrong layer, head, position, k or word. Source: paper sections 3.3, D.2, D.3; sums ours.
    """
    question = ask(model, acts, pos, target, distractor)
    t, frozen = question.pos, question.attribution
    check_head(model, layer, head)
    shown, k = visible_sources(acts, t, sources), counted(model, k)
    with torch.no_grad():
        values, pattern, result = head_terms(model, acts, layer, head, t)
        table = _sum_of_rows(
            spelled_tokens(model.tokenizer, acts.token_ids, acts.tokens), values, pattern, result, frozen
        )
        blocks = {"": values[shown]}
        if float(frozen.of(result)) < 0:
            blocks["negated_"] = -values[shown]
        blocks |= query_key_readings(model, acts, layer, head, t, shown)
        asked = torch.tensor([[question.target, acts.token_ids[i]] for i in shown], device=model.device)
        columns = read_blocks(model, blocks, asked, k) if shown else {}
    for name in _SOURCE_COLUMNS[table.shape[1] :]:
        found = dict(zip(shown, columns.get(name, []), strict=False))
        table[name] = pd.Series([found.get(i) for i in range(len(table))], dtype=_column_type(name))
    if influence:
        along = gradients_of(question).into("attn_out", layer)
        table["influence"] = [*(pattern * (values @ along)).tolist(), float((result - pattern @ values) @ along)]
    return drawn_table(table, "head_memory", {**question.meta, "layer": layer, "head": head})


def head_summary(
    model: Model,
    acts: Activations,
    layer: int,
    head: int,
    pos: int = -1,
    target: int | str | None = None,
    distractor: int | str | None = None,
    k: int = 10,
) -> dict[str, Any]:
    """What one head writes at one position, as a whole: the totals of `head_memory`.

    Keys: `node` (id in the flow graph), `layer`, `head`, `pos`, `target`, `distractor` (`{"id", "token"}` or None),
    `norm`, `share` (of Σ norms of the layer's heads), `contribution` (logits), `tokens`, `probs` (top k), `entropy`
    (bits), `prob` and `rank` of the target; `negated_tokens`, `negated_probs` of −head where it pushes the target away,
    else None; `miss` = ‖head − Σ pattern · value‖, `relative_miss` (over `norm`). Raises `VisitError` as `head_memory`.
    """
    question = ask(model, acts, pos, target, distractor)
    t = question.pos
    check_head(model, layer, head)
    with torch.no_grad():
        values, pattern, result = head_terms(model, acts, layer, head, t)
        norms = head_results(model, acts, layer, t).norm(dim=-1)
        miss = float((result - pattern @ values).norm())
        both = columns_of(model, read(model, torch.stack([result, -result]), question.target, counted(model, k)))
        contribution = float(question.attribution.of(result))
    norm = float(result.norm())
    away = contribution < 0
    return {
        "node": f"L{layer}.head{head}", "layer": int(layer), "head": int(head), "pos": t,
        **{name: question.meta[name] for name in ("target", "distractor")},
        "norm": norm, "share": float(norms[head] / norms.sum().clamp_min(1e-30)), "contribution": contribution,
        **{name: both[name][0] for name in ("tokens", "probs", "entropy", "prob", "rank")},
        "negated_tokens": both["tokens"][1] if away else None, "negated_probs": both["probs"][1] if away else None,
        "miss": miss, "relative_miss": miss / max(norm, 1e-30),
    }  # fmt: skip


def head_meta(model: Model, summary: dict[str, Any]) -> dict[str, Any]:
    """What a head's tables say of themselves: `head` (the summary), and `ledger`: how exactly its rows add up to it."""
    error, allowed = summary["relative_miss"], tolerance(model, 2)
    return {"head": summary, "ledger": {"max_rel_error": error, "tolerance": allowed, "holds": error <= allowed}}


def value_life(
    model: Model, acts: Activations, source_pos: int, target: int | str | None = None, k: int = 5,
    pos: int | None = None,
) -> pd.DataFrame:  # fmt: skip
    """What one source token is remembered as: its memory value in every head of every layer, a row each.

    Columns: `layer`, `head`, `norm` (‖v_i W_O‖; before a post-norm as written at `pos`, or times its gain only),
    `tokens`, `probs` (top k), `entropy` (bits), `prob` and `rank` of the target (None: the prediction at the
    last position), `source_prob` and `source_rank` of the source token itself.
    Attention takes no part: who looks at the value is another question. `pos`: a position that sees the token; then
    `intersection_head`, too: I_50 of the value with what its head writes there. Raises `VisitError` for a wrong
    position, k or word. Source: paper App. D.2, Fig. 18 and, for I_50, Fig. 17, for one prompt.
    """
    i = acts.index(source_pos)
    t = None if pos is None else acts.index(pos)
    if t is not None and t < i:
        raise VisitError(f"Position {t} does not see the token at position {i}: a head looks back only.")
    wanted = ask(model, acts, -1, target).target
    table = places(model)
    with torch.no_grad():
        everywhere = torch.full((model.n_heads, 1), i, device=model.device)
        values = [memory_values(model, acts, layer, everywhere, t)[:, 0] for layer in range(model.n_layers)]
        asked = torch.tensor([wanted, acts.token_ids[i]], device=model.device).expand(len(table), -1)
        k, compared = counted(model, k), min(50, model.d_vocab)
        found = read(model, torch.cat(values), asked, k if t is None else max(k, compared))
        few = replace(found, top_ids=found.top_ids[:, :k], top_probs=found.top_probs[:, :k])
        table = table.assign(norm=found.norm.tolist(), **value_columns(model, few))
        if t is not None:
            heads = torch.cat([head_results(model, acts, layer, t) for layer in range(model.n_layers)])
            tops = torch.cat([top_of(logits, compared)[1] for _, logits in lens_logits(model, heads)])
            table["intersection_head"] = shared(found.top_ids[:, :compared], tops).tolist()
    return table


def _sum_of_rows(
    tokens: list[str], values: Tensor, pattern: Tensor, result: Tensor, frozen: Attribution
) -> pd.DataFrame:
    """The numbers of every source, and of what the sum of all misses."""
    missing = result - pattern @ values
    norms, n = values.norm(dim=-1), len(values)
    moved = pattern * norms
    miss = float(missing.norm())
    columns = {
        "source_pos": pd.array([*range(n), None], dtype="Int64"),
        "source_token": [*tokens[:n], None],
        "is_sink": [True] + [False] * n,
        "pattern": [*pattern.tolist(), math.nan],
        "value_norm": [*norms.tolist(), math.nan],
        "moved": [*moved.tolist(), miss],
        "share": [*(moved / moved.sum().clamp_min(1e-30)).tolist(), miss / max(float(result.norm()), 1e-30)],
        "contribution": [*(pattern * frozen.of(values)).tolist(), float(frozen.of(missing))],
    }
    return pd.DataFrame(columns)


def _column_type(name: str) -> str:
    if name in ("rank", "source_rank"):
        return "Int64"
    return "float64" if name in ("entropy", "prob", "source_prob") else "object"
