"""How the bands of the flow graph run from pill to pill: routes and widths in pixels, classes instead of colours.

Bands that add up (values into a head, heads into attention out) enter their sum in the order of their rows, side by
side, so that nothing crosses. What a hidden node would pass on becomes a line from the stream (`readers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from visit.drawing.records import FAN, STREAM_Y, THINNEST, WIDEST, Band, Block, Gauge, Pill, Sheet, WidthBy
from visit.graph.flowgraph import STREAM, Edge, FlowGraph, Node

# ---- the shapes of bands ---------------------------------------------------------------------------------------------
_LANE = STREAM_Y + 24  # height of lines that run along under the stream


def curve(x1: float, y1: float, x2: float, y2: float, bend: float = 0.0) -> str:
    """A soft step from (x1, y1) to (x2, y2) that runs straight until `bend`."""
    if abs(y1 - y2) < 0.6:
        return f"M{x1:.0f} {y1:.1f}H{x2:.0f}"
    straight = f"H{bend:.0f}" if bend > x1 + 1 else ""
    middle = (max(x1, bend) + x2) / 2
    return f"M{x1:.0f} {y1:.1f}{straight}C{middle:.0f} {y1:.1f} {middle:.0f} {y2:.1f} {x2:.0f} {y2:.1f}"


def rise(x1: float, y1: float, x2: float, y2: float) -> str:
    middle = (y1 + y2) / 2
    return f"M{x1:.0f} {y1:.0f}C{x1:.0f} {middle:.0f} {x2:.0f} {middle:.0f} {x2:.0f} {y2:.0f}"


def rail_line(start: str, rail: float, y1: float, y2: float, x2: float) -> str:
    """From `start` at height y1 around a soft corner into the rail, down to y2 and right to x2."""
    if abs(y2 - y1) < 2:
        return f"{start}H{x2:.0f}"
    soft = min(8.0, abs(y2 - y1) / 2)
    return (
        f"{start}Q{rail:.0f} {y1:.0f} {rail:.0f} {y1 + soft:.0f}V{y2 - soft:.0f}"
        f"Q{rail:.0f} {y2:.0f} {rail + soft:.0f} {y2:.0f}H{x2:.0f}"
    )


def under_stream(x: float, y: float, end: float) -> str:
    """A parallel block: attention's sum runs along under the stream to the state at its end."""
    turn = end - 10
    return (
        f"M{x:.0f} {y:.0f}V{_LANE + 10:.0f}Q{x:.0f} {_LANE:.0f} {x + 10:.0f} {_LANE:.0f}H{turn - 14:.0f}"
        f"C{turn:.0f} {_LANE:.0f} {turn:.0f} {STREAM_Y + 6:.0f} {end:.0f} {STREAM_Y + 6:.0f}"
    )


def fold_attention(a: Pill) -> str:
    """In a folded block attention's sum goes up left of the state, to the bead."""
    x = a.x - 6
    return f"M{a.x:.0f} {a.cy:.0f}Q{x:.0f} {a.cy:.0f} {x:.0f} {a.cy - 8:.0f}V{STREAM_Y + 6:.0f}"


def fold_mlp(a: Pill, b: Pill) -> str:
    """In a folded block the MLP's sum goes up right of attention's, to the state."""
    x = b.right - 1
    return f"M{a.right:.0f} {a.cy:.0f}Q{x:.0f} {a.cy:.0f} {x:.0f} {a.cy - 8:.0f}V{b.bottom - 3:.0f}"


READING, FOLDED_WIDEST, GOLD = (
    1.2,
    5.0,
    10.0,
)  # widths: of a reading line, and the most of a folded block and of a pattern
_SUMS = ("head", "attn_out", "mlp_out")


def gauge(flow: FlowGraph, by: WidthBy = "norm", others: Iterable[FlowGraph] = ()) -> Gauge:
    """One unit for the whole graph and those beside it; the power is lowered where a few bands would drown others."""
    probe = Gauge(by, 1.0, 1.0)
    added = (e for f in (flow, *others) for e in f.links if e.kind in ("add", "residual"))
    values = sorted(v for e in added if (v := probe.number(e)))
    if not values:
        return Gauge(by, 0.0, 0.5)
    largest, middle = values[-1], values[len(values) // 2]
    power = next((p for p in (0.5, 0.4) if WIDEST * (middle / largest) ** p >= 1.4), 0.3)
    return Gauge(by, largest, power)


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


def route(flow: FlowGraph, sheet: Sheet, measure: Gauge, look: Callable[[Node], str]) -> list[Band]:
    """All links between shown nodes, the wide and quiet ones first, so that they are drawn at the bottom."""
    router = _Router(flow, sheet, measure, look)
    bands = [*router.direct(), *router.through_hidden()]
    layer = {"r": 0, "m": 1, "s": 2, "a": 3}
    return sorted(bands, key=lambda b: (layer.get(b.look, 4), -b.width))


class _Router:
    def __init__(self, flow: FlowGraph, sheet: Sheet, measure: Gauge, look: Callable[[Node], str]) -> None:
        self.flow, self.sheet, self.measure, self.look = flow, sheet, measure, look
        self.blocks = {block.layer: block for block in sheet.blocks}
        self.entry = self._entries()
        self.exit = self._exits()

    def _entries(self) -> dict[tuple[str, str], float]:
        """Where on its target's left side each added band ends: side by side in the order of the rows."""
        entry = {}
        for pill in self.sheet.pills.values():
            if pill.node.kind not in _SUMS:
                continue
            edges = [e for e in self.flow.into[pill.id] if e.kind == "add" and e.source in self.sheet.pills]
            edges.sort(key=lambda e: self.sheet.pills[e.source].cy)
            widths = [self.measure(e) for e in edges]
            squeeze = min(1.0, (pill.h - 6) / (sum(widths) or 1))
            y = pill.cy - squeeze * sum(widths) / 2
            for edge, width in zip(edges, widths, strict=True):
                entry[edge.source, edge.target] = y + squeeze * width / 2
                y += squeeze * width
        return entry

    def _exits(self) -> dict[tuple[str, str], float]:
        """How far from its source's middle each gold band begins: side by side, as they end."""
        bundles: dict[str, list[Pill]] = {}
        for pill in self.sheet.pills.values():
            head = f"L{pill.node.layer}.head{pill.node.head}"
            if pill.node.placeholder:
                continue
            if pill.node.kind == "key" or (pill.node.kind == "value" and f"{head}.reads" in self.sheet.junctions):
                bundles.setdefault(head, []).append(pill)
        found = {}
        for head, pills in bundles.items():
            widths = [self._gold(p) for p in sorted(pills, key=lambda p: p.cy)]
            squeeze = min(1.0, 14.0 / (sum(widths) or 1))
            y = -squeeze * sum(widths) / 2
            for pill, width in zip(sorted(pills, key=lambda p: p.cy), widths, strict=True):
                source = head + (".query" if pill.node.kind == "key" else ".reads")
                found[source, pill.id] = y + squeeze * width / 2
                y += squeeze * width
        return found

    def direct(self) -> Iterable[Band]:
        pills = self.sheet.pills
        for edge in self.flow.links:
            a, b = pills.get(edge.source), pills.get(edge.target)
            if a is not None and b is not None:
                yield self._band(edge, a, b)

    def _band(self, edge: Edge, a: Pill, b: Pill) -> Band:
        look, width, dashed = "m", READING, False
        if edge.kind == "residual":
            look, width = "r", self.measure(edge)
            dashed = b.node.kind == "resid_pre" if a.node.status is None else (edge.coefficient or 0) < 0  # over a gap
            d = f"M{a.right:.0f} {STREAM_Y:.0f}H{b.x:.0f}"
        elif edge.kind == "add":
            hue = self.look(a.node)
            look, width = hue if hue[0] in "tbed" and a.role != "rest" else "s", self.measure(edge)
            if self._folded(a.node):
                width = min(width, FOLDED_WIDEST)  # two lanes share the 12 pixels between folded blocks
            dashed = (edge.coefficient or 0) < 0 and (a.node.kind == "mlp_value" or a.node.status is not None)
            d = self._add(edge, a, b)
        elif b.node.kind in ("key", "value"):
            look, width = "a", self._gold(b)
            d = curve(a.right, a.cy + self.exit.get((a.id, b.id), 0.0), b.x, b.cy)
        elif b.node.kind == "ln_final":
            look, width, d = "r", 3.0, f"M{a.right:.0f} {STREAM_Y:.0f}H{b.x:.0f}"
        elif b.node.kind == "logits":
            d = f"M{b.x + b.w / 2:.0f} {a.bottom:.0f}V{b.y:.0f}"
        elif self._folded(b.node):
            d = ""  # of a block that is not taken apart: what its parts read is shown by nearness
        elif a.node.kind in STREAM or a.node.kind.startswith("ln"):
            d = self._reading(a, b)
        elif b.node.kind == "attn_neuron":
            d = rail_line(f"M{a.right:.1f} {a.cy:.1f}H{a.right + 8:.0f}", a.right + 16, a.cy, b.cy, b.x)
        elif a.node.kind == "attn_neuron":
            dashed = (a.node.coefficient or 0) < 0
            d = curve(a.right, a.cy, b.x, b.bottom - 4)
        else:
            dashed = (b.node.coefficient or 0) < 0
            width = 1.6
            d = curve(a.right, a.cy, b.x, b.cy)
        return Band(edge.source, edge.target, edge.kind, look, width, d, dashed, edge.weight, edge.contribution)

    def _folded(self, node: Node) -> bool:
        return node.layer in self.blocks and self.blocks[node.layer].level == "states"

    def _gold(self, pill: Pill) -> float:
        """Width of a pattern: on the scale of 1, with the power of all widths."""
        weights = [e.weight for e in self.flow.into[pill.id] if e.weight is not None]
        return max(THINNEST, GOLD * min(1.0, abs(weights[0])) ** self.measure.power) if weights else READING

    def _add(self, edge: Edge, a: Pill, b: Pill) -> str:
        block = self.blocks.get(a.node.layer) if a.node.layer is not None else None
        if a.role == "tag":
            return ""  # the tag stands under its sum
        if b.node.kind in _SUMS:
            return curve(a.right, a.cy, b.x, self.entry[edge.source, edge.target], b.x - FAN)
        if b.node.kind == "resid_pre":
            return rise(a.right - 12, a.y, b.x + 12, b.bottom)
        if block is not None and block.level == "states":
            return fold_attention(a) if a.node.kind == "attn_out" else fold_mlp(a, b)
        if abs(a.x - b.x) < 1:
            return f"M{a.right - 14:.0f} {a.y:.0f}V{b.bottom:.0f}"
        return under_stream(a.right - 14, a.y, b.x)

    def _workshop(self, node: Node) -> str:
        return "mlp" if node.kind.startswith(("mlp", "ln2")) or node.id.endswith(".mlp.rest") else "attention"

    def _reading(self, a: Pill, b: Pill) -> str:
        """A line that takes from the stream (or from a norm) and runs down a rail to the rows."""
        block = self.blocks[b.node.layer]  # type: ignore[index]
        name = self._workshop(b.node)
        if a.node.kind not in STREAM:
            if a.node.kind == "ln1_out" and name == "mlp":  # one norm for both workshops
                return self._shared(a, b, block)
            rail = block.rails.get(f"{name}.norm", (a.right, b.x - 12))[1]
            return rail_line(f"M{a.right:.0f} {a.cy:.0f}", rail, a.cy, b.cy, b.x)
        leave, rail = block.rails.get(name, (a.right, b.x - 12))
        return rail_line(f"M{leave - 4:.0f} {STREAM_Y:.0f}", rail, STREAM_Y, b.cy, b.x)

    def _shared(self, a: Pill, b: Pill, block: Block) -> str:
        rail = block.rails["mlp"][1]
        lane = STREAM_Y + 18
        x = a.right - 10
        start = f"M{x:.0f} {a.y:.0f}V{lane + 8:.0f}Q{x:.0f} {lane:.0f} {x + 8:.0f} {lane:.0f}"
        return rail_line(f"{start}H{rail - 12:.0f}", rail, lane, b.cy, b.x)

    def through_hidden(self) -> Iterable[Band]:
        """Links that pass through nodes which this level of detail leaves out."""
        pills, ids = self.sheet.pills, set(self.sheet.pills)
        for pill in pills.values():
            edges = self.flow.into[pill.id]
            if not edges or all(e.source in ids for e in edges):
                continue
            for source in readers(self.flow, pill.id, ids):
                if any(e.source == source for e in edges):
                    continue
                a = pills[source]
                point = self.sheet.junctions.get(f"L{pill.node.layer}.head{pill.node.head}.reads")
                if pill.node.kind == "value" and point is not None:
                    yield self._to_junction(a, point.id)
                    d = curve(point.x, point.y + self.exit[point.id, pill.id], pill.x, pill.cy)
                    yield Band(point.id, pill.id, "multiply", "a", self._gold(pill), d)
                elif pill.role == "pill" and pill.node.kind == "mlp_value":
                    yield Band(source, pill.id, "multiply", "m", READING, self._reading(a, pill))
                else:
                    yield Band(source, pill.id, "multiply", "m", READING, "")

    def _to_junction(self, a: Pill, name: str) -> Band:
        point = self.sheet.junctions[name]
        block = next(b for b in self.sheet.blocks if name.startswith(f"L{b.layer}."))
        leave, rail = block.rails["attention"]
        d = rail_line(f"M{leave - 4:.0f} {STREAM_Y:.0f}", rail, STREAM_Y, point.y, point.x)
        return Band(a.id, name, "multiply", "m", READING, d)
