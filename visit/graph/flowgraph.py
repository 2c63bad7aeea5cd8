"""The flow graph as records: nodes, edges, and what they are of; its two tables are views for users."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from visit.text.notebooks import notebook_html
from visit.text.numbers import percent
from visit.text.visible import as_word

if TYPE_CHECKING:
    from visit.activations.record import Activations
    from visit.lenses.linear import Lens
    from visit.models.model import Model

STREAM = ("resid_pre", "resid_mid", "resid_post")
SUMS = ("add", "residual")  # edges whose vectors add up to their target's; the others take part in no sum
_INTEGERS = ("layer", "head", "source_pos", "neuron", "rank")
_LISTS = ("tokens", "probs", "bottom_tokens", "bottom_probs")
_FLOATS = ("prob", "entropy", "norm", "coefficient", "contribution", "influence")


class Node(NamedTuple):
    """One node, as the columns of `build_flow_graph` say; a missing number is None. The last fields are of drawings."""

    id: str
    kind: str
    layer: int | None = None
    head: int | None = None
    source_pos: int | None = None
    source_token: str | None = None
    neuron: int | None = None
    label: str | None = None
    tokens: tuple[str, ...] = ()
    probs: tuple[float, ...] = ()
    bottom_tokens: tuple[str, ...] = ()
    bottom_probs: tuple[float, ...] = ()
    prob: float | None = None
    rank: int | None = None
    entropy: float | None = None
    norm: float | None = None
    coefficient: float | None = None
    contribution: float | None = None
    influence: float | None = None
    placeholder: bool = False  # stands where another graph has a node
    # in the difference of two graphs: whose pruning keeps it, this node in B, whether B alone has it
    status: str | None = None
    counterpart: Node | None = None
    only_b: bool = False

    @property
    def word(self) -> str:
        """The top word of the vector, as the tokenizer spells it; of a difference, both sides' words."""
        word = self.tokens[0] if self.tokens else (self.label or "")
        other = self.counterpart.word if self.counterpart is not None else word
        return word if other == word else f"{word}→{as_word(other)}"

    @property
    def target_prob(self) -> float | None:
        """The target's probability as it stands in a drawn node; a difference has two of them, which are not drawn."""
        return None if self.status else self.prob

    @property
    def size(self) -> float:
        """The length of what it adds: |coefficient| times its norm."""
        return (self.norm or 0.0) * (1.0 if self.coefficient is None else abs(self.coefficient))


class Edge(NamedTuple):
    """One edge; a missing number is None. Columns: `build_flow_graph`."""

    source: str
    target: str
    kind: str
    weight: float | None = None
    norm: float | None = None
    coefficient: float | None = None
    contribution: float | None = None
    influence: float | None = None


NODE_COLUMNS = Node._fields[: Node._fields.index("influence") + 1]


@dataclass(frozen=True, eq=False)
class FlowGraph:
    """What `build_flow_graph` makes: records by their ids, edges, and what they are of; `nodes`, `edges` as tables."""

    by_id: dict[str, Node] = field(repr=False)
    links: list[Edge] = field(repr=False)
    meta: dict[str, Any]
    source: tuple[Model, Activations] | None = field(default=None, repr=False)  # what `extend` reads more nodes from
    lens: Lens | None = field(default=None, repr=False)  # … and through which lens

    @classmethod
    def of_tables(cls, nodes: pd.DataFrame, edges: pd.DataFrame, meta: dict[str, Any]) -> FlowGraph:
        """A graph from its two tables, as files hold them."""
        records = (Node(**row) for row in _records(nodes, NODE_COLUMNS))
        return cls({n.id: n for n in records}, [Edge(**row) for row in _records(edges, Edge._fields)], meta)

    @cached_property
    def nodes(self) -> pd.DataFrame:
        """A row a node; the columns are documented with `build_flow_graph`."""
        rows = list(zip(*self.by_id.values(), strict=True)) or [()] * len(Node._fields)
        columns = {name: list(values) for name, values in zip(NODE_COLUMNS, rows, strict=False)}
        columns |= {name: [list(v) for v in columns[name]] for name in _LISTS}
        types = dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_FLOATS, "float64")
        return self._asked_for(pd.DataFrame(columns).astype(types))

    @cached_property
    def edges(self) -> pd.DataFrame:
        """A row an edge; the columns are documented with `build_flow_graph`."""
        table = pd.DataFrame(self.links, columns=Edge._fields).astype(dict.fromkeys(Edge._fields[3:], float))
        return self._asked_for(table)

    def _repr_html_(self) -> str:
        """The graph as a drawing, in a notebook."""
        return notebook_html("graph", self)

    def _asked_for(self, table: pd.DataFrame) -> pd.DataFrame:
        """Without the column of what this graph was not asked for."""
        return table if "influence" in self.meta else table.drop(columns="influence")

    @cached_property
    def into(self) -> dict[str, list[Edge]]:
        """The edges that enter each node."""
        found: dict[str, list[Edge]] = {i: [] for i in self.by_id}
        for edge in self.links:
            found[edge.target].append(edge)
        return found

    @cached_property
    def out(self) -> dict[str, list[Edge]]:
        """The edges that leave each node."""
        found: dict[str, list[Edge]] = {i: [] for i in self.by_id}
        for edge in self.links:
            found[edge.source].append(edge)
        return found

    @cached_property
    def of_layer(self) -> dict[int | None, list[Node]]:
        """The nodes of each block; under None gaps and what follows the last block."""
        found: dict[int | None, list[Node]] = {}
        for node in self.by_id.values():
            found.setdefault(node.layer, []).append(node)
        return found

    @cached_property
    def layers(self) -> list[int]:
        """The shown layers in order."""
        return sorted({n.layer for n in self.by_id.values() if n.layer is not None and n.kind in STREAM})

    @cached_property
    def d_vocab(self) -> int:
        """Number of tokens that ranks count; the largest rank seen where the graph does not say."""
        return int(self.meta.get("d_vocab") or max((n.rank or 1 for n in self.by_id.values()), default=1))


def influence_share(meta: dict[str, Any]) -> str:
    """What the shown heads and neurons have of the summed |influence|, as a sentence; empty where it is not known."""
    if "influence" not in meta:
        return ""
    return (
        f"The heads and MLP neurons shown have {percent(meta['influence']['share'])} of the summed |influence| of all "
        "heads and MLP neurons of the model at this position."
    )


def of_attention(node: Node) -> bool:
    """Whether a node is a part of what attention adds: a head, a memory value, what is left of either, their sum."""
    return node.kind in ("head", "value", "attn_out") or (node.kind == "rest" and ".head" in node.id)


def sums_gap(graph: FlowGraph) -> float:
    """Identity 8: the largest |node − Σ of its incoming add and residual edges| over the largest node, in logits.

    Of an edited run's graph without the nodes that an edit made (`meta["edited"]`).
    """
    sums: dict[str, float] = {}
    edited = set(graph.meta.get("edited", ()))
    for edge in graph.links:
        if edge.kind in SUMS and edge.target not in edited:
            sums[edge.target] = sums.get(edge.target, 0.0) + (nan if edge.contribution is None else edge.contribution)
    gaps = [abs(total - (graph.by_id[i].contribution or 0.0)) for i, total in sums.items()]
    largest = max((abs(n.contribution) for n in graph.by_id.values() if n.contribution is not None), default=nan)
    return max(gaps, default=0.0) / largest if all(gap == gap for gap in gaps) else nan


def rest_share(flow: FlowGraph, node: Node) -> float | None:
    """The share of a sum that its `rest` stands for, between 0 and 1; None where the graph does not say."""
    shares = flow.meta.get("shares") or {}
    stem = node.id.removesuffix(".rest")
    names = {"heads": "attn_out", "mlp": "mlp_out"}
    block, _, last = stem.rpartition(".")
    for name in (stem, f"{block}.{names.get(last, last)}", *(e.target for e in flow.out[node.id]), node.id):
        share = shares.get(name)
        if share is not None and share == share:
            return 1.0 - float(share)
    said = re.fullmatch(r"rest (\d+(?:\.\d+)?) %", node.label or "")  # a folded block's share stands in its label alone
    return float(said[1]) / 100 if said else None


def _records(table: pd.DataFrame, names: Iterable[str]) -> list[dict[str, Any]]:
    columns = {name: [_record_value(name, v) for v in table[name].tolist()] for name in names if name in table.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _record_value(name: str, value: Any) -> Any:
    """A cell as a record holds it: None for what is missing, integers as int, lists as tuples."""
    if name in _LISTS:
        return tuple(value) if isinstance(value, Iterable) else ()
    if value is None or value is pd.NA or value != value:
        return None
    return int(value) if name in _INTEGERS else value
