"""A prompt set on a model: which rows it can read, which of them it answers, and what names a run over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from visit.errors import VisitError
from visit.runs.job import finish
from visit.runs.prompts import PromptSet, Row
from visit.runs.sums import SumsJob, joined

if TYPE_CHECKING:
    from visit.models.model import Model


def run_key(what: str, model: Model, promptset: PromptSet, *settings: Any) -> tuple[Any, ...]:
    """What makes two runs equal: the analysis, the model's weights and precision, the set's content, the settings.

    `what`: the analysis and its version, a constant beside each job. It says what the numbers mean, and is raised with
    every change of what a run computes or keeps, so that files of before are not taken for results of now.
    """
    return model_run_key(what, model, promptset.hash, *settings)


def model_run_key(what: str, model: Model, *settings: Any) -> tuple[Any, ...]:
    """The same for a run that is of no set."""
    from visit.models.fingerprint import fingerprint

    about = model.name, model.revision, fingerprint(model), str(model.dtype), str(model.device)
    return (what, *about, *settings)


def fitting(model: Model, promptset: PromptSet, targets: bool = False) -> PromptSet:
    """The set without the prompts that this model cannot read; each is listed with its line.

    `targets`: also without rows that have no target, or one that is not exactly one token.
    """
    from visit.models.model import tokenize

    notes: dict[int, str] = {}
    known: dict[str, str | None] = {}
    for i, row in enumerate(promptset.rows):
        try:
            tokenize(model, row.prompt)
        except VisitError as error:
            notes[i] = str(error)
            continue
        if targets and (wrong := _wrong_target(model, row.target, known)):
            notes[i] = wrong
    return promptset.without(notes)


def _wrong_target(model: Model, target: str | None, known: dict[str, str | None]) -> str | None:
    """What is wrong with a target, or None. `known`: those looked at before, for a set repeats them."""
    if target is None:
        return "no target, so that nobody can say whether the answer is right"
    if target not in known:
        try:
            model.token_id(target)
            known[target] = None
        except VisitError as error:
            known[target] = str(error)
    return known[target]


def right(model: Model, rows: Sequence[Row]) -> list[bool]:
    """Whether the model's most probable next word is the row's target, for rows that `fitting` with targets left.

    Only the last state of each prompt is kept and read: the logits of every position would be a thousand times more.
    """
    import torch

    from visit.activations.forward import capture_many
    from visit.lenses.logit import lens_logits

    acts = capture_many(model, [row.prompt for row in rows], parts=("resid_post",), pos=-1)
    last = torch.stack([record.resid_post[-1, 0] for record in acts if record.resid_post is not None])
    with torch.no_grad():
        found = [int(i) for _, logits in lens_logits(model, last) for i in logits.argmax(-1)]
    return [a == model.token_id(row.target or "") for a, row in zip(found, rows, strict=True)]


@dataclass(frozen=True)
class Answered:
    """The prompts of a set that the model answers correctly. `rows`: those with a target that is one token."""

    kept: PromptSet
    rows: tuple[Row, ...]
    looked_at: int  # of them; smaller than `asked` while a run goes on

    def __str__(self) -> str:
        return f"{len(self.kept.rows):,} of {self.looked_at:,} prompts are answered correctly"

    @property
    def asked(self) -> int:
        return len(self.rows)

    def among(self, promptset: PromptSet) -> Answered:
        """The same for a smaller set, whose rows are all among these: one run answers for every shipped set."""
        asked = {(row.prompt, row.target): i < self.looked_at for i, row in enumerate(self.rows)}
        right = {(row.prompt, row.target) for row in self.kept.rows}
        rows = tuple(row for row in promptset.rows if (row.prompt, row.target) in asked)
        kept = tuple(row for row in rows if (row.prompt, row.target) in right)
        return Answered(replace(promptset, rows=kept), rows, sum(asked[row.prompt, row.target] for row in rows))


ANSWERED_RUN = "answered 1"


@dataclass(frozen=True, eq=False)
class Answers:
    """The sums of `answering`: whether each prompt was answered correctly, in their order."""

    right: np.ndarray = joined()


def answering(model: Model, promptset: PromptSet) -> SumsJob:
    """The job of finding which prompts a model answers correctly; its result is an `Answered`."""
    usable = fitting(model, promptset, targets=True)

    def result(sums: Answers) -> Answered:
        kept = tuple(row for row, good in zip(usable.rows, sums.right, strict=False) if good)
        return Answered(replace(usable, rows=kept), usable.rows, len(sums.right))

    return SumsJob(usable.rows, Answers(np.zeros(0, bool)), lambda rows: Answers(np.array(right(model, rows))), result)


def answered(model: Model, promptset: PromptSet) -> Answered:
    """Keep only the prompts whose target is the model's most probable next word; what has no usable target is noted."""
    return finish(answering(model, promptset))
