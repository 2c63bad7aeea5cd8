"""What a study keeps of the prompts it has seen: sums, and the same sums of a thousand resampled prompt sets.

A prompt enters every resampled set as often as a Poisson number of mean 1 says, drawn from the seed and the prompt's
own text: a bootstrap that needs to see each prompt once only, and whose parts merge to the whole. Equal prompts are
drawn together, for a prompt given twice says nothing new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from visit.errors import VisitError
from visit.runs.prompts import Row
from visit.runs.sums import derived, each, joined, summed
from visit.studies.plan import GROUPS, CellBlock
from visit.studies.settings import Settings


@dataclass(frozen=True, eq=False)
class Cells:
    """The sums of one block. `total[0]` is of the prompts as they are, `total[1:]` of the resampled sets."""

    total: Float[np.ndarray, "draw group measure layer head rank"] = summed()
    count: Float[np.ndarray, "draw group rank"] = summed()  # how many prompts, or how often they were drawn

    @property
    def mean(self) -> Float[np.ndarray, "draw group measure layer head rank"]:
        """NaN where a set holds no prompt of the group that has this rank."""
        count = self.count[:, :, None, None, None, :]
        return np.divide(self.total, count, out=np.full_like(self.total, np.nan), where=count > 0)


@dataclass(frozen=True, eq=False)
class Words:
    """The figures of norms and neurons, by id, and the test of function words (None where it was not asked for)."""

    tables: dict[str, pd.DataFrame]
    test: pd.DataFrame | None


@dataclass(frozen=True, eq=False)
class StudySums:
    """The sums of `prompts` prompts (`visit.runs.sums`).

    `correct`, `incorrect`: how many were answered so (of those with a target); `skipped`: not run, for being answered
    incorrectly or having no target where only correct ones are wanted; `broken`: lines of prompts for which the model
    computes no numbers, which are in no sum. `more`: sums of the norm and neuron analyses, by name. `words`: what the
    run's last step made of them, None before. `seconds`: what the run took so far, breaks left out.
    """

    blocks: tuple[CellBlock, ...]
    settings: Settings
    cells: dict[str, Cells] = each()
    more: dict[str, Any] = each()
    prompts: int = summed()
    correct: int = summed()
    incorrect: int = summed()
    skipped: int = summed()
    broken: tuple[int, ...] = joined()
    seconds: float = summed()
    words: Words | None = derived()

    def block(self, name: str) -> CellBlock:
        return next(block for block in self.blocks if block.name == name)

    @property
    def seen(self) -> int:
        """How many rows of the prompt set are done, run or not."""
        return self.prompts + self.skipped + len(self.broken)


def no_prompts(blocks: Iterable[CellBlock], settings: Settings, more: dict[str, Any] | None = None) -> StudySums:
    """The sums of no prompt. `more`: those of the norm and neuron analyses."""
    blocks = tuple(blocks)
    none: dict[str, list[np.ndarray]] = {block.name: [] for block in blocks}
    cells = cells_of(blocks, none, np.zeros((0, len(GROUPS)), int), np.zeros((0, settings.draws + 1), int))
    return StudySums(blocks, settings, cells, more or {}, 0, 0, 0, 0, (), 0.0)


def weights(seed: int, rows: Iterable[Row], draws: int) -> Int[np.ndarray, "prompt draw"]:
    """How often each prompt enters each resampled set; the first column is the set itself, 1."""
    found = []
    for row in rows:
        digest = hashlib.sha256(repr((row.prompt, row.target)).encode("utf-8", "backslashreplace")).digest()
        generator = np.random.default_rng([seed, *np.frombuffer(digest, np.uint32)])
        found.append(np.append(1, generator.poisson(1.0, draws)))
    return np.array(found, np.int64).reshape(-1, draws + 1)


def cells_of(
    blocks: Iterable[CellBlock], numbers: dict[str, list[np.ndarray]], members: Int[np.ndarray, "prompt group"],
    drawn: Int[np.ndarray, "prompt draw"],
) -> dict[str, Cells]:  # fmt: skip
    """The cells of some prompts. `numbers`: by block, a prompt's `[measure, layer, head, rank]` each.

    A prompt too short to have every rank gives as many as it has. `members`: 1 where a prompt is in a group.
    """
    found = {}
    for block in blocks:
        own = numbers[block.name]
        x, have = np.zeros((len(own), *block.shape)), np.zeros((len(own), block.shape[-1]))
        for i, part in enumerate(own):
            x[i, ..., : part.shape[-1]], have[i, : part.shape[-1]] = part, 1
        if not np.isfinite(x).all():
            raise VisitError("A number of the study is NaN: a prompt that computes no numbers must not be counted.")
        weight = drawn.T[:, None, :] * members[:, : len(block.groups)].T  # [draw, group, prompt]
        found[block.name] = Cells(np.tensordot(weight, x, 1), np.tensordot(weight, have, 1))
    return found
