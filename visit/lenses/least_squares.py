"""Affine least squares from streaming sums, for every state of a model at once: steps 3 and 4 of `fit_linear`."""

from __future__ import annotations

import torch
from torch import Tensor

from visit.errors import VisitError
from visit.lenses.linear import compact
from visit.models.model import Model

RIDGE, LONG = 1e-5, 10.0  # λ; how many times its median a state may be long
PART = 512  # states that are added to the sums in one product, at least


class Sums:
    """The streaming sums of every state, float64; rows wait until there are enough for one product."""

    def __init__(self, model: Model, sites: int, shuffled: bool) -> None:
        d, self.shuffled = model.d_model, shuffled
        place = torch.device("cpu") if model.device.type == "mps" else model.device  # it has no float64
        self.n = torch.zeros(sites, dtype=torch.float64, device=place)
        self.x, self.y = (torch.zeros(sites, d, dtype=torch.float64, device=place) for _ in range(2))
        self.products = torch.zeros(sites, d, 2 * d, dtype=torch.float64, device=place)  # X'X beside X'Y
        self.longest: dict[int, Tensor] = {}  # of every state, and of y (−1): from the first rows
        self._waiting: list[tuple[list[Tensor], Tensor]] = []
        self._rows = 0

    def add(self, x: list[Tensor], y: Tensor) -> None:
        """`x`: `[pos, d_model]` of every state; `y`: of the last block's output at the same positions."""
        self._waiting.append((x, y))
        self._rows += len(y)
        if self._rows >= PART:
            self._flush()

    def _flush(self) -> None:
        """Add what waits, one state after the other: a row that is too long, in x or in y, is put to zero."""
        if not self._rows:
            return
        d, waiting = self.x.shape[1], self._waiting
        both = torch.empty(self._rows, 2 * d, dtype=torch.float64, device=self.n.device)
        x, y = both[:, :d], both[:, d:]  # side by side: one product adds X'X and X'Y
        self._waiting, self._rows = [], 0
        y.copy_(torch.cat([goal for _, goal in waiting]))
        known = self._short(y, -1)
        y.masked_fill_(~known, 0)
        if self.shuffled:
            order = torch.randperm(len(y), generator=torch.Generator().manual_seed(len(y))).to(y.device)
            y.copy_(y[order])
            known = known[order]
        for site in range(len(self.n)):
            x.copy_(torch.cat([states[site] for states, _ in waiting]))
            kept = known & self._short(x, site)
            x.masked_fill_(~kept, 0)
            self.n[site] += kept.sum()
            self.x[site] += x.sum(0)
            self.y[site] += kept[:, 0].double() @ y
            self.products[site].addmm_(x.T, both)

    def _short(self, rows: Tensor, place: int) -> Tensor:
        """`[pos, 1]`: whether a row is at most `LONG` times as long as the median of the first ones."""
        lengths = rows.norm(dim=-1, keepdim=True)
        if place not in self.longest:
            self.longest[place] = LONG * lengths.median()
        return lengths <= self.longest[place]

    def solve(self) -> tuple[Tensor, Tensor]:
        """(A `[site, d_model, d_model]`, b `[site, d_model]`)."""
        self._flush()
        maps, biases = [], []
        for site in range(len(self.n)):
            n = self.n[site]
            if n < 2:
                raise VisitError("Too few states are left to fit a lens to: all but one are longer than ten medians.")
            mean_x, mean_y = self.x[site] / n, self.y[site] / n
            xx, xy = self.products[site].chunk(2, dim=1)
            xx, xy = xx - n * torch.outer(mean_x, mean_x), xy - n * torch.outer(mean_x, mean_y)
            xx.diagonal().add_(RIDGE * xx.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny))
            found = torch.linalg.solve(xx, xy)
            if not bool(found.isfinite().all()):
                raise VisitError("The states of this model hold values that are no numbers; no lens can be fitted.")
            # as it is kept, so that b belongs to the rounded A
            kept = compact(found)
            maps.append(kept)
            biases.append((mean_y - mean_x @ kept.double()).float())
        same = torch.float16 if all(m.dtype == torch.float16 for m in maps) else torch.float32
        return torch.stack([m.to(same) for m in maps]), torch.stack(biases)
