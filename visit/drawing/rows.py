"""The rows of a block in their order: which heads, memory values and neurons stand on which line of the flow graph."""

from __future__ import annotations

from visit.drawing.records import Flow, Node, ordered
from visit.drawing.sheet import LINE, REST_LINE, ROW_GAP


def group_of(flow: Flow, ids: set[str], layer: int) -> dict[str, list[Node]]:
    """The shown nodes of a block by kind; the three kinds of rest under names of their own."""
    group: dict[str, list[Node]] = {}
    for node in flow.nodes.values():
        if node.layer != layer or node.id not in ids:
            continue
        kind = node.kind
        if kind == "rest":
            kind = {"heads": "heads.rest", "mlp": "mlp.rest"}.get(node.id.split(".")[-2], "head.rest")
        group.setdefault(kind, []).append(node)
    return group


class Rows:
    """The rows of one block in their order: heads with what belongs to each, and neurons."""

    def __init__(self, flow: Flow, group: dict[str, list[Node]], sort_by: str, order: Flow | None) -> None:
        self.flow = flow
        self.group = group
        self.heads = _like(ordered(group.get("head", []), sort_by), order, sort_by)
        self.neurons = _like(ordered(group.get("mlp_value", []), sort_by), order, sort_by)
        self.rests = {n.id.removesuffix(".rest"): n for n in group.get("head.rest", [])}
        self.values = self._by_head(_like(ordered(group.get("value", []), sort_by), order, sort_by))
        self.keys = {(n.head, n.source_pos): n for n in group.get("key", [])}
        self.queries = {n.head: n for n in group.get("query", [])}
        self.attn_neurons: dict[str, list[Node]] = {}
        for node in _like(ordered(group.get("attn_neuron", []), sort_by), order, sort_by):
            source = next((e.source for e in flow.into[node.id]), "")
            self.attn_neurons.setdefault(source, []).append(node)
        self.lines = max((len(self.values.get(h.head, [])) for h in self.heads), default=1)
        self.with_rest = bool(self.rests)

    @staticmethod
    def _by_head(nodes: list[Node]) -> dict[int | None, list[Node]]:
        found: dict[int | None, list[Node]] = {}
        for node in nodes:
            found.setdefault(node.head, []).append(node)
        return found

    def reads(self, neuron: Node) -> list[Node]:
        """The key nodes of a neuron: one, or gate and up."""
        stem = f"L{neuron.layer}.mlp_key{neuron.neuron}"
        by_id = {n.id: n for kind, ns in self.group.items() if kind.startswith("mlp_key") for n in ns}
        return [by_id[i] for i in (stem, f"{stem}.gate", f"{stem}.up") if i in by_id]

    def height(self, head: Node) -> float:
        """Height of a head's row: equal for all heads, more where its W_O neurons need it."""
        lines = self.lines * LINE + (REST_LINE if self.with_rest else 0)
        return max(lines, LINE * (1 + len(self.attn_neurons.get(head.id, [])))) + ROW_GAP


def _like(nodes: list[Node], order: Flow | None, by: str) -> list[Node]:
    """The nodes in another graph's order; those it does not have come last."""
    if order is None:
        return nodes
    rank = {n.id: i for i, n in enumerate(ordered((order.nodes[n.id] for n in nodes if n.id in order.nodes), by))}
    return sorted(nodes, key=lambda n: rank.get(n.id, len(rank)))
