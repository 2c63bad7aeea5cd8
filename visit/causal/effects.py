"""The map of effects: every part of a pass taken out, or replaced, one by one, and what the prediction then is.

1. What a changed run holds at the changed place is known before anything runs, for nothing before it has changed: a
   `Change` is written from the record alone (`changes`).
2. Changed runs are put in order of their blocks. A run joins the batch at the block that it changes, with the clean
   run's stream (a triangular batch), and each block is computed for the runs that are there (`causal.block`): at the
   looked-at position only (at="last"), one token a run, or at all positions up to it (at="all").
3. The last states are read by the model's own unembedding, beside that of one unchanged run through the same
   arithmetic, so that rounding is no effect.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.record import Activations
from visit.causal.block import run_block
from visit.errors import VisitError, check_choice
from visit.exact.decompose import head_results, needed, post_scale
from visit.exact.question import Question, ask, check_head, check_layer, check_neuron, kv_head
from visit.lenses.logit import lens_logits
from visit.models.attention import soft_cap
from visit.models.model import Model
from visit.text.node_id import NodeId

BATCH_BYTES = 256 << 20  # of what the runs of one batch hold while a block is computed
TILE_BYTES = 8 << 20  # of logits that are compared with the clean run's at once
TOP_NEURONS = 100  # of all layers, that nodes="neurons" takes: those that push or pull hardest
HOWS = ("zero", "mean", "from")
KINDS = ("head", "value", "attn_neuron", "mlp_value", "attn_out", "mlp_out")
At = Literal["last", "all"]


@dataclass(frozen=True, eq=False)
class Change:
    """One changed run: at a seam of one block, other numbers stand than in the clean run.

    `values`: what stands there, at every position that is computed; `changed`: how many numbers of it are other ones.
    """

    node: str
    layer: int
    seam: str
    columns: slice
    values: Float[Tensor, "pos width"]
    changed: int


def effects(
    model: Model,
    acts: Activations,
    nodes: str | Iterable[str] = "heads",
    pos: int = -1,
    target: int | str | None = None,
    distractor: int | str | None = None,
    how: Literal["zero", "mean", "from"] = "zero",
    at: At = "last",
    source: Any = None,
) -> pd.DataFrame:
    """What becomes of the prediction at `pos` when each of these parts is taken out, or replaced: a row a part.

    `nodes`: "heads" (all), "neurons" (the 100 that add or take most, over all layers), or ids of what adds to the
    stream (L9.head6, L9.head6.value4, L9.mlp_value2071, L9.attn_neuron391, L9.attn_out, L9.mlp_out). `how`: "zero";
    "mean" over the positions of `source` (a record; None: of this run); "from" a record of a prompt of as many tokens.
    `at`: "last" changes the part at `pos` alone, as a flow graph shows it, "all" at every position.

    Columns: `node`, `layer`, `head`, `neuron`; `contribution` (logits); after the change `prob`, `rank`, `logit` (the
    target's, centred, before the soft-cap), `difference` (target − distractor, before the soft-cap; missing without
    one), `d_logit`, `d_difference` (changed − clean), `kl_bits` (of the clean from the changed prediction), `changed`
    (how many numbers the edit changed). `.attrs`: `before` (the same of the clean run), `how`, `at`, position, words,
    model. Equal to full passes with the same edits within rounding. Raises `VisitError` for an unknown id, position or
    word. Source: ours.
    """
    question = ask(model, acts, pos, target, distractor)
    check_choice("how", how, HOWS)
    check_choice("at", at, ("last", "all"))
    first = question.pos if at == "last" else 0
    with torch.no_grad():
        names = _names(question, nodes)
        todo = changes(model, acts, names, slice(first, question.pos + 1), how, source)
        states = changed_states(model, acts, todo, first, question.pos)
        table, before = _compared(question, states)
        contributions = contributions_of(question, [NodeId.parse(name) for name in names])
    places = [NodeId.parse(name) for name in names]
    table.insert(0, "node", names)
    table.insert(1, "layer", [None if node is None else node.layer for node in places])
    for at_column, name in ((2, "head"), (3, "neuron")):
        column = [None if node is None else getattr(node, name) for node in places]
        table.insert(at_column, name, pd.array(column, dtype="Int64"))
    table.insert(4, "contribution", contributions)
    table["changed"] = [change.changed for change in todo]
    table.attrs = {**question.meta, "how": how, "at": at, "before": before}
    return table


# ---- which parts, and what stands in their place ---------------------------------------------------------------------
def _names(question: Question, nodes: str | Iterable[str]) -> list[str]:
    model = question.model
    if isinstance(nodes, str) and nodes == "heads":
        return [f"L{layer}.head{head}" for layer in range(model.n_layers) for head in range(model.n_heads)]
    if isinstance(nodes, str) and nodes == "neurons":
        return top_neurons(question, TOP_NEURONS)
    names = [nodes] if isinstance(nodes, str) else list(nodes)
    if not names:
        raise VisitError('nodes must be "heads", "neurons" or at least one id such as L9.head6; got none.')
    for name in names:
        _checked(question, name)
    return names


def _checked(question: Question, name: str) -> None:
    model, node = question.model, NodeId.parse(str(name))
    if node is None or node.kind not in KINDS or node.layer is None:
        raise VisitError(
            "An effect is of a head (L9.head6), one of its memory values (L9.head6.value4), a neuron "
            f"(L9.mlp_value2071, L9.attn_neuron391) or a whole sum (L9.attn_out, L9.mlp_out); got {name!r}."
        )
    check_layer(model, node.layer)
    if node.head is not None:
        check_head(model, node.layer, node.head)
    if node.kind == "mlp_value":
        check_neuron(model, node.layer, node.neuron or 0)
    if node.kind == "attn_neuron" and (node.neuron or 0) >= model.n_heads * model.d_head:
        raise VisitError(f"Rows of W_O of {model.name} run from 0 to {model.n_heads * model.d_head - 1}; got {name!r}.")
    if node.source_pos is not None and node.source_pos > question.pos:
        raise VisitError(f"At position {question.pos} a head sees positions 0 to {question.pos}; got {name!r}.")


def changes(
    model: Model, acts: Activations, names: Sequence[str], span: slice, how: str = "zero", source: Any = None
) -> list[Change]:
    """What is written into each changed run, at the positions `span`: made from the record alone."""
    if how == "from":
        _check_source(acts, source)
    found = []
    for name in names:
        node = NodeId.parse(name)
        assert node is not None and node.layer is not None
        seam, columns = _place(model, node)
        clean = _standing(acts, seam, node.layer)[span, columns]
        if node.kind == "value":
            values = clean + _value_moved(model, acts, node, span, how, source)
        elif how == "zero":
            values = torch.zeros_like(clean)
        elif how == "mean":
            mean = _standing(source or acts, seam, node.layer)[:, columns].mean(0, keepdim=True)
            values = mean.expand_as(clean)
        else:
            values = _standing(source, seam, node.layer)[span, columns]
        found.append(Change(name, node.layer, seam, columns, values.to(model.wide), int((values != clean).sum())))
    return found


def _check_source(acts: Activations, source: Any) -> None:
    if not isinstance(source, Activations):
        raise VisitError("An effect 'from' needs a source: the record of the run to take the values from.")
    if len(source.token_ids) != len(acts.token_ids):
        raise VisitError(
            f"The source has {len(source.token_ids)} positions, this prompt {len(acts.token_ids)}; they must be equal."
        )


def _place(model: Model, node: NodeId) -> tuple[str, slice]:
    """The seam at which a part stands, and its columns there."""
    if node.kind in ("attn_out", "mlp_out"):
        return node.kind, slice(None)
    if node.head is not None:
        return "z", slice(node.head * model.d_head, (node.head + 1) * model.d_head)
    assert node.neuron is not None
    return "z" if node.kind == "attn_neuron" else "neurons", slice(node.neuron, node.neuron + 1)


def _standing(acts: Activations, seam: str, layer: int) -> Float[Tensor, "pos width"]:
    return needed(acts, seam)[layer].flatten(1)


def _value_moved(model: Model, acts: Activations, node: NodeId, span: slice, how: str, source: Any) -> Tensor:
    """By how much `z` moves when a head sees another value at one source position: `pattern · (v' − v)`."""
    assert node.layer is not None and node.head is not None and node.source_pos is not None
    i, group = node.source_pos, kv_head(model, node.head)
    pattern = needed(acts, "pattern")[node.layer, node.head, span, i].to(model.wide)
    v = needed(acts, "v")[node.layer, i, group].to(model.wide)
    if how == "zero":
        other = torch.zeros_like(v)
    else:
        others = needed(source or acts, "v")[node.layer, :, group].to(model.wide)
        other = others.mean(0) if how == "mean" else others[i]
    return pattern[:, None] * (other - v)


# ---- the changed runs ------------------------------------------------------------------------------------------------
def changed_states(
    model: Model, acts: Activations, todo: Sequence[Change], first: int, pos: int
) -> Float[Tensor, "run d_model"]:
    """The last state at `pos` of every changed run, in their order, and behind them that of an unchanged one."""
    count = pos + 1 - first
    nothing = Change("", 0, "z", slice(0, 0), torch.empty(count, 0, dtype=model.wide, device=model.device), 0)
    runs = [*todo, nothing]
    order = sorted(range(len(runs)), key=lambda i: runs[i].layer)
    states = torch.empty(len(runs), model.d_model, dtype=model.wide, device=model.device)
    size = max(1, BATCH_BYTES // _run_bytes(model, first, pos))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        states[part] = _triangle(model, acts, [runs[i] for i in part], first, pos)
    return states


def _run_bytes(model: Model, first: int, pos: int) -> int:
    """What one run holds while a block is computed: its neurons, its stream and queries, its pattern."""
    count = pos + 1 - first
    numbers = 3 * model.d_mlp + 6 * model.d_model + 3 * model.n_heads * (pos + 1)
    return count * numbers * torch.empty(0, dtype=model.wide).element_size()


def _triangle(
    model: Model, acts: Activations, runs: Sequence[Change], first: int, pos: int
) -> Float[Tensor, "run d_model"]:
    """Runs in order of their blocks; each joins at its own, with the clean run's stream."""
    clean = needed(acts, "resid_pre")[:, first : pos + 1]
    x = torch.empty(len(runs), pos + 1 - first, model.d_model, dtype=model.wide, device=model.device)
    here = 0
    for layer in range(runs[0].layer, model.n_layers):
        new = [n for n in range(here, len(runs)) if runs[n].layer == layer]
        x[new] = clean[layer].to(model.wide)
        here += len(new)

        def written(seam: str, value: Tensor, new: list[int] = new) -> Tensor:
            for n in new:
                if runs[n].seam == seam:
                    value[n, :, runs[n].columns] = runs[n].values
            return value

        x[:here] = run_block(model, acts, layer, x[:here], first, written)
    return x[:, -1]


# ---- what the prediction then is -------------------------------------------------------------------------------------
def _compared(question: Question, states: Float[Tensor, "run d_model"]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The columns of every changed run, and the same numbers of the unchanged one, which is the last."""
    model = question.model
    base = next(logits for _, logits in lens_logits(model, states[-1:]))
    before = {name: column[0].item() for name, column in _scores(question, base, base).items()}
    parts = []
    for _, logits in lens_logits(model, states[:-1]):
        tile = max(1, TILE_BYTES // (model.d_vocab * logits.element_size()))
        parts += [_scores(question, own, base) for own in logits.split(tile)]
    table = pd.DataFrame({name: torch.cat([part[name] for part in parts]).tolist() for name in before})
    table["d_logit"] = table["logit"] - before["logit"]
    table["d_difference"] = table["difference"] - before["difference"]
    table["kl_bits"] = table.pop("kl_bits")
    return table, {name: value for name, value in before.items() if name != "kl_bits"}


def _scores(question: Question, logits: Tensor, base: Float[Tensor, "one d_vocab"]) -> dict[str, Tensor]:
    """Target and prediction of runs, from their logits before the soft-cap; `base`: those of the clean run."""
    cap, w = question.model.logit_cap, question.target
    own = logits[:, w]
    capped, clean = soft_cap(logits, cap), soft_cap(base, cap)
    return {
        "prob": (capped[:, w] - capped.logsumexp(-1)).exp(),
        "rank": 1 + (logits > own[:, None]).sum(-1),
        "logit": own - logits.mean(-1),
        "difference": own - logits[:, question.distractor]
        if question.distractor is not None
        else torch.full_like(own, math.nan),
        "kl_bits": divergence_bits(clean, capped),
    }


def divergence_bits(clean: Float[Tensor, "one d_vocab"], changed: Float[Tensor, "run d_vocab"]) -> Tensor:
    """KL(clean ‖ changed) in bits, from logits.

    With d the change of the logits less its mean under the clean prediction p, it is `log Σ p e^d`, and since
    Σ p d = 0 also `log1p(Σ p (e^d − 1 − d))`: a sum of what is never negative, exact for small changes, where the
    difference of two entropies would be rounding alone.
    """
    p = clean.softmax(-1)[0]
    moved = changed - clean
    moved = moved - (moved @ p)[:, None]
    small = torch.log1p((torch.expm1(moved) - moved) @ p)
    large = (clean.log_softmax(-1) + moved).logsumexp(-1)
    return torch.where(small < 1, small, large) / math.log(2)  # a number too large for e^d is no small one


# ---- what the parts add directly -------------------------------------------------------------------------------------
def contributions_of(question: Question, nodes: Sequence[NodeId | None]) -> list[float]:
    """What each part adds to the target's logit (minus the distractor's, or the mean), the final norm frozen."""
    model, acts, t, frozen = question.model, question.acts, question.pos, question.attribution
    heads: dict[int, Tensor] = {}
    found = []
    for node in nodes:
        assert node is not None and node.layer is not None
        layer = node.layer
        if node.kind == "head":
            if layer not in heads:
                heads[layer] = frozen.of(head_results(model, acts, layer, t))
            found.append(float(heads[layer][node.head]))
        elif node.kind == "value":
            assert node.head is not None and node.source_pos is not None
            v = needed(acts, "v")[layer, node.source_pos, kv_head(model, node.head)].to(model.wide)
            vector = v @ model.W_O(layer)[node.head] * post_scale(model, acts, layer, "attn", t)
            found.append(float(needed(acts, "pattern")[layer, node.head, t, node.source_pos] * frozen.of(vector)))
        elif node.neuron is not None:
            part = "attn" if node.kind == "attn_neuron" else "mlp"
            row = (model.W_O(layer).flatten(0, 1) if part == "attn" else model.W_out(layer))[node.neuron]
            amount = _standing(acts, "z" if part == "attn" else "neurons", layer)[t, node.neuron].to(model.wide)
            found.append(float(frozen.of(row * amount * post_scale(model, acts, layer, part, t))))
        else:
            found.append(float(frozen.of(needed(acts, node.kind)[layer, t])))
    return found


def top_neurons(question: Question, count: int) -> list[str]:
    """Ids of the neurons of all layers that add or take most, the strongest first."""
    model, acts, t = question.model, question.acts, question.pos
    direction = question.attribution.direction
    added = torch.stack(
        [
            needed(acts, "neurons")[layer, t].to(model.wide)
            * (model.W_out(layer) @ direction)
            * post_scale(model, acts, layer, "mlp", t)
            for layer in range(model.n_layers)
        ]
    )
    best = added.abs().flatten().topk(min(count, added.numel())).indices.tolist()
    return [f"L{i // model.d_mlp}.mlp_value{i % model.d_mlp}" for i in best]
