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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.edits import is_prompt
from visit.activations.forward import applied, capture
from visit.activations.record import Activations, Edit
from visit.activations.sites import in_record, site_of
from visit.causal.triangle import BATCH_BYTES, joined_states, run_bytes
from visit.errors import VisitError, check_choice, check_kind
from visit.exact.decompose import needed, post_scale
from visit.exact.gradients import gradients_of
from visit.exact.influence import block_influence
from visit.exact.question import Question, ask
from visit.lenses.logit import final_norm, lens_logits
from visit.models.attention import soft_cap
from visit.models.model import Model
from visit.text.node_id import NodeId
from visit.text.notebooks import drawn_table

COMPARED_BYTES = 8 << 20  # of logits that are compared with the clean run's at once
TOP_NEURONS = 100  # of all layers, that nodes="neurons" takes: those with the largest influence
EffectHow = Literal["zero", "mean", "from"]
KINDS = ("head", "value", "attn_neuron", "mlp_value", "attn_out", "mlp_out")
At = Literal["last", "all"]


@dataclass(frozen=True, eq=False)
class Change:
    """One changed run: at a seam of one block, other numbers stand than in the clean run.

    `values`: what stands there, at every position that is computed; `changed`: how many numbers of it are other ones.
    `amounts`: what the part itself has there at the looked-at position (of a memory value its share of the head),
    `removed`: what the change takes away there; `note`: which positions it left out, a sentence.
    """

    node: NodeId
    layer: int
    seam: str
    columns: slice
    values: Float[Tensor, "pos width"]
    changed: int
    amounts: Float[Tensor, " width"]
    removed: Float[Tensor, " width"]
    note: str = ""


def effects(
    model: Model,
    acts: Activations,
    nodes: str | Iterable[str] = "heads",
    pos: int = -1,
    target: int | str | None = None,
    distractor: int | str | None = None,
    how: EffectHow = "zero",
    at: At = "last",
    source: Any = None,
) -> pd.DataFrame:
    """What becomes of the prediction at `pos` when each of these parts is taken out, or replaced: a row a part.

    `nodes`: "heads" (all), "neurons" (the 100 of all layers with the largest influence), or ids of what adds to the
    stream (L9.head6, L9.head6.value4, L9.mlp_value2071, L9.attn_neuron391, L9.attn_out, L9.mlp_out). `how`, `source`:
    as of `visit.Edit`: "zero"; "mean" over prompts, by position from the end, or over the positions of a record (None:
    of this run); "from" another run, a record or a prompt, aligned where it is longer or shorter. `at`: "last" changes
    the part at `pos` alone, as a flow graph shows it, "all" at every position.

    Columns: `node`, `layer`, `head`, `neuron`; `contribution` and `influence` (logits; of a replacement the influence
    is that of what is taken away); after the change `prob`, `rank`, `logit` (the target's, centred, before the
    soft-cap), `difference` (target − distractor, before the soft-cap; missing without one), `d_logit`, `d_difference`
    (changed − clean), `kl_bits` (of the changed prediction from the clean one), `changed` (how many numbers the change
    altered). `.attrs`: `before` (prob, rank, logit, difference of the clean run), `how`, `at`, `notes` (what had no
    partner in another run and stayed as it was), position, words, model. Equal to full passes with the same edits
    within rounding. Raises `VisitError` for an unknown id, position or word. Source: causes section 12 (ours).
    """
    question = ask(model, acts, pos, target, distractor)
    check_choice("how", how, get_args(EffectHow))
    check_choice("at", at, get_args(At))
    if acts.edits:
        raise VisitError("A map of effects is of a run without edits; this record was made with some. Capture anew.")
    first = question.pos if at == "last" else 0
    with torch.no_grad():
        neurons = isinstance(nodes, str) and nodes == "neurons"
        names = top_neurons(question, TOP_NEURONS) if neurons else part_names(model, nodes, question.pos)
        todo = written_changes(question, names, how, at, source)
        table, before = _against_clean(question, changed_states(model, acts, todo, first, question.pos))
        direct = _added(question, todo)
    table = pd.concat([_where_changed(names, todo), pd.DataFrame(direct), table], axis=1)
    table["changed"] = [change.changed for change in todo]
    notes = list(dict.fromkeys(change.note for change in todo if change.note))
    about = {**question.meta, "how": how, "at": at, "before": before, "notes": notes}
    return drawn_table(table, "effects" if isinstance(nodes, str) and nodes == "heads" else "", about)


@torch.no_grad()
def told_effects(question: Question) -> pd.DataFrame:
    """Of `effects` of all heads, taken out at the last position, what sentences tell, at half of the price.

    Columns: `node`, `layer`, `head`, `contribution`, `prob`, `rank`, `difference`, `d_difference`; `.attrs` as there,
    its `before` with these. No backward pass, no divergence: what a page measures of every prompt that a class asks.
    """
    names = part_names(question.model, "heads", question.pos)
    todo = written_changes(question, names, "zero", "last", None)
    states = changed_states(question.model, question.acts, todo, question.pos, question.pos)
    table, before = _against_clean(question, states, _told_of_runs)
    table = pd.concat([_where_changed(names, todo)[["node", "layer", "head"]], table], axis=1)
    table.insert(3, "contribution", _added(question, todo, ("contribution",))["contribution"])
    table.attrs = {**question.meta, "how": "zero", "at": "last", "before": before, "notes": []}
    return table


@torch.no_grad()
def answer_effects(
    question: Question, names: Sequence[str], how: EffectHow, source: Any
) -> tuple[Float[np.ndarray, "number part"], dict[str, Any]]:
    """Contribution, influence and change of the answer alone for each part, and `before`: as `effects` at "last" says.

    The answer is target − distractor, or the target's centred logit. Of each changed run it takes one product, not one
    for every word: what a question over a set asks of a hundred prompts.
    """
    model, t = question.model, question.pos
    todo = written_changes(question, names, how, "last", source)
    states = changed_states(model, question.acts, todo, t, t)
    base = next(logits for _, logits in lens_logits(model, states[:1]))
    before = {name: column[0].item() for name, column in _answers(question, base, base).items() if name != "kl_bits"}
    answers = final_norm(model, states).cpu().double() @ question.word.cpu().double()  # small changes of large sums
    direct = _added(question, todo)
    change = (answers[1:] - answers[0]).numpy()
    return np.stack([direct["contribution"], direct["influence"], change]), before


# ---- which parts, and what stands in their place ---------------------------------------------------------------------
def part_names(model: Model, nodes: str | Iterable[str], pos: int) -> list[str]:
    """The ids of all heads, or those given, each checked to be of something that adds to the stream at `pos`."""
    if isinstance(nodes, str) and nodes == "heads":
        return [f"L{layer}.head{head}" for layer in range(model.n_layers) for head in range(model.n_heads)]
    check_kind("nodes", nodes, (str, Iterable), '"heads", "neurons", or a list of ids such as L9.head6')
    names = [nodes] if isinstance(nodes, str) else list(nodes)
    if not names:
        raise VisitError('nodes must be "heads", "neurons" or at least one id such as L9.head6; got none.')
    for name in names:
        node = NodeId.parse(str(name))
        if node is None or node.kind not in KINDS or node.layer is None:
            raise VisitError(
                "An effect is of a head (L9.head6), one of its memory values (L9.head6.value4), a neuron "
                f"(L9.mlp_value2071, L9.attn_neuron391) or a whole sum (L9.attn_out, L9.mlp_out); got {name!r}."
            )
        site_of(model, name)
        if node.source_pos is not None and node.source_pos > pos:
            raise VisitError(f"At position {pos} a head sees positions 0 to {pos}; got {name!r}.")
    return names


def written_changes(question: Question, names: Sequence[str], how: EffectHow, at: At, source: Any) -> list[Change]:
    """What is written into each changed run, at every position that is computed: made from the record alone.

    What is put in a part's place is what `visit.Edit` puts there. Of a memory value `z` moves by `pattern · (v' − v)`.
    """
    model, acts, t = question.model, question.acts, question.pos
    if how != "zero" and is_prompt(source):
        source = capture(model, source, ("z", "neurons", "attn_out", "mlp_out", "v"))  # once, not for every part
    span, where = (slice(t, t + 1), t) if at == "last" else (slice(0, t + 1), "all")
    found = []
    for name in names:
        one = applied(model, [Edit(name, how, source, where)], acts.token_ids)[0]
        site, node = one.site, one.site.node
        own = in_record(model, acts, site.quantity, site.layer)[:, site.columns].to(model.wide)
        if node.kind != "value":
            seam, columns, clean, values = site.quantity, site.columns, own[span], one.edited(own)[span]
            amounts = clean[-1]
        else:
            assert node.head is not None and site.source_pos is not None
            seam, columns = "z", slice(node.head * model.d_head, (node.head + 1) * model.d_head)
            clean = needed(acts, "z")[site.layer, span, node.head].to(model.wide)
            pattern = needed(acts, "pattern")[site.layer, node.head, span, site.source_pos].to(model.wide)
            v, other = (x[site.source_pos] for x in (own, replace(one, positions=None).edited(own)))
            values, amounts = clean + pattern[:, None] * (other - v), pattern[-1] * v
        changed = int((values != clean).sum())
        found.append(
            Change(node, site.layer, seam, columns, values, changed, amounts, clean[-1] - values[-1], one.note)
        )
    return found


def _where_changed(names: Sequence[str], todo: Sequence[Change]) -> pd.DataFrame:
    places = [change.node for change in todo]
    return pd.DataFrame({
        "node": list(names),
        "layer": [node.layer for node in places],
        "head": pd.array([node.head for node in places], dtype="Int64"),
        "neuron": pd.array([node.neuron for node in places], dtype="Int64"),
    })  # fmt: skip


# ---- the changed runs ------------------------------------------------------------------------------------------------
def changed_states(
    model: Model, acts: Activations, todo: Sequence[Change], first: int, pos: int
) -> Float[Tensor, "run d_model"]:
    """The last state at `pos` of an unchanged run, and behind it that of every changed one, in their order."""
    order = sorted(range(len(todo)), key=lambda i: todo[i].layer)
    states = torch.empty(1 + len(todo), model.d_model, dtype=model.wide, device=model.device)
    size = max(1, BATCH_BYTES // run_bytes(model, first, pos))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        runs = [todo[i] for i in part]

        def write(n: int, seam: str, value: Tensor, runs: list[Change] = runs) -> None:
            if seam == runs[n].seam:
                value[:, runs[n].columns] = runs[n].values

        layers = [run.layer for run in runs]
        states[[0, *(i + 1 for i in part)]] = joined_states(model, acts, layers, first, pos, write)
    return states


# ---- what the prediction then is -------------------------------------------------------------------------------------
def _against_clean(
    question: Question, states: Float[Tensor, "run d_model"], answers: Callable[..., dict[str, Tensor]] | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The columns of every changed run, and the same numbers of the unchanged one, which comes first.

    `answers`: which numbers; None: `_answers`.
    """
    model, answers = question.model, answers or _answers
    base = next(logits for _, logits in lens_logits(model, states[:1]))
    before = {name: column[0].item() for name, column in answers(question, base, base).items()}
    parts = []
    for _, logits in lens_logits(model, states[1:]):
        tile = max(1, COMPARED_BYTES // (model.d_vocab * logits.element_size()))
        parts += [answers(question, own, base) for own in logits.split(tile)]
    table = pd.DataFrame({name: torch.cat([part[name] for part in parts]).tolist() for name in before})
    for name in ("logit", "difference"):
        if name in before:
            table[f"d_{name}"] = table[name] - before[name]
    if "kl_bits" in before:
        table["kl_bits"] = table.pop("kl_bits")
    return table, {name: value for name, value in before.items() if name != "kl_bits"}


def _told_of_runs(question: Question, logits: Tensor, _base: Tensor) -> dict[str, Tensor]:
    """The target's probability and rank in runs, and its logit over the distractor's."""
    w, capped = question.target, soft_cap(logits, question.model.logit_cap)
    other = torch.full_like(logits[:, w], math.nan) if question.distractor is None else logits[:, question.distractor]
    return {
        "prob": (capped[:, w] - capped.logsumexp(-1)).exp(),
        "rank": 1 + (logits > logits[:, w, None]).sum(-1),
        "difference": logits[:, w] - other,
    }


def _answers(question: Question, logits: Tensor, base: Float[Tensor, "one d_vocab"]) -> dict[str, Tensor]:
    """Target and prediction of runs, from their logits before the soft-cap; `base`: those of the clean run."""
    told, own, cap = _told_of_runs(question, logits, base), logits[:, question.target], question.model.logit_cap
    return {
        "prob": told["prob"],
        "rank": told["rank"],
        "logit": own - logits.mean(-1),
        "difference": told["difference"],
        "kl_bits": divergence_bits(soft_cap(base, cap), soft_cap(logits, cap)),
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


# ---- what the parts add directly, and what they weigh to first order -------------------------------------------------
def _added(
    question: Question, todo: Sequence[Change], columns: Sequence[str] = ("contribution", "influence")
) -> dict[str, list[float]]:
    """`contribution` of each part as it is, and `influence` of what its change takes away, in logits.

    Both are ⟨what is written into the stream, a direction⟩, so that all parts of a block share one product.
    """
    model, acts, t = question.model, question.acts, question.pos
    known: dict[tuple[int, str], Tensor] = {}

    def directions(layer: int, seam: str) -> Float[Tensor, "width two"]:
        """Rows of a seam times the direction of contributions, and that of influence."""
        if (layer, seam) not in known:
            part = "attn" if seam in ("z", "attn_out") else "mlp"
            asked = [question.attribution.direction]
            asked += [gradients_of(question).into(f"{part}_out", layer)] if "influence" in columns else []
            both = torch.stack(asked, dim=1)
            if seam in ("z", "neurons"):
                rows = model.W_O(layer).flatten(0, 1) if seam == "z" else model.W_out(layer)
                both = (rows @ both) * post_scale(model, acts, layer, part, t)
            known[layer, seam] = both
        return known[layer, seam]

    found = []
    for change in todo:
        both = directions(change.layer, change.seam)[change.columns]
        parts = (change.amounts, change.removed)[: both.shape[1]]
        found.append([float(part @ both[:, n]) for n, part in enumerate(parts)])
    return {name: list(numbers) for name, numbers in zip(columns, zip(*found, strict=True), strict=True)}


def top_neurons(question: Question, count: int) -> list[str]:
    """Ids of the MLP neurons of all layers with the largest influence, towards or against, the strongest first."""
    model = question.model
    weighed = torch.stack([block_influence(question, layer).neurons for layer in range(model.n_layers)])
    best = weighed.abs().flatten().topk(min(count, weighed.numel())).indices.tolist()
    return [f"L{i // model.d_mlp}.mlp_value{i % model.d_mlp}" for i in best]
