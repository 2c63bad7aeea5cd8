"""Prompt sets and a model: which prompts it can read, which it answers correctly, and what makes two runs equal."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from visit.activations.forward import capture_many, tokenize
from visit.cache import State
from visit.errors import VisitError
from visit.lenses.logit import lens_logits
from visit.models.model import Model
from visit.runs.prompts import Note, PromptSet, Row, all_shipped, named_prompts, read_prompts, shipped, shipped_set
from visit.runs.worker import steps

__all__ = [
    "Answered", "Answering", "Note", "PromptSet", "Row", "all_shipped", "answered", "fitting", "named_prompts",
    "read_prompts", "right", "run_key", "shipped", "shipped_set",
]  # fmt: skip
_FINGERPRINTS: weakref.WeakKeyDictionary[Model, str] = weakref.WeakKeyDictionary()


def run_key(what: str, model: Model, promptset: PromptSet, *settings: Any) -> tuple[Any, ...]:
    """What makes two runs equal: the analysis, the model's weights and precision, the set's content, the settings."""
    about = model.name, model.revision, _fingerprint(model), str(model.dtype), str(model.device)
    return (what, *about, promptset.hash, *settings)


def _fingerprint(model: Model) -> str:
    """Of all that computes: the weights in memory, every byte of them, the config, the tokenizer. Read once.

    A name and a revision do not tell two models without files apart, and results outlive the weights on disk.
    """
    if model not in _FINGERPRINTS:
        digest = hashlib.sha256(model.hf.config.to_json_string(use_diff=False).encode())
        backend = getattr(model.tokenizer, "backend_tokenizer", None)
        digest.update((repr(model.vocabulary) if backend is None else backend.to_str()).encode())
        for name, tensor in model.hf.state_dict().items():
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
        _FINGERPRINTS[model] = digest.hexdigest()[:32]
    return _FINGERPRINTS[model]


def fitting(model: Model, promptset: PromptSet, targets: bool = False) -> PromptSet:
    """The set without the prompts that this model cannot read; each is listed with its line.

    `targets`: also without rows that have no target, or one that is not exactly one token.
    """
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


class Answering:
    """The job of finding them, for `visit.runs.worker`."""

    def __init__(self, model: Model, promptset: PromptSet) -> None:
        self.model, self.set = model, fitting(model, promptset, targets=True)
        self.items, self.right = self.set.rows, np.zeros(0, bool)

    def update(self, rows: Sequence[Row]) -> None:
        self.right = np.append(self.right, right(self.model, rows))

    def snapshot(self) -> Answered:
        kept = tuple(row for row, good in zip(self.items, self.right, strict=False) if good)
        return Answered(replace(self.set, rows=kept), self.items, len(self.right))

    def state(self) -> State:
        return {"right": self.right}

    def load(self, state: State) -> None:
        self.right = state["right"]


def answered(model: Model, promptset: PromptSet) -> Answered:
    """Keep only the prompts whose target is the model's most probable next word; what has no usable target is noted."""
    job = Answering(model, promptset)
    for _ in steps(job):
        pass
    return job.snapshot()
