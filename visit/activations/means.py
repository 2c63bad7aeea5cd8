"""The mean of a quantity over a set of prompts, by position from the end: what a part says when nothing is special.

How it is made: every prompt is run once; position 0 has a mean of its own (in many models it is an attention sink, a
hundred times as long as any other state); every other position is averaged with those of other prompts that are as far
from their end; a position that fewer than 5 prompts have takes the mean over all positions but position 0.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visit.activations.record import Activations
from visit.activations.sites import RECORDED, in_record
from visit.cache import Store
from visit.errors import VisitError, check_kind
from visit.models.model import Model, tokenize

RunPrompts = Callable[[Model, Sequence[Any], Sequence[str]], Iterator[Activations]]
FEWEST = 5  # prompts that a position's own mean takes
_KEPT_BYTES = 256 << 20
_MEANS: weakref.WeakKeyDictionary[Model, Store] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Means:
    """Means of one quantity over prompts: at position 0, at each distance from the end, and over all but position 0."""

    quantity: str
    prompts: int
    first: Float[Tensor, "layer width"]
    by_end: Float[Tensor, "layer distance width"]
    rest: Float[Tensor, "layer width"]

    def at(self, quantity: str, layer: int, length: int) -> tuple[Float[Tensor, "pos width"], Float[Tensor, " width"]]:
        """(the means for each position of a prompt of `length` tokens, that of a position past its end)."""
        if quantity != self.quantity:
            raise VisitError(f"These means are of {self.quantity!r}; the edit needs those of {quantity!r}.")
        rows = self.rest[layer].expand(length, -1).clone()
        near = min(length - 1, self.by_end.shape[1])
        if near:
            rows[length - near :] = self.by_end[layer, :near].flip(0)
        rows[0] = self.first[layer]
        return rows, self.rest[layer]


def prompt_means(model: Model, prompts: Sequence[Any], quantity: str, run: RunPrompts) -> Means:
    """The means of a quantity (a key of `sites.RECORDED`, not "pattern") over prompts, kept for the next call.

    `run`: `capture_many`, which lies above. Raises `VisitError` for prompts that all have one token only.
    """
    for prompt in prompts:
        check_kind("Each prompt of a mean's source", prompt, (str, Sequence), "a text, or a list of token ids")
    kept = _MEANS.setdefault(model, Store(_KEPT_BYTES))
    key: Hashable = quantity, tuple(p if isinstance(p, str) else tuple(p) for p in prompts)
    return kept.get(key, lambda: _means(model, prompts, quantity, run))


def _means(model: Model, prompts: Sequence[Any], quantity: str, run: RunPrompts) -> Means:
    lengths = sorted((len(tokenize(model, p)) for p in prompts), reverse=True)
    if lengths[0] < 2:
        raise VisitError("A mean needs prompts of at least two tokens: position 0 is never averaged with others.")
    reached = lengths[FEWEST - 1] - 1 if len(lengths) >= FEWEST else 0
    layers = range({"stream": model.n_layers + 1, "embed": 1}.get(quantity, model.n_layers))
    counts, total = torch.zeros(reached, 1), 0
    first: Any = 0.0
    by_end: Any = 0.0
    rest: Any = 0.0
    for acts in run(model, prompts, RECORDED[quantity]):
        rows = torch.stack([in_record(model, acts, quantity, layer) for layer in layers]).cpu().double()
        later = rows[:, 1:].flip(1)  # the last position first
        first, rest, total = first + rows[:, 0], rest + later.sum(1), total + later.shape[1]
        near = rows.new_zeros(len(layers), reached, rows.shape[-1])
        near[:, : min(reached, later.shape[1])] = later[:, :reached]
        by_end = by_end + near
        counts[: later.shape[1]] += 1

    def whole(x: Any) -> Tensor:
        return x.to(device=model.device, dtype=model.wide)

    return Means(quantity, len(prompts), whole(first / len(prompts)), whole(by_end / counts), whole(rest / total))
