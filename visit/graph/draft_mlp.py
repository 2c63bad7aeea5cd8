"""The MLP part of a block, drafted: what its neurons read and write."""

from __future__ import annotations

import math

from torch import Tensor

from visit.exact.decompose import written
from visit.graph.draft import Draft, add_bias, add_rest
from visit.graph.prune import select, share


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
