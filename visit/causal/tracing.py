"""A causal trace: which states, put back alone, bring an answer back after its subject was made unreadable.

Meng et al. 2022 (ROME), in five steps.

1. Noise is added to the embeddings of the subject's tokens as they enter the stream: normal, `noise` times as wide as
   the numbers of these embeddings themselves, drawn once for each sample. The model's own code runs each of them.
2. A run restores one thing from the clean run at one position: the stream after a block, or what attention or the MLP
   adds in a window of blocks.
3. What stands before the restored position, and before the restored block, is that of the noisy run, and known: a
   restored run is computed from there on only (`causal.block`), all runs of one sample and position in one batch, each
   joining at its block.
4. The answer's probability is read by the model's own unembedding, and averaged over the samples.
5. Four things must come out exactly: with nothing put back the noisy run; with the last state, or all states after one
   block, or noise of 0, the clean one.

A state that brings the answer back is enough for it while the subject is noise. That says where the answer passes, not
where it is stored, and it depends on the noise; windows overlap, so neighbours are alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.forward import capture
from visit.activations.record import Activations, Edit
from visit.activations.sites import in_record
from visit.causal.block import run_block
from visit.causal.trace_plan import (
    NOISE,
    SAMPLES,
    TRACE_SITES,
    Restored,
    Where,
    check_settings,
    check_subject,
    restored_runs,
    subject_positions,
    subject_text,
    window_blocks,
    window_width,
)
from visit.causal.triangle import BATCH_BYTES, run_bytes
from visit.errors import VisitError
from visit.exact.decompose import needed
from visit.exact.ledger import distance, tolerance
from visit.exact.question import Question, ask
from visit.lenses.logit import lens_logits
from visit.models.attention import soft_cap
from visit.models.model import Model
from visit.runs.job import finish
from visit.runs.moments import moments_of
from visit.text.notebooks import drawn_table
from visit.text.numbers import percent
from visit.text.visible import visible

LITTLE_TO_LOSE = 0.05  # probability of the answer below which there is little to lose
CHECKS = (
    "nothing put back: the noisy run of the model's own code",
    "the last position after the last block put back: the clean prediction",
    "all positions after one block put back: the clean prediction",
    "noise of 0: the clean prediction",
)
_OF_A_NOISY_RUN = ("resid_pre", "resid_post", "k", "v", "rotary", "logits")  # of a noisy run


class TraceStep(NamedTuple):
    """What is computed together: every restored run of one sample at one position. Sample −1: the four checks."""

    sample: int
    pos: int


def trace(
    model: Model,
    prompt: str | Sequence[int],
    subject: Where,
    target: int | str | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    noise: float = NOISE,
    window: int | None = None,
    pos: int = -1,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Make the subject unreadable, put one state back at a time, and see how much of the answer returns: a row a cell.

    `subject`: a text of whole tokens (wherever it stands in the prompt), or positions. `target`: the answer, a token
    (None: the model's prediction at `pos`). `noise`: how many standard deviations of the subject's own embeddings the
    noise has (ROME takes them over the subjects of a whole set; over one prompt's own the noise is 3 times as strong as
    what it hides in every model). `window`: blocks restored together of "attn_out" and "mlp_out" (None: a fifth of the
    model's, at least 3; of ten from 5 before the block to 4 behind it). `progress(done, total)` in batches.

    Columns: `site` ("resid": the stream after the block), `layer`, `pos`, `token`, `prob` (mean probability of the
    answer over the samples), `effect` (prob − corrupted), `low`, `high` (its 95 % band over the samples, by Student's
    t; missing of one sample), `first`, `last` (the blocks restored). Positions before the subject have effect 0.
    `.attrs`: `clean`, `corrupted` (probabilities of the answer), `noise`, `sd`, `samples`, `seed`, `window`, `subject`,
    `ledger` (the four checks), `notes` (sentences), and what was asked. Raises `VisitError` for a subject that is not
    there, splits a token, or leaves nothing to trace, and for a target that is not one token. Source: Meng et al. 2022,
    section 2; causes section 13.
    """
    question = ask(model, capture(model, prompt), pos, target)
    return finish(TraceJob.of(question, subject, samples, seed, noise, window), progress)


# ---- the job ---------------------------------------------------------------------------------------------------------
@dataclass(eq=False)
class TraceJob:
    """One trace as a job of `visit.runs.worker`: first the checks, then sample by sample, position by position."""

    question: Question
    subject: tuple[int, ...]
    draws: list[Tensor]  # of every sample: the noise [subject d_model]
    window: int
    items: list[TraceStep]
    meta: dict[str, Any]
    probs: np.ndarray  # [site layer pos sample], positions from the subject's first on; NaN: not yet
    noisy: np.ndarray  # [sample] the answer's probability with nothing put back
    errors: np.ndarray  # relative, of the four checks
    last_run: tuple[int, Activations] | None = None  # a sample, and its noisy run

    @classmethod
    def of(
        cls, question: Question, subject: Where, samples: int = SAMPLES, seed: int = 0, noise: float = NOISE,
        window: int | None = None,
    ) -> TraceJob:  # fmt: skip
        """What is to be run; nothing runs yet. Raises `VisitError` as `trace` does."""
        model, acts, t = question.model, question.acts, question.pos
        check_settings(model, samples, seed, noise, window)
        if acts.edits:
            raise VisitError("A trace begins with a run without edits; this record was made with some. Capture anew.")
        where = subject_positions(acts, subject)
        check_subject(question, where)
        rows = in_record(model, acts, "embed", 0)[list(where)].to(model.wide)
        sd, dice = float(rows.double().std()), torch.Generator().manual_seed(seed)
        drawn = [torch.randn(*rows.shape, generator=dice, dtype=torch.float64) for _ in range(samples)]
        wide = window_width(model.n_layers, window)
        meta = {
            **question.meta, "subject": {
                "positions": list(where), "tokens": [acts.tokens[p] for p in where], "text": subject_text(acts, where),
            },
            "samples_asked": samples, "seed": seed, "noise": noise, "sd": sd, "window": wide,
        }  # fmt: skip
        items = [TraceStep(-1, -1), *(TraceStep(*one) for one in product(range(samples), range(where[0], t + 1)))]
        return cls(
            question, where, [(noise * sd * draw).to(rows) for draw in drawn], wide, items, meta,
            np.full((len(TRACE_SITES), model.n_layers, t + 1 - where[0], samples), np.nan), np.full(samples, np.nan),
            np.full(len(CHECKS), np.nan),
        )  # fmt: skip

    def update(self, items: Sequence[TraceStep]) -> None:
        """Make the next checks and cells."""
        with torch.no_grad():
            for item in items:
                if item.sample < 0:
                    self.errors, self.noisy = self._checked()
                else:
                    self.probs[:, :, item.pos - self.subject[0], item.sample] = self._cells(*item)

    def snapshot(self) -> pd.DataFrame:
        """The table of `trace`, of the samples that are whole."""
        acts, first = self.question.acts, self.subject[0]
        whole = ~np.isnan(self.probs).any(axis=(0, 1, 2))
        probs, noisy = self.probs[..., whole], self.noisy[whole]
        count = probs.shape[-1]
        corrupted = float((noisy if count else self.noisy).mean())
        around = window_blocks(self.question.model.n_layers, self.window)
        rows = []
        for s, site in enumerate(TRACE_SITES):
            for layer, blocks in enumerate(around):
                ends = (layer, layer) if site == "resid" else (blocks.start, blocks[-1])
                for p in range(self.question.pos + 1):
                    cell = (corrupted, 0.0, 0.0, 0.0) if p < first else _averaged(probs[s, layer, p - first], noisy)
                    rows.append((site, layer, p, acts.tokens[p], *cell, *ends))
        names = ["site", "layer", "pos", "token", "prob", "effect", "low", "high", "first", "last"]
        clean = float(needed(acts, "logits")[self.question.pos].double().softmax(-1)[self.question.target])
        about = {
            **self.meta, "samples": count, "clean": clean, "corrupted": corrupted, "ledger": self._ledger(),
            "notes": _trace_notes(self.question, clean, corrupted),
        }  # fmt: skip
        return drawn_table(pd.DataFrame(rows, columns=names), "trace", about)

    def state(self) -> dict[str, np.ndarray]:
        """What has run."""
        return {"probs": self.probs.copy(), "noisy": self.noisy, "errors": self.errors}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from there."""
        for name, own in self.state().items():
            if arrays[name].shape != own.shape:
                raise VisitError(f"This state is of another run: its {name} does not fit. Start the run again.")
            setattr(self, name, np.array(arrays[name], dtype=float))

    def doing(self, done: int) -> str:
        """Words for where it is."""
        return (
            f"{max(0, done - 1) // (self.question.pos + 1 - self.subject[0])} of {len(self.draws)} samples of the noise"
        )

    def _ledger(self) -> dict[str, Any]:
        allowed = tolerance(self.question.model, 9)  # attention is computed again
        checks = [
            {"name": name, "max_rel_error": error, "tolerance": allowed, "holds": bool(error <= allowed)}
            for name, error in zip(CHECKS, self.errors.tolist(), strict=True)
        ]  # fmt: skip
        worst = float(self.errors.max())
        return {"holds": bool(worst <= allowed), "max_rel_error": worst, "tolerance": allowed, "checks": checks}

    # ---- noisy runs, and what is put back into them ------------------------------------------------------------------
    def _noisy_run(self, sample: int) -> Activations:
        """A pass of the model's own code with the noise of one sample."""
        if self.last_run is None or self.last_run[0] != sample:
            model, ids = self.question.model, self.question.acts.token_ids
            whole = self.draws[sample].new_zeros(len(ids), model.d_model)
            whole[list(self.subject)] = self.draws[sample]
            edit = Edit("embed", "add", source=whole, pos=list(self.subject))
            self.last_run = sample, capture(model, ids, _OF_A_NOISY_RUN, [edit])
        return self.last_run[1]

    def _cells(self, sample: int, p: int) -> Float[np.ndarray, "site layer"]:
        """The answer's probability in every run of one sample that restores something at position p."""
        model, runs = self.question.model, restored_runs(self.question.model.n_layers, self.window)
        noisy = self._noisy_run(sample)
        exact = model.dtype == model.wide
        first = p if exact else self.subject[0]  # a rounded record is of no use: from the subject on
        stream = self._stream(noisy)[:, first - self.subject[0] :]
        size = max(1, BATCH_BYTES // run_bytes(model, first, self.question.pos))
        found = np.empty((len(TRACE_SITES), model.n_layers))
        for start in range(0, len(runs), size):
            part = runs[start : start + size]
            states = self._last_states(noisy, stream, part, first, p)
            for run, prob in zip(part, self._answers(states).tolist(), strict=True):
                found[TRACE_SITES.index(run.site), run.layer] = prob
        return found

    def _stream(self, acts: Activations) -> Float[Tensor, "entered pos d_model"]:
        """The stream that enters each block, and leaves the last, from the subject's first position on.

        A record in half precision is rounded at every block: there it is computed, so that restored runs differ from
        it by what is restored alone.
        """
        model, first, t = self.question.model, self.subject[0], self.question.pos
        pre, post = (needed(acts, name)[:, first : t + 1].to(model.wide) for name in ("resid_pre", "resid_post"))
        if model.dtype == model.wide:
            return torch.cat([pre, post[-1:]])
        found = [pre[:1]]
        for layer in range(model.n_layers):
            found.append(run_block(model, acts, layer, found[-1], first, _as_it_is))
        return torch.cat(found)

    def _last_states(
        self, noisy: Activations, stream: Tensor, runs: Sequence[Restored], first: int, p: int
    ) -> Float[Tensor, "run d_model"]:
        """The last states of runs in order of their joining: each enters its block with the noisy run's stream."""
        model, clean = self.question.model, self.question.acts
        x = stream[[run.join for run in runs]]  # a row is its run's entry until the run joins
        at, here = p - first, 0
        for row, run in enumerate(runs):
            if run.site == "resid":
                x[row, at] = needed(clean, "resid_post")[run.layer, p].to(model.wide)
        for layer in range(runs[0].join, model.n_layers):
            here = sum(run.join <= layer for run in runs)

            def written(seam: str, value: Tensor, layer: int = layer, here: int = here) -> Tensor:
                rows = [n for n, run in enumerate(runs[:here]) if run.site == seam and layer in run.blocks]
                if rows:
                    value[rows, at] = needed(clean, seam)[layer, p].to(model.wide)
                return value

            if here:
                x[:here] = run_block(model, noisy, layer, x[:here], first, written)
        return x[:, -1]

    def _answers(self, states: Float[Tensor, "run d_model"]) -> Float[Tensor, " run"]:
        """The answer's probability in each last state."""
        return torch.cat([logits.softmax(-1)[:, self.question.target] for logits in self._logits(states)])

    def _logits(self, states: Float[Tensor, "run d_model"]) -> Iterable[Float[Tensor, "run d_vocab"]]:
        model = self.question.model
        return (soft_cap(logits, model.logit_cap) for _, logits in lens_logits(model, states))

    # ---- the four checks ---------------------------------------------------------------------------------------------
    def _checked(self) -> tuple[np.ndarray, np.ndarray]:
        """(the error of each check, the answer's probability in each noisy run)."""
        model, clean, first, t = self.question.model, self.question.acts, self.subject[0], self.question.pos
        entered = needed(clean, "resid_pre")[:, first : t + 1].to(model.wide)
        goal = needed(clean, "logits")[t : t + 1]
        nothing, noisy = 0.0, []
        for sample in range(len(self.draws)):
            acts = self._noisy_run(sample)
            x = needed(acts, "resid_pre")[:1, first : t + 1].to(model.wide)
            states = self._onward(x, 0)
            noisy.append(float(self._answers(states)))
            nothing = max(nothing, self._error(states, needed(acts, "logits")[t : t + 1]))
        last = [run for run in restored_runs(model.n_layers, self.window) if run.join == model.n_layers]
        end = self._last_states(acts, self._stream(acts)[:, t - first :], last, t, t)
        every = [self._error(self._onward(entered[n : n + 1], n), goal) for n in range(1, model.n_layers)]
        zero = self._error(self._onward(entered[:1] + 0 * x, 0), goal)
        return np.array([nothing, self._error(end, goal), max(every, default=0.0), zero]), np.array(noisy)

    def _onward(self, x: Float[Tensor, "run pos d_model"], layer: int) -> Float[Tensor, "run d_model"]:
        """The last states of runs that enter a block from the subject's first position on."""
        for n in range(layer, self.question.model.n_layers):
            x = run_block(self.question.model, self.question.acts, n, x, self.subject[0], _as_it_is)
        return x[:, -1]

    def _error(self, states: Tensor, goal: Tensor) -> float:
        """How far the logits of states are from those of the model's own code, of the largest."""
        model = self.question.model
        error, largest = distance(model, torch.cat(list(self._logits(states))), goal)
        return error / (largest or 1.0)


def _as_it_is(_seam: str, value: Tensor) -> Tensor:
    return value


# ---- over the samples ------------------------------------------------------------------------------------------------
def _averaged(probs: np.ndarray, noisy: np.ndarray) -> tuple[float, float, float, float]:
    """(mean probability, mean effect, the ends of its band) of one cell."""
    if not len(probs):
        return (math.nan,) * 4
    found = moments_of(probs - noisy)
    low, high = found.band
    return float(probs.mean()), float(found.mean), float(low), float(high)


def _trace_notes(question: Question, clean: float, corrupted: float) -> list[str]:
    """Sentences on what a reader of this table must know."""
    word, found = f"“{visible(question.model.vocabulary[question.target])}”", []
    if clean < LITTLE_TO_LOSE:
        found.append(
            f"{word} has only {percent(clean)} in the clean run: there is little to lose, and little to restore."
        )
    elif corrupted > 0.8 * clean:
        found.append(
            f"The noise takes little away: {word} has {percent(clean)} in the clean run and still {percent(corrupted)} "
            "with it. The answer does not hang on this subject, or the noise is too weak."
        )
    return found
