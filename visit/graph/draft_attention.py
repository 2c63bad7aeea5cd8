"""The attention part of a block, drafted: queries, keys, memory values, heads, and the rows of W_O."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from visit.exact.circuits import key_readings, query_readings
from visit.exact.decompose import head_results, memory_values, needed, value_norms, value_parts, written
from visit.graph.draft import Draft, add_bias, add_rest
from visit.graph.prune import select, share
from visit.models.attention import first_visible, kv_heads


def add_attention(draft: Draft, layer: int) -> None:
    """Heads with their queries, keys and memory values, what is left out, and their sum."""
    model, at, t = draft.model, f"L{layer}", draft.pos
    results = head_results(model, draft.acts, layer, t)
    first = first_visible(model, layer, t)  # in a windowed layer nothing before it is a memory value of this position
    norms = value_norms(model, draft.acts, layer, t)[:, first:]
    pattern = needed(draft.acts, "pattern")[layer, :, t, first : t + 1].to(model.wide)
    moved = draft.frozen.of(results)
    size = moved.abs() if draft.keep.by == "contribution" else results.norm(dim=-1)
    heads = select(size, moved, draft.keep.heads, *draft.pins(layer, "head"))
    draft.shares[f"{at}.attn_out"] = share(size, heads)
    sizes = pattern if draft.keep.by == "pattern" else pattern * norms
    value_moved = pattern * value_parts(model, draft.acts, layer, t, draft.frozen.direction[:, None])[:, first:, 0]
    sizes = value_moved.abs() if draft.keep.by == "contribution" else sizes
    shown = {j: _select_values(draft, layer, j, sizes[j], value_moved[j], first) for j in heads}  # counted from `first`
    most = torch.tensor(
        [_most_attended(pattern[j], shown.get(j, [])) for j in range(model.n_heads)], device=model.device
    )
    queries = query_readings(model, draft.acts, layer, t, most + first)
    sources = _padded(draft, shown) + first
    keys = key_readings(model, draft.acts, layer, t, sources)
    values = memory_values(model, draft.acts, layer, sources, t)
    for j in heads:
        draft.shares[f"{at}.head{j}"] = share(sizes[j], shown[j])
        seen = int(most[j]) + first if model.family.rotary else None
        _head(draft, layer, j, results[j], queries[j], seen, pattern[j], values[j], keys[j], shown[j], first)
    attn_out = draft.state("attn_out", layer)
    rows, bias = written(model, draft.acts, layer, "attn", t)
    added = results.sum(0) if bias is None else results.sum(0) + bias
    draft.check(added, attn_out)
    kept = needed(draft.acts, "v")[layer, first : t + 1].to(model.wide)[:, kv_heads(model)]
    draft.check(torch.einsum("hi,ihe->he", pattern, kept), draft.state("z", layer))
    if len(heads) < model.n_heads:
        left = attn_out - results[heads].sum(0) - (0 if bias is None else bias)
        add_rest(draft, f"{at}.heads.rest", f"{at}.attn_out", left, 1 - draft.shares[f"{at}.attn_out"], layer)
    _attn_neurons(draft, layer, set(heads), rows)
    if bias is not None:
        add_bias(draft, f"{at}.attn_bias", f"{at}.attn_out", bias, layer)
    draft.node(f"{at}.attn_out", "attn_out", attn_out, adds=True, layer=layer)


def add_largest_heads(draft: Draft, layer: int, entering: str, count: int = 2) -> None:
    """The heads that a folded block shows, and the rest of them; what they read is one line from the stream.

    They are the longest of those that an open block would show, and the pinned ones.
    """
    model, at, t = draft.model, f"L{layer}", draft.pos
    results = head_results(model, draft.acts, layer, t)
    norms, moved = results.norm(dim=-1), draft.frozen.of(results)
    shown, hidden = draft.pins(layer, "head")
    size = moved.abs() if draft.keep.by == "contribution" else norms
    kept = select(size, moved, draft.keep.heads, shown, hidden)
    longest = sorted(kept, key=lambda j: (-float(norms[j]), j))[:count]
    heads = [j for j in kept if j in longest or j in shown]
    attn_out = draft.state("attn_out", layer)
    bias = written(model, draft.acts, layer, "attn", t)[1]
    draft.check(results.sum(0) if bias is None else results.sum(0) + bias, attn_out)
    for j in heads:
        draft.node(f"{at}.head{j}", "head", results[j], adds=True, layer=layer, head=j)
        draft.edge(entering, f"{at}.head{j}", "multiply")
        draft.edge(f"{at}.head{j}", f"{at}.attn_out", "add", carries=f"{at}.head{j}")
    if len(heads) < model.n_heads or bias is not None:
        left, name = attn_out - results[heads].sum(0), f"{at}.heads.rest"
        add_rest(draft, name, f"{at}.attn_out", left, 1 - share(size, heads), layer)
    if len(heads) < model.n_heads:
        draft.edge(entering, f"{at}.attn_out", "multiply")
    draft.node(f"{at}.attn_out", "attn_out", attn_out, adds=True, layer=layer)


def _select_values(draft: Draft, layer: int, j: int, sizes: Tensor, moved: Tensor, first: int) -> list[int]:
    shown, hidden = ({i - first for i in pins if i >= first} for pins in draft.pins(layer, "value", j))
    return select(sizes, moved, draft.keep.values, shown, hidden)


def _most_attended(pattern: Tensor, shown: list[int]) -> int:
    return max(shown, key=lambda i: float(pattern[i])) if shown else int(pattern.argmax())


def _padded(draft: Draft, shown: dict[int, list[int]]) -> Tensor:
    """The shown sources of every head `[head, most]`, short lists filled up with position 0."""
    table = torch.zeros(draft.model.n_heads, max(map(len, shown.values()), default=0), dtype=torch.long)
    for j, sources in shown.items():
        table[j, : len(sources)] = torch.tensor(sources, dtype=torch.long)
    return table.to(draft.model.device)


def _head(
    draft: Draft, layer: int, j: int, result: Tensor, query: Tensor, seen: int | None,
    pattern: Tensor, values: Tensor, keys: Tensor, shown: list[int], first: int,
) -> None:  # fmt: skip
    """`pattern` and `shown` count from the `first` visible position."""
    at, head = f"L{layer}", f"L{layer}.head{j}"
    where = {"layer": layer, "head": j}
    draft.node(f"{head}.query", "query", query, adds=False, source_pos=seen, **where)
    draft.edge(draft.reads["attn"], f"{head}.query", "multiply", weight=float(query.norm()))
    for key, value, place in zip(keys, values, shown, strict=False):  # padded: the lists of other heads may be longer
        weight, i = float(pattern[place]), place + first
        draft.node(f"{head}.key{i}", "key", key, adds=False, source_pos=i, **where)
        draft.node(f"{head}.value{i}", "value", value, adds=True, coefficient=weight, source_pos=i, **where)
        draft.edge(f"{head}.query", f"{head}.key{i}", "multiply", coefficient=weight, weight=weight)
        carried = f"{head}.value{i}"
        draft.edge(f"{head}.key{i}", carried, "multiply", carries=carried, coefficient=weight, weight=weight)
        draft.edge(f"{head}.value{i}", head, "add", carries=f"{head}.value{i}", coefficient=weight)
    if len(shown) < len(pattern):
        left = result - pattern[shown] @ values[: len(shown)]
        add_rest(draft, f"{head}.rest", head, left, 1 - draft.shares[head], **where)
    draft.node(head, "head", result, adds=True, **where)
    draft.edge(head, f"{at}.attn_out", "add", carries=head)


def _attn_neurons(draft: Draft, layer: int, heads: set[int], rows: Tensor) -> None:
    """Rows of W_O: a second reading of the heads, not further terms of the sum."""
    model, at = draft.model, f"L{layer}"
    z = draft.state("z", layer).flatten()
    moved = z * draft.frozen.of(rows)
    size = moved.abs() if draft.keep.by == "contribution" else z.abs() * model.o_row_norms[layer]
    sign = moved if draft.keep.by == "contribution" else z
    shown = select(size, sign, draft.keep.attn_neurons, *draft.pins(layer, "attn_neuron"))
    draft.shares[f"{at}.attn_neurons"] = share(size, shown)
    for n, coefficient in zip(shown, z[shown].tolist(), strict=True):
        name, head = f"{at}.attn_neuron{n}", n // model.d_head
        source = f"{at}.head{head}" if head in heads else f"{at}.heads.rest"
        vector = rows[n] * math.copysign(1.0, coefficient)
        draft.node(name, "attn_neuron", vector, adds=True, coefficient=coefficient, layer=layer, head=head, neuron=n)
        draft.edge(source, name, "multiply", carries=name, coefficient=coefficient)
        draft.edge(name, f"{at}.attn_out", "multiply", carries=name, coefficient=coefficient)
