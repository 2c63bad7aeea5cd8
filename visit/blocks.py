"""The nodes and edges of one block, drafted as rows and vectors; `visit.graph` projects them all at once."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from visit.decompose import (
    Attribution,
    head_results,
    key_readings,
    memory_values,
    needed,
    query_readings,
    value_norms,
    value_parts,
)
from visit.errors import VisitError
from visit.forward import Activations
from visit.keep import Keep, select, share
from visit.lens import final_norm
from visit.model import Model

MAX_NODES = 20_000
_ITEM = re.compile(
    r"(L\d+)\.(?:head(\d+)(?:\.(?:(?:value|key)(\d+)|query))?|(attn_neuron|mlp_value|mlp_key)(\d+)(?:\.gate|\.up)?)"
)
_ALWAYS = re.compile(
    r"L\d+(-\d+)?\.(resid_(pre|mid|post)|ln[12]_out|(attn|mlp)_(out|bias)|((heads|mlp|head\d+)\.)?rest)|ln_final|logits"
)


@dataclass
class Draft:
    """A graph in the making. `rows` and `vectors` run in step.

    A row's `amount` is the |coefficient| with which its vector enters a sum of the stream; NaN: it enters none.
    """

    model: Model
    acts: Activations
    pos: int
    frozen: Attribution
    keep: Keep
    rows: list[dict[str, Any]] = field(default_factory=list)
    vectors: list[Tensor] = field(default_factory=list)
    edges: list[tuple[str, str, str, str | None, float | None, float | None]] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    errors: list[Tensor] = field(default_factory=list)
    last_layer: int | None = None

    def state(self, name: str, layer: int) -> Tensor:
        """A captured vector `[d_model]` at the graph's position."""
        return needed(self.acts, name)[layer, self.pos].to(self.model.wide)

    def node(
        self, id: str, kind: str, vector: Tensor, *, adds: bool, coefficient: float = math.nan, **columns: Any
    ) -> None:
        """One node. `adds`: its vector times |coefficient| takes part in a sum of the stream."""
        amount = (1.0 if math.isnan(coefficient) else abs(coefficient)) if adds else math.nan
        row = {"id": id, "kind": kind, "layer": None, "head": None, "source_pos": None, "neuron": None, "label": None}
        if len(self.rows) >= MAX_NODES:
            raise VisitError(
                f"This graph has more than {MAX_NODES:,} nodes, which is all that can be drawn. "
                "Lower the amounts to keep (Keep.mlp_neurons above all), or show fewer layers."
            )
        self.rows.append(row | columns | {"coefficient": coefficient, "amount": amount})
        self.vectors.append(vector[None])

    def edge(
        self,
        source: str,
        target: str,
        kind: str,
        *,
        carries: str | None = None,
        coefficient: float | None = None,
        weight: float | None = None,
    ) -> None:
        """One edge. `carries`: the node whose vector (times its coefficient) travels on it."""
        self.edges.append((source, target, kind, carries, coefficient, weight))

    def pins(self, layer: int, kind: str, head: int | None = None) -> tuple[set[int], set[int]]:
        """Numbers pinned and hidden among the terms of one sum: kind "head", "value", "attn_neuron" or "mlp_value"."""
        shown: set[int] = set()
        hidden: set[int] = set()
        for pin in self.keep.pin:
            number = _pinned(pin, layer, kind, head)
            if number is not None:
                (hidden if pin.startswith("-") else shown).add(number)
        return shown, hidden

    def check(self, found: Tensor, true: Tensor) -> None:
        """Note how far a sum of all its terms is from what was captured."""
        self.errors.append((found - true).abs().max() / true.abs().max().clamp_min(1e-30))


def _pinned(pin: str, layer: int, kind: str, head: int | None) -> int | None:
    """The number that a pin names among the terms of `kind` in this layer, None if it names something else."""
    found = _ITEM.fullmatch(pin.removeprefix("-"))
    if not found or found[1] != f"L{layer}":
        return None
    if kind == "head":  # a pinned value shows its head, too; a hidden one does not hide it
        part = found[3] or pin.endswith(".query")
        return int(found[2]) if found[2] and not (pin.startswith("-") and part) else None
    if kind == "value":
        return int(found[3]) if found[3] and int(found[2]) == head else None
    return int(found[5]) if found[5] and found[4].replace("key", "value") == kind else None


def is_pin(model: Model, pin: str, layers: list[int], pos: int) -> bool:
    """Whether `pin` (with or without its `-`) can be kept: a head, memory value or neuron of the shown layers.

    States, norms, sums, biases and rests stand in every graph and may be named without effect.
    """
    if _ALWAYS.fullmatch(pin):
        return True
    found = _ITEM.fullmatch(pin.removeprefix("-"))
    if not found or int(found[1][1:]) not in layers:
        return False
    if found[2]:
        return int(found[2]) < model.n_heads and int(found[3] or 0) <= pos
    return int(found[5]) < (model.n_heads * model.d_head if found[4] == "attn_neuron" else model.d_mlp)


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
    draft.node(name, "rest", vectors[1], adds=True, label=f"{words}: {percent(1 - draft.shares[here])}")
    draft.edge(f"L{before}.resid_post", here, "residual", carries=f"L{before}.resid_post")
    draft.edge(name, here, "add", carries=name)


def add_block(draft: Draft, layer: int) -> None:
    """All nodes and edges of one sequential block, in the order in which the data flows."""
    at = f"L{layer}"
    follows = draft.last_layer is not None and draft.last_layer == layer - 1
    entering = f"L{layer - 1}.resid_post" if follows else f"{at}.resid_pre"
    draft.node(f"{at}.ln1_out", "ln1_out", draft.state("ln1_out", layer), adds=False, layer=layer)
    draft.edge(entering, f"{at}.ln1_out", "norm", carries=entering)
    _attention(draft, layer)
    draft.node(f"{at}.resid_mid", "resid_mid", draft.state("resid_mid", layer), adds=True, layer=layer)
    draft.edge(f"{at}.attn_out", f"{at}.resid_mid", "add", carries=f"{at}.attn_out")
    draft.edge(entering, f"{at}.resid_mid", "residual", carries=entering)
    draft.node(f"{at}.ln2_out", "ln2_out", draft.state("ln2_out", layer), adds=False, layer=layer)
    draft.edge(f"{at}.resid_mid", f"{at}.ln2_out", "norm", carries=f"{at}.resid_mid")
    _mlp(draft, layer)
    draft.node(f"{at}.resid_post", "resid_post", draft.state("resid_post", layer), adds=True, layer=layer)
    draft.edge(f"{at}.mlp_out", f"{at}.resid_post", "add", carries=f"{at}.mlp_out")
    draft.edge(f"{at}.resid_mid", f"{at}.resid_post", "residual", carries=f"{at}.resid_mid")
    draft.check(draft.state("resid_pre", layer) + draft.state("attn_out", layer), draft.state("resid_mid", layer))
    draft.check(draft.state("resid_mid", layer) + draft.state("mlp_out", layer), draft.state("resid_post", layer))
    draft.last_layer = layer


def add_predictions(draft: Draft) -> None:
    """After the last block: the final norm and the logits. Both read as the model's own prediction."""
    last = f"L{draft.model.n_layers - 1}.resid_post"
    normed = final_norm(draft.model, draft.state("resid_post", draft.model.n_layers - 1)[None])[0]
    draft.node("ln_final", "ln_final", normed, adds=False)
    draft.edge(last, "ln_final", "norm", carries=last)
    draft.node("logits", "logits", normed, adds=False)
    draft.edge("ln_final", "logits", "multiply")


# ---- attention ------------------------------------------------------------------------------------------------------


def _attention(draft: Draft, layer: int) -> None:
    model, at, t = draft.model, f"L{layer}", draft.pos
    results = head_results(model, draft.acts, layer, t)
    norms = value_norms(model, draft.acts, layer, t)
    pattern = needed(draft.acts, "pattern")[layer, :, t, : t + 1].to(model.wide)
    moved = draft.frozen.of(results)
    size = moved.abs() if draft.keep.by == "contribution" else results.norm(dim=-1)
    heads = select(size, moved, draft.keep.heads, *draft.pins(layer, "head"))
    draft.shares[f"{at}.attn_out"] = share(size, heads)
    sizes = pattern if draft.keep.by == "pattern" else pattern * norms
    value_moved = pattern * value_parts(model, draft.acts, layer, t, draft.frozen.direction[:, None])[..., 0]
    sizes = value_moved.abs() if draft.keep.by == "contribution" else sizes
    shown = {j: select(sizes[j], value_moved[j], draft.keep.values, *draft.pins(layer, "value", j)) for j in heads}
    most = torch.tensor(
        [_most_attended(pattern[j], shown.get(j, [])) for j in range(model.n_heads)], device=model.device
    )
    queries = query_readings(model, draft.acts, layer, t, most)
    sources = _padded(draft, shown)
    keys = key_readings(model, draft.acts, layer, t, sources)
    values = memory_values(model, draft.acts, layer, sources)
    for j in heads:
        draft.shares[f"{at}.head{j}"] = share(sizes[j], shown[j])
        seen = int(most[j]) if model.family.rotary else None
        _head(draft, layer, j, results[j], queries[j], seen, pattern[j], values[j], keys[j], shown[j])
    attn_out = draft.state("attn_out", layer)
    bias = model.b_O(layer)
    added = results.sum(0) if bias is None else results.sum(0) + bias
    draft.check(added, attn_out)
    kept = needed(draft.acts, "v")[layer, : t + 1].to(model.wide)
    per_head = kept.repeat_interleave(model.n_heads // model.n_kv_heads, dim=1)
    draft.check(torch.einsum("hi,ihe->he", pattern, per_head), draft.state("z", layer))
    if len(heads) < model.n_heads:
        left = attn_out - results[heads].sum(0) - (0 if bias is None else bias)
        _rest(draft, f"{at}.heads.rest", f"{at}.attn_out", left, 1 - draft.shares[f"{at}.attn_out"], layer)
    _attn_neurons(draft, layer, set(heads))
    if bias is not None:
        _bias(draft, f"{at}.attn_bias", f"{at}.attn_out", bias, layer)
    draft.node(f"{at}.attn_out", "attn_out", attn_out, adds=True, layer=layer)


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
    pattern: Tensor, values: Tensor, keys: Tensor, shown: list[int],
) -> None:  # fmt: skip
    at, head = f"L{layer}", f"L{layer}.head{j}"
    where = {"layer": layer, "head": j}
    draft.node(f"{head}.query", "query", query, adds=False, source_pos=seen, **where)
    draft.edge(f"{at}.ln1_out", f"{head}.query", "multiply", weight=float(query.norm()))
    for key, value, i in zip(keys, values, shown, strict=False):  # padded: the lists of other heads may be longer
        weight = float(pattern[i])
        draft.node(f"{head}.key{i}", "key", key, adds=False, source_pos=i, **where)
        draft.node(f"{head}.value{i}", "value", value, adds=True, coefficient=weight, source_pos=i, **where)
        draft.edge(f"{head}.query", f"{head}.key{i}", "multiply", coefficient=weight, weight=weight)
        carried = f"{head}.value{i}"
        draft.edge(f"{head}.key{i}", carried, "multiply", carries=carried, coefficient=weight, weight=weight)
        draft.edge(f"{head}.value{i}", head, "add", carries=f"{head}.value{i}", coefficient=weight)
    if len(shown) < len(pattern):
        left = result - pattern[shown] @ values[: len(shown)]
        _rest(draft, f"{head}.rest", head, left, 1 - draft.shares[head], **where)
    draft.node(head, "head", result, adds=True, **where)
    draft.edge(head, f"{at}.attn_out", "add", carries=head)


def _attn_neurons(draft: Draft, layer: int, heads: set[int]) -> None:
    """Rows of W_O: a second reading of the heads, not further terms of the sum."""
    model, at = draft.model, f"L{layer}"
    z = draft.state("z", layer).flatten()
    rows = model.W_O(layer).flatten(0, 1)
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


# ---- MLP ------------------------------------------------------------------------------------------------------------


def _mlp(draft: Draft, layer: int) -> None:
    model, at = draft.model, f"L{layer}"
    a = draft.state("neurons", layer)
    weights, bias = model.W_out(layer), model.b_out(layer)
    moved = a * draft.frozen.of(weights)
    size = moved.abs() if draft.keep.by == "contribution" else a.abs() * model.out_row_norms[layer]
    sign = moved if draft.keep.by == "contribution" else a
    shown = select(size, sign, draft.keep.mlp_neurons, *draft.pins(layer, "mlp_value"))
    draft.shares[f"{at}.mlp_out"] = share(size, shown)
    _neurons(draft, layer, shown, a)
    mlp_out = draft.state("mlp_out", layer)
    added = a @ weights if bias is None else a @ weights + bias
    draft.check(added, mlp_out)
    if len(shown) < model.d_mlp:
        left = mlp_out - a[shown] @ weights[shown] - (0 if bias is None else bias)
        _rest(draft, f"{at}.mlp.rest", f"{at}.mlp_out", left, 1 - draft.shares[f"{at}.mlp_out"], layer)
    if bias is not None:
        _bias(draft, f"{at}.mlp_bias", f"{at}.mlp_out", bias, layer)
    draft.node(f"{at}.mlp_out", "mlp_out", mlp_out, adds=True, layer=layer)


def _neurons(draft: Draft, layer: int, shown: list[int], a: Tensor) -> None:
    model, at = draft.model, f"L{layer}"
    reads = _reading_directions(draft, layer, shown)
    writes = model.W_out(layer)[shown]
    for place, (n, coefficient) in enumerate(zip(shown, a[shown].tolist(), strict=True)):
        where = {"layer": layer, "neuron": n}
        write = f"{at}.mlp_value{n}"
        for suffix, columns, before in reads:
            name, pre = f"{at}.mlp_key{n}{suffix}", before[place]
            draft.node(name, "mlp_key", columns[place], adds=False, coefficient=pre, **where)
            draft.edge(f"{at}.ln2_out", name, "multiply", coefficient=pre, weight=abs(pre))
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


# ---- what every sum may have ----------------------------------------------------------------------------------------


def _rest(
    draft: Draft, name: str, total: str, vector: Tensor, left: float, layer: int, head: int | None = None
) -> None:
    draft.node(name, "rest", vector, adds=True, layer=layer, head=head, label=f"rest {percent(left)}")
    draft.edge(name, total, "add", carries=name)


def _bias(draft: Draft, name: str, total: str, vector: Tensor, layer: int) -> None:
    draft.node(name, name.split(".")[-1], vector, adds=True, layer=layer)
    draft.edge(name, total, "add", carries=name)


def percent(share: float) -> str:
    """A share as a short percentage: never "0 %" for something that is there."""
    share = max(share, 0.0)
    if 0 < share < 0.01:
        return "< 1 %"
    return "> 99 %" if 0.99 < share < 1 else f"{share:.0%}".replace("%", " %")
