"""The study as a job of the worker: one pass over the prompts feeds all figures, and what follows is part of the run.

Its items are the prompts, then (for Figures 8 and 9) the rows of the weights that no run of this model has read yet,
and last the words of norms and neurons. Which prompts are computed together is a matter of the set, not of a clock:
a run that was stopped and goes on adds the same numbers in the same order, and its results are equal to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import accumulate

import numpy as np
import torch

from visit.activations.forward import capture_many
from visit.analyses.neuron_sets import neuron_job
from visit.analyses.norm_sets import shift_job
from visit.cache import Arrays
from visit.errors import VisitError
from visit.lenses.linear import Lens, checked
from visit.lenses.weights import StaticRun, found_index, rows_in_all
from visit.models.model import Model, has_norm, tokenize
from visit.runs.prompts import Row
from visit.runs.sums import SumsJob, load_sums, merge, state_of, under
from visit.studies.duration import part_seconds, prompt_seconds, vectors_of
from visit.studies.measure import STUDY_PARTS, Read, final_words, measure
from visit.studies.plan import plan
from visit.studies.settings import NEURON_FIGURES, NORM_FIGURES, Settings, read_through, settled
from visit.studies.sums import StudySums, cells_of, no_prompts, weights
from visit.studies.tables import words_of

FLOP = 2e10  # of products with W_U in one group of prompts: after each a run can be stopped
STATIC_ROWS = 256  # of the weights, read in one step
GROUP_VALUES = 4096  # memory values of one layer held at once, of all prompts that are read together
GROUP_BYTES = 64 << 20  # of captured quantities held at once
STUDY_RUN = "study 4"


@dataclass(frozen=True)
class Part:
    """A step of a run that is no prompt: some rows of the static index, or (`rows` None) the words at the end."""

    rows: range | None


class StudyRun:
    """All figures of a study over prompts (`visit.runs.worker`). Rows that the model cannot read must not come.

    `fitting(model, promptset)` takes those out; a prompt shorter than `settings.pos` is refused here. `lens`: a fitted
    lens to read Figures 14 and "early" through, beside the plain one.
    """

    def __init__(
        self, model: Model, rows: Sequence[Row], settings: Settings | None = None, lens: Lens | None = None
    ) -> None:
        self.model, self.rows, self.lens = model, rows, checked(model, lens)
        self.settings = read_through(settled(settings or Settings(), model), lens)
        self.targets = _targets(model, rows, self.settings)
        self.lengths = [len(tokenize(model, row.prompt)) for row in rows]
        self.seen = [_seen(n, self.settings.pos, row) for n, row in zip(self.lengths, rows, strict=True)]
        known = any(target is not None for target in self.targets.values())
        self.plan = plan(model, self.settings, max(self.seen, default=1), known)
        self.others = _others(model, rows, self.settings)
        self.static: StaticRun | None = None
        self.items: Sequence[Row | Part] = [*rows, *_parts(model, self.settings)]
        none = {name: other.sums for name, other in self.others.items()}
        self.sums = no_prompts(self.plan.blocks, self.settings, none)

    @cached_property
    def work(self) -> list[float]:
        """The seconds that every item will take, by a speed that is measured here and now."""
        parts = [part.rows for part in self.items if isinstance(part, Part)]
        return prompt_seconds(self.model, self.lengths, self.seen, self.settings) + part_seconds(
            self.model, parts, self.settings
        )

    @cached_property
    def stops(self) -> list[int]:
        """Where a group of prompts that are computed together ends, and every other step."""
        found = list(accumulate(len(group) for group in self._groups(self.rows)))
        return [*found, *range(len(self.rows) + 1, len(self.items) + 1)]

    def doing(self, done: int) -> str:
        """Where a run is, in words."""
        prompts = len(self.rows)
        if done < prompts:
            return f"{done:,} of {prompts:,} prompts"
        part = self.items[done] if done < len(self.items) else None
        if isinstance(part, Part) and part.rows is not None:
            every = rows_in_all(self.model)
            return f"all {prompts:,} prompts; {part.rows.start:,} of {every:,} rows of the weights, once per model"
        return f"all {prompts:,} prompts" + ("" if part is None else "; the words of norms and neurons")

    def update(self, items: Sequence[Row | Part]) -> None:
        started = time.perf_counter()
        rows = [item for item in items if not isinstance(item, Part)]
        sums = reduce(merge, map(self.read, self._groups(rows)), self.sums)
        for part in items[len(rows) :]:
            assert isinstance(part, Part)
            if part.rows is not None:
                self._read_rows(part.rows)
            elif sums.prompts:
                sums = replace(sums, words=words_of(self.model, sums))
        self.sums = replace(sums, seconds=sums.seconds + time.perf_counter() - started)

    def _read_rows(self, rows: range) -> None:
        """Rows of the static index, unless it is at hand or on the disk already."""
        if found_index(self.model) is not None:
            return
        if self.static is None:
            self.static = StaticRun(self.model)
        self.static.update(range(self.static.done, rows.stop))

    def _groups(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """Prompts that are run and read together, as many as memory allows and a moment's work.

        The same whatever part of the set it is, if that begins where a group does.
        """
        model, settings = self.model, self.settings
        per_token = model.n_layers * (len(STUDY_PARTS) - 1) * model.d_model * model.wide.itemsize
        room = min(GROUP_VALUES // model.n_heads, GROUP_BYTES // per_token)  # tokens
        group: list[Row] = []
        width, flop = 0, 0.0
        for row in rows:
            length = len(tokenize(model, row.prompt))
            more = 2.0 * model.d_model * model.d_vocab * vectors_of(model, _seen(length, settings.pos, row), settings)
            width, flop = max(width, length), flop + more
            if group and (width * (len(group) + 1) > room or flop > FLOP):
                yield group
                group, width, flop = [], length, more
            group.append(row)
        if group:
            yield group

    def read(self, rows: list[Row]) -> StudySums:
        """The sums of a group of prompts alone."""
        settings, blocks = self.settings, self.plan.blocks
        records = list(capture_many(self.model, [row.prompt for row in rows], STUDY_PARTS, batch=len(rows)))
        with torch.no_grad():
            prompts = final_words(self.model, records, settings.pos, settings.k)
            answers = list(zip(rows, prompts, map(self._right, rows, prompts), strict=True))
            run = [answer for answer in answers if settings.correct != "only" or answer[2]]
            measured = zip(
                run, measure(self.model, self.plan, [prompt for _, prompt, _ in run], self.lens), strict=True
            )
        kept = [(row, good, numbers) for (row, prompt, good), numbers in measured if not prompt.broken]
        own = [row for row, _, _ in kept]
        members = np.array([[True, good is True, good is False] for _, good, _ in kept], np.int64).reshape(-1, 3)
        numbers = {block.name: [n[block.name].cpu().numpy() for _, _, n in kept] for block in blocks}
        cells = cells_of(blocks, numbers, members, weights(settings.seed, own, settings.draws))
        correct, incorrect = members[:, 1:].sum(0).tolist()
        return StudySums(
            blocks, settings, cells, {name: job.read(own) if own else job.sums for name, job in self.others.items()},
            len(kept), correct, incorrect, skipped=len(rows) - len(run),
            broken=tuple(row.line for row, prompt, _ in run if prompt.broken), seconds=0.0,
        )  # fmt: skip

    def _right(self, row: Row, prompt: Read) -> bool | None:
        """Whether the prediction is the row's target; None where nobody can say."""
        target = self.targets.get(row.target or "")
        return None if target is None else prompt.prediction == target

    def snapshot(self) -> StudySums:
        return self.sums  # frozen: a later update makes another

    def state(self) -> Arrays:
        static = {} if self.static is None else self.static.state()
        return state_of(self.sums) | {f"static.{name}": array for name, array in static.items()}

    def load(self, arrays: Arrays) -> None:
        self.sums = load_sums(self.sums, arrays)
        if static := under(arrays, "static."):
            self.static = StaticRun(self.model)
            self.static.load(static)


def _parts(model: Model, settings: Settings) -> list[Part]:
    """What follows the prompts: the same steps whether or not the rows have been read, so that a run can go on."""
    found: list[Part] = []
    if settings.asks(*NEURON_FIGURES):
        every = range(rows_in_all(model))
        found += [Part(every[start : start + STATIC_ROWS]) for start in range(0, len(every), STATIC_ROWS)]
    return found + ([Part(None)] if settings.asks(*NORM_FIGURES, *NEURON_FIGURES) else [])


def _seen(length: int, pos: int, row: Row) -> int:
    """How many positions the looked-at one can attend to."""
    if not -length <= pos < length:
        raise VisitError(
            f"Position {pos} does not exist in the prompt of line {row.line}, which has {length} tokens. "
            "Leave it out, or look at another position."
        )
    return pos % length + 1


def _targets(model: Model, rows: Sequence[Row], settings: Settings) -> dict[str, int | None]:
    """The token of every target; None for one that is not exactly one token."""
    found: dict[str, int | None] = {}
    for text in {row.target for row in rows if row.target} if settings.correct != "all" else ():
        try:
            found[text] = model.token_id(text)
        except VisitError:
            found[text] = None
    return found


def _others(model: Model, rows: Sequence[Row], settings: Settings) -> dict[str, SumsJob]:
    """The jobs of the norm and neuron analyses that are asked for; `StudyRun` reads with them and keeps the sums."""
    found: dict[str, SumsJob] = {}
    norms = tuple(norm for norm in ("ln1", "ln2") if has_norm(model, norm))
    if settings.asks("7", "21", "22", "tables") and norms:
        found["shifts"] = shift_job(model, rows, norms, None, settings.pos)
    if settings.asks("23", "tables") and "ln1" in norms:
        found["plain"] = shift_job(model, rows, ("ln1",), False, settings.pos)
    if settings.asks(*NEURON_FIGURES):
        found["neurons"] = neuron_job(model, rows, pos=settings.pos)
    return found
