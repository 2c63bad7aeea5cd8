"""The study as a job of the worker: one pass over the prompts feeds all figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from visit.errors import VisitError
from visit.forward import capture_many, tokenize
from visit.layernorm_job import ShiftRun
from visit.layernorm_steps import has_norm
from visit.model import Model
from visit.neurons import NeuronRun
from visit.promptfile import Row
from visit.streaming import State
from visit.studies.measure import Read, final_words, measure
from visit.studies.plan import plan
from visit.studies.settings import NEURONS, Settings, settled
from visit.studies.sums import StudySums, add_prompts, empty, state_of, sums_of, weights
from visit.studies.vectors import PARTS

VECTORS = 4096  # memory values of one layer held at once, of all prompts that are read together
RECORD_BYTES = 64 << 20  # of captured quantities held at once


class StudyRun:
    """All figures of a study over prompts (`visit.worker`). Rows that the model cannot read must not come.

    `fitting(model, promptset)` takes those out; a prompt shorter than `settings.pos` is refused here.
    """

    def __init__(self, model: Model, rows: Sequence[Row], settings: Settings | None = None) -> None:
        self.model, self.items = model, rows
        self.settings = settled(settings or Settings(), model)
        self.targets = _targets(model, rows, self.settings)
        lengths = [len(tokenize(model, row.prompt)) for row in rows]
        self.seen = [_seen(length, self.settings.pos, row) for length, row in zip(lengths, rows, strict=True)]
        known = any(target is not None for target in self.targets.values())
        self.plan = plan(model, self.settings, max(self.seen, default=1), known)
        self.others = _others(model, rows, self.settings)
        self.sums = empty(self.plan.blocks, self.settings)
        self._with_others()

    def update(self, rows: Sequence[Row]) -> None:
        for some in self._groups(rows):
            self._take(some)
        self._with_others()

    def _groups(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """Prompts that are run and read together: as many as memory allows, whatever the worker hands over."""
        model = self.model
        per_token = model.n_layers * (len(PARTS) - 1) * model.d_model * model.wide.itemsize
        room = min(VECTORS // model.n_heads, RECORD_BYTES // per_token)  # tokens
        group: list[Row] = []
        width = 0
        for row in rows:
            length = len(tokenize(model, row.prompt))
            width = max(width, length)
            if group and width * (len(group) + 1) > room:
                yield group
                group, width = [], length
            group.append(row)
        if group:
            yield group

    def _take(self, rows: list[Row]) -> None:
        settings = self.settings
        records = list(capture_many(self.model, [row.prompt for row in rows], PARTS, batch=len(rows)))
        with torch.no_grad():
            prompts = final_words(self.model, records, settings.pos, settings.k)
            right = [self._right(row, prompt) for row, prompt in zip(rows, prompts, strict=True)]
            wanted = [i for i, good in enumerate(right) if settings.correct != "only" or good]
            numbers = measure(self.model, self.plan, [prompts[i] for i in wanted])
        kept = [n for n, i in enumerate(wanted) if not prompts[i].broken]
        broken = tuple(rows[i].line for i in wanted if prompts[i].broken)
        self._add([(rows[wanted[n]], right[wanted[n]]) for n in kept], [numbers[n] for n in kept])
        skipped = len(rows) - len(wanted)
        sums = self.sums
        self.sums = replace(sums, skipped=sums.skipped + skipped, broken=sums.broken + broken)

    def _right(self, row: Row, prompt: Read) -> bool | None:
        """Whether the prediction is the row's target; None where nobody can say."""
        target = self.targets.get(row.target or "")
        return None if target is None else prompt.prediction == target

    def _add(self, answered: list[tuple[Row, bool | None]], numbers: list[dict[str, Any]]) -> None:
        if not answered:
            return
        rows, right = [row for row, _ in answered], [good for _, good in answered]
        members = np.array([[True, good is True, good is False] for good in right], np.int64)
        by_block = {block.name: [own[block.name].cpu().numpy() for own in numbers] for block in self.plan.blocks}
        drawn = weights(self.settings.seed, rows, self.settings.draws)
        sums, (_, correct, incorrect) = self.sums, members.sum(0).tolist()
        self.sums = replace(
            sums, cells=add_prompts(sums, by_block, members, drawn), prompts=sums.prompts + len(rows),
            correct=sums.correct + correct, incorrect=sums.incorrect + incorrect,
        )  # fmt: skip
        for other in self.others.values():
            other.update(rows)

    def _with_others(self) -> None:
        self.sums = replace(self.sums, more={name: other.snapshot() for name, other in self.others.items()})

    def snapshot(self) -> StudySums:
        return self.sums  # frozen: a later update makes another

    def state(self) -> State:
        state = state_of(self.sums)
        for name, other in self.others.items():
            state |= {f"{name}|{key}": array for key, array in other.state().items()}
        return state

    def load(self, state: State) -> None:
        self.sums = sums_of(self.sums, state)
        for name, other in self.others.items():
            other.load({key.removeprefix(f"{name}|"): a for key, a in state.items() if key.startswith(f"{name}|")})
        self._with_others()


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


def _others(model: Model, rows: Sequence[Row], settings: Settings) -> dict[str, Any]:
    """The jobs of the norm and neuron analyses that are asked for; prompts come to them from `StudyRun`."""
    found: dict[str, Any] = {}
    norms = tuple(norm for norm in ("ln1", "ln2") if has_norm(model, norm))
    if settings.asks("7", "21", "22", "tables") and norms:
        found["shifts"] = ShiftRun(model, rows, norms, None, settings.pos)
    if settings.asks("23", "tables") and "ln1" in norms:
        found["plain"] = ShiftRun(model, rows, ("ln1",), False, settings.pos)
    if settings.asks(*NEURONS):
        found["neurons"] = NeuronRun(model, rows, pos=settings.pos)
    return found
