"""The norms of a prompt set as a job of the worker: sums that grow prompt by prompt and can be taken up again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from visit.activations.forward import capture_many
from visit.analyses.norm_sets import ShiftSums, merge_sums, shift_sums
from visit.analyses.norm_steps import parts_for
from visit.cache import State
from visit.models.model import Model
from visit.runs.prompts import Row


class ShiftRun:
    """Every norm before and after, at one position of every prompt, the last by default (`visit.runs.worker`)."""

    def __init__(
        self, model: Model, rows: Sequence[Row], norms: Sequence[str], final_norm: bool | None, pos: int = -1
    ) -> None:
        self.model, self.items, self.pos = model, rows, pos
        self.options: Any = {"norms": tuple(norms), "final_norm": final_norm}
        self.sums: ShiftSums = shift_sums(model, [], **self.options)

    def update(self, rows: Sequence[Row]) -> None:
        parts = parts_for(self.options["norms"])
        records = capture_many(self.model, [row.prompt for row in rows], parts=parts, pos=self.pos)
        self.sums = merge_sums(self.sums, shift_sums(self.model, records, **self.options))

    def snapshot(self) -> ShiftSums:
        return self.sums  # frozen: a later update makes another

    def state(self) -> State:
        arrays = {name: getattr(self.sums, name).cpu().numpy() for name in ("probs", "vectors", "squares")}
        return {**arrays, "count": np.array(self.sums.count)}

    def load(self, state: State) -> None:
        device = self.sums.probs.device
        parts = [torch.from_numpy(state[name]).to(device) for name in ("probs", "vectors", "squares")]
        found = ShiftSums(self.sums.sites, self.sums.final_norm, int(state["count"]), *parts)
        self.sums = merge_sums(self.sums, found)  # which refuses sums of other norms or another vocabulary
