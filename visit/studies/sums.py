"""What a study keeps of the prompts it has seen: sums, and the same sums of a thousand resampled prompt sets.

A prompt enters every resampled set as often as a Poisson number of mean 1 says, drawn from the seed and the prompt's
own text: a bootstrap that needs to see each prompt once only, and whose halves merge to the whole. Equal prompts are
drawn together, for a prompt given twice says nothing new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from visit.cache import State
from visit.errors import VisitError
from visit.runs.prompts import Row
from visit.studies.plan import Block
from visit.studies.settings import Settings

_COUNTED = ("prompts", "correct", "incorrect", "skipped")


@dataclass(frozen=True, eq=False)
class Cells:
    """The sums of one block. `total[0]` is of the prompts as they are, `total[1:]` of the resampled sets."""

    total: Float[np.ndarray, "draw group measure layer head rank"]
    count: Float[np.ndarray, "draw group rank"]  # how many prompts, or how often they were drawn

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
    """The sums of `prompts` prompts, a frozen record: `added` and `merge` make the next one.

    `correct`, `incorrect`: how many were answered so (of those with a target); `skipped`: not run, for being answered
    incorrectly or having no target where only correct ones are wanted; `broken`: lines of prompts for which the model
    computes no numbers, which are in no sum. `more`: sums of the norm and neuron analyses, by name. `words`: what the
    run's last step made of them, None before. `seconds`: what the run took so far, breaks left out.
    """

    blocks: tuple[Block, ...]
    cells: dict[str, Cells]
    settings: Settings
    prompts: int = 0
    correct: int = 0
    incorrect: int = 0
    skipped: int = 0
    broken: tuple[int, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)
    words: Words | None = None
    seconds: float = 0.0

    def block(self, name: str) -> Block:
        return next(block for block in self.blocks if block.name == name)

    @property
    def seen(self) -> int:
        """How many rows of the prompt set are done, run or not."""
        return self.prompts + self.skipped + len(self.broken)


def empty(blocks: Iterable[Block], settings: Settings) -> StudySums:
    """The sums of no prompt."""
    blocks, draws = tuple(blocks), settings.draws
    cells = {
        block.name: Cells(
            np.zeros((draws + 1, len(block.groups), *block.shape)),
            np.zeros((draws + 1, len(block.groups), block.shape[-1])),
        )
        for block in blocks
    }
    return StudySums(blocks, cells, settings)


def weights(seed: int, rows: Iterable[Row], draws: int) -> Int[np.ndarray, "prompt draw"]:
    """How often each prompt enters each resampled set; the first column is the set itself, 1."""
    found = []
    for row in rows:
        digest = hashlib.sha256(repr((row.prompt, row.target)).encode("utf-8", "backslashreplace")).digest()
        generator = np.random.default_rng([seed, *np.frombuffer(digest, np.uint32)])
        found.append(np.append(1, generator.poisson(1.0, draws)))
    return np.array(found, np.int64).reshape(-1, draws + 1)


def add_prompts(
    sums: StudySums, numbers: dict[str, list[np.ndarray]], members: Int[np.ndarray, "prompt group"],
    drawn: Int[np.ndarray, "prompt draw"],
) -> dict[str, Cells]:  # fmt: skip
    """The cells with some more prompts. `numbers`: by block, a prompt's `[measure, layer, head, rank]` each.

    A prompt too short to have every rank gives as many as it has. `members`: 1 where a prompt is in a group.
    """
    found = {}
    for block in sums.blocks:
        own, old = numbers[block.name], sums.cells[block.name]
        x, have = np.zeros((len(own), *block.shape)), np.zeros((len(own), block.shape[-1]))
        for i, part in enumerate(own):
            x[i, ..., : part.shape[-1]], have[i, : part.shape[-1]] = part, 1
        if not np.isfinite(x).all():
            raise VisitError("A number of the study is NaN: a prompt that computes no numbers must not be counted.")
        weight = drawn.T[:, None, :] * members[:, : len(block.groups)].T  # [draw, group, prompt]
        total = (weight.reshape(-1, len(own)) @ x.reshape(len(own), -1)).reshape(old.total.shape)
        count = (weight.reshape(-1, len(own)) @ have).reshape(old.count.shape)
        found[block.name] = Cells(old.total + total, old.count + count)
    return found


def merge(a: StudySums, b: StudySums) -> StudySums:
    """The sums of both sets of prompts together; where one's longest prompt is longer, it has more ranks.

    Raises `VisitError` for sums of another model's shape or of other settings.
    """
    same = a.settings == b.settings and set(a.more) == set(b.more)
    if not same or [_kind(x) for x in a.blocks] != [_kind(x) for x in b.blocks]:
        raise VisitError("Only studies of the same model and settings can be merged.")
    blocks = tuple(x if x.ranks >= y.ranks else y for x, y in zip(a.blocks, b.blocks, strict=True))
    cells = {block.name: _added(a.cells[block.name], b.cells[block.name], block) for block in blocks}
    more = {name: _MERGE[name](a.more[name], b.more[name]) for name in a.more}
    numbers: dict[str, Any] = {name: getattr(a, name) + getattr(b, name) for name in (*_COUNTED, "broken", "seconds")}
    return StudySums(blocks, cells, a.settings, **numbers, more=more)


def _kind(block: Block) -> tuple[Any, ...]:
    return block.name, block.measures, block.layers, block.heads, bool(block.ranks), block.groups


def _added(a: Cells, b: Cells, block: Block) -> Cells:
    total, count = np.zeros((*a.total.shape[:-1], block.shape[-1])), np.zeros((*a.count.shape[:-1], block.shape[-1]))
    for part in (a, b):
        total[..., : part.total.shape[-1]] += part.total
        count[..., : part.count.shape[-1]] += part.count
    return Cells(total, count)


def _merge_shifts(a: Any, b: Any) -> Any:
    from visit.analyses.norm_sets import merge_sums

    return merge_sums(a, b)


def _merge_neurons(a: Any, b: Any) -> Any:
    from visit.analyses.neuron_sets import merged

    later = b.example_prompts  # each half numbers its prompts from 0
    return merged(a, replace(b, example_prompts=later + a.prompts * (later >= 0)))


_MERGE = {"shifts": _merge_shifts, "plain": _merge_shifts, "neurons": _merge_neurons}


# ---- to and from plain arrays: an interrupted run goes on from a file ------------------------------------------------


def state_of(sums: StudySums) -> State:
    """The cells and counts as arrays; of `more` the analyses themselves know their own."""
    state: State = {"broken": np.array(sums.broken, np.int64)}
    state |= {name: np.array(getattr(sums, name)) for name in (*_COUNTED, "seconds")}
    for name, cells in sums.cells.items():
        state |= {f"total:{name}": cells.total, f"count:{name}": cells.count}
    return state


def sums_of(like: StudySums, state: State) -> StudySums:
    """The sums of `state_of`. Raises `VisitError` for the state of another study."""
    cells = {}
    for name, own in like.cells.items():
        found = [state.get(f"{part}:{name}") for part in ("total", "count")]
        shapes = [None if x is None else x.shape for x in found]
        if shapes != [own.total.shape, own.count.shape] or found[0] is None or found[1] is None:
            raise VisitError(f"This state is of another study: its {name} does not fit. Start the run again.")
        cells[name] = Cells(found[0], found[1])
    broken = tuple(int(line) for line in state["broken"])
    counts: dict[str, Any] = {name: int(state[name]) for name in _COUNTED}
    return replace(like, cells=cells, broken=broken, seconds=float(state["seconds"]), **counts)
