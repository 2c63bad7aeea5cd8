"""Is a graph enough? How much of the answer comes back when only the most important parts stay what they are.

1. Units are all heads and MLP neurons of the model, each once. Every unit is replaced by what it is when nothing is
   special: its mean, or its value in another run; m(corrupt) is then the target's centred logit (or target −
   distractor).
2. Units are put in order of importance: by the length of what they add, by |contribution|, by |influence| of what is
   taken away, at random.
3. The k most important of an order are given back, and all later blocks computed anew: m(k). In one batch run all k of
   all orders, each block from its weights (`causal.block`), at the looked-at position only or at all up to it.
4. `recovered = (m(k) − m(corrupt)) / (m(full) − m(corrupt))`. The area under it over the share of units kept is CPR,
   that under |1 − recovered| CMD (Mueller et al. 2025, MIB).

A ranking that knows what matters gets near 1 with few units; an unfaithful one needs as many as chance does. More than
1 is possible: then what was left out worked against the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from visit.activations.edits import is_prompt
from visit.activations.forward import capture, capture_many
from visit.activations.means import prompt_means
from visit.activations.record import Activations
from visit.activations.sites import in_record
from visit.causal.block import run_block
from visit.errors import VisitError, check_choice
from visit.exact.decompose import needed, post_scale
from visit.exact.gradients import gradients, gradients_of
from visit.exact.question import Question, ask
from visit.lenses.logit import final_norm
from visit.models.model import Model
from visit.runs.job import finish
from visit.text.numbers import percent, ratio, short
from visit.text.visible import as_word

By = Literal["norm", "contribution", "influence", "random"]
ORDERS: tuple[By, ...] = ("norm", "contribution", "influence", "random")
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the units, that are kept
RANDOM_ORDERS = 10  # random orders, whose mean is shown
SMALLEST = 0.1  # logits between the full and the replaced run, below which no share of them means anything
UNITS_BYTES = 256 << 20  # of what the runs of one batch hold while a block is computed


class Kept(NamedTuple):
    """One run: the first `units` of an order are what they are, all others replaced. `draw`: of the random orders."""

    by: str
    draw: int
    share: float
    units: int


def faithfulness(
    model: Model,
    acts: Activations,
    by: Sequence[By] | By = ORDERS,
    pos: int = -1,
    target: int | str | None = None,
    distractor: int | str | None = None,
    source: Activations | str | Sequence[Any] | None = None,
    at: Literal["last", "all"] = "last",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """How much of the answer comes back with the most important heads and MLP neurons alone: a row an order and share.

    `by`: the orders, of "norm", "contribution", "influence" and "random" (mean of 10, from `seed`). `source`: what
    replaces the units that are not kept: the values of another run (a record, or its prompt), aligned from the end; the
    mean over a sequence of prompts, by position from the end; None: over the positions of this run but position 0,
    where many models are out of all bounds. `at`: "last" replaces at `pos` alone, as a flow graph shows it, "all" at
    every position up to it. `progress(done, total)` in runs.

    Columns: `by`, `share` (of the units kept, from 0.001 to 1), `units` (how many), `recovered` (0: as when all are
    replaced, 1: as it is; NaN where the two are less than 0.1 logits apart). `.attrs`: `cpr` and `cmd` an order, `full`
    and `corrupt` (logits), `n_units`, `at`, `replaced` (by what), and what was asked. Raises `VisitError` for a record
    of an edited run, another length, or unknown orders. Source: causes section 13; measures of the MIB benchmark.
    """
    question = ask(model, acts, pos, target, distractor)
    if is_prompt(source):
        source = capture(model, source)  # type: ignore[arg-type]
    elif source is not None and not isinstance(source, Activations):
        if not isinstance(source, Iterable):
            raise VisitError(f"source is a record, a prompt or a set of prompts; got {type(source).__name__}.")
        source = list(source)
        if not source:
            raise VisitError("A mean over prompts needs at least one prompt; got none.")
    return finish(FaithfulnessJob.of(question, by, source, at, seed), progress)


@dataclass(eq=False)
class FaithfulnessJob:
    """The runs of one question as a job of `visit.runs.worker`: stopped, resumed, looked at while it runs."""

    question: Question
    first: int  # the first position that is replaced
    instead: list[tuple[Tensor, Tensor]]  # of every layer: what stands in place of z and of neurons [pos width]
    orders: dict[tuple[str, int], Int[Tensor, " unit"]]  # units by falling importance; first all heads, then neurons
    items: list[Kept]
    meta: dict[str, Any]
    logits: np.ndarray = field(default_factory=lambda: np.empty(0))  # of the runs so far, in the order of `items`

    @classmethod
    def of(
        cls, question: Question, by: Sequence[By] | By, source: Activations | Sequence[Any] | None, at: str, seed: int
    ) -> FaithfulnessJob:
        """What is to be run, with every order made: one pass forward and one backward where influence is among them."""
        model, names = question.model, (by,) if isinstance(by, str) else tuple(dict.fromkeys(by or ()))
        check_choice("at", at, ("last", "all"))
        for name in names or ("",):
            check_choice("by", name, ORDERS)
        if not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise VisitError(f"A seed is a whole number from 0 to 2^63 − 1; got {seed!r}.")
        if question.acts.edits:
            raise VisitError("Faithfulness is of the model's own run; this record is of a run with edits.")
        first = question.pos if at == "last" else 0
        with torch.no_grad():
            instead = [_instead(question, layer, first, source) for layer in range(model.n_layers)]
            orders = {key: order for name in names for key, order in _orders(question, name, first, instead, seed)}
        total = model.n_layers * (model.n_heads + model.d_mlp)
        items = [Kept("", 0, 0.0, 0), Kept("", 0, 1.0, total)]  # all replaced, and none
        items += [Kept(*key, share, round(share * total)) for key in orders for share in SHARES[:-1]]
        replaced = (
            "the mean over the positions of this run but position 0" if source is None
            else f"the values in {source.prompt!r}" if isinstance(source, Activations)
            else f"the mean over {len(source)} prompts"
        )  # fmt: skip
        meta = {**question.meta, "at": at, "seed": seed, "n_units": total, "replaced": replaced, "orders": list(names)}
        return cls(question, first, instead, orders, items, meta)

    def update(self, items: Sequence[Kept]) -> None:
        """Make the next runs."""
        size = max(1, UNITS_BYTES // self._run_bytes())
        found = [self._logits(items[i : i + size]) for i in range(0, len(items), size)]
        self.logits = np.concatenate([self.logits, *found])

    def snapshot(self) -> pd.DataFrame:
        """The table of `faithfulness`, of what has run."""
        known = dict(zip(self.items, self.logits.tolist(), strict=False))
        corrupt, full = (known.get(item, math.nan) for item in self.items[:2])
        range_ = full - corrupt if abs(full - corrupt) >= SMALLEST else math.nan
        rows = []
        for name in self.meta["orders"]:
            draws = sorted(draw for key, draw in self.orders if key == name)
            for share in SHARES:
                units = round(share * self.meta["n_units"])
                runs = [full if share == 1 else known.get(Kept(name, n, share, units), math.nan) for n in draws]
                rows.append((name, share, units, float(np.mean([(m - corrupt) / range_ for m in runs]))))
        table = pd.DataFrame(rows, columns=["by", "share", "units", "recovered"])
        curves = {name: [0.0, *group["recovered"]] for name, group in table.groupby("by", sort=False)}
        at = [0.0, *SHARES]
        table.attrs = {
            **self.meta, "full": full, "corrupt": corrupt,
            "cpr": {name: float(np.trapezoid(curve, at)) for name, curve in curves.items()},
            "cmd": {name: float(np.trapezoid(np.abs(1 - np.array(c)), at)) for name, c in curves.items()},
        }  # fmt: skip
        return table

    def state(self) -> dict[str, np.ndarray]:
        """The logits of what has run."""
        return {"logits": self.logits}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from there."""
        self.logits = np.asarray(arrays["logits"], dtype=float)

    def _run_bytes(self) -> int:
        """What one run holds while a block is computed: its neurons, its stream and queries, its pattern."""
        model, count = self.question.model, self.question.pos + 1 - self.first
        numbers = 4 * model.d_mlp + 6 * model.d_model + 3 * model.n_heads * (self.question.pos + 1)
        return count * numbers * model.wide.itemsize

    @torch.no_grad()
    def _logits(self, items: Sequence[Kept]) -> np.ndarray:
        """The target's logit in each run, less a constant of them all."""
        question, model = self.question, self.question.model
        heads, neurons = self._kept(items)
        clean = needed(question.acts, "resid_pre")[0, self.first : question.pos + 1].to(model.wide)
        x = clean.expand(len(items), -1, -1)
        for layer in range(model.n_layers):
            keep = {"z": heads[:, layer].repeat_interleave(model.d_head, dim=1), "neurons": neurons[:, layer]}
            others = dict(zip(("z", "neurons"), self.instead[layer], strict=True))

            def written(seam: str, value: Tensor, keep: Any = keep, others: Any = others) -> Tensor:
                return value if seam not in keep else torch.where(keep[seam][:, None], value, others[seam])

            x = run_block(model, question.acts, layer, x, self.first, written)
        return (final_norm(model, x[:, -1]) @ question.word).double().cpu().numpy()

    def _kept(self, items: Sequence[Kept]) -> tuple[Bool[Tensor, "run layer head"], Bool[Tensor, "run layer d_mlp"]]:
        model, total = self.question.model, self.meta["n_units"]
        keep = torch.zeros(len(items), total, dtype=torch.bool, device=model.device)
        for row, item in zip(keep, items, strict=True):
            row[self.orders[item.by, item.draw][: item.units] if item.by else slice(0, item.units)] = True
        heads = model.n_layers * model.n_heads
        return keep[:, :heads].unflatten(1, (model.n_layers, -1)), keep[:, heads:].unflatten(1, (model.n_layers, -1))


# ---- what is replaced, and in which order it is given back -----------------------------------------------------------
def _instead(
    question: Question, layer: int, first: int, source: Activations | Sequence[Any] | None
) -> tuple[Tensor, Tensor]:
    """What stands in place of `z` and `neurons` of a block, from position `first` to the looked-at one."""
    return tuple(_instead_of(question, name, layer, first, source) for name in ("z", "neurons"))  # type: ignore[return-value]


def _instead_of(
    question: Question, name: str, layer: int, first: int, source: Activations | Sequence[Any] | None
) -> Tensor:
    span, wide = slice(first, question.pos + 1), question.model.wide
    own = needed(question.acts, name)[layer].flatten(1).to(wide)
    if source is None:
        if len(own) < 2:
            raise VisitError("A mean over positions needs at least two tokens; give a source, or a longer prompt.")
        mean = own[1:].mean(0).repeat(question.pos + 1 - first, 1)
        if first == 0:
            mean[0] = own[0]
        return mean
    if not isinstance(source, Activations):
        return prompt_means(question.model, source, name, capture_many).at(name, layer, len(own))[0][span].to(wide)
    behind = len(question.acts.token_ids) - len(source.token_ids)  # aligned from the end
    if span.start - behind < 0:
        raise VisitError(
            f"The source has {len(source.token_ids)} positions, this prompt {len(own)}: aligned from the end, there is "
            f"none for position {first}. Give a source of as many tokens."
        )
    return in_record(question.model, source, name, layer)[span.start - behind : span.stop - behind].to(wide)


def _orders(
    question: Question, by: str, first: int, instead: list[tuple[Tensor, Tensor]], seed: int
) -> list[tuple[tuple[str, int], Int[Tensor, " unit"]]]:
    model = question.model
    if by == "random":
        total = model.n_layers * (model.n_heads + model.d_mlp)
        dice = torch.Generator().manual_seed(seed)
        return [((by, n), torch.randperm(total, generator=dice).to(model.device)) for n in range(RANDOM_ORDERS)]
    importance = _influence(question, first, instead) if by == "influence" else _size(question, by)
    return [((by, 0), importance.abs().argsort(descending=True, stable=True))]


def _size(question: Question, by: str) -> Float[Tensor, " unit"]:
    """The length, or the contribution, of what every unit adds at the looked-at position."""
    model, acts, t, d = question.model, question.acts, question.pos, question.attribution.direction
    heads, neurons = [], []
    for layer in range(model.n_layers):
        z, a = (needed(acts, name)[layer, t].to(model.wide) for name in ("z", "neurons"))
        scales = [post_scale(model, acts, layer, part, t) for part in ("attn", "mlp")]
        W_O = model.W_O(layer)
        if by == "norm":
            heads.append(torch.einsum("he,hed->hd", z, W_O).norm(dim=-1) * scales[0])
            neurons.append(a * model.out_row_norms[layer] * scales[1])
        else:
            heads.append((z * (W_O @ d)).sum(-1) * scales[0])
            neurons.append(a * (model.W_out(layer) @ d) * scales[1])
    return torch.cat([*heads, *neurons])


def _influence(question: Question, first: int, instead: list[tuple[Tensor, Tensor]]) -> Float[Tensor, " unit"]:
    """The influence of what is taken away from every unit, of all positions where it is."""
    model, acts, span = question.model, question.acts, slice(first, question.pos + 1)
    one = first == question.pos
    along = gradients_of(question) if one else gradients(model, acts, question.pos, question.word, every=True)
    heads, neurons = [], []
    for layer, others in enumerate(instead):
        moved = []
        for name, part, other in zip(("z", "neurons"), ("attn", "mlp"), others, strict=True):
            g = getattr(along, f"{part}_out")[layer, slice(None) if one else span]
            rows = model.W_O(layer).flatten(0, 1) if name == "z" else model.W_out(layer)
            away = needed(acts, name)[layer, span].flatten(1).to(model.wide) - other
            moved.append((away * ((g * post_scale(model, acts, layer, part, span)) @ rows.T)).sum(0))
        heads.append(moved[0].unflatten(0, (model.n_heads, -1)).sum(-1))
        neurons.append(moved[1])
    return torch.cat([*heads, *neurons])


# ---- in words --------------------------------------------------------------------------------------------------------
def in_words(table: pd.DataFrame, share: float = 0.1) -> str:
    """What a table of `faithfulness` says, in one sentence."""
    about, names = table.attrs, {"random": "at random", "norm": "by length"}
    word = f"“{as_word(about['target']['token'])}”"
    gap = about["full"] - about["corrupt"]
    if math.isnan(gap) or abs(gap) < SMALLEST:
        return (
            f"With every head and neuron replaced, {word} moves by {short(abs(gap))} logits only: there is nothing to "
            "bring back, and so no share of it."
        )
    kept = table[table["share"] == share]
    parts = [f"{ratio(row.recovered)} when chosen {names.get(row.by, f'by {row.by}')}" for row in kept.itertuples()]
    return (
        f"{percent(share)} of the heads and neurons ({int(kept['units'].iloc[0]):,} of {about['n_units']:,}) bring "
        f"back, of what {word} loses when all are replaced ({short(gap)} logits): {', '.join(parts)}."
    )
