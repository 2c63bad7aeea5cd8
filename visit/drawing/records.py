"""A flow graph as plain records, and what of it is shown at a level of detail.

The tables are turned into lists once: reading cells of a DataFrame one by one would cost more than the drawing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pandas import NA

from visit.text.visible import as_word

Level = Literal["states", "words", "everything"]
Parts = Literal["both", "attention", "mlp"]
Detail = Level | Mapping[int, Level]

LEVELS: tuple[Level, ...] = ("states", "words", "everything")
STREAM = ("resid_pre", "resid_mid", "resid_post")
_STATES = {*STREAM, "attn_out", "mlp_out", "ln_final", "logits"}
_WORDS = {*_STATES, "head", "value", "mlp_value", "rest"}
_ATTENTION = {"ln1_out", "query", "key", "value", "head", "attn_neuron", "attn_bias"}
_INTEGERS = ("layer", "head", "source_pos", "neuron", "rank")
_LISTS = ("tokens", "probs", "bottom_tokens", "bottom_probs")


class FlowTables(Protocol):
    """What a drawing needs of a graph: two tables and a dict (interface.md); `visit.FlowGraph` is one."""

    @property
    def nodes(self) -> Any: ...
    @property
    def edges(self) -> Any: ...
    @property
    def meta(self) -> dict[str, Any]: ...


@dataclass(slots=True)
class Node:
    """One row of `graph.nodes`; missing numbers are None."""

    id: str
    kind: str
    layer: int | None = None
    head: int | None = None
    source_pos: int | None = None
    source_token: str | None = None
    neuron: int | None = None
    label: str | None = None
    tokens: list[str] | None = None
    probs: list[float] | None = None
    bottom_tokens: list[str] | None = None
    bottom_probs: list[float] | None = None
    prob: float | None = None
    rank: int | None = None
    entropy: float | None = None
    norm: float | None = None
    coefficient: float | None = None
    contribution: float | None = None
    absent: bool = False  # holds the place of a node that another graph has
    # in the difference of two graphs (pair): whose pruning keeps it, this node in B, whether B alone has it
    status: str | None = None
    twin: Node | None = None
    only_b: bool = False

    @property
    def word(self) -> str:
        """The top word of the vector, as the tokenizer spells it; of a difference, both sides' words."""
        own = self.tokens[0] if self.tokens else (self.label or "")
        other = self.twin.word if self.twin is not None else own
        return own if other == own else f"{own}→{as_word(other)}"

    @property
    def share(self) -> float | None:
        """The target's probability where it stands in the node; two sides have two of them, which are not drawn."""
        return None if self.status else self.prob


@dataclass(slots=True)
class Edge:
    """One row of `graph.edges`; missing numbers are None."""

    source: str
    target: str
    kind: str
    weight: float | None = None
    norm: float | None = None
    coefficient: float | None = None
    contribution: float | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow graph as records, with the edges that enter and leave each node."""

    nodes: dict[str, Node]
    edges: list[Edge]
    into: dict[str, list[Edge]]
    out: dict[str, list[Edge]]
    meta: dict[str, Any]

    @property
    def layers(self) -> list[int]:
        """The shown layers in order."""
        return sorted({n.layer for n in self.nodes.values() if n.layer is not None and n.kind in STREAM})

    @property
    def d_vocab(self) -> int:
        """Number of tokens that ranks count; the largest rank seen where the graph does not say."""
        return int(self.meta.get("d_vocab") or max((n.rank or 1 for n in self.nodes.values()), default=1))

    @property
    def d_vocab_text(self) -> str:
        """The vocabulary's size in words."""
        return f"{self.d_vocab:,}"


def read(graph: FlowTables) -> Flow:
    """Turn the tables of a graph into records; records stay as they are."""
    if isinstance(graph, Flow):
        return graph
    nodes = {record["id"]: Node(**record) for record in _records(graph.nodes, Node.__slots__)}
    edges = [Edge(**record) for record in _records(graph.edges, Edge.__slots__)]
    into: dict[str, list[Edge]] = {i: [] for i in nodes}
    out: dict[str, list[Edge]] = {i: [] for i in nodes}
    for edge in edges:
        into[edge.target].append(edge)
        out[edge.source].append(edge)
    return Flow(nodes, edges, into, out, graph.meta)


def _records(table: Any, names: Iterable[str]) -> list[dict[str, Any]]:
    columns = {name: _plain(name, table[name]) for name in names if name in table.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(name: str, column: Any) -> list[Any]:
    """A column as a list with None for what is missing, integers as int and lists as list."""
    values = column.tolist()
    if name in _LISTS:
        return [list(v) if isinstance(v, Iterable) else None for v in values]
    if name in _INTEGERS:
        return [None if v is None or v is NA or v != v else int(v) for v in values]
    return [None if v is None or v is NA or v != v else v for v in values]


def levels(flow: Flow, detail: Detail) -> dict[int, Level]:
    """The level of every shown block; blocks that a dict leaves out are folded.

    Raises ValueError for a word that is no level.
    """
    chosen = {layer: detail if isinstance(detail, str) else detail.get(layer, "states") for layer in flow.layers}
    for level in chosen.values():
        if level not in LEVELS:
            raise ValueError(f"detail must be one of {', '.join(LEVELS)}, not {level!r}")
    return chosen


def shown(
    flow: Flow, chosen: Mapping[int, Level], parts: Parts = "both", tags: int = 2, order: Flow | None = None
) -> set[str]:
    """Ids of the nodes that are drawn: by each block's level, and the `tags` largest heads of a folded block.

    `order`: another graph, in whose numbers these heads are the largest.
    """
    ids = set()
    for node in flow.nodes.values():
        level = "words" if node.layer is None else chosen.get(node.layer, "words")
        if level == "states":
            keep = node.kind in _STATES
        else:
            keep = _in_parts(flow, node, parts) and (level == "everything" or node.kind in _WORDS)
        if keep:
            ids.add(node.id)
    for layer, level in chosen.items():
        if level == "states" and tags:
            ids.update(n.id for n in ordered(heads_of(order or flow, layer), "norm")[:tags] if n.id in flow.nodes)
    return ids


def _in_parts(flow: Flow, node: Node, parts: Parts) -> bool:
    if parts == "both" or node.kind in _STATES or node.layer is None:
        return True
    attention = not node.id.endswith(".mlp.rest") if node.kind == "rest" else node.kind in _ATTENTION
    if parts == "mlp" and node.kind == "ln1_out":  # a shared norm feeds the neurons too
        return any(flow.nodes[e.target].kind.startswith("mlp_key") for e in flow.out[node.id])
    return attention == (parts == "attention")


def heads_of(flow: Flow, layer: int) -> list[Node]:
    """The shown heads of a block, without their rest."""
    return [n for n in flow.nodes.values() if n.kind == "head" and n.layer == layer]


def ordered(nodes: Iterable[Node], by: str) -> list[Node]:
    """Nodes by falling norm or |contribution|, or by rising index; equal ones by index, so that rows are stable."""
    if by == "norm":
        return sorted(nodes, key=lambda n: (-abs((n.coefficient or 1.0) * (n.norm or 0.0)), *_index(n)))
    if by == "contribution":
        return sorted(nodes, key=lambda n: (-abs(n.contribution or 0.0), *_index(n)))
    return sorted(nodes, key=_index)


def _index(node: Node) -> tuple[int, int, int]:
    return tuple(-1 if v is None else v for v in (node.head, node.source_pos, node.neuron))  # type: ignore[return-value]


def readers(flow: Flow, node_id: str, ids: set[str]) -> list[str]:
    """The nearest shown nodes that `node_id` is made from, through hidden ones; its shown neighbours included."""
    found: dict[str, None] = {}
    stack, seen = [node_id], {node_id}
    while stack:
        for edge in flow.into[stack.pop()]:
            if edge.source in ids:
                found[edge.source] = None
            elif edge.source not in seen:
                seen.add(edge.source)
                stack.append(edge.source)
    return list(found)


def rest_share(flow: Flow, node: Node) -> float | None:
    """The share of a sum that its `rest` stands for, between 0 and 1; None where the graph does not say."""
    shares = flow.meta.get("shares") or {}
    stem = node.id.removesuffix(".rest")
    names = {"heads": "attn_out", "mlp": "mlp_out"}
    block, _, last = stem.rpartition(".")
    for name in (stem, f"{block}.{names.get(last, last)}", *(e.target for e in flow.out[node.id]), node.id):
        share = shares.get(name)
        if share is not None and share == share:
            return 1.0 - float(share)
    said = re.fullmatch(r"rest (\d+(?:\.\d+)?) %", node.label or "")  # a gap's share stands in its label alone
    return float(said[1]) / 100 if said else None
