"""The nodes and edges of one block, drafted as rows and vectors; `visit.graph.build` projects them all at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from visit.exact.circuits import key_readings, query_readings
from visit.exact.decompose import head_results, memory_values, needed, value_norms, value_parts, written
from visit.graph.draft import Draft, add_bias, add_rest
from visit.graph.prune import select, share
from visit.lenses.logit import final_norm
from visit.models.attention import first_visible, kv_heads
from visit.text.numbers import percent


# ---- the attention part of a block, drafted --------------------------------------------------------------------------
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


# ---- the MLP part of a block, drafted --------------------------------------------------------------------------------
def add_mlp(draft: Draft, layer: int) -> None:
    """Neurons with what they read and write, what is left out, and their sum."""
    model, at = draft.model, f"L{layer}"
    a = draft.state("neurons", layer)
    weights, bias = written(model, draft.acts, layer, "mlp", draft.pos)
    moved = a * draft.frozen.of(weights)
    size = moved.abs() if draft.keep.by == "contribution" else a.abs() * model.out_row_norms[layer]
    sign = moved if draft.keep.by == "contribution" else a
    shown = select(size, sign, draft.keep.mlp_neurons, *draft.pins(layer, "mlp_value"))
    draft.shares[f"{at}.mlp_out"] = share(size, shown)
    _neurons(draft, layer, shown, a, weights)
    mlp_out = draft.state("mlp_out", layer)
    added = a @ weights if bias is None else a @ weights + bias
    draft.check(added, mlp_out)
    if len(shown) < model.d_mlp:
        left = mlp_out - a[shown] @ weights[shown] - (0 if bias is None else bias)
        add_rest(draft, f"{at}.mlp.rest", f"{at}.mlp_out", left, 1 - draft.shares[f"{at}.mlp_out"], layer)
    if bias is not None:
        add_bias(draft, f"{at}.mlp_bias", f"{at}.mlp_out", bias, layer)
    draft.node(f"{at}.mlp_out", "mlp_out", mlp_out, adds=True, layer=layer)


def _neurons(draft: Draft, layer: int, shown: list[int], a: Tensor, weights: Tensor) -> None:
    at = f"L{layer}"
    reads = _reading_directions(draft, layer, shown)
    writes = weights[shown]
    for place, (n, coefficient) in enumerate(zip(shown, a[shown].tolist(), strict=True)):
        where = {"layer": layer, "neuron": n}
        write = f"{at}.mlp_value{n}"
        for suffix, columns, before in reads:
            name, pre = f"{at}.mlp_key{n}{suffix}", before[place]
            draft.node(name, "mlp_key", columns[place], adds=False, coefficient=pre, **where)
            draft.edge(draft.reads["mlp"], name, "multiply", coefficient=pre, weight=abs(pre))
            draft.edge(name, write, "multiply", carries=write, coefficient=coefficient)
        vector = writes[place] * math.copysign(1.0, coefficient)
        draft.node(write, "mlp_value", vector, adds=True, coefficient=coefficient, **where)
        draft.edge(write, f"{at}.mlp_out", "add", carries=write, coefficient=coefficient)


def _reading_directions(draft: Draft, layer: int, shown: list[int]) -> list[tuple[str, Tensor, list[float]]]:
    """(id suffix, columns `[shown, d_model]`, pre-activations): one of a plain MLP, gate and up of a gated one."""
    model, family = draft.model, draft.model.family
    state = draft.state("ln2_out", layer)
    paths = [("", family.w_in)] if family.w_gate is None else [(".gate", family.w_gate), (".up", family.w_in)]
    found = []
    for suffix, path in paths:
        columns, bias = model.weight(path, layer)[:, shown].T, model.bias(path, layer)
        before = columns @ state if bias is None else columns @ state + bias[shown]
        found.append((suffix, columns, before.tolist()))
    return found


def add_gap(draft: Draft, before: int | None, layer: int) -> None:
    """The state that enters a block which does not follow the one before, and what the blocks between added."""
    here = f"L{layer}.resid_pre"
    entering = draft.state("resid_pre", layer)
    draft.node(here, "resid_pre", entering, adds=True, layer=layer)
    if before is None:
        return
    first, last = before + 1, layer - 1
    name = f"L{first}.rest" if first == last else f"L{first}-{last}.rest"
    words = f"layer {first}" if first == last else f"layers {first}–{last}"
    carried = draft.state("resid_post", before)
    vectors = torch.stack([carried, entering - carried])
    size = draft.frozen.of(vectors).abs() if draft.keep.by == "contribution" else vectors.norm(dim=-1)
    draft.shares[here] = share(size, [0])
    draft.node(name, "rest", vectors[1], adds=True, label=f"{words}: {percent(1 - draft.shares[here], narrow=True)}")
    draft.edge(f"L{before}.resid_post", here, "residual", carries=f"L{before}.resid_post")
    draft.edge(name, here, "add", carries=name)


def add_block(draft: Draft, layer: int) -> None:
    """All nodes and edges of one block, in the order in which the data flows."""
    at, family = f"L{layer}", draft.model.family
    follows = draft.last_layer is not None and draft.last_layer == layer - 1
    entering = f"L{layer - 1}.resid_post" if follows else f"{at}.resid_pre"
    draft.reads["attn"] = _add_norm(draft, "ln1", entering, layer)
    add_attention(draft, layer)
    middle = entering if family.parallel else _add_state(draft, "resid_mid", layer, entering, ("attn_out",))
    draft.reads["mlp"] = draft.reads["attn"] if family.shared_norm else _add_norm(draft, "ln2", middle, layer)
    add_mlp(draft, layer)
    added = ("attn_out", "mlp_out") if family.parallel else ("mlp_out",)
    _add_state(draft, "resid_post", layer, middle, added)
    draft.last_layer = layer


def add_folded(draft: Draft, layer: int) -> None:
    """A block as its folded drawing shows it: states, what its parts add, the largest heads, the rest of the heads."""
    at, family = f"L{layer}", draft.model.family
    follows = draft.last_layer is not None and draft.last_layer == layer - 1
    entering = f"L{layer - 1}.resid_post" if follows else f"{at}.resid_pre"
    add_largest_heads(draft, layer, entering)
    middle = entering if family.parallel else _add_state(draft, "resid_mid", layer, entering, ("attn_out",))
    draft.node(f"{at}.mlp_out", "mlp_out", draft.state("mlp_out", layer), adds=True, layer=layer)
    draft.edge(middle, f"{at}.mlp_out", "multiply")
    _add_state(draft, "resid_post", layer, middle, ("attn_out", "mlp_out") if family.parallel else ("mlp_out",))
    draft.last_layer = layer


def _add_norm(draft: Draft, norm: str, state: str, layer: int) -> str:
    """The output of a block's norm, and its id; the stream itself where the family has no such norm."""
    if getattr(draft.model.family, norm) is None:
        return state
    name = f"L{layer}.{norm}_out"
    draft.node(name, f"{norm}_out", draft.state(f"{norm}_out", layer), adds=False, layer=layer)
    draft.edge(state, name, "norm", carries=state)
    return name


def _add_state(draft: Draft, state: str, layer: int, before: str, added: tuple[str, ...]) -> str:
    """A state of the stream: the one before it and what sub-layers add to it."""
    name = f"L{layer}.{state}"
    vector = draft.state(state, layer)
    draft.node(name, state, vector, adds=True, layer=layer)
    for part in added:
        draft.edge(f"L{layer}.{part}", name, "add", carries=f"L{layer}.{part}")
    draft.edge(before, name, "residual", carries=before)
    carried = draft.state("resid_mid" if before == f"L{layer}.resid_mid" else "resid_pre", layer)
    draft.check(sum((draft.state(part, layer) for part in added), start=carried), vector)
    return name


def add_predictions(draft: Draft) -> None:
    """After the last block: the final norm and the logits. Both read as the model's own prediction."""
    last = f"L{draft.model.n_layers - 1}.resid_post"
    normed = final_norm(draft.model, draft.state("resid_post", draft.model.n_layers - 1)[None])[0]
    draft.node("ln_final", "ln_final", normed, adds=False)
    draft.edge(last, "ln_final", "norm", carries=last)
    draft.node("logits", "logits", normed, adds=False)
    draft.edge("ln_final", "logits", "multiply")
