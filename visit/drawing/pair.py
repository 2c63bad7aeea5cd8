"""Two compared graphs as drawings: side by side at the same places, or as one graph of what differs.

Both sides' drawings follow one order of rows, the larger of the two sides first, and hold a place for what only the
other side has, so that the same component stands at the same height.
"""

from __future__ import annotations

from typing import Any, Unpack

from visit.analyses.graph_difference import Comparison, EdgePair, NodePair, Side, common_id, own_id
from visit.drawing.draw import Look, draw, flow_data
from visit.drawing.records import Detail, Level
from visit.graph.flowgraph import Edge, FlowGraph, Node

_HOLDS_PLACE = ("value", "key", "rest")


def both_data(
    found: Comparison, detail: Detail, selected: str | None = None, actions: bool = False, **look: Unpack[Look]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What flow.js needs to show both graphs side by side: same rows, same units, lit and scrolled together.

    `selected`: a node of the difference graph. Each drawing's `names` maps its own ids to those of the difference graph
    where the two differ.
    """
    sides: tuple[tuple[Side, Side], ...] = (("a", "b"), ("b", "a"))
    graphs = {side: side_graph(found, side) for side, _ in sides}
    drawn = []
    for side, other in sides:
        nodes = graphs[side].by_id
        own = None if selected is None else own_id(selected, side, found.pairing)
        own = own if own in nodes else f"held:{selected}"
        options: Look = {**look, "order": row_order(found, side), "beside": (graphs[other],)}
        data = flow_data(graphs[side], detail, selected=own if own in nodes else None, actions=actions, group="two",
                         **options)  # fmt: skip
        common = {
            i: i.removeprefix("held:") if i.startswith("held:") else common_id(i, side, found.pairing) for i in nodes
        }
        data["names"] = {i: name for i, name in common.items() if name != i}
        drawn.append(data)
    return drawn[0], drawn[1]


def difference_data(
    found: Comparison, detail: Detail, selected: str | None = None, actions: bool = False, **look: Unpack[Look]
) -> dict[str, Any]:
    """What flow.js needs to show the difference graph."""
    graph, options = difference_picture(found, **look)
    selected = selected if selected in graph.by_id else None
    return flow_data(graph, detail, selected=selected, actions=actions, **options)


def difference_picture(found: Comparison, **look: Unpack[Look]) -> tuple[FlowGraph, Look]:
    """The difference graph as records, and how it is drawn: for `visit.draw` and the files of `flow_page`."""
    return difference_graph(found), {**look, "color_by": "change", "order": row_order(found, None)}


def difference_svg(found: Comparison, detail: Detail, words: float = 1.0, **look: Unpack[Look]) -> str:
    """The difference graph cropped to its opened blocks, for a page's figures. `words`: as of `visit.draw`."""
    flow, options = difference_picture(found, **look)
    return draw(flow, detail, crop=True, words=words, **options)


def common_detail(found: Comparison) -> dict[int, Level]:
    """All blocks folded but the one that moves both sides' targets most, which is at *words*."""
    moved = dict.fromkeys(found.meta["layers"], 0.0)
    for pair in found.pairs.values():
        if pair.one.kind in ("attn_out", "mlp_out") and pair.one.layer is not None:
            moved[pair.one.layer] += sum(abs(node.contribution or 0.0) for node in (pair.a, pair.b) if node is not None)
    most = max(moved, key=moved.__getitem__)
    return {layer: "words" if layer == most else "states" for layer in found.meta["layers"]}


def side_graph(found: Comparison, side: Side) -> FlowGraph:
    """One side's graph with a place held for every node that only the other side has."""
    graph = found.a if side == "a" else found.b
    nodes = dict(graph.by_id)
    for pair in found.pairs.values():
        if (pair.a if side == "a" else pair.b) is None and pair.one.kind in _HOLDS_PLACE:
            # a place of its own in the head's row; a key and its value share it
            place = None if pair.one.kind == "rest" else -1000 - (pair.one.source_pos or 0)
            own = _placeholder_id(pair)
            nodes[own] = _at_place(own, pair.one, source_pos=place, label="absent", placeholder=True)
    return FlowGraph(nodes, graph.links, graph.meta)


def row_order(found: Comparison, side: Side | None) -> FlowGraph:
    """The order of rows that both sides and their difference follow: by the larger of the two sides' numbers."""
    nodes = {}
    for pair in found.pairs.values():
        own: Node | None = pair.a if side == "a" else pair.b
        name = pair.id if side is None else own.id if own is not None else _placeholder_id(pair)
        both = [node for node in (pair.a, pair.b) if node is not None]
        source = next((node.source_pos for node in both if node.source_pos is not None), None)
        moved = {name: max(abs(getattr(node, name) or 0.0) for node in both) for name in ("contribution", "influence")}
        size = max(node.size for node in both)
        nodes[name] = _at_place(name, pair.one, source_pos=source, norm=size, **moved)
    return FlowGraph(nodes, [], found.meta)


def _placeholder_id(pair: NodePair) -> str:
    return pair.id if pair.one.kind == "rest" else f"held:{pair.id}"  # a head's rest is found by its name


def _at_place(name: str, node: Node, **columns: Any) -> Node:
    """A node at another's place in the model."""
    return Node(name, node.kind, node.layer, node.head, neuron=node.neuron, **columns)


def difference_graph(found: Comparison) -> FlowGraph:
    """The difference graph: every node is A's with its counterpart of B; edges carry what changed, B − A."""
    nodes = {
        pair.id: pair.one._replace(id=pair.id, status=pair.status, counterpart=pair.b, only_b=pair.a is None)
        for pair in found.pairs.values()
    }
    return FlowGraph(nodes, list(map(_change, found.links)), found.meta)


def _change(pair: EdgePair) -> Edge:
    """One edge of the difference: B − A of what it carries, an absent one carrying nothing."""

    def change(a: float | None, b: float | None) -> float | None:
        return None if a is None and b is None else (b or 0.0) - (a or 0.0)

    none = Edge("", "", "")
    a, b = pair.a or none, pair.b or none
    weight, norm = change(a.weight, b.weight), change(a.norm, b.norm)
    grows = norm if norm is not None else weight
    sign = None if not grows else 1.0 if grows > 0 else -1.0
    moved = change(a.contribution, b.contribution), change(a.influence, b.influence)
    return Edge(*pair[:3], weight, norm, sign, *moved)
