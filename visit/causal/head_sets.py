"""One's own question over a set of prompts: what every head, layer or neuron adds, foresees and costs, on average.

1. Every line becomes a `Line`: token ids, position, target and distractor; what cannot be asked is noted with its line
   (`visit.causal.set_lines`).
2. Each line gets its map of effects (as `visit.effects` at its looked-at position, of the answer alone): contribution
   and influence of each part, and what the answer is without it. For neurons a first round over all lines finds the
   100 of the model with the largest mean influence, and a second one measures these.
3. Kept are moments (`visit.runs.moments`), whose parts merge to the whole, and of heads where they look and what they
   read there; a line is never needed again.
4. The table has the means with their bands, and of heads a role by measured criteria.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from visit.activations.forward import capture
from visit.activations.record import Activations
from visit.cache import Arrays
from visit.causal.effects import TOP_NEURONS, EffectHow, answer_effects
from visit.causal.roles import ranks_both_ways
from visit.causal.set_lines import Asked, Line, as_set, asked_lines
from visit.causal.thresholds import ADDS, ATTENDS, COSTS, READS
from visit.errors import VisitError, check_choice
from visit.exact.decompose import memory_values, needed
from visit.exact.influence import block_influence
from visit.exact.question import ask
from visit.models.model import Model
from visit.models.provenance import provenance
from visit.runs.answers import run_key
from visit.runs.job import finish
from visit.runs.moments import Moments, difference_band, moments_of, no_moments
from visit.runs.prompts import PromptSet, Row
from visit.runs.sums import each, joined, load_sums, merge, state_of, summed, together
from visit.text.node_id import NodeId

SetParts = Literal["heads", "neurons", "layers"]
SET_MEASURES = ("contribution", "influence", "effect")
HEAD_RUN = "heads 2"


# ---- what is kept of the lines ---------------------------------------------------------------------------------------
def _same_parts(a: HeadSums, b: HeadSums) -> dict[str, Any]:
    """The neurons measured: of both, or of the one that has begun."""
    have = [side.chosen for side in (a, b) if side.moments["parts"].count]
    if len(have) == 2 and (have[0] != have[1]).any():
        raise VisitError("Only sums of the same neurons can be merged: find them over the whole set first.")
    return {"chosen": have[0] if have else a.chosen}


@dataclass(frozen=True, eq=False)
class HeadSums:
    """What is known after some lines (`visit.runs.sums`). All numbers are of one kind of parts and one `answer`.

    `moments`: "parts" `[measure, part]` (`SET_MEASURES`), "answer" `[4]`: the answer, the target's probability, whether
    it is the top word, and the sum of the parts' contributions. `looks` `[word, number, part]`, of heads: for the
    target and the distractor in how many prompts the word stands, the sum of the attention to it, in how many it is
    above the threshold, and in how many of these the memory value there reads the word, or its negative does.
    `influence` `[layer, d_mlp]`: the sums of the first round; `chosen`: the neurons it led to, counted through all
    layers.
    """

    kind: str
    answer: str
    moments: dict[str, Moments] = each()
    looks: Float[np.ndarray, "word number part"] = summed()
    influence: Float[np.ndarray, "layer d_mlp"] = summed()
    looked: int = summed()
    chosen: Int[np.ndarray, " part"] = together(_same_parts)
    broken: tuple[int, ...] = joined()  # lines for which the model computes no numbers


def no_lines(model: Model, kind: SetParts, answer: str) -> HeadSums:
    """The sums of no line."""
    heads, neurons = model.n_layers * model.n_heads, model.n_layers * model.d_mlp
    count = {"heads": heads, "layers": 2 * model.n_layers, "neurons": min(TOP_NEURONS, neurons)}[kind]
    of_neurons = kind == "neurons"
    return HeadSums(
        kind, answer, {"parts": no_moments(len(SET_MEASURES), count), "answer": no_moments(4)},
        np.zeros((2, 5, heads if kind == "heads" else 0)),
        np.zeros((model.n_layers, model.d_mlp) if of_neurons else (0, 0)), 0,
        np.full(count if of_neurons else 0, -1), (),
    )  # fmt: skip


def set_parts(model: Model, sums: HeadSums) -> list[str]:
    """The ids of the parts that are measured, in the order of the sums."""
    layers = range(model.n_layers)
    if sums.kind == "heads":
        return [f"L{layer}.head{head}" for layer in layers for head in range(model.n_heads)]
    if sums.kind == "layers":
        return [f"L{layer}.{part}" for layer in layers for part in ("attn_out", "mlp_out")]
    return [f"L{i // model.d_mlp}.mlp_value{i % model.d_mlp}" for i in sums.chosen.tolist()]


@dataclass(eq=False)
class HeadRun:
    """The question as a job of `visit.runs.worker`: line by line, so that equal calls give equal bits.

    Of neurons the lines are taken twice: the first round finds which ones are measured in the second.
    """

    model: Model
    asked: Asked
    kind: SetParts = "heads"
    how: EffectHow = "zero"

    def __post_init__(self) -> None:
        self.items = self.asked.lines * (2 if self.kind == "neurons" else 1)
        self.first = len(self.items) - len(self.asked.lines)  # items of the first round
        self.work = [1.0 + len(line.ids) / 64 for line in self.items]  # so that a batch is one line at first
        self.sums = no_lines(self.model, self.kind, self.asked.answer)

    def doing(self, done: int) -> str:
        lines, now = len(self.asked.lines), done - self.first
        if now < 0:
            return f"finding the most influential neurons: {done:,} of {lines:,} prompts"
        return f"{now:,} of {lines:,} prompts"

    def update(self, items: Sequence[Line]) -> None:
        for line in items:
            if self.sums.looked < self.first:
                self.sums = merge(self.sums, self._weighed(line))
                if self.sums.looked == self.first:
                    size = torch.from_numpy(self.sums.influence).abs().flatten()
                    best = size.topk(len(self.sums.chosen)).indices.numpy()
                    self.sums = replace(self.sums, chosen=best)
            else:
                self.sums = merge(self.sums, self._measured(line))

    def _weighed(self, line: Line) -> HeadSums:
        """One line of the first round: the influence of every neuron."""
        question = ask(self.model, capture(self.model, line.ids), line.pos, line.target, line.distractor)
        weights = [block_influence(question, layer).neurons for layer in range(self.model.n_layers)]
        found = torch.stack(weights).cpu().double().numpy()
        none = no_lines(self.model, self.kind, self.sums.answer)
        return replace(none, influence=np.nan_to_num(found, posinf=0, neginf=0), looked=1)

    def _measured(self, line: Line) -> HeadSums:
        model = self.model
        acts = capture(model, line.ids)
        source = {"zero": None, "mean": self._prompts, "from": line.partner}[self.how]
        question = ask(model, acts, line.pos, line.target, line.distractor)
        numbers, before = answer_effects(question, set_parts(model, self.sums), self.how, source)
        own = [before[self.sums.answer], before["prob"], float(before["rank"] == 1), numbers[0].sum()]
        none = no_lines(model, self.kind, self.sums.answer)
        if not (np.isfinite(numbers).all() and np.isfinite(own).all()):
            return replace(none, broken=(line.row.line,))
        looks = none.looks
        if self.kind == "heads":
            looks = head_looks(model, acts, line.pos, (question.target, line.distractor))
        moments = {"parts": moments_of([numbers]), "answer": moments_of([own])}
        return replace(none, moments=moments, looks=looks, chosen=self.sums.chosen)

    @property
    def _prompts(self) -> list[tuple[int, ...]]:
        return [line.ids for line in self.asked.lines]

    def snapshot(self) -> HeadSums:
        return self.sums

    def state(self) -> Arrays:
        return state_of(self.sums)

    def load(self, arrays: Arrays) -> None:
        self.sums = load_sums(self.sums, arrays)


@torch.no_grad()
def head_looks(
    model: Model, acts: Activations, t: int, words: tuple[int, int | None]
) -> Float[np.ndarray, "word number part"]:
    """Of one prompt: whether each word stands there, and each head's attention to it, reading and negative reading.

    `looks` of `HeadSums`. The occurrence is the one that the head attends to most; position 0 and the looked-at one do
    not count, for heads rest there when they have nothing to do.
    """
    found = np.zeros((2, 5, model.n_layers * model.n_heads))
    pattern = needed(acts, "pattern")[:, :, t].to(model.wide)
    sources = torch.zeros(model.n_layers, model.n_heads, 2, dtype=torch.long, device=model.device)
    looks = torch.zeros(sources.shape, dtype=torch.bool, device=model.device)
    for which, word in enumerate(words):
        at = [i for i in range(1, t) if acts.token_ids[i] == word]
        if at:
            best = pattern[:, :, at].max(-1)
            found[which, 0], found[which, 1] = 1, best.values.flatten().cpu().numpy()
            sources[..., which] = torch.tensor(at, device=model.device)[best.indices]
            looks[..., which] = best.values > ATTENDS
    layers = looks.flatten(1).any(1).nonzero().flatten().tolist()
    if not layers:
        return found
    values = [memory_values(model, acts, layer, sources[layer], t)[looks[layer]] for layer in layers]
    seen = looks.nonzero().tolist()  # layer, head, which word: in the order of the values
    ranks = ranks_both_ways(model, torch.cat(values), [words[which] or 0 for *_, which in seen])
    for (layer, head, which), copies, negated in zip(seen, *ranks, strict=True):
        found[which, 2:, layer * model.n_heads + head] = 1, copies <= READS, negated <= READS
    return found


# ---- the table -------------------------------------------------------------------------------------------------------
def head_question(
    model: Model, prompts: PromptSet | pd.DataFrame | Sequence[str | Row], how: EffectHow = "zero",
    nodes: SetParts = "heads", pos: int = -1, first_token: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Over a set of prompts, for every part: mean contribution, influence and effect on target − distractor.

    `prompts`: a `PromptSet`, a table with a column `prompt` (and, where there are, `target`, `distractor`, `pos`,
    `abc`), or texts. Without distractors the answer is the target's centred logit, without targets the target is the
    model's prediction. `nodes`: "heads", "layers" (`attn_out` and `mlp_out` of each block), "neurons" (the 100 of the
    model with the largest mean influence over the set). `how`: what stands in a part's place at the looked-at position,
    "zero", its "mean" over the set (as far from the end), or its values "from" the line's partner `abc`. `pos`: the
    looked-at position of lines that name none. `first_token`: take the first token of a target that has several.
    `progress(done, total)` in prompts.

    Columns: `node`, `layer`, `head`, `neuron`; `contribution`, `influence` (of what is taken away), `effect` (the
    answer with the change minus the answer as it is: below 0 for a part that speaks for the target), in logits, means
    over the prompts, each with `_low` and `_high` of its 95 % band (Student's; NaN for one prompt); of heads
    `attends_target`, `attends_distractor` (mean attention from the looked-at position), `copies`, `suppresses` (in what
    share of the cases in which it attends to one of them its memory value there, or the negative of it, reads the
    word), and `role` by `set_role`. `.attrs`: model, `prompt_set`, `prompts`, `before` (the answer's mean with low and
    high, the mean probability, the share in which the target is the top word), `rest` (of the answer: what these parts
    do not add), `how`, `at`, `answer`, `notes`, `left_out`. Raises `VisitError` where no line can be asked. Source:
    causes section 13, after Wang et al. 2023; bands ours.
    """
    check_choice("nodes", nodes, get_args(SetParts))
    asked = asked_lines(model, as_set(prompts), how, pos, first_token)
    sums = finish(HeadRun(model, asked, nodes, how), progress)
    return set_table(model, asked, sums, how)


def head_key(model: Model, asked: Asked, kind: SetParts, how: EffectHow, pos: int, first_token: bool) -> tuple:
    """What makes two runs of a question equal: the app's and the command's go on from each other."""
    return run_key(HEAD_RUN, model, asked.promptset, kind, how, pos, first_token)


def set_table(model: Model, asked: Asked, sums: HeadSums, how: EffectHow) -> pd.DataFrame:
    """The table of `head_question` from the sums of some lines, or all."""
    parts, answer = sums.moments["parts"], sums.moments["answer"]
    if not parts.count:
        why = "the model computes no numbers (NaN or infinite)" if sums.broken else "no line was measured"
        raise VisitError(f"{asked.promptset.name}: {why}. Give other prompts.")
    names = set_parts(model, sums)
    places = [NodeId.parse(name) for name in names]
    found: dict[str, Any] = {"node": names, "layer": [place.layer for place in places if place is not None]}
    for column in ("head", "neuron"):
        found[column] = pd.array([getattr(place, column) for place in places], dtype="Int64")
    low, high = parts.band
    for i, name in enumerate(SET_MEASURES):
        found |= {name: parts.mean[i], f"{name}_low": low[i], f"{name}_high": high[i]}
    table = pd.DataFrame(found)
    if sums.kind == "heads":
        table = _with_looks(table, sums.looks)
    before = {"prob": float(answer.mean[1]), "top": float(answer.mean[2])}
    for name, value in zip(("answer", "low", "high"), (answer.mean, *answer.band), strict=True):
        before[name] = float(value[0])
    broken = [f"line {line}: the model computes no numbers (NaN or infinite) for it" for line in sums.broken]
    table.attrs = {
        **provenance(model, "family", "n_layers", "n_heads", "d_vocab"),
        "prompt_set": {"name": asked.promptset.name, "hash": asked.promptset.hash}, "prompts": parts.count,
        "nodes": sums.kind, "how": how, "at": "last", "answer": sums.answer, "before": before,
        "rest": float(answer.mean[0] - answer.mean[3]), "notes": list(asked.notes),
        "left_out": [*map(str, asked.promptset.notes), *broken],
    }  # fmt: skip
    return table


def set_difference(model: Model, a: HeadSums, b: HeadSums) -> pd.DataFrame:
    """Two sets side by side, on one model: b's means minus a's, with 95 % bands, the largest sure effect first.

    Columns: `node`, `layer`; `contribution`, `influence`, `effect`, each with `_low` and `_high` (Welch's: the sets are
    taken for independent samples); `effect_a`, `effect_b`, the means themselves. Parts that only one set measured
    (neurons) are left out. Raises `VisitError` where one set's answer is target − distractor and the other's is the
    target's logit above the mean: these are two quantities. Source: ours.
    """
    if a.answer != b.answer:
        raise VisitError("Only sets that ask for the same can be subtracted: both with distractors, or both without.")
    names = [set_parts(model, side) for side in (a, b)]
    both = [name for name in names[0] if name in set(names[1])]
    places = [[own.index(name) for name in both] for own in names]
    moments = []
    for sums, at in zip((a, b), places, strict=True):
        own = sums.moments["parts"]
        moments.append(Moments(own.count, own.mean[:, at], own.spread[:, at]))
    apart, low, high = difference_band(*moments)
    found: dict[str, Any] = {"node": both, "layer": [int(name[1:].split(".")[0]) for name in both]}
    for i, name in enumerate(SET_MEASURES):
        found |= {name: apart[i], f"{name}_low": low[i], f"{name}_high": high[i]}
    effects = (side.mean[SET_MEASURES.index("effect")] for side in moments)
    table = pd.DataFrame(found | dict(zip(("effect_a", "effect_b"), effects, strict=True)))
    certain = (table["effect_low"] > 0) | (table["effect_high"] < 0)
    order = (
        table["effect"].abs().where(certain, table["effect"].abs() - 1e6).sort_values(ascending=False, kind="stable")
    )
    return table.reindex(order.index).reset_index(drop=True)


def _with_looks(table: pd.DataFrame, looks: Float[np.ndarray, "word number part"]) -> pd.DataFrame:
    """Where heads look, what they read there, and the role that follows."""
    with np.errstate(invalid="ignore", divide="ignore"):
        attention = looks[:, 1] / looks[:, 0]
        copies, suppresses = looks[:, 3:].sum(0) / looks[:, 2].sum(0)
    found = table.assign(
        attends_target=attention[0], attends_distractor=attention[1], copies=copies, suppresses=suppresses
    )
    return found.assign(role=[set_role(row) for row in found.to_dict("records")])


def set_role(row: dict[str, Any]) -> str | None:
    """The role of a head over a set, by its row of the table; None where it meets no criteria.

    "mover": attends to the target more than 0.2 on average, reads the word it attends to in more than half of the
    cases, adds more than 0.1. "negative mover": the same attention, the negative of its value reads the word, takes
    more than 0.1. "suppressor": attends to the distractor, the negative reads it, adds more than 0.1 (for it pushes the
    distractor down). "inhibitor": attends to the distractor, adds less than 0.1 either way, and the answer falls by
    more than 0.3 without it; whether it acts through movers' queries is a question for path patching. Thresholds
    ours (`causal.thresholds`).
    """
    adds, often = row["contribution"], 0.5
    if row["attends_target"] > ATTENDS and row["copies"] > often and adds > ADDS:
        return "mover"
    if row["attends_target"] > ATTENDS and row["suppresses"] > often and adds < -ADDS:
        return "negative mover"
    if row["attends_distractor"] > ATTENDS and row["suppresses"] > often and adds > ADDS:
        return "suppressor"
    steers = row["attends_distractor"] > ATTENDS and math.fabs(adds) < ADDS and row["effect"] < -COSTS
    return "inhibitor" if steers else None
