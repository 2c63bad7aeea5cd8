"""Neurons in one prompt: the most active of a layer, what each reads, what it writes, and how far that moves a word."""

from __future__ import annotations

import math
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from visit.activations.forward import Activations
from visit.errors import VisitError
from visit.exact.decompose import Attribution, needed, written
from visit.exact.question import aimed, counted
from visit.lenses.logit import columns_of, read
from visit.models.model import Model

Kind = Literal["mlp", "attention"]
Order = Literal["norm", "contribution", "coefficient"]
READS = ("W_in", "W_gate")


def active_neurons(
    model: Model, acts: Activations, layer: int, pos: int = -1, kind: Kind = "mlp", top: int | None = 20,
    by: Order = "norm", target: int | str | None = None, distractor: int | str | None = None, k: int = 5,
) -> pd.DataFrame:  # fmt: skip
    """The most active neurons of a layer at one position: a row each, then what they leave out, then the bias.

    `kind`: "mlp" (rows of W_out) or "attention" (rows of W_O, which have no preferred basis inside a head); `top`: how
    many, None = all; `by`: |coefficient| · ‖row‖, |contribution| or |coefficient|. Columns: `node` (id in the flow
    graph; missing ids end in `.rest` and `_bias`), `kind`, `layer`, `neuron`, `head` (of W_O), `coefficient`,
    `row_norm`, `norm` (|coefficient| · row_norm), `share` (of Σ norm of the layer's neurons), `contribution` (logits),
    `tokens`, `probs`, `bottom_tokens`, `entropy` (bits), `prob`, `rank` (of the target; None: the prediction) of the
    row with its coefficient's sign; of MLP neurons what they read: `key_tokens`, `key_bottom_tokens`,
    `key_coefficient` (before the non-linearity), gated also `gate_tokens`, `gate_bottom_tokens`, `gate_coefficient`.
    Contributions of all rows add up to that of `mlp_out` (`attn_out`). Raises `VisitError` for a wrong layer,
    position, word, kind or order. Source: paper 5.3 and App. A; contribution ours.
    """
    t, wanted, frozen = aimed(model, acts, pos, target, distractor)
    _check(model, layer, kind, by, top)
    with torch.no_grad():
        a, rows, bias, total = _sum(model, acts, layer, t, kind)
        moved, size = a * frozen.of(rows), a.abs() * rows.norm(dim=1)
        measure = {"norm": size, "contribution": moved.abs(), "coefficient": a.abs()}[by]
        shown = measure.argsort(descending=True, stable=True)[:top]
        found = read(model, rows[shown] * a[shown].sign()[:, None], wanted, counted(model, k))
        columns = columns_of(model, found)
        reads = _keys(model, acts, layer, t, shown, counted(model, k)) if kind == "mlp" else {}
        rest = total - a[shown] @ rows[shown] - (0 if bias is None else bias)
    at = f"L{layer}.{'mlp_value' if kind == 'mlp' else 'attn_neuron'}"
    numbers = shown.tolist()
    table = pd.DataFrame({
        "node": [f"{at}{n}" for n in numbers], "kind": "mlp_value" if kind == "mlp" else "attn_neuron",
        "layer": layer, "neuron": numbers, "head": [None if kind == "mlp" else n // model.d_head for n in numbers],
        "coefficient": a[shown].tolist(), "row_norm": rows[shown].norm(dim=1).tolist(), "norm": size[shown].tolist(),
        "share": (size[shown] / size.sum().clamp_min(1e-30)).tolist(), "contribution": moved[shown].tolist(),
        **{name: columns[name] for name in ("tokens", "probs", "bottom_tokens", "entropy", "prob", "rank")}, **reads,
    })  # fmt: skip
    table = table.astype({"neuron": "Int64", "head": "Int64", "rank": "Int64"})
    left = 1 - float(size[shown].sum() / size.sum().clamp_min(1e-30))
    return _with_rest(table, layer, kind, rest, bias, frozen, max(0.0, left), len(a) > len(shown))


def _sum(model: Model, acts: Activations, layer: int, t: int, kind: Kind) -> tuple[Tensor, Tensor, Any, Tensor]:
    """The terms of one sum at `t`: coefficients, rows, bias, and what the model itself made of them."""
    if kind == "mlp":
        rows, bias = written(model, acts, layer, "mlp", t)
        a, total = needed(acts, "neurons")[layer, t], needed(acts, "mlp_out")[layer, t]
        return a.to(model.wide), rows, bias, total.to(model.wide)
    z, (rows, bias) = needed(acts, "z"), written(model, acts, layer, "attn", t)
    return z[layer, t].flatten().to(model.wide), rows, bias, needed(acts, "attn_out")[layer, t].to(model.wide)


def _keys(model: Model, acts: Activations, layer: int, t: int, shown: Tensor, k: int) -> dict[str, list[Any]]:
    """What the shown MLP neurons read: the columns of W_in (and of W_gate), plain, with their pre-activations."""
    state = needed(acts, "ln2_out")[layer, t].to(model.wide)
    family = model.family
    found: dict[str, list[Any]] = {}
    paths = {"key": family.w_in} if family.w_gate is None else {"key": family.w_in, "gate": family.w_gate}
    for name, path in paths.items():
        vectors, bias = model.weight(path, layer)[:, shown].T, model.bias(path, layer)
        words = columns_of(model, read(model, vectors, k=k))
        before = vectors @ state if bias is None else vectors @ state + bias[shown]
        found |= {
            f"{name}_tokens": words["tokens"], f"{name}_bottom_tokens": words["bottom_tokens"],
            f"{name}_coefficient": before.tolist(),
        }  # fmt: skip
    return found


def _with_rest(
    table: pd.DataFrame, layer: int, kind: Kind, rest: Tensor, bias: Tensor | None, frozen: Attribution, left: float,
    pruned: bool,
) -> pd.DataFrame:  # fmt: skip
    """The table with the rows that complete its sum: what was left out, and the bias where the family has one."""
    part = "mlp" if kind == "mlp" else "attn"
    extra = [(f"L{layer}.{part}.rest", "rest", rest, left)] if pruned else []
    if bias is not None:
        extra.append((f"L{layer}.{part}_bias", f"{part}_bias", bias, math.nan))
    if not extra:
        return table
    more = pd.DataFrame([
        {"node": node, "kind": what, "layer": layer, "norm": float(vector.norm()), "share": share,
         "contribution": float(frozen.of(vector))}
        for node, what, vector, share in extra
    ])  # fmt: skip
    more = more.reindex(columns=table.columns)
    for name in table.columns:
        more[name] = more[name].astype(table[name].dtype)
    return pd.concat([table, more], ignore_index=True)


def _check(model: Model, layer: int, kind: Any, by: Any, top: int | None) -> None:
    if not 0 <= layer < model.n_layers:
        raise VisitError(f"Layers of {model.name} run from 0 to {model.n_layers - 1}; {layer} came.")
    for name, came, allowed in (("kind", kind, Kind), ("by", by, Order)):
        if came not in allowed.__args__:  # type: ignore[attr-defined]
            raise VisitError(f"{name} must be one of {', '.join(allowed.__args__)}; {came!r} came.")  # type: ignore
    if top is not None and top < 1:
        raise VisitError(f"top must be at least 1; {top} came.")
