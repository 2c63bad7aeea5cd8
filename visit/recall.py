"""The vectors of one head at one position, and what they read, in one pass over the vocabulary."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visit.aim import kv_head
from visit.decompose import needed, rotate
from visit.forward import Activations
from visit.lens import Readings, columns_of, read
from visit.model import Model


def terms(model: Model, acts: Activations, layer: int, head: int, t: int) -> tuple[Tensor, Tensor, Tensor]:
    """One head at `t`: its memory values `[source, d_model]`, its pattern `[source]`, its output `[d_model]`."""
    weights = model.W_O(layer)[head]
    values = needed(acts, "v")[layer, : t + 1, kv_head(model, head)].to(model.wide) @ weights
    pattern = needed(acts, "pattern")[layer, head, t, : t + 1].to(model.wide)
    return values, pattern, needed(acts, "z")[layer, t, head].to(model.wide) @ weights


def query_key_readings(
    model: Model, acts: Activations, layer: int, head: int, pos: int, sources: list[int]
) -> dict[str, Float[Tensor, "source d_model"]]:
    """One head's keys as `pos` sees them and its queries as each source sees them, in the residual space.

    `(R_t^T R_i k_i) @ W_Q^T` and `(R_i^T R_t q) @ W_K^T` (method section 4), each also with the gain of ln1 folded in.
    Without rotation every source sees the same query: a single row. For many sources of one head, where
    `visit.decompose` has few sources of all heads.
    """
    q = needed(acts, "q")[layer, pos, head][None].to(model.wide)
    k = needed(acts, "k")[layer, sources, kv_head(model, head)].to(model.wide)
    if model.family.rotary:
        cos, sin = needed(acts, "rotary").to(model.wide)
        k = rotate(rotate(k, cos[sources], sin[sources]), cos[pos], sin[pos], back=True)
        q = rotate(q, cos[pos], sin[pos]).expand(len(sources), -1)
        q = rotate(q, cos[sources], sin[sources], back=True)
    keys, queries = k @ model.W_Q(layer)[head].T, q @ model.W_K(layer)[kv_head(model, head)].T
    gain = model.module(model.family.ln1, layer).weight.detach().to(model.wide)
    return {"key_": keys, "key_gain_": keys * gain, "query_": queries, "query_gain_": queries * gain}


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
