"""Activation patching: B's values put into A's run, one place at a time, and how far the answer goes towards B's.

1. Both prompts are run; their tokens are paired as an edit "from" pairs them. m is the logit of B's answer minus that
   of A's, before a soft-cap, at the last position; a patch's effect is `(m(patched) − m(A)) / (m(B) − m(A))`.
2. Up to the first different token both runs hold the same numbers: an effect of 0 that nobody has to run for. A
   position without a partner is not patched.
3. Exactly: each patch is a run of its own in a triangular batch (`causal.triangle`), from its block and position on.
4. By attribution: `Σ (b − a) · ∂m/∂a / (m(B) − m(A))`, all places from one backward pass on A. It is linear, and misses
   what is saturated: the largest are then patched exactly, and marked so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.sites import in_record
from visit.causal.block import block_norm
from visit.causal.triangle import BATCH_BYTES, joined_states, run_bytes
from visit.causal.two_runs import TwoRuns, answer_gap, two_runs
from visit.errors import VisitError, check_choice
from visit.exact.decompose import raw_output
from visit.exact.gradients import gradients
from visit.exact.question import Question
from visit.models.model import Model
from visit.text.visible import visible

PatchSite = Literal["resid", "attn_out", "mlp_out", "heads"]
PatchAt = Literal["each", "last", "all"]
Method = Literal["exact", "attribution"]
# site -> (the quantity of a record, the seam of a block, the ending of its id)
_PATCHED_AT = {
    "resid": ("stream", "resid_pre", "resid_pre"), "attn_out": ("attn_out", "attn_out", "attn_out"),
    "mlp_out": ("mlp_out", "mlp_out", "mlp_out"), "heads": ("z", "z", "head"),
}  # fmt: skip


class Cell(NamedTuple):
    """One patch: B's values at a block, in one head (None: the whole sum), at one position (None: at all)."""

    layer: int
    head: int | None
    pos: int | None


def patch(
    model: Model,
    prompt_a: Any,
    prompt_b: Any,
    site: PatchSite = "resid",
    at: PatchAt | None = None,
    method: Method = "exact",
    verify: int = 0,
    target: int | str | None = None,
    distractor: int | str | None = None,
) -> pd.DataFrame:
    """Put B's values into A's run, one place at a time: how far does the answer go from A's (0) to B's (1)?

    `prompt_a`, `prompt_b`: prompts, or records of runs without edits. `site`: the stream before each block ("resid"),
    "attn_out", "mlp_out", or "heads" (the input of W_O). `at`: "each" position by itself, the "last" alone, or "all" at
    once; None: each for sums, all for heads. `method`: "exact" (a run a patch) or "attribution" (all places to first
    order, from one backward pass); `verify`: of the latter, how many of the largest are then patched exactly.
    `target`: B's answer, `distractor`: A's; None: what each run predicts.

    A row a place: `id` (the edit that does it: `visit.Edit(id, "from", source=B, pos=pos)`), `layer`, `head`, `pos` and
    `token` in A, `pos_b` and `token_b` of its partner; `effect` (missing where there is no partner), `exact` (whether
    it was patched, not estimated), `m` after the patch (logit of B's answer minus A's, before a soft-cap), `estimate`
    (by attribution), `changed` (how many numbers the patch alters; where none, its effect is 0 without a run).
    `.attrs`: `m_a`, `m_b`, `target`, `distractor`, `alignment` (pairs of positions), `first_difference`, `notes`,
    `site`, `at`, `method`, `patched` (runs), what was run. Equal to full passes with the same edits within rounding.
    Raises `VisitError` for prompts without a common token or difference, equal answers, |m(B) − m(A)| < 0.1, records of
    edited runs or of another model. Source: causes section 13.
    """
    check_choice("method", method, get_args(Method))
    if isinstance(verify, bool) or not isinstance(verify, int) or verify < 0:
        raise VisitError(f"verify must be a whole number from 0; got {verify!r}.")
    if verify and method == "exact":
        raise VisitError("verify belongs to method='attribution': an exact map is patched exactly everywhere.")
    job = PatchingJob.of(two_runs(model, prompt_a, prompt_b, target, distractor), site, at)
    if method == "attribution":
        job.estimate(verify)
    job.update(job.items)
    return job.snapshot()


# ---- the patches -----------------------------------------------------------------------------------------------------
@dataclass(eq=False)
class PatchingJob:
    """The patches of two runs as a job of `visit.runs.worker`: stopped, resumed, looked at while it runs."""

    runs: TwoRuns
    site: PatchSite
    at: PatchAt
    items: list[Cell]  # to be patched exactly, by position and block
    estimates: np.ndarray | None = None  # effects by attribution [layer place head], where they were asked for
    moved: np.ndarray = field(default_factory=lambda: np.empty(0))  # m(patched) − m(A) of the items so far

    @classmethod
    def of(cls, runs: TwoRuns, site: PatchSite, at: PatchAt | None = None) -> PatchingJob:
        """All patches of a site. Raises `VisitError` for an unknown name, or a last position without a partner."""
        check_choice("site", site, get_args(PatchSite))
        where: PatchAt = ("all" if site == "heads" else "each") if at is None else at
        check_choice("at", where, get_args(PatchAt))
        t = runs.question.pos
        if where == "last" and t not in runs.partners:
            raise VisitError(
                f"The last position (“{visible(runs.question.acts.tokens[t])}”) has no partner in the other prompt: "
                "nothing can be put there. Patch at every position, or let both prompts end alike."
            )
        job = cls(runs, site, where, [])
        job.items = [cell for cell in job.cells() if job.changed(cell)]
        job.items.sort(key=lambda cell: (cell.pos or 0, cell.layer))
        return job

    def cells(self) -> Iterator[Cell]:
        """Every place of the map in the order of its rows, also those that need no run."""
        model, t = self.runs.question.model, self.runs.question.pos
        heads = range(model.n_heads) if self.site == "heads" else (None,)
        places = {"each": range(t + 1), "last": (t,), "all": (None,)}[self.at]
        return (Cell(layer, head, pos) for layer in range(model.n_layers) for head in heads for pos in places)

    def changed(self, cell: Cell) -> int:
        """How many numbers of A's run a patch alters; 0 where both runs hold the same, or there is no partner."""
        return int(self._of(cell, self._counts).sum())

    def estimate(self, verify: int = 0) -> None:
        """All effects to first order; the `verify` largest stay as items, to be patched exactly."""
        self.estimates = attributed(self.runs, self.site)
        size = {cell: abs(float(self._of(cell, self.estimates).sum())) for cell in self.items}
        largest = set(sorted(size, key=lambda cell: -size[cell])[:verify])
        self.items = [cell for cell in self.items if cell in largest]

    def doing(self, done: int) -> str:
        """Where a run of it is, in words."""
        return f"{done:,} of {len(self.items):,} patches"

    @torch.no_grad()
    def update(self, items: Sequence[Cell]) -> None:
        """Patch the next places."""
        question, done = self.runs.question, 0
        while done < len(items):
            first = self._places(items[done])[0]  # items come by position
            size = max(1, BATCH_BYTES // run_bytes(question.model, first, question.pos))
            self.moved = np.concatenate([self.moved, self._moved(items[done : done + size], first)])
            done += size

    def snapshot(self) -> pd.DataFrame:
        """The table of `patch`, of what has run."""
        runs = self.runs
        cells, moved = list(self.cells()), dict(zip(self.items, self.moved.tolist(), strict=False))
        idle = 0.0 if self.whole else math.nan  # of what needs no run
        columns: dict[str, list[Any]] = {"id": [], "token": [], "pos_b": [], "token_b": [], "effect": [], "exact": [],
                                         "m": [], "estimate": [], "changed": []}  # fmt: skip
        for cell in cells:
            pos_b = runs.partners.get(cell.pos) if cell.pos is not None else None
            changed = self.changed(cell)
            lone = cell.pos is not None and pos_b is None
            estimate = math.nan if self.estimates is None or lone else float(self._of(cell, self.estimates).sum())
            m = runs.m_a + moved.get(cell, math.nan if changed or lone else idle)
            effect = (m - runs.m_a) / (runs.m_b - runs.m_a)
            row = (
                f"L{cell.layer}.{_PATCHED_AT[self.site][2]}{'' if cell.head is None else cell.head}",
                None if cell.pos is None else runs.question.acts.tokens[cell.pos], pos_b,
                None if pos_b is None else runs.b.tokens[pos_b],
                estimate if effect != effect else effect, effect == effect, m, estimate, changed,
            )  # fmt: skip
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
        table = pd.DataFrame(
            {"id": columns.pop("id"), **{name: [cell[n] for cell in cells] for n, name in enumerate(Cell._fields)},
             **columns}
        ).astype({"head": "Int64", "pos": "Int64", "pos_b": "Int64"})  # fmt: skip
        table.attrs = self.meta
        return table

    @property
    def whole(self) -> bool:
        """Whether no effect is an estimate."""
        return self.estimates is None or len(self.moved) == sum(self.changed(cell) > 0 for cell in self.cells())

    @property
    def meta(self) -> dict[str, Any]:
        """What the table is of."""
        runs = self.runs
        other = {f"{name}_b": value for name, value in runs.b.provenance.items()}
        return {
            **runs.question.meta, **other, "m_a": runs.m_a, "m_b": runs.m_b, "site": self.site, "at": self.at,
            "method": "exact" if self.whole else "attribution", "patched": len(self.moved),
            "alignment": [list(pair) for pair in sorted(runs.partners.items())],
            "first_difference": runs.first, "notes": runs.notes(self.at == "each"),
        }  # fmt: skip

    def state(self) -> dict[str, np.ndarray]:
        """What the patches so far have moved."""
        return {"moved": self.moved}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from there."""
        self.moved = np.asarray(arrays["moved"], dtype=float)

    @cached_property
    def _row(self) -> dict[int, int]:
        """Of every patched position its place among them."""
        return {i: n for n, i in enumerate(self.runs.patched)}

    @cached_property
    def _counts(self) -> np.ndarray:
        """How many numbers differ between both runs `[layer place head]`."""
        return _head_sums(self.runs, self.site, ((a != b).float() for a, b in both_sides(self.runs, self.site)))

    def _of(self, cell: Cell, numbers: np.ndarray) -> np.ndarray:
        """Those numbers `[layer place head]` that are of one patch."""
        at = [self._row[i] for i in self._places(cell)]
        return numbers[cell.layer, at, cell.head or 0]

    def _places(self, cell: Cell) -> list[int]:
        """The positions at which a patch writes."""
        return self.runs.patched if cell.pos is None else [i for i in (cell.pos,) if i in self._row]

    def _moved(self, cells: Sequence[Cell], first: int) -> np.ndarray:
        """By how much m moves in each patched run, from an unchanged run of the same arithmetic."""
        runs, question = self.runs, self.runs.question
        model = question.model
        quantity, own_seam, _ = _PATCHED_AT[self.site]
        order = sorted(range(len(cells)), key=lambda i: cells[i].layer)

        def write(n: int, seam: str, value: Tensor) -> None:
            if seam != own_seam:
                return
            cell = cells[order[n]]
            at = self._places(cell)
            own = slice(None) if cell.head is None else slice(cell.head * model.d_head, (cell.head + 1) * model.d_head)
            theirs = in_record(model, runs.b, quantity, cell.layer)[[runs.partners[i] for i in at], own]
            value[[i - first for i in at], own] = theirs.to(value)

        layers = [cells[i].layer for i in order]
        m = answer_gap(question, joined_states(model, question.acts, layers, first, question.pos, write)).double()
        found = np.empty(len(cells))
        found[order] = (m[1:] - m[0]).cpu().numpy()
        return found


def both_sides(runs: TwoRuns, site: PatchSite) -> Iterator[tuple[Tensor, Tensor]]:
    """(A's numbers, B's) `[place width]` at the patched positions, block by block."""
    model, quantity = runs.question.model, _PATCHED_AT[site][0]
    at, other = runs.patched, [runs.partners[i] for i in runs.patched]
    for layer in range(model.n_layers):
        sides = (runs.question.acts, at), (runs.b, other)
        a, b = (in_record(model, record, quantity, layer)[rows].to(model.wide) for record, rows in sides)
        yield a, b


def _head_sums(runs: TwoRuns, site: PatchSite, parts: Iterable[Float[Tensor, "place width"]]) -> np.ndarray:
    """The sums `[layer place head]` of numbers of every block, a head at a time where heads are patched."""
    heads = runs.question.model.n_heads if site == "heads" else 1
    return torch.stack([part.unflatten(1, (heads, -1)).sum(-1) for part in parts]).double().cpu().numpy()


# ---- to first order --------------------------------------------------------------------------------------------------
def attributed(runs: TwoRuns, site: PatchSite) -> np.ndarray:
    """`Σ (b − a) · ∂m/∂a / (m(B) − m(A))` `[layer place head]`, from one pass forward and one back on A.

    `place`: the patched positions; `head`: one for the sums. The gradient of a head's `z` goes through W_O and through
    the post-norm behind it, where there is one, whose factor moves as well. Source: causes section 13.
    """
    question = runs.question
    model = question.model
    found = gradients(model, question.acts, question.pos, question.word, every=True)
    parts, entered = [], found.entered
    assert entered is not None
    for layer, (a, b) in enumerate(both_sides(runs, site)):
        if site == "heads":
            g = _into_heads(question, layer, found.attn_out[layer])
        elif site == "resid":
            g = found.mlp_out[layer - 1] if layer else entered
        else:
            g = getattr(found, site)[layer]
        parts.append((b - a) * g[runs.patched])
    return _head_sums(runs, site, parts) / (runs.m_b - runs.m_a)


def _into_heads(question: Question, layer: int, g: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos width"]:
    """∂m/∂z of a block from ∂m/∂`attn_out`."""
    model = question.model
    norm = model.post_norm("attn", layer)
    if norm is not None:
        with torch.enable_grad():
            raw = raw_output(model, question.acts, layer, "attn", slice(None)).detach().requires_grad_()
            (g,) = torch.autograd.grad(block_norm(model, norm, raw), raw, g)
    return g @ model.weight(model.family.w_o, layer).T
