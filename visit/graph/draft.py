"""A graph in the making: rows, vectors and edges, and what the terms of every sum have in common."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from torch import Tensor

from visit.activations.forward import Activations
from visit.errors import VisitError
from visit.exact.decompose import Attribution, needed
from visit.graph.prune import Keep
from visit.models.attention import first_visible
from visit.models.model import Model
from visit.text.numbers import percent

MAX_NODES = 20_000
_ITEM = re.compile(
    r"(L\d+)\.(?:head(\d+)(?:\.(?:(?:value|key)(\d+)|query))?|(attn_neuron|mlp_value|mlp_key)(\d+)(?:\.gate|\.up)?)"
)
_ALWAYS = re.compile(
    r"L\d+(-\d+)?\.(resid_(pre|mid|post)|ln[12]_out|(attn|mlp)_(out|bias)|((heads|mlp|head\d+)\.)?rest)|ln_final|logits"
)


@dataclass
class Draft:
    """A graph in the making. `rows` and `vectors` run in step.

    A row's `amount` is the |coefficient| with which its vector enters a sum of the stream; NaN: it enters none.
    """

    model: Model
    acts: Activations
    pos: int
    frozen: Attribution
    keep: Keep
    rows: list[dict[str, Any]] = field(default_factory=list)
    vectors: list[Tensor] = field(default_factory=list)
    edges: list[tuple[str, str, str, str | None, float | None, float | None]] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    errors: list[Tensor] = field(default_factory=list)
    last_layer: int | None = None
    reads: dict[str, str] = field(default_factory=dict)  # what attention ("attn") and MLP ("mlp") of this block read

    def state(self, name: str, layer: int) -> Tensor:
        """A captured vector `[d_model]` at the graph's position."""
        return needed(self.acts, name)[layer, self.pos].to(self.model.wide)

    def node(
        self, id: str, kind: str, vector: Tensor, *, adds: bool, coefficient: float = math.nan, **columns: Any
    ) -> None:
        """One node. `adds`: its vector times |coefficient| takes part in a sum of the stream."""
        amount = (1.0 if math.isnan(coefficient) else abs(coefficient)) if adds else math.nan
        row = {"id": id, "kind": kind, "layer": None, "head": None, "source_pos": None, "neuron": None, "label": None}
        if len(self.rows) >= MAX_NODES:
            raise VisitError(
                f"This graph has more than {MAX_NODES:,} nodes, which is all that can be drawn. "
                "Lower the amounts to keep (Keep.mlp_neurons above all), or show fewer layers."
            )
        self.rows.append(row | columns | {"coefficient": coefficient, "amount": amount})
        self.vectors.append(vector[None])

    def edge(
        self,
        source: str,
        target: str,
        kind: str,
        *,
        carries: str | None = None,
        coefficient: float | None = None,
        weight: float | None = None,
    ) -> None:
        """One edge. `carries`: the node whose vector (times its coefficient) travels on it."""
        self.edges.append((source, target, kind, carries, coefficient, weight))

    def pins(self, layer: int, kind: str, head: int | None = None) -> tuple[set[int], set[int]]:
        """Numbers pinned and hidden among the terms of one sum: kind "head", "value", "attn_neuron" or "mlp_value"."""
        shown: set[int] = set()
        hidden: set[int] = set()
        for pin in self.pins_of_layer.get(layer, ()):
            number = _pinned(pin, kind, head)
            if number is not None:
                (hidden if pin.startswith("-") else shown).add(number)
        return shown, hidden

    @cached_property
    def pins_of_layer(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for pin in self.keep.pin:
            if named := _ITEM.fullmatch(pin.removeprefix("-")):
                found.setdefault(int(named[1][1:]), []).append(pin)
        return found

    def check(self, found: Tensor, true: Tensor) -> None:
        """Note how far a sum of all its terms is from what was captured."""
        self.errors.append((found - true).abs().max() / true.abs().max().clamp_min(1e-30))


@lru_cache(maxsize=4096)
def _pinned(pin: str, kind: str, head: int | None) -> int | None:
    """The number that a pin names among the terms of `kind` in its layer, None if it names something else."""
    found = _ITEM.fullmatch(pin.removeprefix("-"))
    assert found
    if kind == "head":  # a pinned value shows its head, too; a hidden one does not hide it
        part = found[3] or pin.endswith(".query")
        return int(found[2]) if found[2] and not (pin.startswith("-") and part) else None
    if kind == "value":
        return int(found[3]) if found[3] and int(found[2]) == head else None
    return int(found[5]) if found[5] and found[4].replace("key", "value") == kind else None


def is_pin(model: Model, pin: str, layers: list[int], pos: int) -> bool:
    """Whether `pin` (with or without its `-`) can be kept: a head, memory value or neuron of the shown layers.

    States, norms, sums, biases and rests stand in every graph and may be named without effect.
    """
    if _ALWAYS.fullmatch(pin):
        return True
    found = _ITEM.fullmatch(pin.removeprefix("-"))
    if not found or int(found[1][1:]) not in layers:
        return False
    if found[3] and not first_visible(model, int(found[1][1:]), pos) <= int(found[3]) <= pos:
        return False
    if found[2]:
        return int(found[2]) < model.n_heads
    return int(found[5]) < (model.n_heads * model.d_head if found[4] == "attn_neuron" else model.d_mlp)


def add_rest(
    draft: Draft, name: str, total: str, vector: Tensor, left: float, layer: int, head: int | None = None
) -> None:
    draft.node(name, "rest", vector, adds=True, layer=layer, head=head, label=f"rest {percent(left, narrow=True)}")
    draft.edge(name, total, "add", carries=name)


def add_bias(draft: Draft, name: str, total: str, vector: Tensor, layer: int) -> None:
    draft.node(name, name.split(".")[-1], vector, adds=True, layer=layer)
    draft.edge(name, total, "add", carries=name)
