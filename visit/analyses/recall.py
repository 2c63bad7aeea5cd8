"""The vectors of one head at one position, and what they read, in one pass over the vocabulary."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.forward import Activations
from visit.exact.circuits import as_seen, through_norm
from visit.exact.decompose import needed, post_scale
from visit.exact.question import kv_head
from visit.lenses.logit import Readings, columns_of, read
from visit.models.attention import vector_norm
from visit.models.model import Model


def terms(model: Model, acts: Activations, layer: int, head: int, t: int) -> tuple[Tensor, Tensor, Tensor]:
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
        part = _rows(found, start, start + len(block))
        start += len(block)
        if not name:
            columns |= value_columns(model, part)
            continue
        both = columns_of(model, part)
        times = len(asked) if len(block) == 1 else 1  # the query that all sources see
        columns |= {f"{name}tokens": both["tokens"] * times, f"{name}probs": both["probs"] * times}
    return columns


def _rows(found: Readings, first: int, end: int) -> Readings:
    parts: dict[str, Any] = {f.name: getattr(found, f.name)[first:end] for f in fields(found)}
    return Readings(**parts)


def value_columns(model: Model, found: Readings) -> dict[str, list[Any]]:
    """What memory values read; of each two words were asked, the target and its own source token."""
    assert found.prob is not None and found.rank is not None
    columns = columns_of(model, found)
    return {
        **{name: columns[name] for name in ("tokens", "probs", "entropy")},
        "prob": found.prob[:, 0].tolist(), "rank": found.rank[:, 0].tolist(),
        "source_prob": found.prob[:, 1].tolist(), "source_rank": found.rank[:, 1].tolist(),
    }  # fmt: skip
