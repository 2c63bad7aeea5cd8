"""Where every pill of the flow graph stands: pure geometry in pixels, no colours and no SVG.

The residual stream is one straight line along the top. Under it hang the workshops of each block: attention (memory
values → head outputs → attention out) and MLP (neuron reads → neuron writes → MLP out), each ending right under the
state that it adds to. A row is one head; its first line is kept free to the right, so that the head's band runs
straight on and never through another pill.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from visit.drawing.records import (
    FAN,
    LEVELS,
    LOGITS_LINE,
    NAME_Y,
    STREAM_Y,
    TAG_SIZE,
    Bar,
    Block,
    Caption,
    Detail,
    Junction,
    Level,
    Parts,
    Sheet,
)
from visit.graph.flowgraph import STREAM, FlowGraph, Node, rest_share
from visit.text.numbers import percent
from visit.text.visible import fit, visible

MARGIN = 14.0
WORK_Y = 120.0  # top of the first row of a workshop
LINE = 24.0  # from one pill to the next in a row
REST_LINE = 19.0
ROW_GAP = 9.0
PILL_H, REST_H, STATE_H, TAG_H = 20.0, 15.0, 26.0, 17.0
STATE_W, VALUE_W, HEAD_W, NEURON_W, NORM_W, QUERY_W, LOGITS_W = 112.0, 136.0, 108.0, 120.0, 92.0, 104.0, 128.0
FOLD_GAP, FOLD_PAD = 12.0, 5.0  # less room around the words of a folded block
SHARE_Y = 33.0  # baseline of the numbers over folded states
COMPACT, COMPACT_W = 10, 58.0  # from so many blocks on, folded ones are narrow: twelve fit beside the app's sidebar

# ---- which nodes are shown, and in which order -----------------------------------------------------------------------
_STATES = {*STREAM, "attn_out", "mlp_out", "ln_final", "logits"}
_WORDS = {*_STATES, "head", "value", "mlp_value", "rest"}
_ATTENTION = {"ln1_out", "query", "key", "value", "head", "attn_neuron", "attn_bias"}


def block_levels(flow: FlowGraph, detail: Detail) -> dict[int, Level]:
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
    """Nodes by falling norm, |contribution| or |influence|, or by rising index; equal ones by index: stable."""
    if by == "norm":
        return sorted(nodes, key=lambda n: (-n.size, *_model_order(n)))
    if by in ("contribution", "influence"):
        return sorted(nodes, key=lambda n: (-abs(getattr(n, by) or 0.0), *_model_order(n)))
    return sorted(nodes, key=_model_order)


def _model_order(node: Node) -> tuple[int, int, int]:
    return tuple(-1 if v is None else v for v in (node.head, node.source_pos, node.neuron))  # type: ignore[return-value]


# ---- texts -----------------------------------------------------------------------------------------------------------
def share_text(share: float | None) -> str:
    """`rest 12 %`, or `rest` where the share is unknown."""
    return "rest" if share is None else f"rest {percent(share, narrow=True)}"


def source_tag(node: Node) -> str:
    """Where a key or a memory value was made: `←·Mary`; the first position, often an attention sink, `|←When`."""
    if node.source_token is None and node.source_pos is None:
        return ""
    token = visible(node.source_token) if node.source_token is not None else str(node.source_pos)
    return ("|←" if node.source_pos == 0 else "←") + token


# ---- the rows of a block in their order ------------------------------------------------------------------------------
class Rows:
    """The rows of one block in their order: heads with what belongs to each, and neurons."""

    def __init__(self, flow: FlowGraph, ids: set[str], layer: int, sort_by: str, order: FlowGraph | None) -> None:
        self.flow = flow
        group: dict[str, list[Node]] = {}  # by kind; the three kinds of rest under names of their own
        for node in flow.of_layer[layer]:
            if node.id in ids:
                rest = (
                    ""
                    if node.kind != "rest"
                    else {"heads": "heads.", "mlp": "mlp."}.get(node.id.split(".")[-2], "head.")
                )
                group.setdefault(rest + node.kind, []).append(node)
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


def _like(nodes: list[Node], order: FlowGraph | None, by: str) -> list[Node]:
    """The nodes in another graph's order; those it does not have come last."""
    if order is None:
        return nodes
    rank = {n.id: i for i, n in enumerate(ordered((order.by_id[n.id] for n in nodes if n.id in order.by_id), by))}
    return sorted(nodes, key=lambda n: rank.get(n.id, len(rank)))


def place(
    flow: FlowGraph,
    chosen: Mapping[int, Level],
    parts: Parts = "both",
    sort_by: str = "norm",
    order: FlowGraph | None = None,
) -> Sheet:
    """Lay out a graph at the given level per block.

    `order`: another graph whose rows this one follows, so that the two can be compared line by line.
    """
    sheet = Sheet()
    if len(chosen) >= COMPACT:
        sheet.fold_w = COMPACT_W
    ids = shown(flow, chosen, parts, order=order)
    x = MARGIN
    for layer, level in chosen.items():
        rows = Rows(flow, ids, layer, sort_by, order)
        group = rows.group
        x = _enter(sheet, flow, group, level, x)
        x = _folded(sheet, group, rows, layer, x) if level == "states" else _open(sheet, group, rows, layer, level, x)
    x = _end(sheet, flow, x)
    sheet.width = x + MARGIN
    sheet.height = max((p.bottom for p in sheet.pills.values()), default=STREAM_Y) + MARGIN
    return sheet


# ---- blocks ----------------------------------------------------------------------------------------------------------


def _probability(node: Node) -> str:
    return percent(node.target_prob, narrow=True)


def _state(sheet: Sheet, node: Node, x: float) -> None:
    sheet.pill(node, "state", x, STREAM_Y - STATE_H / 2, STATE_W, STATE_H, _probability(node))


def _folded_state(sheet: Sheet, node: Node, x: float) -> None:
    """A narrow state: its number stands above it, over a bar, so that all of them show where the target rises."""
    sheet.pill(node, "state", x, STREAM_Y - STATE_H / 2, sheet.fold_w, STATE_H, pad=FOLD_PAD)
    sheet.captions.append(Caption(x + sheet.fold_w / 2, SHARE_Y, _probability(node), "note", middle=True))
    if node.target_prob is not None and node.layer is not None:
        sheet.bars.append(Bar(node.layer, x, sheet.fold_w, node.target_prob))


def _enter(sheet: Sheet, flow: FlowGraph, group: dict[str, list[Node]], level: Level, x: float) -> float:
    """The gap before a block, if there is one, and its first state; returns where the block begins."""
    for node in group.get("resid_pre", []):
        for edge in flow.into[node.id]:
            gap = flow.by_id[edge.source]
            if gap.kind == "rest":
                text = share_text(rest_share(flow, gap))
                plural = "blocks " if "-" in gap.id else "block "
                name = gap.id.removesuffix(".rest").replace("L", plural).replace("-", "–")
                sheet.captions.append(Caption(x + 20, 42, fit(name, 80, TAG_SIZE), "column"))
                sheet.pill(gap, "rest", x + 20, WORK_Y, 76, REST_H, text)
                x += 112
        if level != "states":
            _state(sheet, node, x)
            sheet.captions.append(Caption(x, 42, "residual in", "column"))
            x += STATE_W
            continue
        _folded_state(sheet, node, x)
        if not sheet.blocks:
            sheet.captions.append(Caption(x, 20, "block", "column"))
            for row, name in enumerate(("attention", "top heads", "MLP")):
                sheet.captions.append(Caption(x, WORK_Y + 14 + row * 26, name, "column"))
        x += sheet.fold_w
    return x


def _folded(sheet: Sheet, group: dict[str, list[Node]], rows: Rows, layer: int, x: float) -> float:
    """A folded block: its state on the stream; attention out, its top heads and MLP out under it."""
    x += FOLD_GAP
    w = sheet.fold_w - 4
    block = Block(layer, "states", x, x + sheet.fold_w)
    sheet.blocks.append(block)
    sheet.captions.append(Caption(x, 20, f"{layer}", "title", layer))
    for node in group.get("resid_mid", []):
        sheet.pill(node, "bead", x - 12, STREAM_Y - 6, 12, 12)
    for node in group.get("resid_post", []):
        _folded_state(sheet, node, x)
    for node in group.get("attn_out", []):
        sheet.pill(node, "pill", x, WORK_Y, w, PILL_H, pad=FOLD_PAD)
    for i, node in enumerate(rows.heads[:2]):
        sheet.pill(node, "tag", x + i * (w + 1.5) / 2, WORK_Y + 26, (w - 1.5) / 2, TAG_H, f"H{node.head}")
    for node in group.get("mlp_out", []):
        sheet.pill(node, "pill", x, WORK_Y + 52, w, PILL_H, pad=FOLD_PAD)
    return block.right


def _open(sheet: Sheet, group: dict[str, list[Node]], rows: Rows, layer: int, level: Level, x: float) -> float:
    """An open block: the attention workshop, the state after it, the MLP workshop, the block's last state."""
    block = Block(layer, level, x)
    sheet.blocks.append(block)
    sheet.captions.append(Caption(x + 14, 20, f"block {layer}", "title", layer))
    x = _attention_columns(sheet, group, rows, block, x)
    x = _give_back(sheet, group, "attn_out", "attention out", "resid_mid", "residual", x)
    x = _mlp_columns(sheet, group, rows, block, x)
    x = _give_back(sheet, group, "mlp_out", "MLP out", "resid_post", "residual out", x)
    block.right = x
    return x


def _give_back(
    sheet: Sheet, group: dict[str, list[Node]], out: str, name: str, state: str, state_name: str, x: float
) -> float:
    """A workshop's sum and, right above it, the state it is added to."""
    for node in group.get(out, []):
        sheet.captions.append(Caption(x, NAME_Y, name, "column"))
        sheet.pill(node, "state", x, WORK_Y - 3, STATE_W, STATE_H, _probability(node))
    for node in group.get(state, []):
        sheet.captions.append(Caption(x, 42, state_name, "column"))
        _state(sheet, node, x)
    return x + STATE_W


def _column(sheet: Sheet, x: float, name: str) -> None:
    sheet.captions.append(Caption(x, NAME_Y, name, "column"))


def _norm(sheet: Sheet, group: dict[str, list[Node]], kind: str, block: Block, workshop: str, x: float) -> float:
    """The line that leaves the stream, and the norm it passes; returns where the first column may begin."""
    leave, rail = x + 4, x + 16
    block.rails[workshop] = (leave, rail)
    x = rail + 20
    for node in group.get(kind, []):
        _column(sheet, x, "norm")
        sheet.pill(node, "pill", x, WORK_Y, NORM_W, PILL_H)
        block.rails[workshop + ".norm"] = (x + NORM_W, x + NORM_W + 14)
        x += NORM_W + 14 + 20
    return x


def _attention_columns(sheet: Sheet, group: dict[str, list[Node]], rows: Rows, block: Block, x: float) -> float:
    x = _norm(sheet, group, "ln1_out", block, "attention", x)
    if not any(group.get(kind) for kind in ("head", "value", "heads.rest", "attn_bias")):
        return x
    columns = {}
    rail = x - 20
    if rows.queries:
        columns["query"], x = x, x + QUERY_W + 52
        columns["key"], x = x, x + VALUE_W + 44
    else:
        x += 28  # room for the gold bands
    columns["value"], x = x, x + VALUE_W + 46
    columns["head"], x = x, x + HEAD_W
    if rows.attn_neurons:
        x += 44
        columns["attn_neuron"], x = x, x + NEURON_W
    names = {"query": "query", "key": "keys", "value": "memory values", "head": "head outputs"}
    for kind, start in columns.items():
        _column(sheet, start, names.get(kind, "W_O neurons (one basis)"))
    y = WORK_Y
    for head in rows.heads:
        _head_row(sheet, rows, head, columns, rail, y)
        y += rows.height(head)
    for node in group.get("heads.rest", []):
        text = share_text(rest_share(rows.flow, node))
        sheet.pill(node, "rest", columns["head"], y, HEAD_W, REST_H, text)
        _attn_neurons(sheet, rows, node, columns, y)
        y += max(REST_LINE, LINE * (1 + len(rows.attn_neurons.get(node.id, []))))
    for node in group.get("attn_bias", []):
        sheet.pill(node, "pill", columns["head"], y, HEAD_W, PILL_H, "bias")
    return x + FAN


def _head_row(sheet: Sheet, rows: Rows, head: Node, columns: dict[str, float], rail: float, y: float) -> None:
    """One head: query, keys, values and output, the first of each on the row's first line."""
    if head.head in rows.queries:
        sheet.pill(rows.queries[head.head], "pill", columns["query"], y, QUERY_W, PILL_H, f"H{head.head}")
    else:
        point = f"{head.id}.reads"
        sheet.junctions[point] = Junction(point, columns["value"] - 38, y + PILL_H / 2, rail)
    values = rows.values.get(head.head, [])
    for i, value in enumerate(values):
        for node, x in ((value, "value"), (rows.keys.get((head.head, value.source_pos)), "key")):
            if node is not None and node.placeholder:
                sheet.pill(node, "rest", columns[x], y + i * LINE + 2, VALUE_W, REST_H, "absent")
            elif node is not None:
                sheet.pill(node, "pill", columns[x], y + i * LINE, VALUE_W, PILL_H, source_tag(node))
    if head.id in rows.rests:
        rest = rows.rests[head.id]
        text = "nothing left out" if rest.placeholder else share_text(rest_share(rows.flow, rest))
        sheet.pill(rest, "rest", columns["value"], y + len(values) * LINE, VALUE_W, REST_H, text)
    sheet.pill(head, "pill", columns["head"], y, HEAD_W, PILL_H, f"H{head.head}")
    _attn_neurons(sheet, rows, head, columns, y)


def _attn_neurons(sheet: Sheet, rows: Rows, source: Node, columns: dict[str, float], y: float) -> None:
    """A head's rows of W_O, under the line that its own band takes."""
    for i, node in enumerate(rows.attn_neurons.get(source.id, []), start=1):
        sheet.pill(node, "pill", columns["attn_neuron"], y + i * LINE, NEURON_W, PILL_H, f"{node.neuron}")


def _mlp_columns(sheet: Sheet, group: dict[str, list[Node]], rows: Rows, block: Block, x: float) -> float:
    x = _norm(sheet, group, "ln2_out", block, "mlp", x)
    if not any(group.get(kind) for kind in ("mlp_value", "mlp.rest", "mlp_bias")):
        return x
    reads = {n.id: rows.reads(n) for n in rows.neurons}
    gated = max(map(len, reads.values()), default=0) > 1
    if any(reads.values()):
        _column(sheet, x, "neuron reads (gate, up)" if gated else "neuron reads")
        read_x, x = x, x + NEURON_W + 40
    _column(sheet, x, "neuron writes")
    y = WORK_Y
    for node in rows.neurons:
        for i, key in enumerate(reads[node.id]):
            kind = key.id.rsplit(".", 1)[-1] if gated else f"{key.neuron}"
            sheet.pill(key, "pill", read_x, y + i * LINE, NEURON_W, PILL_H, kind)
        sheet.pill(node, "pill", x, y + (LINE / 2 if gated else 0), NEURON_W, PILL_H, f"{node.neuron}")
        y += LINE * max(1, len(reads[node.id])) + (4 if gated else 0)
    for node in group.get("mlp.rest", []):
        sheet.pill(node, "rest", x, y, NEURON_W, REST_H, share_text(rest_share(rows.flow, node)))
        y += REST_LINE
    for node in group.get("mlp_bias", []):
        sheet.pill(node, "pill", x, y, NEURON_W, PILL_H, "bias")
    return x + NEURON_W + FAN


def _end(sheet: Sheet, flow: FlowGraph, x: float) -> float:
    """The final norm on the stream and the predictions under it."""
    final, logits = flow.by_id.get("ln_final"), flow.by_id.get("logits")
    if final is None and logits is None:
        return x
    x += 20
    if final is not None:
        sheet.captions.append(Caption(x, 42, "final norm", "column"))
        sheet.pill(final, "state", x, STREAM_Y - STATE_H / 2, LOGITS_W, STATE_H, _probability(final))
    if logits is not None and logits.status:  # two predictions: the inspector lists them side by side
        _column(sheet, x, "predictions")
        sheet.pill(logits, "state", x, WORK_Y - 3, LOGITS_W, STATE_H)
    elif logits is not None:
        _column(sheet, x, "predictions")
        lines = len((logits.tokens or [])[:10]) or 1
        sheet.pill(logits, "card", x, WORK_Y - 3, LOGITS_W, 8 + lines * LOGITS_LINE)
    return x + LOGITS_W
