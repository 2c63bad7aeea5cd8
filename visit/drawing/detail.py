"""What of a flow graph is shown at a level of detail, and in which order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from visit.graph.flowgraph import STREAM, FlowGraph, Node

Level = Literal["states", "words", "everything"]
Parts = Literal["both", "attention", "mlp"]
Detail = Level | Mapping[int, Level]

LEVELS: tuple[Level, ...] = ("states", "words", "everything")
_STATES = {*STREAM, "attn_out", "mlp_out", "ln_final", "logits"}
_WORDS = {*_STATES, "head", "value", "mlp_value", "rest"}
_ATTENTION = {"ln1_out", "query", "key", "value", "head", "attn_neuron", "attn_bias"}


def levels(flow: FlowGraph, detail: Detail) -> dict[int, Level]:
    """The level of every shown block; blocks that a dict leaves out are folded.

    Raises ValueError for a word that is no level.
    """
    chosen = {layer: detail if isinstance(detail, str) else detail.get(layer, "states") for layer in flow.layers}
    for level in chosen.values():
        if level not in LEVELS:
            raise ValueError(f"detail must be one of {', '.join(LEVELS)}, not {level!r}")
    return chosen


def shown(
    flow: FlowGraph, chosen: Mapping[int, Level], parts: Parts = "both", order: FlowGraph | None = None
) -> set[str]:
    """Ids of the nodes that are drawn: by each block's level, and the two largest heads of a folded block.

    `order`: another graph, in whose numbers these heads are the largest.
    """
    ids = set()
    for node in flow.by_id.values():
        level = "words" if node.layer is None else chosen.get(node.layer, "words")
        if level == "states":
            keep = node.kind in _STATES
        else:
            keep = _in_parts(flow, node, parts) and (level == "everything" or node.kind in _WORDS)
        if keep:
            ids.add(node.id)
    for layer, level in chosen.items():
        if level == "states":
            heads = [n for n in (order or flow).of_layer.get(layer, ()) if n.kind == "head"]
            ids.update(n.id for n in ordered(heads, "norm")[:2] if n.id in flow.by_id)
    return ids


def _in_parts(flow: FlowGraph, node: Node, parts: Parts) -> bool:
    if parts == "both" or node.kind in _STATES or node.layer is None:
        return True
    attention = not node.id.endswith(".mlp.rest") if node.kind == "rest" else node.kind in _ATTENTION
    if parts == "mlp" and node.kind == "ln1_out":  # a shared norm feeds the neurons too
        return any(flow.by_id[e.target].kind.startswith("mlp_key") for e in flow.out[node.id])
    return attention == (parts == "attention")


def ordered(nodes: Iterable[Node], by: str) -> list[Node]:
    """Nodes by falling norm or |contribution|, or by rising index; equal ones by index, so that rows are stable."""
    if by == "norm":
        return sorted(nodes, key=lambda n: (-n.size, *_index(n)))
    if by == "contribution":
        return sorted(nodes, key=lambda n: (-abs(n.contribution or 0.0), *_index(n)))
    return sorted(nodes, key=_index)


def _index(node: Node) -> tuple[int, int, int]:
    return tuple(-1 if v is None else v for v in (node.head, node.source_pos, node.neuron))  # type: ignore[return-value]


def readers(flow: FlowGraph, node_id: str, ids: set[str]) -> list[str]:
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
