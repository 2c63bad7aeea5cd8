"""Two compared graphs as drawings: side by side at the same places, or as one graph of what differs.

Both sides' drawings follow one order of rows, the larger of the two sides first, and hold a place for what only the
other side has, so that the same component stands at the same height.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

from visit.analyses.graph_difference import Comparison, Side, common_id, own_id
from visit.drawing.draw import Look, flow_data
from visit.drawing.records import Detail, Edge, Flow, Level, Node, read

_HOLDS_PLACE = ("value", "key", "rest")


def both_data(
    found: Comparison, detail: Detail, selected: str | None = None, actions: bool = False, **look: Unpack[Look]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What flow.js needs to show both graphs side by side: same rows, same units, lit and scrolled together.

    `selected`: a node of the difference graph. Each drawing's `names` maps its own ids to those of the difference graph
    where the two differ.
    """
    flows = {side: side_flow(found, side) for side in ("a", "b")}
    drawn = []
    for side, other in (("a", "b"), ("b", "a")):
        own = None if selected is None else own_id(selected, side, found.pairing)  # type: ignore[arg-type]
        own = own if own in flows[side].nodes else _held(selected or "")
        order = order_flow(found, side)  # type: ignore[arg-type]
        options: Look = {**look, "order": order, "beside": (flows[other],)}
        data = flow_data(flows[side], detail, selected=own if own in flows[side].nodes else None, actions=actions,
                         group="two", **options)  # fmt: skip
        data["names"] = {i: c for i in flows[side].nodes if (c := _common(i, side, found)) != i}
        drawn.append(data)
    return drawn[0], drawn[1]


def _common(node: str, side: str, found: Comparison) -> str:
    if node.startswith("held:"):
        return node.removeprefix("held:")
    return common_id(node, side, found.pairing)  # type: ignore[arg-type]


def _held(node: str) -> str:
    return f"held:{node}"


def difference_data(
    found: Comparison, detail: Detail, selected: str | None = None, actions: bool = False, **look: Unpack[Look]
) -> dict[str, Any]:
    """What flow.js needs to show the difference graph."""
    flow, options = difference_picture(found, **look)
    return flow_data(flow, detail, selected=selected if selected in flow.nodes else None, actions=actions, **options)


def difference_picture(found: Comparison, **look: Unpack[Look]) -> tuple[Flow, Look]:
    """The difference graph as records, and how it is drawn: for `visit.draw` and the files of `flow_page`."""
    return difference_flow(found), {**look, "color_by": "change", "order": order_flow(found, None)}


def common_detail(found: Comparison) -> dict[int, Level]:
    """All blocks folded but the one that moves both sides' targets most, which is at *words*."""
    rows = found.nodes[found.nodes["kind"].isin(["attn_out", "mlp_out"])]
    moved = (rows["contribution_a"].abs() + rows["contribution_b"].abs()).groupby(rows["layer"]).sum()
    most = int(moved.idxmax())
    return {layer: "words" if layer == most else "states" for layer in found.meta["layers"]}


def side_flow(found: Comparison, side: Side) -> Flow:
    """One side's graph with a place held for every node that only the other side has."""
    flow = read(found.a if side == "a" else found.b)
    nodes = dict(flow.nodes)
    missing = found.nodes[found.nodes[f"id_{side}"].isna() & found.nodes["kind"].isin(_HOLDS_PLACE)]
    for row in missing.to_dict("records"):
        pos = row["source_pos_b" if side == "a" else "source_pos_a"]
        # a place of its own in the head's row; a key and its value share it
        place = -1000 - int(pos) if row["kind"] != "rest" else None
        own = row["id"] if row["kind"] == "rest" else _held(row["id"])  # a head's rest is found by its name
        nodes[own] = _node(own, row, source_pos=place, label="absent", absent=True)
    empty: dict[str, list[Edge]] = {i: [] for i in nodes}
    return Flow(nodes, flow.edges, empty | flow.into, empty | flow.out, flow.meta)


def order_flow(found: Comparison, side: Side | None) -> Flow:
    """The order of rows that both sides and their difference follow: by the larger of the two sides' numbers."""
    nodes = {}
    for row in found.nodes.to_dict("records"):
        own = row["id"] if side is None else row[f"id_{side}"]
        if _none(own):
            own = row["id"] if row["kind"] == "rest" else _held(row["id"])
        sizes = [_size(row, s) for s in "ab"]
        moved = [abs(row[f"contribution_{s}"]) for s in "ab" if not _none(row[f"contribution_{s}"])]
        sources = [row[f"source_pos_{s}"] for s in "ab"]
        source = next((int(p) for p in sources if not _none(p)), None)
        nodes[own] = _node(own, row, source_pos=source, norm=max(sizes), contribution=max(moved, default=0.0))
    return Flow(nodes, [], {i: [] for i in nodes}, {i: [] for i in nodes}, found.meta)


def _node(name: str, row: dict[str, Any], **columns: Any) -> Node:
    """A node at a row's place in the model."""
    layer, head, neuron = (None if _none(row[n]) else int(row[n]) for n in ("layer", "head", "neuron"))
    return Node(name, row["kind"], layer, head, neuron=neuron, **columns)


def _size(row: dict[str, Any], side: str) -> float:
    norm, coefficient = row[f"norm_{side}"], row[f"coefficient_{side}"]
    return 0.0 if _none(norm) else abs(norm * (1.0 if _none(coefficient) else coefficient))


def _none(value: Any) -> bool:
    return value is None or value != value or type(value).__name__ == "NAType"


def difference_flow(found: Comparison) -> Flow:
    """The difference graph as records: every node is A's with its twin of B; edges carry what changed, B − A."""
    flows: dict[str, Flow] = {"a": read(found.a), "b": read(found.b)}
    nodes = {}
    for row in found.nodes[["id", "id_a", "id_b", "status"]].to_dict("records"):
        a, b = (None if _none(row[f"id_{s}"]) else flows[s].nodes[row[f"id_{s}"]] for s in "ab")
        one = a or b
        assert one is not None
        twin = None if b is None else replace(b)
        nodes[row["id"]] = replace(one, id=row["id"], status=row["status"], twin=twin, only_b=a is None)
    edges = [_change(row) for row in found.edges.to_dict("records")]
    into: dict[str, list[Edge]] = {i: [] for i in nodes}
    out: dict[str, list[Edge]] = {i: [] for i in nodes}
    for edge in edges:
        into[edge.target].append(edge)
        out[edge.source].append(edge)
    return Flow(nodes, edges, into, out, found.meta)


def _change(row: dict[str, Any]) -> Edge:
    """One edge of the difference: B − A of what it carries, an absent one carrying nothing."""
    change = {}
    for name in ("weight", "norm", "contribution"):
        a, b = row[f"{name}_a"], row[f"{name}_b"]
        change[name] = None if _none(a) and _none(b) else (0.0 if _none(b) else b) - (0.0 if _none(a) else a)
    grows = change["norm"] if change["norm"] is not None else change["weight"]
    sign = None if not grows else (1.0 if grows > 0 else -1.0)
    return Edge(
        row["source"], row["target"], row["kind"], change["weight"], change["norm"], sign, change["contribution"]
    )
