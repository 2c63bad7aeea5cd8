"""The flow graph of one position: hidden states and neurons as nodes, their interactions as edges.

How a graph is built, in four steps:
1. What is asked for is checked: position, layers, target, what is to be shown (`_checked_question`).
2. Block by block the nodes are drafted with their vectors, and the edges with what travels on them (`blocks`).
3. All vectors are read at once: words, probabilities, ranks, and what each adds to the target (`_read_nodes`).
4. The edges take the numbers of what they carry (`_number_edges`), and the whole is checked (`sums_gap`).

The one rule: at every node the vectors on its incoming `add` and `residual` edges sum to the node's vector;
`multiply` and `norm` edges never take part in a sum. What pruning leaves out stands in `rest` nodes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from visit.activations.record import Activations, check_pass
from visit.errors import VisitError
from visit.exact.decompose import needed
from visit.exact.gradients import gradients_of
from visit.exact.influence import block_influence
from visit.exact.ledger import tolerance
from visit.exact.question import Question, ask
from visit.graph.blocks import MAX_NODES, GraphBuilder, add_block, add_predictions
from visit.graph.flowgraph import STREAM, Edge, FlowGraph, Node, of_attention, sums_gap
from visit.graph.prune import Keep, at_most, is_pin
from visit.lenses.linear import Lens, checked, through
from visit.lenses.logit import Readings, columns_of, read, read_logits
from visit.models.attention import window
from visit.models.checkpoint import MAX_LAYERS
from visit.models.model import Model
from visit.models.tokens import spelled_tokens
from visit.text.node_id import NodeId


def build_flow_graph(
    model: Model,
    acts: Activations,
    pos: int = -1,
    layers: Iterable[int] | int | str | None = None,
    target: int | str | None = None,
    distractor: int | str | None = None,
    keep: Keep = Keep(),  # noqa: B008 - frozen
    lens: Lens | None = None,
    influence: bool = False,
    carry_parts: bool = False,
) -> FlowGraph:
    """Build the flow graph of one position over the chosen layers (None = all); target None = the prediction there.

    `nodes`, a row a node: `id`, `kind`, `layer`, `head`, `source_pos`, `source_token`, `neuron`, `label`, `tokens`,
    `probs`, `bottom_tokens`, `bottom_probs`, `prob` and `rank` of the target, `entropy` (bits), `norm` (of the vector
    read, unit coefficient), `coefficient`, `contribution` (logits; missing where a node adds nothing to the stream).
    `edges`: `source`, `target`, `kind`, `weight` (pattern or |pre-activation| on the edges that carry one, else norm),
    `norm`, `coefficient`, `contribution`. `meta`: what the graph is of, shares kept, constant, ledger, versions.
    `influence`: both tables get a column `influence` (logits to first order, `visit.influence`; of an edge: of what it
    carries, at its target; missing for states), and `meta["influence"]` says what the shown heads and MLP neurons have
    of the summed |influence| of all of the model at this position. It takes one more run, forward and backward, and
    `Keep(by="influence")` implies it.
    `lens`: a fitted lens through which the states of the stream are read (None: the plain one), named in
    `meta["lens"]`. All else is read plainly. `carry_parts`: heads, their memory values, what is left of these, and
    what attention adds are read through the linear part of their block's map, too (`Lens.carry_part`). No contribution
    and no length goes through a lens.
    Raises `VisitError` for a wrong layer, position or target, a lens of another model, `carry_parts` without a lens, or
    more than 20,000 nodes.
    Source: paper section 4; `rest` nodes and contributions ours.
    """
    question, shown = _checked_question(model, acts, pos, layers, target, distractor, keep, None)
    return _build(question, shown, keep, lens=lens, influence=influence, carry_parts=carry_parts)


def build_folded_graph(
    model: Model,
    acts: Activations,
    pos: int = -1,
    layers: Iterable[int] | int | str | None = None,
    target: int | str | None = None,
    distractor: int | str | None = None,
    keep: Keep = Keep(),  # noqa: B008 - frozen
    opened: Iterable[int] = (),
    known: Iterable[Node] = (),
    lens: Lens | None = None,
    influence: bool = False,
    carry_parts: bool = False,
    worded: Iterable[int] = (),
) -> FlowGraph:
    """The same graph as far as it is looked at: only the blocks `opened` are taken apart and read whole.

    Of every other block stands what its folded drawing shows: its states, what attention and the MLP add, its two
    largest heads (and pinned ones) and, unread, so that attention still adds up, the rest of its heads;
    `meta["opened"]` says which blocks are whole, and `meta["shares"]` and the ledger cover what is there. The rows of
    an open block are those of `build_flow_graph`. `known`: nodes of the same pass, position, target, lens and
    `carry_parts`, which are not read again. `worded`: open blocks that are drawn at the level of words: their queries,
    keys, rows of W_O and what their neurons read stand there unread, without words, probabilities and rank. Raises
    `VisitError` as `build_flow_graph` does. Source: ours.
    """
    opened = sorted({int(layer) for layer in opened})
    question, shown = _checked_question(model, acts, pos, layers, target, distractor, keep, opened)
    whole = [layer for layer in opened if layer in shown]
    return _build(question, shown, keep, known, whole, lens, influence, carry_parts, frozenset(worded))


def _checked_question(
    model: Model, acts: Activations, pos: int, layers: Any, target: Any, distractor: Any, keep: Keep,
    opened: list[int] | None,
) -> tuple[Question, list[int]]:  # fmt: skip
    """What a graph is asked for, checked: the question and the layers. `opened`: the blocks that are taken apart."""
    check_pass(model, acts)
    t = acts.index(pos)
    shown = shown_layers(model, layers)
    _check_pins(model, keep, shown, t)
    _check_size(model, keep, shown if opened is None else opened, t + 1)
    return ask(model, acts, t, target, distractor), shown


def extend(graph: FlowGraph, pins: Iterable[str]) -> FlowGraph:
    """The same graph with more nodes shown in any case (`Keep.pin`); what was read already is not read again.

    Raises `VisitError` for a graph that no longer knows the pass it was made from, and for a pin that is no node.
    """
    if graph.source is None:
        raise VisitError("This graph has been separated from its pass; build it again to show more nodes.")
    model, acts = graph.source
    meta = graph.meta
    keep = Keep(**meta["keep"])
    keep = replace(keep, pin=tuple(dict.fromkeys([*keep.pin, *pins])))
    _check_pins(model, keep, meta["layers"], meta["position"])
    distractor = meta["distractor"] and meta["distractor"]["id"]
    question = Question(model, acts, meta["position"], meta["target"]["id"], distractor)
    known = graph.by_id.values()  # its states among them
    return _build(
        question, meta["layers"], keep, known, meta.get("opened"), graph.lens, "influence" in meta,
        bool(meta.get("lens", {}).get("carries_parts")),
    )  # fmt: skip


def _build(
    question: Question,
    layers: list[int],
    keep: Keep,
    known: Iterable[Node] = (),
    opened: list[int] | None = None,
    lens: Lens | None = None,
    influence: bool = False,
    carry_parts: bool = False,
    worded: frozenset[int] = frozenset(),
) -> FlowGraph:
    """`opened`: the blocks that are taken apart, the others being folded; None: all."""
    model = question.model
    if carry_parts and lens is None:
        raise VisitError("Only a fitted lens carries parts of the stream: give one (lens=), or leave carry_parts out.")
    lens = checked(model, lens)
    with torch.no_grad():
        build = GraphBuilder(question, keep, influence or keep.by == "influence")
        for layer in layers:
            add_block(build, layer, opened is None or layer in opened)
        if layers[-1] == model.n_layers - 1:
            add_predictions(build)
        nodes = _read_nodes(build, known, lens, carry_parts, worded, opened)
    acts = question.acts
    named = spelled_tokens(model.tokenizer, acts.token_ids, acts.tokens)[question.pos]
    meta = {
        **question.meta,
        "n_layers": model.n_layers, "n_heads": model.n_heads, "d_head": model.d_head, "d_mlp": model.d_mlp,
        "gated": model.family.w_gate is not None,
        "layers": layers, "windows": {n: size for n in layers if (size := window(model, n)) is not None},
        "keep": asdict(keep), "shares": build.shares, "constant": build.frozen.constant,
        **({} if named == acts.tokens[question.pos] else {"position_token": named}),  # a part of a character
        **({} if opened is None else {"opened": opened}),
        **({} if lens is None else {"lens": lens.about | ({"carries_parts": True} if carry_parts else {})}),
        **({"influence": shown_influence(question, nodes)} if build.influence else {}),
        **({"edits": [e.meta for e in question.acts.edits], "edited": build.edited} if question.acts.edits else {}),
    }  # fmt: skip
    graph = FlowGraph(nodes, _number_edges(build, nodes), meta, (model, question.acts), lens)
    # how exactly this very graph adds up: identities 2 to 4 with all terms of every shown sum (of a folded block its
    # states and heads), and identity 8; an edited run's pattern is as exact as identity 9
    errors = [*map(float, build.errors), sums_gap(graph)]
    worst = math.nan if any(error != error for error in errors) else max(errors)
    allowed = tolerance(model, 9 if any(part == "pattern" for part, _ in build.cut) else 2)
    meta["ledger"] = {"max_rel_error": worst, "tolerance": allowed, "holds": worst <= allowed}
    return graph


def _read_nodes(
    build: GraphBuilder, known: Iterable[Node], lens: Lens | None, carry_parts: bool, worded: frozenset[int],
    opened: list[int] | None,
) -> dict[str, Node]:  # fmt: skip
    """The drafted nodes with what they read and add. `known`: nodes of the same pass and target, not read again.

    `worded`: the blocks of which what no level of words shows stays unread; of a block that is not `opened` (None: all
    are) it is the rest of its heads, which no drawing shows.

    Nodes are known by id and source position, for a query may be turned to another one; a rest changes with its graph.
    """
    model, target, drafted = build.model, build.question.target, build.nodes
    vectors = torch.cat(build.vectors)
    after = sum(node.kind in ("ln_final", "logits") for node in drafted)
    before = {(node.id, node.source_pos): node for node in known if node.kind != "rest" and node.tokens}
    places = [before.get((node.id, node.source_pos)) for node in drafted[: len(drafted) - after]]
    hidden = [
        n for n, node in enumerate(drafted)
        if (node.layer in worded and node.kind in BEHIND_WORDS)
        or (node.kind == "rest" and opened is not None and node.layer not in opened)
    ]  # fmt: skip
    lengths = vectors[hidden].norm(dim=-1).tolist()
    for n, length in zip(hidden, lengths, strict=True):
        places[n] = places[n] or drafted[n]._replace(norm=length)
    fresh = [n for n, node in enumerate(places) if node is None]
    unread_yet = vectors[fresh] if len(fresh) < len(places) else vectors[: len(places)]
    shown = [drafted[n] for n in fresh]
    found = read(model, unread_yet if lens is None else _carried(lens, unread_yet, shown, carry_parts), target)
    readings = _plain_readings(model, found if lens is None else replace(found, norm=unread_yet.norm(dim=-1)))
    if after:  # both read as the model's own prediction: its logits, not our product
        logits = needed(build.acts, "logits")[[build.pos] * after]
        end = replace(read_logits(model, logits, target), norm=vectors[len(places) :].norm(dim=-1))
        readings += _plain_readings(model, end)
    coefficients = torch.tensor(build.coefficients, dtype=vectors.dtype, device=vectors.device)
    added = (build.frozen.of(vectors) * coefficients).tolist()
    moves = (_along_gradients(build, vectors) * coefficients).tolist() if build.influence else None
    tokens = spelled_tokens(model.tokenizer, build.acts.token_ids, build.acts.tokens)
    unread = iter(readings)
    nodes = {}
    for n, node in enumerate(drafted):
        old = places[n] if n < len(places) else None
        numbers = next(unread) if old is None else {name: getattr(old, name) for name in _READINGS}
        nodes[node.id] = node._replace(
            **numbers,
            label=node.label or next(iter(numbers["tokens"]), None),
            source_token=None if node.source_pos is None else tokens[node.source_pos],
            contribution=None if added[n] != added[n] else added[n],
            influence=None if moves is None or moves[n] != moves[n] else moves[n],
        )
    return nodes


def _along_gradients(build: GraphBuilder, vectors: Tensor) -> Tensor:
    """`[node]`: every vector times the gradient of the sum that it is added to; NaN for what is not added."""
    missing = torch.full_like(vectors[0], torch.nan)
    sites = [None if id is None else _site(id) for id in build.added]
    along = [missing if site is None else gradients_of(build.question).into(*site) for site in sites]
    return (vectors * torch.stack(along)).sum(-1)


def _site(id: NodeId) -> tuple[str, int] | None:
    """The vector of the stream that a part is added to, and its layer; None for the states themselves."""
    if id.layer is None or id.kind.startswith("resid_"):
        return None
    if id.last_layer is not None:
        return "resid_pre", id.last_layer + 1
    return "mlp_out" if id.kind.startswith("mlp_") or id.part == "mlp" else "attn_out", id.layer


def _carried(lens: Lens, vectors: Tensor, drafted: list[Node], carry_parts: bool) -> Tensor:
    """The vectors with every state of the stream carried by its map of the lens; the others as they are.

    `carry_parts`: also what attention adds to the stream, as it stands there, by the linear part of its block's map.
    """
    seen, parts = vectors.clone(), defaultdict(list)
    for n, node in enumerate(drafted):
        if node.layer is None:
            continue
        if node.kind in STREAM and lens.has(node.kind, node.layer):
            seen[n] = through(lens, vectors[n : n + 1], node.kind, node.layer)[0]
        elif carry_parts and of_attention(node) and lens.has("resid_post", node.layer):
            parts[node.layer].append(n)
    for layer, rows in parts.items():
        seen[rows] = lens.carry_part(vectors[rows], layer)
    return seen


BEHIND_WORDS = ("query", "key", "attn_neuron", "mlp_key")  # kinds that a drawing shows at the level of everything only
MAX_LAYERS_TEXT = 400  # characters of a list of layers: each of its ranges is laid out
_READINGS = ("tokens", "probs", "bottom_tokens", "bottom_probs", "entropy", "norm", "prob", "rank")


def _plain_readings(model: Model, readings: Readings) -> list[dict[str, Any]]:
    """What vectors read, a record's fields a vector."""
    columns = columns_of(model, readings)
    columns |= {name: list(map(tuple, columns[name])) for name in _READINGS[:4]}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _number_edges(build: GraphBuilder, nodes: dict[str, Node]) -> list[Edge]:
    """Edges with the numbers of what they carry: an `add` edge the node's vector times its coefficient."""
    edges = []
    states = {node.id: v[0] for node, v in zip(build.nodes, build.vectors, strict=True) if node.kind in STREAM}
    for source, target, kind, carrier, coefficient, weight in build.edges:
        carried = nodes[carrier] if carrier else None
        norm = None if carried is None else carried.size
        contribution = None if carried is None or kind == "norm" else carried.contribution
        moves = None if carried is None or kind == "norm" else carried.influence
        if build.influence and kind == "residual" and carrier is not None:  # a state moves what it is carried to
            into = NodeId.parse(target)
            assert into is not None and into.layer is not None
            moves = float(states[carrier] @ gradients_of(build.question).into(into.kind, into.layer))
        weight = norm if weight is None else weight
        edges.append(Edge(source, target, kind, weight, norm, coefficient, contribution, moves))
    return edges


def shown_influence(question: Question, nodes: dict[str, Node]) -> dict[str, float]:
    """What the shown nodes have of the summed |influence| of all heads and MLP neurons of the model at this position.

    `share` of both together, `heads`, `mlp_neurons`; `total`: the sum itself, in logits.
    """
    every, shown = {"heads": 0.0, "mlp_neurons": 0.0}, {"heads": 0.0, "mlp_neurons": 0.0}
    for layer in range(question.model.n_layers):
        block = block_influence(question, layer)
        every["heads"] += float(block.heads.abs().sum())
        every["mlp_neurons"] += float(block.neurons.abs().sum())
    for node in nodes.values():
        if node.kind in ("head", "mlp_value"):
            shown["heads" if node.kind == "head" else "mlp_neurons"] += abs(node.influence or 0.0)
    total = sum(every.values())
    parts = {name: shown[name] / every[name] if every[name] else 1.0 for name in every}
    return {"share": sum(shown.values()) / total if total else 1.0, **parts, "total": total}


def parse_layers(text: str, most: int = MAX_LAYERS) -> list[int]:
    """`"3"`, `"3-5"` or `"0,3,7-9"` as a sorted list of layers; a `VisitError` says what is not readable.

    A range is laid out up to `most` (a model's number of layers) only: one that it does not have is enough to say so.
    """
    if len(text) > MAX_LAYERS_TEXT:
        raise VisitError(f"A list of layers may have {MAX_LAYERS_TEXT} characters; got {len(text):,}. Write ranges.")
    found: set[int] = set()
    for part in text.split(","):
        ends = part.strip().split("-")
        if not 1 <= len(ends) <= 2 or not all(e.strip().isdecimal() for e in ends) or len(part) > 20:
            raise VisitError(f"Layers are written 3, 3-5 or 0,3,7-9 (from 0); got {text[:60]!r}.")
        first, last = int(ends[0]), int(ends[-1])
        if last < first:
            raise VisitError(f"A range of layers runs upwards, as 3-5; got {part.strip()!r}.")
        found |= set(range(min(first, most), min(last, most) + 1))
    return sorted(found)


def shown_layers(model: Model, layers: Iterable[int] | int | str | None) -> list[int]:
    """The chosen layers of a model in order (None: all), each once; a `VisitError` for one that it does not have."""
    if isinstance(layers, str):
        layers = parse_layers(layers, model.n_layers)
    layers = [layers] if isinstance(layers, int) else layers
    if layers is not None and not (isinstance(layers, Iterable) and all(hasattr(one, "__index__") for one in layers)):
        raise VisitError(f"Layers are whole numbers, or a text such as 3-5; got {layers!r}.")
    shown = sorted({int(layer) for layer in layers}) if layers is not None else list(range(model.n_layers))
    wrong = [layer for layer in shown if not 0 <= layer < model.n_layers]
    if wrong or not shown:
        got = f"got {wrong[0]}" if wrong else "got none"
        raise VisitError(f"Layers of {model.name} run from 0 to {model.n_layers - 1}; {got}.")
    return shown


def _check_pins(model: Model, keep: Keep, shown: list[int], t: int) -> None:
    unknown = [pin for pin in keep.pin if not is_pin(model, pin, shown, t)]
    if unknown:
        raise VisitError(
            f"Keep.pin names {unknown[0]!r}, which is no head, memory value or neuron of the shown layers "
            f"{', '.join(map(str, shown))} at position {t}. Ids look like L9.head6, L9.head6.value4, L9.mlp_value2071."
        )


def _check_size(model: Model, keep: Keep, shown: list[int], visible: int) -> None:
    heads = at_most(keep.heads, model.n_heads)
    parts = {
        "values": heads * 2 * at_most(keep.values, visible),
        "heads": heads * 3,
        "attn_neurons": at_most(keep.attn_neurons, model.n_heads * model.d_head),
        "mlp_neurons": (3 if model.family.w_gate else 2) * at_most(keep.mlp_neurons, model.d_mlp),
    }
    total = len(shown) * sum(parts.values())
    shares = any(isinstance(c, float) for c in (keep.heads, keep.values, keep.attn_neurons, keep.mlp_neurons))
    if total > MAX_NODES and not shares:
        most = max(parts, key=lambda name: parts[name])
        raise VisitError(
            f"This graph would have about {total:,} nodes; {MAX_NODES:,} can be drawn. "
            f"Lower Keep.{most} ({parts[most] * len(shown):,} of them) or show fewer layers."
        )
